# %% [markdown]
# # 03 · Entropy selection
#
# <!-- badges -->
#
# **After this notebook you can**
#
# - compute the entropy of a patch and read an entropy map;
# - say how far low entropy can be trusted, and what sure but wrong patches show;
# - explain what the paper's bank of patches takes, and what changes when each picture may give a
#   class only one;
# - say what the temperature 60 does, and what it cannot do;
# - build a bank that sees each picture once, stays small and can be merged in any order.
#
# **Before**: cosines of patches and text vectors (notebook 01), the SC-CLIP patch encoder (notebook
# 02).
#
# **Time**: 30 minutes to read, under one to run.

# %% tags=["setup"]
# Setup: the same in every notebook, safe to run again; fetches and installs only what is missing.
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = os.environ.get("PIAA_REPOSITORY", "https://github.com/OWNER/REPOSITORY")
here = Path.cwd()
root = next((p for p in (here, *here.parents, here / "piaa") if (p / "piaa_utils").is_dir()), None)
if root is None:  # the notebook came alone, as on Colab: fetch the series beside it
    root = here / "piaa"
    if subprocess.run(["git", "clone", "--depth=1", REPOSITORY, str(root)]).returncode:
        raise SystemExit(f"{REPOSITORY} was not fetched: connect to a network, run the cell again.")
if subprocess.run([sys.executable, str(root / "notebooks" / "install_missing.py")]).returncode:
    raise SystemExit("Setup is not done: mend what is said above, then run the cell again.")
sys.path[:0] = {str(root)} - set(sys.path)

# %% tags=["config"]
# Configuration. For photographs and the paper's CLIP change one line (and have the data at hand):
# config = Config("voc07", data_root="VOCdevkit/VOC2007")
from piaa_utils.lessons import Config

config = Config("mini")
print(config)

# %%
from functools import partial
from itertools import permutations

import numpy as np
import torch
from IPython.display import Markdown
from scipy.stats import spearmanr

from piaa_utils.constants import BANK_SIZE, SELECTION_TEMPERATURE
from piaa_utils.lessons import explorer, features, nb03, versions
from piaa_utils.selection import PatchBank, entropy, patch_probabilities

# %% [markdown]
# ## 1 · How sure is a patch?
#
# PVCL, the step of PIAA that learns a classifier, gets pictures without labels. It needs patches
# whose class it may believe. Nobody tells it which, so it asks CLIP's text: compare the patch
# vector $x_i$ with the text vector $t_c$ of every class, and make shares of the cosines with a
# softmax. How much the text hesitates is the **entropy** of these shares:
#
# $$p_{ic} = \operatorname{softmax}_c(60\, x_i \cdot t_c), \qquad
# H_i = -\sum_c p_{ic} \log p_{ic}, \qquad \hat y_i = \arg\max_c\, x_i \cdot t_c$$
#
# With the natural logarithm the unit of entropy is the **nat**. It is 0 when one class has all,
# and $\log C$, its largest value, when all $C$ classes share equally. Five patches, four classes:

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
for row, h in zip(five.tolist(), entropy(five).tolist(), strict=True):
    print("  ".join(f"{share:.2f}" for share in row), f"   {h:.2f} nats")

# %% [markdown]
# The third and the fourth row show that entropy is not the same as the largest share. Now all
# patches of the pictures to learn from. `features` takes them from the cache on disk (their encoder
# is SC-CLIP, of notebook 02). The masks' truth, `x.truth`, is for measuring only: no step of the
# method sees it.

# %%
data, x = config.dataset("learn"), features(config, "learn")
patches, text, names = x.patches["scclip"], config.text.cpu(), config.class_names
n, N, D = patches.shape
C = len(names)

# Picture by picture and in double precision, as the bank of section 4 does it.
p = torch.stack([patch_probabilities(v.double(), text.double()) for v in patches])
H, named = entropy(p).float(), p.argmax(dim=-1)

scores = torch.exp(60 * patches[0].double() @ text.double().T)
by_hand = scores / scores.sum(dim=1, keepdim=True)
torch.testing.assert_close(by_hand, p[0])
torch.testing.assert_close(-(by_hand * by_hand.log()).sum(dim=1).float(), H[0])

# %% [markdown]
# Two pictures, chosen by rule with the masks' help. A kind one: its patches name the most different
# classes *rightly*. An unkind one: of the pictures in which at least 20 patches show a class of the
# list, the one in which the smallest share of them is named rightly, and of those the one with the
# lowest entropy. White outlines are those of the objects of the list; where objects touch they share
# one. Below the first panel stand the picture's classes, below the second those that its patches are
# named, the five commonest.

