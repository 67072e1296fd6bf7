# %% [markdown]
# # 06 · The whole of PIAA
#
# <!-- badges -->
#
# **On pictures that nobody looked at before, PIAA reaches 87.3 mAP against 83.6 of [CLS] in the
# styles that CLIP knows, and 76.4 against 71.5 in a style that it never saw.**
#
# **After this notebook you can**
#
# - write the whole method from an empty file: three functions on top of an encoder;
# - say what each step adds, and whether that is more than chance;
# - name the rivals of PIAA, and the one that is ahead of it;
# - say what costs time, and where PIAA fails.
#
# **Before**: notebooks 02 to 05, or their summaries.
#
# **Time**: 30 minutes to read and solve, about a minute to run once the features are there.

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
# For photographs and OpenAI's CLIP: config = Config("voc07", data_root="data_sets")
from piaa_utils.lessons import Config

config = Config()
print(config)

# %% [markdown]
# ## 1 · Every rival, on pictures that nobody looked at
#
# All choices of this series, from the scales to the model itself, were made on the validation
# pictures. Here, and only here, the two test sets are opened: 600 pictures in the styles that CLIP was
# trained on, and 600 in a style it never saw.
#
# **What makes a comparison fair?** Four things, and each has gone wrong in print.
#
# - *The same pictures and the same features.* All rows read one encoding of each picture; no row has a
#   better crop or a second view.
# - *Each rival at its best.* [CLS] has the scale that suits it, not PIAA's; the words have the scale
#   that suits the words; SCLIP and ITACLIP have scales of their own. All of these were chosen on the
#   validation pictures, with the same care. A method that is tuned beats one that is not, whatever
#   they are.
# - *One look.* Whoever opens the test set, mends something and opens it again, has chosen on it.
# - *What each was given.* [CLS] and the words see nothing but the picture. PIAA has also seen 1,000 to
#   1,200 others of the same style, without labels. That is little, and it is not nothing: a fair
#   sentence says so.
#
# A row of the ladder is one way to score a picture:

# %%
from piaa_utils import ablation
from piaa_utils.ablation import GAINS, PIAA_ROW, ROWS
from piaa_utils.lessons.lesson import cache

rows = ablation.ladder(config.scales, config.backbone_.constants)
scores, picture = ablation.measure(config.backbone_, cache())
for name in ROWS:
    row = rows[name]
    print(f"{name:28} patches: {row.encoder or '-':8} pooled: {row.pool}")

# %%
from piaa_utils import interval, plots

labels = {name: config.split(name).labels for name in ("test", "test_unseen")}
table = [
    {"name": name, "set": where, "value": value, "low": low, "high": high}
    for where, y in labels.items()
    for name in ROWS
    for value, low, high in [interval(y, scores[name, where], n=500)]
]
plots.ablation_figure(table, title="PIAA, step by step")

# %% [markdown]
# **What to look for.** Each point is a mean average precision, each bar its 95 per cent interval: had
# other pictures of the same kind been drawn, mAP might lie anywhere in there. The bars of two rows
# overlap even where one is surely better, for the same hard pictures lower both. A fair comparison is
# **paired**: draw the pictures again, take the mAP of *both* rows on the same draw, and look at the
# difference.


# %%
def gain(where, better, worse):
    """The lead of one row over another, with its paired interval."""
    return interval(labels[where], scores[better, where], scores[worse, where], n=500)


lead = {where: gain(where, PIAA_ROW, "[CLS]") for where in labels}
mAP = {(e["name"], e["set"]): e["value"] for e in table}
for where in labels:
    config.claim(
        lead[where].above_zero,
        f"{where}: PIAA {mAP[PIAA_ROW, where]:.1f} mAP, [CLS] at its best scale "
        f"{mAP['[CLS]', where]:.1f}: {lead[where]} points",
    )

# %% [markdown]
# ## 2 · From an empty file
#
# *Could you have written it?* This was the promise of the series. Here is the whole again:

# %%
from piaa_utils.lessons.figures import diagram

diagram("whole_piaa")

