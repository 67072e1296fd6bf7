# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 03 · Entropy selection
#
# <!-- badges -->
#
# **In the style that CLIP never saw, 70 per cent of the patches that entropy selects, without a single
# label, show the class that they stand for; drawn at random, 1 per cent would.**
#
# After this notebook you can
#
# - compute how sure the words are of a patch, and select the surest of all pictures;
# - judge a selection by its purity, beside its base rate;
# - say what the number $K$ of patches a class costs and brings;
# - explain what low entropy cannot see;
# - build a bank that sees each picture once, stays small, and merges exactly in any order.
#
# **Before**: cosines of patches and words (notebook 01), SC-CLIP's patches (notebook 02).
#
# **Time**: 30 minutes to read and try, about one to run.

# %% tags=["setup"]
# Setup: the same in every notebook, safe to run again; fetches and installs only what is missing.
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = os.environ.get("PIAA_REPOSITORY", "https://github.com/OWNER/REPOSITORY")
files = [p / "pyproject.toml" for p in (Path.cwd(), *Path.cwd().parents, Path.cwd() / "piaa")]
roots = [f.parent for f in files if f.is_file() and b'name = "piaa-utils"' in f.read_bytes()]
root = roots[0] if roots else Path.cwd() / "piaa"  # alone, as on Colab: fetch the series beside it
if not roots and subprocess.run(["git", "clone", "--depth=1", REPOSITORY, str(root)]).returncode:
    raise SystemExit(f"Not fetched: {REPOSITORY}. Connect, or mend what git says, and run again.")
if subprocess.run([sys.executable, str(root / "notebooks" / "install_missing.py")]).returncode:
    raise SystemExit("Setup is not done: mend what is said above, then run the cell again.")
sys.path[:0] = {str(root)} - set(sys.path)

# %% tags=["config"]
# Configuration. For photographs and the paper's CLIP change one line (and have the data at hand):
# config = Config("voc07", data_root="VOCdevkit/VOC2007", fast=True)
from piaa_utils.lessons import Config

config = Config()
print(config)

# %% [markdown]
# ## 1 · The finding
#
# Notebook 02 untangled the patches: each names its thing, more or less. PIAA now wants to *learn* from
# patches, out of a heap of pictures without labels. Which of them may it believe?
#
# It asks the words themselves. Where they hesitate between classes, they may be wrong; where they do
# not, the patch is kept. Below are the scene that we follow, in the unseen style, and one in a style
# that CLIP was trained on. In the middle each patch names the class of the closest word: coloured if
# that class is in the picture, grey if not. On the right only the picture's surest fifth is left.

# %%
import torch

from piaa_utils.lessons import bank, features, figures, follow
from piaa_utils.selection import entropy, patch_probabilities

text, names, C = config.text, config.class_names, len(config.class_names)
stored, learn, scenes, rows = {}, {}, {}, []
for style, tail in {"unseen style": "_unseen", "seen styles": ""}.items():
    learn[style] = features(config, f"learn{tail}")
    stored[style] = bank(config, f"learn{tail}")  # the 512 surest patches of each class
    scenes[style] = scene = follow(config, f"val{tail}")
    x = features(config, f"val{tail}").patches["scclip"][scene.index].double()
    p = patch_probabilities(x, text.double())
    named = p.argmax(-1)
    sure = torch.where(entropy(p) <= entropy(p).quantile(0.2), named, -1)
    rows.append((config.split(f"val{tail}"), scene.index, scene.classes, [named, sure]))
figures.named_scenes(rows, ["what each patch names", "the surest fifth"])

# %% [markdown]
# **What to look for.** Much of the background went, and what is left names the right class more often
# than what went. But not always: a patch can be sure and wrong, such as those on the computer mouse,
# which is on no list and is named a tv monitor. A single picture is also a poor place to be choosy:
# this scene must give a fifth, however unsure its best patches are. So the sieve of PIAA does not work
# picture by picture. For each class it keeps the 512 surest patches of *all* pictures to learn from;
# many pictures give none, and these two scenes cannot give one: they are not among the pictures that are
# learned from.
#
# Count that selection. Its **purity** is the share of the kept patches
# that show the class they are kept for. A purity means nothing alone: beside it stands the **base
# rate**, what a patch drawn at random would give under a name of the bank. Two steps lead from there to
# the purity: that the words name the patch, and that entropy asks for the surest. The cell takes them
# apart. Only the masks know what a patch shows. They are for measuring; no step of the method sees them.