# %%
truth = torch.from_numpy(x.truth)
right, listed = named == truth, truth >= 0
found = torch.tensor([len(named[i][right[i]].unique()) for i in range(n)])
kind = int((found * N + right.sum(1)).argmax())
share = torch.where(listed.sum(1) >= 20, right.sum(1) / listed.sum(1).clamp(min=1), 2.0)
unkind = int(np.lexsort((H.mean(1), share))[0])
nb03.entropy_figure(data, {"a kind picture": kind, "an unkind one": unkind}, named, H)

# %% [markdown]
# **What to look for.** Light is sure, dark is torn; above each map, its lowest and highest entropy.
# Within each picture entropy hardly varies: it judges the picture at once, objects and background
# alike. In the unkind picture, where the text is wrong about the objects, does the entropy say so?
# And the kind one: kind is not perfect. Is each of its classes named somewhere?

# %%
low, high = float(H.min()), float(H.max())
config.claim(
    low >= 0 and high <= np.log(C) + 1e-6,
    f"entropies run from {low:.2g} to {high:.2f} nats, within 0 and log {C} = {np.log(C):.2f}",
)
sure_but_wrong = H[listed & ~right].min()
config.claim(
    float((H > sure_but_wrong).float().mean()) > 0.9,
    f"sure and wrong: the surest object patch with a wrong name is surer "
    f"than {(H > sure_but_wrong).float().mean():.1%} of all patches",
)

# %%
between = 1 - float(H.var(dim=1, correction=0).mean() / H.var(correction=0))
config.claim(
    between >= 0.75,
    f"{between:.0%} of the variance of entropy lies between pictures, {1 - between:.0%} within them",
)

# %% [markdown]
# ### Exercise 1 · How many classes does a patch hesitate between?
#
# Nats are hard to picture. $e^{H}$ is easier: the number of classes that a patch hesitates between.
# Write a function of the tensor `p`, shape [..., C] (one row, or any number of axes before the
# classes), that returns $e^{H}$, shape [...]. One line is enough.
#
# **Expected output**: four equal shares give 4; a share of 1 gives 1; the check prints
# `✓ Exercise 1 is right.`
#
# <details><summary>Hint</summary>0 log 0 counts as 0, but <code>0 * log(0)</code> is NaN in
# floating point. <code>entropy</code> of <code>piaa_utils.selection</code> knows
# that.</details>


# %% tags=["exercise"]
def hesitates_between(p):
    """e to the power of the entropy of each row of p."""
    # solution
    return entropy(p).exp()
    # end solution


# %% tags=["check"]
nb03.exercise_1(hesitates_between)

# %% [markdown]
# ## 2 · Is low entropy pure?
#
# That a patch is *sure* is no news unless it is also *right*. Call a set of patches **pure** as far
# as its patches show the class they are named:
#
# $$\text{purity} = \frac{\#\{i : \hat y_i = \text{truth}_i\}}{\#\{i\}}$$
#
# Papers can seldom measure this; here the masks know what each patch shows. Sort all patches by
# entropy, cut them into ten equal parts (**deciles**), and count in each part. Three questions, from
# strict to mild:
#
# - does the patch show the class it is named? A patch of the background never does: that is purity;
# - the same, counted only among patches that do show one of the classes;
# - is the class *somewhere* in the picture, by the picture's label?

# %%
known = torch.from_numpy(nb03.what_it_shows(named, truth) >= 0)
in_picture = torch.from_numpy(x.labels).gather(1, named) > 0
order = H[known].argsort(stable=True)
tenths = order.chunk(10)

hit, there, on = right[known], in_picture[known], listed[known]
curves = {
    "it shows the class (purity)": [hit[t].float().mean() for t in tenths],
    "the same, among object patches": [hit[t][on[t]].float().mean() for t in tenths],
    "the class is somewhere in the picture": [there[t].float().mean() for t in tenths],
}
of_all = [hit.float().mean(), hit[on].float().mean(), there.float().mean()]
overall = dict(zip(curves, map(float, of_all), strict=True))
nb03.deciles_figure([H[known][t].median() for t in tenths], curves, overall)

# %% [markdown]
# **What to look for.** All three lines should fall: surer is better, whatever is counted (dotted:
# all patches together). But compare their *heights* in the first decile. Which of the three
# questions does entropy answer well, and which not?