# %% [markdown]
# Given the encoder of notebook 02 (patch embeddings $x_i$, [CLS] and text embeddings $t_c$, all of
# length one), the method is three functions.
#
# **PVCL, Stage I: select.** Each patch gets text probabilities
# $p_{ic} = \mathrm{softmax}_c(60\,x_i\cdot t_c)$ and its class $\hat y_i = \arg\max_c p_{ic}$.
# For each class keep the $K = 512$ patches of lowest entropy.

# %%
import torch


def select(patches, text, K=512):
    """Patches [n, N, D] to the rows kept: features, classes, and the probability of that class."""
    x, text = patches.flatten(0, 1), text.double()
    p = torch.cat([(60 * part.double() @ text.T).softmax(-1) for part in x.split(20_000)])
    entropy, says = torch.special.entr(p).sum(-1).float(), p.argmax(-1)
    kept = []
    for c in range(len(text)):
        mine = (says == c).nonzero().flatten()
        kept.append(mine[entropy[mine].argsort(stable=True)[:K]])
    rows = torch.cat(kept)
    return x[rows].double(), says[rows], p[rows, says[rows]]


# %% [markdown]
# **PVCL: a Gaussian for each class, one covariance for all.** Means
# $\mu_c = \sum_i p_{ic}x_i / \sum_i p_{ic}$ (a class without rows takes its text embedding), rows
# minus their means $Z$ with covariance $\Sigma$, precision
# $\Omega = D\,((n-1)\Sigma + \mathrm{tr}(\Sigma) I)^{-1}$, and then
# $W = \Omega\mu^\top$, $b_c = \log\frac1C - \frac12\mu_c^\top\Omega\mu_c$.

# %%
import math


def gda(x, y, weight, text):
    """Rows [n, D], classes, weights and text [C, D] to W [D, C] and b [C]."""
    mu = text.double().clone()
    for c in y.unique():
        mine = y == c
        mu[c] = weight[mine] @ x[mine] / weight[mine].sum()
    z = x - mu[y]
    (n, D), Sigma = z.shape, z.T.cov()
    omega = D * torch.linalg.inv((n - 1) * Sigma + Sigma.trace() * torch.eye(D, dtype=x.dtype))
    W = omega @ mu.T
    return W.float(), (-math.log(len(mu)) - (mu.T * W).sum(0) / 2).float()


# %% [markdown]
# **PAA: one score of all patches and [CLS].** $g_{ic} = \mathrm{softmax}_c((x_i W + b)/T)$, evidence
# $e_c = \max_i g_{ic}$, and
# $\mathrm{score} = 0.9\,\mathrm{softmax}_c(m\,e) + 0.1\,\mathrm{softmax}_c(s\,\mathrm{CLS}\cdot t_c)$.


# %%
def aggregate(patches, cls, text, W, b, s, m, T):
    """Patches [B, N, D] and [CLS] [B, D] to scores [B, C]."""
    e = ((patches @ W + b) / T).softmax(-1).amax(1)
    return 0.9 * (m * e).softmax(-1) + 0.1 * (s * cls @ text.T).softmax(-1)


# %% [markdown]
# That is all. Against the package, on all pictures of the unseen style:

# %%
import numpy as np

from piaa_utils.lessons import features
from piaa_utils.lessons.exercises import e06

text, (s, m, T, _) = config.text, config.scales
learn, test = features(config, "learn_unseen"), features(config, "test_unseen")
W, b = gda(*select(learn.patches["scclip"], text), text)
ours = aggregate(test.patches["scclip"], test.cls, text, W, b, s, m, T).numpy()
error = np.abs(ours - scores[PIAA_ROW, "test_unseen"]).max()
config.claim(error < 1e-3, f"PIAA from an empty file: largest difference of a score {error:.0e}")

# %% [markdown]
# And on numbers that you can check with a pencil: two patches, two classes, $m = 2$, $T = 1$. The first
# patch is sure of class 0, the second leans to class 1; [CLS] knows nothing.