# %%
from piaa_utils.metrics import purity

for style, chosen in stored.items():
    pure, base = purity(chosen, learn[style].truth)
    named = (learn[style].patches["scclip"] @ text.T).argmax(-1).numpy()
    right = (named == learn[style].truth).mean()
    print(
        f"{style}: {len(chosen)} of {learn[style].truth.size} patches selected; {100 * pure:.0f} per "
        f"cent show their class; drawn at random, {100 * base:.0f} per cent would, and under the name "
        f"that the words give them {100 * right:.0f}"
    )
    config.claim(
        pure > 0.4 and pure > 8 * base,
        f"{style}: purity {pure:.2f}, {pure / base:.0f} times the base rate {base:.3f}",
    )

# %% [markdown]
# ## 2 · How sure is a patch?
#
# Step by step. Compare the patch $x_i$ with the word $t_c$ of every class, and make shares of the
# cosines by a softmax. How much the words hesitate is the **entropy** of these shares:
#
# $$p_{ic} = \operatorname{softmax}_c(60\; x_i \cdot t_c), \qquad
# H_i = -\sum_c p_{ic} \log p_{ic}, \qquad \hat y_i = \arg\max_c\, x_i \cdot t_c .$$
#
# With the natural logarithm the unit is the **nat**. $H$ is 0 when one class has all, and $\log C$
# when all classes share equally. For each class the $K = 512$ patches of lowest entropy among those
# named so are kept: a sieve over all pictures.

# %%
figures.diagram("sieve")

# %% [markdown]
# Five patches and four classes, to get a feeling for nats. $e^H$ is easier to picture: between how many
# classes the words hesitate.

# %% tags=["nbval-check-output"]
five = torch.tensor(
    [
        [1.00, 0.00, 0.00, 0.00],
        [0.97, 0.01, 0.01, 0.01],
        [0.50, 0.50, 0.00, 0.00],
        [0.70, 0.10, 0.10, 0.10],
        [0.25, 0.25, 0.25, 0.25],
    ]
)
for shares, h in zip(five.tolist(), entropy(five), strict=True):
    print("  ".join(f"{s:.2f}" for s in shares), f"  {h:.2f} nats: {h.exp():.1f} classes")

# %% [markdown]
# The third and the fourth row show that entropy is not the same as the largest share: a clear two-way
# doubt is less doubt than a favourite with three outsiders.
#
# **Think.** Why select by entropy, and not by the cosine with the word itself, which is simply how well
# a patch fits?
# <details><summary>Answer</summary>
#
# Cosines of different words cannot be compared: some words lie closer to all patches than others do
# (notebook 01, the cones). A patch may fit a word well and fit two others just as well. The softmax
# looks at the *differences* between words, and entropy says whether one of them stands out.
#
# </details>
#
# ### Exercise 1 · Write it
#
# Write `sureness(x, t)`: from patches [n, D] and words [C, D], all of length one, to the pair $H$ [n]
# and $\hat y$ [n]. Use the formulas above, with the factor 60.
#
# **Expected output**: `✓ Exercise 1 is right.` A patch that lies exactly between two of two words has
# $H = \log 2$, which is 0.69 nats.
#
# <details><summary>Hint</summary>
#
# `(60 * x @ t.T).softmax(-1)` are the shares. $0 \log 0$ counts as 0, but `0 * log(0)` is NaN:
# `torch.special.entr(p)` is $-p \log p$ and knows that.
#
# </details>


# %% tags=["exercise"]
def sureness(x, t):
    """Entropy [n] in nats, and the class [n] that each patch names."""
    # solution
    p = (60 * x @ t.T).softmax(-1)
    return torch.special.entr(p).sum(-1), p.argmax(-1)
    # end solution