# %%
purity, among, somewhere = (float(c[0]) for c in curves.values())
all_purity, all_among, all_somewhere = overall.values()
config.claim(
    purity >= 1.5 * all_purity,
    f"purity is {purity:.0%} in the surest tenth, {all_purity:.0%} of all patches: "
    f"{purity / all_purity:.1f} times as high",
)
config.claim(
    1 - among <= 0.6 * (1 - all_among),
    f"among object patches {1 - among:.0%} of the surest tenth are wrong, {1 - all_among:.0%} of all",
)

# %%
config.claim(
    somewhere > all_somewhere and somewhere >= 0.8,
    f"in {somewhere:.0%} of the surest tenth the class is somewhere in the picture (all: "
    f"{all_somewhere:.0%})",
)

# %% [markdown]
# ### Exercise 2 · Purity for any number of patches
#
# Deciles are coarse. Write a function of two tensors, `entropies` [n] and `right` [n] (True where the
# patch shows its class), that returns n numbers, as a tensor, an array or a list: the purity of the
# 1, 2, ..., n patches of lowest entropy.
#
# **Expected output**: for entropies (0.9, 0.1, 0.5) and right (no, yes, yes) it is 1, 1, 0.67; the
# check prints `✓ Exercise 2 is right.` Plotted for all patches, the curve starts near the height of
# the first decile above and ends at the dotted line.
#
# <details><summary>Hint</summary>Sort <code>right</code> by entropy; a running sum
# (<code>cumsum</code>) counts the right ones so far; divide by 1, 2, ..., n.</details>


# %% tags=["exercise"]
def purity_of_the_surest(entropies, right):
    """The share of right ones among the 1, 2, ..., n patches of lowest entropy.

    entropies, right: tensors [n]. Returns n numbers.
    """
    # solution
    hits = right[entropies.argsort()].float()
    return hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    # end solution


# %% tags=["check"]
nb03.exercise_2(purity_of_the_surest)

# %% [markdown]
# ## 3 · What do impure patches show?
#
# If a sure patch does not show its class, what does it show? There are three other answers: another
# class of the list; **no class of the list**, that is background, or a thing that the list does not
# have; or a mixture, of which nothing covers half.

# %%
shows = nb03.what_it_shows(named, truth)[known]
parts = [np.bincount(shows[t], minlength=4) / len(t) for t in tenths]
nb03.composition_figure(parts, [str(i) for i in range(1, 11)], "decile of entropy, surest first")

# %%
_, other, none, _ = parts[0]
_, last_other, last_none, _ = parts[-1]
config.claim(
    none >= 2 * other,
    f"of the surest tenth {none:.0%} show no class of the list, {other:.0%} another class",
)
config.claim(
    other / last_other < 0.75 * none / last_none,
    f"from the last decile to the first, 'another class' falls from {last_other:.0%} to "
    f"{other:.0%}, to {other / last_other:.2f} of its size;\n  'no class of the list' from "
    f"{last_none:.0%} to {none:.0%}, to {none / last_none:.2f}",
)

# %% [markdown]
# **What to look for.** Between classes, entropy is a good judge: from the last decile to the first,
# the hatched part, another class, shrinks to a fraction of itself. Against the background it is a
# poor one: the grey part may lose as many points or more, but it keeps most of its size. There is a
# plain reason: the softmax runs over the classes of the list, and "none of these" is not among them. A patch of sky
# beside an aeroplane has to be named something, and SC-CLIP's patches borrow from what surrounds
# them. So low entropy says "this *picture* is about this class" better than it says "this *patch*
# shows it". Keep that in mind for what follows.
#
# **Think.** Would it help to add the prompt "a photo of the background"?
# <details><summary>Answer</summary>It is worth a try, and nothing in the method forbids it. But the
# text tower learned from captions, which name things and seldom what is behind them: the text
# vector of a word that captions hardly use is a poor guide. The paper leaves it out.</details>

# %% [markdown]
# ## 4 · What the bank takes
#
# Stage I of PVCL keeps for each class the $K = 512$ patches of lowest entropy among those named so,
# over all pictures. `PatchBank` holds them. The pictures pass by in batches: they are shown to the
# bank once (section 8 looks at how that works).
#
# Two banks. The paper's sets no limit on how many patches one picture gives. The other takes, for
# each class, only the surest patch of a picture (`per_image=1`;
# `PIAA(purify="spread")`, the package's default, learns from it).