# %% tags=["nbval-check-output"]
x_W = torch.tensor([[[1.0, 0.0], [0.0, 0.5]]])  # already x W + b, so W = I and b = 0
one = aggregate(x_W, torch.zeros(1, 2), torch.eye(2), torch.eye(2), torch.zeros(2), s=5, m=2, T=1)
print("g, patch 0", torch.softmax(torch.tensor([1.0, 0.0]), 0).numpy().round(3))
print("g, patch 1", torch.softmax(torch.tensor([0.0, 0.5]), 0).numpy().round(3))
print("score     ", one[0].numpy().round(3))

# %% [markdown]
# ## 3 · What each step adds
#
# Here are the steps, each as the lead of one row over another on the same pictures.
#
# - *PIAA - [CLS]* is the claim of the paper's title, each side at its best scales. *The same at the
#   paper's s, m* sets both to s = 80 and m = 200: it shows how much of a lead can come from a scale
#   that does not suit the rival, and is the one to compare with the paper's own table.
# - *The encoder's line* keeps everything and swaps the patches: the same words read vanilla patches,
#   then SC-CLIP's.
# - *PVCL's line* keeps the patches and swaps the reader: the words, then the learned classifier; both
#   take the surest patch.
# - *PAA's line* keeps classifier and patches, and swaps how they become one score.
#
# A step "helps" or "hurts" if its whole interval lies on one side of zero; else it is not shown to do
# either, which is not the same as doing nothing. Write your guess for each line down before you run the
# cell: which step, would you say, brings most?

# %%
added = {}
for what, (better, worse) in GAINS.items():
    for where in labels:
        added[what, where] = gain(where, better, worse)
        points = added[what, where]
        verdict = "helps" if points.low > 0 else "hurts" if points.high < 0 else "not shown"
        print(f"{what:36} {where:12} {points!s:24} {verdict}")

# %%
config.claim(
    all(added["encoder: SC-CLIP's text - vanilla's", w].above_zero for w in labels),
    "the encoder helps on both: "
    + ", ".join(str(added["encoder: SC-CLIP's text - vanilla's", w]) for w in labels),
)
PAA_LINE = "PAA - maximum of the patches"
config.claim(
    added[PAA_LINE, "test"].above_zero and not added[PAA_LINE, "test_unseen"].above_zero,
    f"joining [CLS] helps in the seen styles, {added[PAA_LINE, 'test']}, and is not shown to in the "
    f"unseen one, {added[PAA_LINE, 'test_unseen']}",
)
PVCL_LINE = "PVCL - text, same patches"
print("the classifier against the words:", *(str(added[PVCL_LINE, w]) for w in labels))

# %% [markdown]
# **Read the classifier's line with care.** In the styles that CLIP knows it costs points,
# beyond chance; in the unseen style it loses nothing, and what it gains is not shown to be more than
# chance. Notebook 04 shows why: where the words already read what an oracle could read, there is no
# head-room for a learned classifier. So the closest rival of PIAA is not [CLS]. It is the words on
# SC-CLIP's patches with the maximum, and it is **ahead** of PIAA on both sets, beyond chance in the seen
# styles, as the next cell prints. On this small CLIP the encoder is the step that matters.
#
# **And PAA's line.** A tenth of [CLS] is worth something where [CLS] is good. In the unseen style it is
# much weaker than the patches, and the surest patch alone does as well, or better. The scales, which the
# next cell prints, were chosen so that neither style pays for the other, and with so small an $m$ [CLS]
# has much to say.
#
# How far is it to the oracle? The last row of the ladder takes the surest patch, too, and learned with
# the masks' labels:

# %%
s, m, T, _ = config.scales
print(f"s = {s:g}, m = {m:g}, T = {T:g}")
oracle = ROWS[-1]
for where in labels:
    print(f"{where:12} words on SC-CLIP's patches - PIAA {gain(where, ROWS[2], PIAA_ROW)}")
    print(f"{where:12} labels for every patch would add {gain(where, oracle, PIAA_ROW)}")