# %% tags=["check"]
from piaa_utils.lessons.exercises import e03

e03.check_sureness(sureness)

# %% [markdown]
# ### Exercise 2 · The sieve
#
# Now the selection. Write `surest(H, says, c, k)`: from the entropies [n] and the named classes [n] to
# the positions of the `k` surest patches among those that name class `c`, the surest first. If fewer
# name it, all of them.
#
# **Expected output**: entropies 0.9, 0.1, 0.5, 0.2 with the classes 0, 0, 1, 0 give for class 0 and
# $k = 2$ the positions 1, 3. The check prints `✓ Exercise 2 is right.`
#
# <details><summary>Hint</summary>
#
# `(says == c).nonzero().flatten()` are the positions that name it. Sort *these* by their entropies
# (`argsort`), and translate back.
#
# </details>


# %% tags=["exercise"]
def surest(H, says, c, k):
    """Positions of the k lowest entropies among the patches that name class c."""
    # solution
    mine = (says == c).nonzero().flatten()
    return mine[H[mine].argsort(stable=True)[:k]]
    # end solution


# %% tags=["check"]
e03.check_surest(surest)

# %% [markdown]
# ## 3 · All pictures at once
#
# Here is the whole selection, on the pictures of the unseen style: all patches in one long list, their
# entropies, and for each class the 512 lowest. The package's bank must hold the same rows in the same
# order, and it does. (Double precision, and picture by picture, so that no bit depends on what is
# computed beside it.)

# %%
patches = learn["unseen style"].patches["scclip"]
truth = torch.from_numpy(learn["unseen style"].truth)
(n, N, D), K = patches.shape, 512


def all_shares(scale=60):
    """[n N, C]: the words' shares of all patches of all pictures."""
    words = text.double()
    return torch.cat([(scale * x.double() @ words.T).softmax(-1) for x in patches])


def sieve(p, K):
    """Rows of the K surest patches of each class, class by class."""
    H, says = torch.special.entr(p).sum(-1).float(), p.argmax(-1)  # nats: 0 is sure
    kept = []
    for c in range(p.shape[1]):
        mine = (says == c).nonzero().flatten()
        kept.append(mine[H[mine].argsort(stable=True)[:K]])
    return torch.cat(kept)