# %%
paper, spread = PatchBank(C), PatchBank(C, per_image=1)
seen, held = [0], [0]
for start in range(0, n, 64):
    batch, ids = patches[start : start + 64], range(start, min(start + 64, n))
    paper.update(batch, text, ids)
    spread.update(batch, text, ids)
    seen.append(ids.stop)
    held.append(nb03.bank_bytes(paper))

banks = {"no limit (paper)": paper, "one a picture": spread}
for what, b in banks.items():
    pictures = [len(b.image_id[b.labels == c].unique()) for c in range(C)]
    assert pictures == nb03.pictures_of_classes(b).tolist()
    print(f"{what:17} {len(b):6} patches; pictures a class: {np.mean(pictures):.1f} on average")

# %% [markdown]
# How many pictures stand behind the 512 patches of a class? Remember that a picture has $N$
# patches. If the patches of one picture were as different as patches of different pictures, it would
# not matter. So compare: the mean cosine between two patches that the bank keeps for a class, in the
# whole bank and within one picture.

# %%
groups = [(c, i) for c in range(C) for i in paper.image_id[paper.labels == c].unique()]
within_one = "within one picture (paper's bank)"
alike = {within_one: []}
for c, i in groups:
    rows = (paper.labels == c) & (paper.image_id == i)
    alike[within_one].append(nb03.mean_cosine(paper.features[rows]))
for what, b in banks.items():
    alike[what] = [nb03.mean_cosine(b.features[b.labels == c]) for c in range(C)]
alike = {what: float(np.nanmean(v)) for what, v in alike.items()}
rows = "\n".join(f"| {what} | {v:.3f} |" for what, v in alike.items())
Markdown(f"| patches of a class | mean cosine of two |\n|---|---|\n{rows}")

# %%
few, many = (nb03.pictures_of_classes(b).mean() for b in banks.values())
config.claim(
    many >= 3 * few,
    f"the paper's bank draws a class from {few:.1f} pictures, the other from {many:.1f}",
)
within, across = alike[within_one], alike["one a picture"]
config.claim(
    within > across,
    f"patches of one picture are nearer copies ({within:.3f}) than patches of different "
    f"pictures ({across:.3f})",
)

# %% [markdown]
# **What to look for.** The paper's bank takes whole pictures. Where the text is sure of one patch of
# a picture, it is about as sure of its neighbours, which are near copies; the few surest pictures
# fill all places. The classifier of notebook 04 estimates a mean and a covariance from these rows.
# For that, 512 near copies of a few patches are not 512 observations.

# %% [markdown]
# ### Exercise 3 · One patch of each picture
#
# Write the limit yourself. Given two tensors, the `entropies` [n] and the `image_ids` [n] of the
# patches named one class, return the positions (a tensor, an array or a list of whole numbers from 0)
# of those that stay when each picture may give at most `m`: in order of entropy, lowest first.
#
# **Expected output**: entropies (0.2, 0.1, 0.4) of pictures (7, 7, 3) with m = 1 give positions
# 1, 2; the check prints `✓ Exercise 3 is right.`
#
# <details><summary>Hint</summary>Go through the positions in order of entropy, and count in a
# dictionary how many each picture has given.</details>


# %% tags=["exercise"]
def at_most(entropies, image_ids, m):
    """Positions of the m lowest entropies of each picture, lowest entropy first.

    entropies, image_ids: tensors [n]; m: a whole number. Returns the positions, from 0.
    """
    # solution
    given, keep = {}, []
    for i in entropies.argsort().tolist():
        picture = int(image_ids[i])
        if given.get(picture, 0) < m:
            given[picture] = given.get(picture, 0) + 1
            keep.append(i)
    return torch.tensor(keep)
    # end solution


# %% tags=["check"]
nb03.exercise_3(at_most)

# %% [markdown]
# ## 5 · How many to keep?
#
# A small $K$ keeps the surest patches only; a large one gives more to learn from. What does it cost
# in purity, and what does it bring in variety? Count, for each class, the share of its first $K$
# rows that show it, and the pictures that they come from; then take the mean over the classes.

# %%
ks = (8, 16, 32, 64, 128, 256, 512)
purity = {b: [np.nanmean(nb03.purity_of_classes(banks[b], truth, k)) for k in ks] for b in banks}
pictures = {b: [nb03.pictures_of_classes(banks[b], k).mean() for k in ks] for b in banks}