for other in ("PIAA of SCLIP", "PIAA of ITACLIP"):
    for where in labels:
        print(
            f"{other:16} {where:12} {mAP[other, where]:.1f}, over [CLS] {gain(where, other, '[CLS]')}"
        )

# %% [markdown]
# ## 4 · The scene, and others like it
#
# The picture of the series, once more, and then three test pictures chosen by a rule: of those with
# three classes or more, where PIAA names a class that [CLS] misses, the smallest such objects, each of
# another class.

# %%
from piaa_utils.lessons import follow, ready
from piaa_utils.lessons.figures import maps_row

scene = follow(config)
data = config.split(scene.split)
piaa = ready(config, "learn_unseen")
maps, mask = piaa.heat_maps(data[scene.index]), data.mask(scene.index)
shown = scene.classes[:2] + scene.classes[-1:]
maps_row(
    data[scene.index],
    [maps[c] for c in shown],
    [config.class_names[c] for c in shown],
    None if mask is None else mask >= 0,
    label="posterior of the patch",
)

# %%
picture  # the figure that `measure` drew

# %% [markdown]
# **What to look for.** In each row first the words in bold: they are what one of the two names and the
# other does not, right or wrong. Compare them with the picture. Then the map: is it bright on the object and nowhere else? A tag can be right for the
# wrong reason, and only the map tells. These three were chosen because they show what PIAA adds, so
# they say nothing about how often it does; for that there are the table above and the next section.
#
# ## 5 · Classes beyond the largest
#
# mAP sorts pictures, class by class. A person looks at one picture and asks what is on it. The two
# need not agree: a score can sort all pictures of a class rightly and still put that class third in
# each of them, behind two that are not there. So here is the person's question as a number. Of the
# classes other than the largest: how many are among a picture's $n$ best, $n$ being how many it
# shows? Drawn by lot, $n$ of twenty classes would name $n/20$ of them. The largest is left out because
# everybody finds it, [CLS] first of all; what is beyond it is what the paper's title is about.

# %%
from piaa_utils.lessons import areas
from piaa_utils.metrics import named_beyond_largest

size = {where: areas(config.split(where), config.backbone_.grid) for where in labels}
named = {}
for who in ("[CLS]", "text on SC-CLIP's patches", PIAA_ROW):
    for where in labels:
        named[who, where] = named_beyond_largest(scores[who, where], size[where])
    print(f"{who:28}", *(f"{where} {100 * named[who, where]:.1f} %" for where in labels))
config.claim(
    all(named["text on SC-CLIP's patches", w] > named["[CLS]", w] for w in labels),
    "patches name more of the classes beyond the largest than [CLS] does",
)

# %% [markdown]
# Here, too, the words on SC-CLIP's patches are ahead of PIAA; against [CLS] PIAA is ahead by much in the
# unseen style and by little in the seen ones.

# %% [markdown]
# ## 6 · Where PIAA fails
#
# Take the classes that are there and that PIAA leaves out of the $n$ best, and look at their size. And
# of the classes that it names wrongly: which ones?

# %%
rank = (-scores[PIAA_ROW, "test_unseen"]).argsort(1).argsort(1)
there, count = size["test_unseen"] > 0, (size["test_unseen"] > 0).sum(1)[:, None]
missed, wrong = there & (rank >= count), ~there & (rank < count)
edges = (0, 2, 4, 8, 16, 196)
share = [
    missed[k].mean()
    for a, b in zip(edges, edges[1:], strict=False)
    if (k := there & (size["test_unseen"] >= a) & (size["test_unseen"] < b)).any()
]
figure, ax = plots.subplots(1, 1, size=(8, 4.5))
ax.bar(range(len(share)), [100 * v for v in share], color="#d55e00")
ax.set(
    xticks=range(len(share)), ylabel="missed by PIAA (%)", xlabel="patches that the class covers"
)
ax.set_xticklabels([f"{a} to {b}" for a, b in zip(edges, edges[1:], strict=False)][: len(share)])
figure.alt_text = "Share of classes that PIAA misses by size: " + ", ".join(
    f"{v:.0%}" for v in share
)
figure