p = all_shares()
kept, says = sieve(p, K), p.argmax(-1)
chosen = stored["unseen style"]
assert torch.equal(kept // N, chosen.image_id) and torch.equal(kept % N, chosen.patch_index)
print(f"{len(kept)} rows of {n * N}: the package's bank, row by row")
print(f"show their class: {(truth.flatten()[kept] == says[kept]).float().mean():.2f}")

# %% [markdown]
# What did it select? Choose a class and a $K$: six of its first $K$ rows, evenly spaced from the
# surest to the last, each in its picture. A solid blue frame is a patch that shows the class, a dashed
# orange one is not. *Question*: is it the object that is collected, or what stands around it?

# %%
from matplotlib.patches import Rectangle

from piaa_utils.lessons import explorer
from piaa_utils.plots import PALETTE, square, subplots

world, grid = config.split("learn_unseen"), config.backbone_.grid


def sheet(class_name, K):
    """Six of the first K rows of a class, framed in their pictures."""
    c = names.index(class_name)
    mine = (chosen.labels == c).nonzero().flatten()[:K]
    picked = mine[torch.linspace(0, len(mine) - 1, 6).long()]
    figure, axes = subplots(2, 3, size=(11, 8))
    said = []
    for ax, row in zip(axes.flat, picked.tolist(), strict=True):
        image, patch = int(chosen.image_id[row]), int(chosen.patch_index[row])
        right = int(truth[image, patch]) == c
        at = (patch % grid - 0.5) / grid, (patch // grid - 0.5) / grid
        look = {"ec": PALETTE[0], "ls": "-"} if right else {"ec": PALETTE[3], "ls": "--"}
        ax.imshow(square(world[image]), extent=(0, 1, 1, 0))
        for edge in ({"ec": "white", "lw": 9}, {**look, "lw": 5}):
            ax.add_patch(Rectangle(at, 2 / grid, 2 / grid, fc="none", **edge))
        rank = row - int(mine[0]) + 1
        said.append(f"{rank}. {'right' if right else 'wrong'}")
        ax.set_title(f"rank {rank}: H = {chosen.entropy[row]:.3f}")
        ax.set_axis_off()
    figure.alt_text = f"Patches kept for {class_name}, framed in their pictures: {', '.join(said)}."
    return figure


small = names[scenes["unseen style"].smallest]
explorer(sheet, start={"class_name": small, "K": K}, class_name=names, K=(8, 32, 128, 512))

# %% [markdown]
# Without a running kernel: the class that is the smallest object of the followed scene, at the paper's
# $K$. (The frame is drawn larger than its patch.)

# %%
sheet(small, K)

# %% [markdown]
# Look at the dashed frames. At the edge of a plant less than half of a patch is plant, and the masks are
# strict; the lettuce in the sandwich is another matter: leaves are what the word knows.
#
# ## 4 · How many to keep?
#
# A small $K$ keeps only the very surest; a large one gives more to learn from.
#
# ### Exercise 3 · Predict
#
# In the unseen style, keep $K = 16$ patches a class instead of 512. What happens to the purity?
#
# - **a**: it falls
# - **b**: it rises, by less than 5 points
# - **c**: it rises, by 5 points or more
#
# Put a letter in `prediction` before you look at the next figure, for example `prediction = "a"`.
#
# **Expected output**: `✓ Exercise 3 is right.`, with both purities. A wrong prediction says what came
# out: think about why, and change it.
#
# <details><summary>Hint</summary>
#
# If the entropy had nothing to do with being right, the purity would not change. If it were all there
# is to it, the surest 16 would be nearly pure.
#
# </details>

# %% tags=["exercise"]
# solution
prediction = "c"
# end solution

# %% tags=["check"]
e03.check_prediction(prediction, chosen, truth)

# %% [markdown]
# The rows of a bank are ordered by class and entropy, so one bank of 512 answers for all smaller $K$.
# On the left the purity of the first $K$, with the base rate dashed; on the right from how many
# pictures a class's rows come.

# %%
import numpy as np

ks = (4, 8, 16, 32, 64, 128, 256, 512)
curve, pictures = {}, {}
for style, b in stored.items():
    rank = torch.cat([torch.arange(k) for k in b.counts.tolist()])  # 0 is a class's surest
    right = torch.from_numpy(learn[style].truth)[b.image_id, b.patch_index] == b.labels
    curve[style] = [100 * float(right[rank < k].float().mean()) for k in ks]
    seen_by = [[b.image_id[(b.labels == c) & (rank < k)] for c in range(C)] for k in ks]
    pictures[style] = [np.mean([len(ids.unique()) for ids in of_k]) for of_k in seen_by]
figure, axes = subplots(1, 2, size=(14, 5.2))
for ax, values in zip(axes, (curve, pictures), strict=True):
    for colour, (style, line) in zip(PALETTE, values.items(), strict=False):
        ax.plot(ks, line, "o-", color=colour)
        ax.annotate(
            f" {style}", (ks[-1], line[-1]), color=colour, va="center", annotation_clip=False
        )
    ax.set(xscale="log", xlabel="K, patches kept for a class", xticks=ks, xticklabels=ks)
    ax.minorticks_off()
base = 100 * purity(chosen, truth)[1]
axes[0].axhline(base, color="0.4", ls="--")
axes[0].annotate("base rate", (4, base + 2), color="0.3")
axes[0].set(ylabel="purity (%)", ylim=(0, 103))
axes[1].set(ylabel="pictures behind a class", ylim=(0, None))
figure.alt_text = f"Purity and pictures of a class for K = {ks}. " + " ".join(
    f"{s}: purity {', '.join(f'{v:.0f}' for v in curve[s])} per cent; pictures "
    f"{', '.join(f'{v:.0f}' for v in pictures[s])}."
    for s in curve
)
figure

# %% [markdown]
# **What to look for.** Left: the purity falls with $K$, slowly at first, then faster: the surest patches
# are right more often, so entropy *orders* well. Even at 512 it is far above the base rate. Right: many patches are not many pictures. Patches side by side on one
# object are near copies, so where the words are sure of one, they are sure of its neighbours.

# %%
fell = {style: line[2] - line[-1] for style, line in curve.items()}
config.claim(
    min(fell.values()) > 0,
    "from K = 16 to 512 purity falls by "
    + " and ".join(f"{v:.0f} points ({style})" for style, v in fell.items()),
)
config.claim(
    max(v[-1] for v in pictures.values()) < K / 2,
    "512 rows of a class come from "
    + " and ".join(f"{v[-1]:.0f} pictures ({style})" for style, v in pictures.items()),
)

# %% [markdown]
# What do the impure rows show? There are three other answers: another class of the list; **no class of
# the list**, that is the background or a thing that the list does not have; or a border, where nothing
# covers half of the patch.

# %%
label = says.view(n, N)  # the class that each patch names
rank = torch.cat([torch.arange(k) for k in chosen.counts.tolist()])
what = ("its class", "other", "no class", "border")
shares = {}
for name, where in {
    "all patches": (torch.arange(n)[:, None], torch.arange(N)[None]),
    f"K = {K}": (chosen.image_id, chosen.patch_index),
    "K = 16": (chosen.image_id[rank < 16], chosen.patch_index[rank < 16]),
}.items():
    shown, said = truth[where].flatten(), label[where].flatten()
    other = (shown >= 0) & (shown != said)
    parts = (shown == said, other, (shown == -1) | (shown == -2), shown == -3)
    shares[name] = [100 * float(part.float().mean()) for part in parts]

figure, ax = subplots(1, 1, size=(12, 4))
colours = (PALETTE[0], PALETTE[1], "0.75", "0.9")
for y, values in enumerate(shares.values()):
    left = 0.0
    for part, value, colour in zip(what, values, colours, strict=True):
        ax.barh(y, value, left=left, color=colour, height=0.7)
        if value > 9:
            words = f"{part}\n{value:.0f} %"
            ax.text(left + value / 2, y, words, ha="center", va="center", fontsize="small")
        left += value
ax.set_yticks(range(len(shares)), shares)
ax.set(xlabel="share (%)", ylim=(2.5, -0.5), xlim=(0, 100))
figure.alt_text = "What patches show, unseen style. " + "; ".join(
    f"{k}: " + ", ".join(f"{w} {v:.0f} per cent" for w, v in zip(what, vs, strict=True))
    for k, vs in shares.items()
)
figure

# %% [markdown]
# **What to look for.** Among all patches most show no class of the list. The softmax cannot say so: its
# shares run over the list, and "none of these" is not on it. A patch of sky must be named *something*.
# The sieve drops most of these, since the words hesitate there, but not all. Compare the two lower bars:
# what does being stricter still remove, other classes or the background? A patch on a border shows a bit
# of two things. It is no great harm: half of it may well be the class.
#
# **Think.** Would it help to add a word for the rest, such as "a photo of a background"?
# <details><summary>Answer</summary>
#
# It is worth a try, and nothing in the method forbids it: `Vocabulary` takes background names, and
# notebook 08 uses them for pictures of your own. But the text tower learned from captions, and those
# name things, seldom what is behind them. The vector of a word that captions hardly use is a poor guide.
# The paper leaves it out.
#
# </details>

# %%
before, after = shares["all patches"], shares[f"K = {K}"]
config.claim(
    after[2] < before[2] - 20,
    f"no class of the list: {before[2]:.0f} % of all patches, {after[2]:.0f} % of those kept",
)

# %% [markdown]
# ### Exercise 4 · Leave out a word
#
# What if the list does not have a class that the pictures are full of? Take the largest class of the
# followed scene, number `gone`, off the list. Fill a new bank from `patches` with the remaining words
# and $K = 512$, and count how many of its rows *truly show* the missing class. Put the number in
# `answer`.
#
# **Expected output**: `✓ Exercise 4 is right.`, and under which names the missing class was kept.
#
# <details><summary>Hint</summary>
#
# `rest = [c for c in range(C) if c != gone]`, `text[rest]` are the words. Either `PatchBank(C - 1)` with
# `.update(patches, text[rest], range(n))` and its `image_id`, `patch_index`; or `sieve` with your own
# shares. `truth[i, j] == gone` says whether a patch shows the missing class.
#
# </details>

# %% tags=["exercise"]
from piaa_utils.selection import PatchBank

gone = scenes["unseen style"].classes[0]
# solution
rest = [c for c in range(C) if c != gone]
without = PatchBank(C - 1)
without.update(patches, text[rest], range(n))
answer = int((truth[without.image_id, without.patch_index] == gone).sum())
# end solution

# %% tags=["check"]
e03.check_left_out(answer, patches, text, truth, gone, names)
print(
    f"of {int((truth == gone).sum())} patches that show it; so the sieve keeps most of it out, not all"
)

# %% [markdown]
# ## 5 · Why 60?
#
# The factor before the cosines cannot change which class wins. It changes the entropies, and so the
# *order*. The cell selects with other factors, and compares with 60.

# %%
import pandas as pd

reference, table = set(kept.tolist()), {}
for scale in (1, 10, 30, 60, 120, 300):
    shares_at = all_shares(scale)
    selected = sieve(shares_at, K)
    table[scale] = {
        "purity": float((truth.flatten()[selected] == says[selected]).float().mean()),
        "in common with 60": len(reference & set(selected.tolist())) / len(reference),
        "median entropy (nats)": float(torch.special.entr(shares_at).sum(-1).median()),
    }
pd.DataFrame(table).T.rename_axis("factor").round(2)

# %%
pure_at = [line["purity"] for line in table.values()]
config.claim(
    abs(table[120]["purity"] - table[60]["purity"]) < 0.06,
    f"purity {table[60]['purity']:.2f} at 60 and {table[120]['purity']:.2f} at 120; "
    f"{100 * table[120]['in common with 60']:.0f} % of the rows are the same",
)

# %% [markdown]
# Two extremes explain the table. With a small factor all shares are nearly equal, and entropy falls with
# the variance of *all* the cosines: sure is a patch whose cosines are spread out. With a large one only
# the two best classes still count: sure is a patch whose *margin*, best minus second best, is wide. From
# 60 up the order is nearly that of the margin, and mostly the same patches come first. So 60 is no magic
# number. Far above, entropies become exactly 0 in 32-bit numbers; then ties decide, and picture
# numbers say nothing about patches.
#
# ## 6 · One pass, and a small memory
#
# The list of section 3 holds all patches. With the 82,081 pictures of COCO that is more than a laptop
# has. But a patch that is worse than the 512th of its class can never come in again, so it may be
# forgotten at once. A **heap** keeps the worst of the 512 at its top: a new patch is compared with that
# one, and replaces it or not. Pictures pass by once.

# %%
import heapq

H = torch.special.entr(p).sum(-1).float().view(n, N)
heaps = [[] for _ in range(C)]
for i in range(n):  # one picture, then it is forgotten
    for j, (h, c) in enumerate(zip(H[i].tolist(), label[i].tolist(), strict=True)):
        item = (-h, -i, -j)  # the least is the worst; ties go to the smaller picture and patch
        if len(heaps[c]) < K:
            heapq.heappush(heaps[c], item)
        else:
            heapq.heappushpop(heaps[c], item)

streamed = [-i * N - j for heap in heaps for _, i, j in sorted(heap, reverse=True)]
assert streamed == kept.tolist()
per_row = 4 * D + 4 * C + 36  # bytes: feature, shares, where it came from
print(f"the same {len(streamed)} rows, in the same order, in one pass")
print(f"memory: {len(streamed) * per_row / 1e6:.0f} MB, all patches: {4 * n * N * D / 1e6:.0f} MB")

# %% [markdown]
# The memory is that of $C \cdot K$ rows and one picture, however many pictures there are. For the
# paper's data sets and ViT-B/16 ($N = 196$, $D = 512$) this decides whether a laptop will do:

# %% tags=["nbval-check-output"]
for data, count, classes in (("VOC07", 5011, 20), ("COCO14", 82081, 80), ("NUS-WIDE", 150000, 81)):
    everything = count * 196 * 512 * 4 / 1e9
    bank_of_it = classes * 512 * (4 * 512 + 4 * classes + 36) / 1e9
    print(f"{data:9}{count:7} pictures: {everything:6.2f} GB of patches, bank {bank_of_it:.2f} GB")

# %% [markdown]
# The animation shows the ten surest patches of three classes while pictures stream by, green where a
# patch shows its class. At first nearly all that is named so comes in, right or wrong; later each must
# be surer than the worst that is there.

# %%
figures.animation(
    "bank",
    "The ten surest patches of dog, bottle and car after more and more pictures. The places fill with "
    "the first that come, then these make way for surer ones, which show their class more often.",
)

# %% [markdown]
# ## 7 · Merging in any order
#
# Two machines can each read a part of the pictures, and `merge` makes one bank of their two. It does not
# matter who reads what, nor who is merged first. Take a patch that is among the 512 best of all: then it
# is among the 512 best of its part, so no part loses it. And the 512 best are a set with *one* fixed
# order (entropy, picture, patch), so nothing is left to chance. The rule for ties is needed: with "who
# comes first, stays" the order of merging would decide.


# %%
def read(ids):
    """A bank that has seen these pictures only."""
    part = PatchBank(C)
    part.update(patches[ids], text, ids)
    return part


shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(config.seed))
one, two, three = (read(ids) for ids in shuffled.chunk(3))
merged = [one.merge(two).merge(three), three.merge(one).merge(two), two.merge(three.merge(one))]
same = [all(torch.equal(v, chosen.state()[k]) for k, v in m.state().items()) for m in merged]
config.claim(
    all(same), f"{sum(same)} of {len(same)} orders of merging: the bank of one pass, bit by bit"
)

# %% [markdown]
# Notebook 09 does this with many workers at once.
#
# > **What this does not show.** Masks told us the purity; with photographs you have none, and the
# > entropy is all you see. The mini world's 20 classes are fairly balanced, and each fills its 512
# > places; a rare class would fill its own with whatever was named so. An object of the mini world is a
# > crisp drawing on a plain ground, so backgrounds are easier to tell apart than in photographs. And
# > purity is not yet a good classifier: near copies from few pictures count as many rows.
#
# ## 8 · What you have seen
#
# - **How sure.** Entropy is the words' hesitation between the classes, in nats, from 0 to $\log C$. The
#   sieve keeps the $K$ lowest of each class, over all pictures.
# - **Purity beside its base rate.** The selection is many times purer than chance, in both styles,
#   without a label.
# - **$K$.** A larger one costs purity and brings pictures, fewer than it seems: neighbours on one object
#   are near copies.
# - **What low entropy cannot see.** "None of these" is not on the list. Of a class that the list
#   misses most patches stay out, and some are kept under other names.
# - **The bank.** One pass, a memory that does not grow with the pictures, ties with a rule; so banks
#   merge exactly in any order.
#
# Next: [notebook 04](04_gda.ipynb) learns a classifier from these rows, without training, and finds that
# it reads what the words cannot.
#
# **In the paper**: PVCL, Stage I, entropy-driven selection. Merging is this repository's.
#
# **References.** Wang et al., "[CLS] is Not Enough", ICML 2026 ([arXiv](https://arxiv.org/abs/2605.25821)) · Radford et al., CLIP,
# ICML 2021 · Grandvalet and Bengio, "Semi-supervised Learning by Entropy Minimization", NeurIPS 2004.

# %% tags=["versions"]
from piaa_utils.lessons import versions

print(versions())