# The same by hand, for one class and K = 8. Rows are ordered by (class, entropy).
c = int(paper.labels[0])
rows = (paper.labels == c).nonzero().squeeze(1)[:8]
shown = truth[paper.image_id[rows], paper.patch_index[rows]]
by_hand = (shown[shown != nb03.VOID] == c).float().mean()  # VOID: no mask knows the patch
np.testing.assert_allclose(by_hand, nb03.purity_of_classes(paper, truth, 8)[c], rtol=1e-6)
nb03.purity_figure(ks, purity, pictures)

# %% [markdown]
# **What to look for.** Purity falls with $K$ for both banks: the best come first. Don't expect the
# bank that takes one patch of a picture to be the purer one: it reaches further down the order, since
# it may not take the near copies of its best ones. What it buys is on the right. Where its line goes flat, there is
# nothing left to take: every picture with a patch of that name has given one.

# %%
for what, values in purity.items():
    config.claim(
        values[0] >= 1.1 * values[-1],
        f"{what}: purity {values[0]:.0%} at K = {ks[0]}, {values[-1]:.0%} at K = {ks[-1]}",
    )
config.claim(
    purity["no limit (paper)"][-1] > all_purity and purity["one a picture"][-1] > all_purity,
    f"at K = {ks[-1]} both are still above that of all patches, {all_purity:.0%}",
)

# %% [markdown]
# And what do the impure rows of the banks show? The four answers of section 3, at both ends of $K$.
# Look at what takes the place of the blue part as $K$ grows: the grey, or the hatched.

# %%
bars = {}
for what, b in banks.items():
    for k in (ks[0], ks[-1]):
        kept = nb03.rank_in_class(b) < k
        where = b.image_id[kept], b.patch_index[kept]
        shows = nb03.what_it_shows(b.labels[kept], truth[where])
        shows = shows[shows >= 0]
        bars[f"{what}\nK = {k}"] = np.bincount(shows, minlength=4) / max(len(shows), 1)
nb03.composition_figure(list(bars.values()), list(bars), "bank")

# %% [markdown]
# ## 6 · Which classes starve?
#
# Each class fills its own places, so that a class which is seldom sure still gets its share: the
# surest of *its* patches, however unsure they are. A class **starves** when too few patches are
# named so to fill its places. With an empty bank the classifier falls back to the text vector.
#
# The bank without a limit hides hunger, as a few pictures are enough to fill it. The other one
# shows it: there a class gets one row for each picture that has a patch of that name.

# %%
named_in = torch.stack([torch.bincount(row, minlength=C) for row in named])  # [n, C] patches
by_hand = (named_in > 0).sum(dim=0).clamp(max=BANK_SIZE)
torch.testing.assert_close(by_hand, spread.counts)

of_class = {what: nb03.purity_of_classes(b, truth) for what, b in banks.items()}
nb03.classes_figure(names, x.labels.sum(0), spread.counts, of_class)

# %% [markdown]
# **What to look for.** Left: bar and black mark tell how often a class is *named* and how often it is
# *there*. A bar far short of its mark is a class that others shout down; a bar far beyond its mark is
# a class that is named where it is not. Right: purity differs widely between classes, in both banks,
# and a long bar is no promise of it.

# %%
counts = spread.counts
config.claim(
    int(counts.max()) >= 2 * int(counts.min()),
    f"one a picture: {names[int(counts.argmin())]} gets {counts.min()} rows, "
    f"{names[int(counts.argmax())]} {counts.max()}",
)
for what, v in of_class.items():
    config.claim(
        np.nanmax(v) - np.nanmin(v) >= 0.2,
        f"{what}: purity of a class from {np.nanmin(v):.0%} to {np.nanmax(v):.0%}",
    )

# %%
full = float((paper.counts / BANK_SIZE).min())
config.claim(
    full >= 0.9,
    f"no limit: each class has at least {full:.0%} of its {BANK_SIZE} places filled",
)

# %% [markdown]
# ### Exercise 4 · Between one and no limit
#
# `per_image` can be any number $m$. With small $m$ classes starve, with large $m$ a few pictures fill
# all places. Find the smallest $m$ with which every class gets as many of $K = 128$ places as it
# gets without a limit. No bank is needed: `named_in[i, c]` says how many patches of picture $i$ are
# named $c$. Put it in `answer`.
#
# **Expected output**: one whole number from 1 to $N$, the patches of a picture; the check prints
# `✓ Exercise 4 is right.`, or says whether yours is too small or too large.
#
# <details><summary>Hint</summary>With limit m, picture i gives class c
# <code>min(m, named_in[i, c])</code> patches, and the class keeps at most K of them:
# <code>named_in.clamp(max=m).sum(0).clamp(max=K)</code>. Try m = 1, 2, 3, ...</details>