# %%
worst = np.argsort(-wrong.sum(0))[:3]
print(
    "named though not there, most often:",
    [f"{config.class_names[c]} ({wrong[:, c].sum()})" for c in worst],
)
config.claim(
    share[0] > share[-1],
    f"PIAA misses {share[0]:.0%} of the classes under two patches and {share[-1]:.0%} of the largest",
)

# %% [markdown]
# A patch is 16 pixels wide: what is smaller is mixed with its surroundings before any encoder sees
# it. That is a limit of the grid, and a larger image size moves it (notebook 08). There are two other
# ways to fail. Some names come too easily: see which are named most often without being there. And a thing that is half
# hidden may show only patches that could belong to anything. Against the first a finer class list
# does not help, but a *background* word may (notebook 08); against the second only more context does,
# and this is what patches were cut off from.
#
# ## 7 · What it costs
#
# The trunk runs once for [CLS] and patches together. What PIAA adds to an ordinary CLIP is one more last
# block for the patches, a selection while pictures stream by, one inversion of a matrix of $D \times D$
# for all, and a product $x W$ for each patch.
#
# Count it for ViT-B/16, twelve blocks: the patches' own last block is a thirteenth, so about a twelfth
# more; SC-CLIP's smoothing multiplies $N \times N$ matrices by the patches, with $N = 196$ no more than
# attention does. Selection keeps $C\,K$ rows however many pictures there are. The inversion takes
# $D^3$, with $D = 512$ a blink, once. And nothing of all that needs a gradient: no optimiser, no
# learning rate, no epoch, and so nothing to tune but three scales. In our narrow tower the $N \times N$
# steps weigh more. Here is what this machine says:

# %%
import time

from piaa_utils.encoders import encode

pixels = torch.stack([config.backbone_.preprocess(data[i]) for i in range(16)])
encode(config.backbone_, pixels, ())  # warm
seconds = {}
for name, encoders in (("[CLS] alone", ()), ("[CLS] and SC-CLIP's patches", ("scclip",))):
    start = time.perf_counter()
    encode(config.backbone_, pixels, encoders)
    seconds[name] = time.perf_counter() - start
W, b = gda(*select(learn.patches["scclip"][:100], text), text)
print({name: f"{1000 * t / len(pixels):.0f} ms a picture" for name, t in seconds.items()})
print(f"numbers learned: {W.numel() + b.numel()} (W and b); CLIP itself stays as it is")

# %% [markdown]
# > **What this does not show.** One small CLIP, one world of emoji, twenty classes. That PIAA gains
# > more in the unseen style than in the seen ones need not be so on photographs, where no style is
# > unseen to OpenAI's CLIP. The ablation's steps are measured in one order; in another order each would
# > add something else. And the ceiling is no ceiling of the pictures, only of linear classifiers on
# > these patches.
#
# ## 8 · If you take it to your own pictures
#
# The order in which to look, if something is off:
#
# 1. **The patches.** Draw the text's map of a thing that you know is there (notebook 02). If it is
#    bright everywhere, the encoder is the wrong one, or the activation is (QuickGELU or GELU), and no
#    later step will mend it.
# 2. **The bank.** Look at the surest patches of three classes as pictures (notebook 03). A class whose
#    patches show something else has a name that CLIP reads otherwise: try a synonym.
# 3. **The scales.** If all maps are flat, $T$ is too large for your bank; if all scores are near $1/C$,
#    $m$ is too small (notebook 05).
# 4. **The rest of the world.** Patches that show none of your classes must go somewhere: give the
#    commonest of them names, as background.
#
# Only then ask for the mAP, and ask [CLS] at its own scale on the same pictures.
#
# ## 9 · Exercises
#
# ### Exercise 1 · The three functions in one
#
# The core: write `piaa_scores`, from features to scores, with `select`, `gda` and `aggregate` above.
#
# **Expected output:** `✓ Exercise 1 is right.`
# <details><summary>Hint</summary><code>gda(*select(...), text)</code> gives W and b.</details>