# %% tags=["exercise"]
# solution
wanted = named_in.sum(0).clamp(max=128)
fills = [bool((named_in.clamp(max=m).sum(0) >= wanted).all()) for m in range(1, N + 1)]
answer = fills.index(True) + 1
# end solution

# %% tags=["check"]
nb03.exercise_4(answer, named, C, 128)

# %% [markdown]
# ## 7 · Why 60?
#
# The softmax of the selection has a **temperature** factor: the cosines are multiplied by $T = 60$.
# That cannot change which class wins, because all cosines of a patch are multiplied alike. But it
# changes the entropy, and so it can change *which patches come first*. There are two extremes.
#
# - Small $T$: all shares are nearly equal, and
#   $H \approx \log C - \tfrac{T^2}{2}\operatorname{Var}_c(x \cdot t_c)$. Sure is a patch whose cosines
#   are **spread** out, over all classes.
# - Large $T$: only the two best classes still count, and $H$ falls with the **margin**, best cosine
#   minus second best. Sure is a patch that is far from a draw.
#
# First check the formula for small $T$, then see how the order turns from the one into the other.

# %%
cosines = (patches.flatten(0, 1) @ text.T).double()
best = cosines.topk(2, dim=1).values
spread_of, margin = cosines.var(dim=1, correction=0), best[:, 0] - best[:, 1]

T = 0.1
torch.testing.assert_close(
    np.log(C) - entropy(torch.softmax(T * cosines, dim=1)),
    T**2 / 2 * spread_of,
    rtol=0.1,
    atol=1e-6,
)

# %%
temperatures = (1, 3, 10, 30, 60, 100, 300)
median, purity_at, surest_at = [], [], {}
order_like = {"spread of all cosines": [], "margin of the two best": []}
for T in temperatures:
    probs = torch.softmax(T * cosines, dim=1)
    h = entropy(probs)
    assert torch.equal(probs.argmax(dim=1), cosines.argmax(dim=1))  # no class changes
    surest = h[known.flatten()].argsort()[: len(order) // 10]
    purity_at.append(float(hit[surest].float().mean()))
    surest_at[T] = set(surest.tolist())
    median.append(float(h.median()))
    for values, quantity in zip(order_like.values(), (spread_of, margin), strict=True):
        values.append(-float(spearmanr(h[::10], quantity[::10]).statistic))  # every tenth
nb03.temperature_figure(temperatures, purity_at, median, order_like)

# %% [markdown]
# **What to look for.** Left: entropy falls with $T$ (for every patch, one can prove). Middle: the
# **rank correlation** is 1 where two quantities put the patches in the same order. On which side of
# the crossing does the paper's 60, dashed, lie: does it order by spread or by margin? Right: does it
# matter for purity?

# %%
at_60 = temperatures.index(int(SELECTION_TEMPERATURE))
by_spread, by_margin = order_like.values()
config.claim(
    by_spread[0] > 0.9 and by_margin[-1] > 0.9,
    f"at T = {temperatures[0]} sureness is spread (rank correlation {by_spread[0]:.2f}), at "
    f"T = {temperatures[-1]} margin ({by_margin[-1]:.2f}); at 60: {by_spread[at_60]:.2f} and "
    f"{by_margin[at_60]:.2f}",
)

# %%
config.claim(
    all(a > b for a, b in zip(median, median[1:], strict=False)),
    f"the median entropy falls from {median[0]:.2f} to {median[-1]:.2g} nats",
)
config.claim(
    max(purity_at[at_60:]) - min(purity_at[at_60:]) < 0.1,
    f"from T = 60 up the purity of the surest tenth stays within "
    f"{100 * (max(purity_at[at_60:]) - min(purity_at[at_60:])):.1f} points",
)

# %%
at_paper, at_highest = surest_at[temperatures[at_60]], surest_at[temperatures[-1]]
common = len(at_paper & at_highest) / len(at_paper)
config.claim(
    min(by_margin[at_60:]) > 0.9 and common > 0.8,
    f"from T = 60 up the rank correlation with the margin is at least {min(by_margin[at_60:]):.2f};\n"
    f"  {common:.0%} of the surest tenth at 60 is among the surest tenth at {temperatures[-1]}",
)

# %% [markdown]
# So 60 is no magic number. From there up the order by entropy is nearly the order by margin, the
# surest tenth is nearly the same set, and its purity hardly moves. Far above it another trouble
# waits: entropies become *exactly* zero in single precision. They tie, and the bank has to
# order them by picture number, which says nothing about them.

# %%
ties = {T: int((entropy(torch.softmax(T * cosines, 1)).float() == 0).sum()) for T in (60, 1000)}
Markdown(" · ".join(f"T = {T}: {k} of {n * N} entropies are exactly 0" for T, k in ties.items()))

# %% [markdown]
# ### Exercise 5 · Twice the temperature
#
# Someone learns from the same pictures with $T = 120$ in place of 60. What stays exactly as it is,
# for any model?
#
# - **a**: the order of the patches by entropy
# - **b**: the class $\hat y_i$ that each patch is named
# - **c**: the entropies
# - **d**: the share $p_{i\hat y}$ of the class that is named (notebook 04 uses it as a weight)
#
# Put it in `answer`, for example `answer = "a"`.
#
# **Expected output**: `✓ Exercise 5 is right.` and the reason.
#
# <details><summary>Hint</summary>Take cosines (0.3, 0.2, 0.1), double them, and compare what the
# softmax does.</details>

# %% tags=["exercise"]
# solution
answer = "b"
# end solution

# %% tags=["check"]
nb03.exercise_5(answer)

# %% [markdown]
# ## 8 · One pass, and a small memory
#
# The plain way to find the 512 surest patches of each class is to keep all patches, sort them once
# and cut. The bank does not keep them: a patch whose entropy is above that of its class's 512th row
# can never come in, and is forgotten with its batch. Does it lose anything? Here is the sort. Equal
# entropies (**ties**) need a rule, or the result would depend on chance: the smaller picture number
# first, then the smaller patch number.

# %%
picture, patch = np.divmod(np.arange(n * N), N)
h, y = H.flatten().numpy(), named.flatten().numpy()
ranked = np.lexsort((patch, picture, h))  # the last key decides first
best = np.concatenate([ranked[y[ranked] == c][:BANK_SIZE] for c in range(C)])

np.testing.assert_array_equal(paper.image_id, picture[best])
np.testing.assert_array_equal(paper.patch_index, patch[best])
np.testing.assert_array_equal(paper.entropy, h[best])
torch.testing.assert_close(paper.features, patches.flatten(0, 1)[best], rtol=0, atol=0)
print(f"the bank holds the same {len(best)} rows in the same order as a sort of {n * N} patches")

# %% [markdown]
# And the memory, measured after each batch in section 4 (the batch itself comes on top, in both
# ways). For each row the bank keeps the feature, $D$ numbers, the $C$ probabilities, four bytes each,
# and 36 bytes for class, entropy and origin.

# %%
everything = [k * N * D * patches.element_size() for k in seen]
nb03.memory_figure(seen, held, everything)

# %%
limit = C * BANK_SIZE * (4 * D + 4 * C + 36)
config.claim(
    max(held) <= limit,
    f"the bank never has more than {max(held) / 1e6:.1f} MB (bound: {limit / 1e6:.1f} MB); all "
    f"patches have {everything[-1] / 1e6:.0f} MB",
)

# %% [markdown]
# The bank's bound does not know the number of pictures. For the paper's data sets with ViT-B/16
# ($N = 196$ patches, $D = 512$, single precision) that decides whether a laptop will do:

# %% tags=["nbval-check-output"]
print("data set   pictures  classes  all patches     bank")
for world, count, classes in (("VOC07", 5011, 20), ("COCO14", 82081, 80), ("NUS", 150000, 81)):
    all_of_them = count * 196 * 512 * 4 / 1e9
    kept = classes * 512 * (4 * 512 + 4 * classes + 36) / 1e9
    print(f"{world:9} {count:9} {classes:8} {all_of_them:9.1f} GB {kept:5.2f} GB")

# %% [markdown]
# ## 9 · Merging in any order
#
# Two machines can each read half of the pictures, and `merge` makes one bank of their two. It should
# not matter who reads what, nor who is merged first. The argument is short. Take a patch that is
# among the 512 best of all. Then it is among the 512 best of its own part, so no part loses it. And
# the 512 best are a *set with one fixed order*, (entropy, picture, patch): nothing is left to chance.
# The one thing needed is the rule for ties. A tiny case, two pictures with the same patch, $K = 1$:

# %% tags=["nbval-check-output"]
one, two = PatchBank(2, k=1), PatchBank(2, k=1)
same_patch = torch.tensor([[[0.8, 0.6]]])
one.update(same_patch, torch.eye(2), image_ids=[1])
two.update(same_patch, torch.eye(2), image_ids=[2])
print("one.merge(two) keeps picture", one.merge(two).image_id.tolist())
print("two.merge(one) keeps picture", two.merge(one).image_id.tolist())

# %% [markdown]
# "Who comes first, stays" would have kept picture 1 in one order and picture 2 in the other. Now the
# real bank: two ways to deal the pictures out to three readers, at random and in turn, and all six
# orders of merging; and once grouped the other way.


# %%
def read(ids):
    """A bank that has seen these pictures."""
    bank = PatchBank(C)
    for part in ids.split(100):
        bank.update(patches[part], text, part)
    return bank


shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(config.seed))
deals = {"at random": shuffled.chunk(3), "in turn": [torch.arange(i, n, 3) for i in range(3)]}
merged = []
for deal in deals.values():
    for a, b, c in permutations([read(ids) for ids in deal]):
        merged.append(a.merge(b).merge(c))
    merged.append(a.merge(b.merge(c)))