# %% tags=["exercise"]
def piaa_scores(learn_patches, patches, cls, text, s, m, T):
    """[n, N, D] to learn from, [B, N, D] and [B, D] to score, text [C, D]: scores [B, C]."""
    # solution
    W, b = gda(*select(learn_patches, text), text)
    return aggregate(patches, cls, text, W, b, s, m, T)
    # end solution


# %% tags=["check"]
e06.check_whole(piaa_scores, config)

# %% [markdown]
# ### Exercise 2 · Predict, then run
#
# PIAA learns from pictures of the **seen** styles and is measured on the unseen style. Compared with
# PIAA that learned from the unseen style, its mAP
#
# - **a**: rises
# - **b**: stays within one point, or falls by no more than five
# - **c**: falls by more than five points
#
# **Expected output:** two mAPs, and `✓ Exercise 2 is right.`
# <details><summary>Hint</summary>How far does the classifier lead the words in this style at
# all?</details>

# %% tags=["exercise"]
# solution
prediction = "b"
# end solution
from piaa_utils import mean_average_precision

other = ready(config, "learn").score_features(test.patches["scclip"], test.cls).numpy()
moved = mean_average_precision(test.labels, other).map - mAP[PIAA_ROW, "test_unseen"]
print(f"learned from the seen styles: {moved:+.1f} points on test_unseen")

# %% tags=["check"]
e06.check_prediction(prediction, moved)

# %% [markdown]
# ### Exercise 3 · Leave a step out
#
# Score the pictures of `test_unseen` without the learned classifier: the text reads the patches,
# `W = 20 * text.T` (the scale that suits the words here), `b = 0`, with `T = 1` and `m` and `s` as they are. Put the scores in `words`, an
# array [pictures, classes]. Is the classifier worth its trouble here? Compare with section 3, where the
# words had the maximum and no [CLS]: which of the two comparisons is fair to the words? (This `m` was
# chosen for the classifier's posteriors.)
#
# **Expected output:** PIAA's lead over the words, and `✓ Exercise 3 is right.`
# <details><summary>Hint</summary><code>aggregate(test.patches["scclip"], test.cls, text, ...)</code>
# </details>

# %% tags=["exercise"]
# solution
words = aggregate(
    test.patches["scclip"], test.cls, text, 20 * text.T, torch.zeros(len(text)), s, m, 1
).numpy()
# end solution
print("PIAA - words:", interval(test.labels, scores[PIAA_ROW, "test_unseen"], words, n=500))

# %% tags=["check"]
e06.check_words(words, test, text, config.scales)

# %% [markdown]
# ## What you have seen
#
# - **Three functions.** Select, learn in closed form, aggregate: PIAA from an empty file gives the
#   package's scores.
# - **What each step adds**, with paired intervals: the encoder nearly all of it; the classifier costs
#   where the words read well already; joining [CLS] helps in the seen styles, not in the unseen one.
# - **The rivals.** [CLS] at its own scale, SCLIP and ITACLIP, all behind; the words on SC-CLIP's patches,
#   ahead; and the oracle, another reader and no upper bound.
# - **Cost and failures.** One more last block and one inversion; things smaller than a patch.
#
# **On OpenAI's CLIP.** The switch: `Config("voc07", data_root="data_sets")`. The paper's table has, for
# SC-CLIP with PIAA, 92.5 on VOC07, 92.2 on VOC12, 73.2 on COCO and 50.6 on NUS-WIDE, all reported. It
# was not run here: neither weights nor photographs can be had where this was written (notebook 07).
#
# **Next**: [07 The reproduction](07_reproduction.ipynb). **In the paper**: the method's overview and the
# ablation; here `piaa_utils/pipeline.py` and `piaa_utils/ablation.py`.
#
# **References**: Wang et al., "[CLS] is Not Enough", ICML 2026, arXiv 2605.25821. Efron and Tibshirani,
# "An Introduction to the Bootstrap", 1993.

# %% tags=["versions"]
from piaa_utils.lessons import versions

print(versions())