# %%
equal = sum(nb03.same_bank(bank, paper) for bank in merged)
config.claim(
    equal == len(merged),
    f"{equal} of {len(merged)} merged banks equal the bank of one pass to the last bit",
)

# %% [markdown]
# **Think.** Does this still hold with `per_image=1`?
# <details><summary>Answer</summary>Yes, as long as a picture is never cut in two. Each picture
# chooses its own best patch before anything is merged, and that choice does not depend on other
# pictures. After it, the bank is an ordinary one that sees fewer patches.</details>

# %% [markdown]
# ## 10 · Explorer: what is in the bank of a class?
#
# Choose a class and $K$. Seven of its first $K$ rows, evenly spread from the surest to the last, are
# framed in their pictures, for both banks; below each, its place in the order and what the patch
# shows (*unlisted*: no class of the list; *mixture*: nothing covers half of it). A solid blue frame is a patch that shows the class, a dashed orange one is not. The question:
# **is it the object that the bank collects, or what stands around it, and how often the same
# picture?**

# %%
show = partial(nb03.explore, data=data, banks=banks, truth=x.truth)
explorer(show, class_name=names, K=(8, 32, 128, 512))

# %% [markdown]
# Without a kernel: the class whose paper's bank is purest, and the one whose is least pure, at the
# paper's $K$.

# %%
show(names[int(np.nanargmax(np.nan_to_num(of_class["no limit (paper)"], nan=-1)))], 512)

# %%
show(names[int(np.nanargmin(np.nan_to_num(of_class["no limit (paper)"], nan=2)))], 512)

# %% [markdown]
# ## What you have seen
#
# - **Entropy** is the text's hesitation between the classes, in nats, from 0 to $\log C$. A patch can
#   be sure and wrong.
# - **Is low entropy pure?** Purer than the rest by a factor, and the order is a good one among patches
#   of objects. But pure it is not: the softmax has no "none of these", and most of what is impure
#   among the surest shows no class of the list, in a picture that does have the class.
# - **The paper's bank** takes whole pictures: a few, whose patches are near copies. One patch a
#   picture brings variety, reaches further down the order, and makes hunger visible: a class gets as
#   many rows as pictures name it.
# - **The temperature** leaves the classes as they are and changes the order: by spread of all cosines
#   when it is small, by margin of the two best when it is large. From 60 up the surest stay
#   nearly the same.
# - **The streaming bank** equals a full sort, row by row, in a memory that does not grow with the
#   number of pictures, and banks merge exactly in any order.
#
# **Try next**: `data, x = config.dataset("learn_unseen"), features(config, "learn_unseen")` in
# section 1, the style that the mini-CLIP never saw: what remains of purity? Then notebook 04, which learns a classifier from both banks: is it
# purity that a classifier needs most, or variety?
#
# **In the paper**: PVCL, Stage I, entropy-driven selection. The limit for each picture and the
# merging are this repository's.
#
# **References**: Wang, Deng, Hu, Zhao, Tai and Li, "[CLS] is Not Enough", ICML 2026,
# arXiv 2605.25821. Radford et al., "Learning Transferable Visual Models From Natural Language
# Supervision", ICML 2021 (CLIP). Grandvalet and Bengio, "Semi-supervised Learning by Entropy
# Minimization", NeurIPS 2004 (entropy as a measure of trust without labels).

# %% tags=["versions"]
print(versions())
