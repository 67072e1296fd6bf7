# %% [markdown]
# # 06 · The whole of PIAA: what each step adds, and where it fails
#
# <!-- badges -->
#
# **After this notebook you can**
#
# - use the estimator `PIAA` (fit, score, look, save, load), and rebuild it from an empty file in
#   about thirty lines;
# - read an ablation with intervals: which step adds how much, and which differences are only noise;
# - say which classes and which pictures gain and which lose, and test a reason before believing it;
# - bring PIAA to another art style, add a class to it at test time, and measure a step that is not in
#   the paper;
# - say what PIAA costs beside plain CLIP.
#
# **Before**: notebooks 02 to 05, or their words: patch, bank, text vector, GDA, aggregation.
#
# **Time**: 35 minutes to read, under one to run.

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
import tempfile
from functools import partial

import numpy as np
import torch

from piaa_utils import ablation, constants, plots
from piaa_utils.aggregation import cls_scores, spatial_softmax
from piaa_utils.encoders import encode
from piaa_utils.gda import GaussianDiscriminantAnalysis
from piaa_utils.lessons import bank, explorer, features, nb06, object_shares, versions
from piaa_utils.metrics import average_precision, mean_average_precision, paired_bootstrap
from piaa_utils.pipeline import PIAA
from piaa_utils.purification import learn_classifier
from piaa_utils.selection import PatchBank

# %% [markdown]
# ## 1 · The estimator: pictures in, scores out
#
# *How is PIAA used?* Like any estimator of scikit-learn. `fit` takes pictures **without labels** and
# learns a classifier for patches (PVCL). `predict_proba` gives each picture one score for each class
# (PAA). `patch_scores` says where in a picture each class is seen. The CLIP inside stays frozen.
#
# Here it learns five classes from two dozen pictures: quick, not good. It is asked about the first
# six test pictures that show one of the five. The scores of a picture sum to 1, so a picture with none
# of the five still gets a sure-looking answer. *Look for* the class in the picture among the scores.

# %%
few, train = config.class_names[:5], config.dataset("learn").paths[:24]
data = config.dataset("test")
options = {"backbone": config.backbone_, "progress": False, **config.constants}

small = PIAA(few, **options).fit(train)
asked = np.flatnonzero(data.labels[:, :5].any(axis=1))[:6]
answers = small.predict_proba([data.paths[i] for i in asked])
print("           ", *(f"{name:>10}" for name in few), "  in the picture")
for i, row in zip(asked, answers, strict=True):
    there = ", ".join(few[c] for c in np.flatnonzero(data.labels[i, :5]))
    print(f"picture {i:3d} ", *(f"{score:10.2f}" for score in row), " ", there)

# %% [markdown]
# Most of the time goes into running CLIP on the pictures. The notebooks therefore keep the
# **features** of all pictures on disk: the [CLS] vector and the patch vectors of each. `fit` and
# `predict_proba` are two lines on top of them: fill a bank with the surest patches and learn from it
# (`fit_bank`); score features (`score_features`). From features come the same numbers.

# %%
learn, test = features(config, "learn"), features(config, "test", ("vanilla", "scclip"))

small_bank = PatchBank(len(few), per_image=1)
small_bank.update(learn.patches["scclip"][:24], small.text_.cpu(), range(24))
same = PIAA(few, **options).fit_bank(small_bank)
by_features = nb06.score_split(same, test.cls[asked], test.patches["scclip"][asked])
np.testing.assert_allclose(by_features, answers, atol=1e-3)
print("fit(images), predict_proba(images) and the way over features agree.")

# %% [markdown]
# Now the real one: all classes, all unlabelled pictures. Look at a picture: the one of the test set
# with the most classes (of those that have masks). White lines are the outlines of the masks; PIAA
# never sees them. The number is PIAA's score of the class. Each map has its own colours, from the lowest
# patch score of its class (light) to the highest (dark). *Look for*: does a class light up on its own
# object, somewhere else, or all over the picture?

# %%
spread_bank = bank(config, "learn")
piaa = PIAA(config.class_names, **options).fit_bank(spread_bank)

masked = (test.truth >= 0).any(axis=1)  # photographs: some have no mask
crowded = int(np.where(masked, data.labels.sum(axis=1), -1).argmax())
shown = np.flatnonzero(data.labels[crowded])
nb06.classes_figure(
    data.paths[crowded],
    [config.class_names[c] for c in shown],
    piaa.patch_scores(data.paths[crowded])[shown],
    piaa.predict_proba([data.paths[crowded]])[0, shown],
    [data.masks(crowded) == c for c in shown],
)

# %% [markdown]
# A fitted PIAA is small: W, b and the text vectors. `save` writes them with their settings into one
# file, `load` reads it and refuses a CLIP that does not fit. The frozen CLIP is not in the file.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "piaa.safetensors"
    piaa.save(path)
    again = PIAA.load(path, backbone=config.backbone_)
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB, {len(again.classes_)} classes")
torch.testing.assert_close(again.coef_, piaa.coef_)

# %% [markdown]
# ## 2 · From an empty file
#
# *Could you have written it?* This was the promise of the series. Given the encoder of notebook 02
# (patch vectors $x_i$, [CLS] and text vectors $t_c$, all of length one), the whole method is three
# functions.
#
# **PVCL, Stage I: select.** Each patch gets text probabilities
# $p_{ic} = \mathrm{softmax}_c(60\,x_i\cdot t_c)$ and its class $\hat y_i = \arg\max_c p_{ic}$. For
# each class keep the $K = 512$ patches of lowest entropy $H_i = -\sum_c p_{ic}\log p_{ic}$; here
# from each picture only its surest one ("spread").


# %%
def select(patches, text, K=512):
    """Patches [n, N, D] to the rows kept: features, classes, and the probability of that class."""
    text = text.double()
    cosines = torch.cat([x.double() @ text.T for x in patches.split(64)])
    p = torch.softmax(60 * cosines, dim=-1)
    h, y = torch.special.entr(p).sum(-1).float(), p.argmax(-1)
    rows = []
    for c in range(len(text)):
        surest, where = h.where(y == c, torch.inf).min(1)  # of each picture, its best patch
        first = surest.argsort(stable=True)[:K]
        rows += [(i, where[i], c) for i in first.tolist() if surest[i] < torch.inf]
    i, patch, c = torch.tensor(rows).T
    return patches[i, patch].double(), c, p[i, patch, c]


# %% [markdown]
# **PVCL: a Gaussian for each class, one covariance for all.** Means
# $\mu_c = \sum_i p_{ic}x_i / \sum_i p_{ic}$ (a class without rows takes its text vector), rows minus
# their means $Z$ with covariance $\Sigma$, precision
# $\Omega = D\,((n-1)\Sigma + \mathrm{tr}(\Sigma) I)^{-1}$, and then
# $W = \Omega\mu^\top$, $b_c = \log\frac1C - \frac12\mu_c^\top\Omega\mu_c$.


# %%
def gda(x, y, weight, text):
    """Rows [n, D], classes, weights and text [C, D] to W [D, C], b [C] and the precision Omega."""
    mu = text.double().clone()
    for c in y.unique():
        mine = y == c
        mu[c] = weight[mine] @ x[mine] / weight[mine].sum()
    z = x - mu[y]
    z = z - z.mean(0)
    (n, D), scatter = x.shape, z.T @ z  # scatter is (n - 1) Sigma
    ridge = scatter.trace() / (n - 1) * torch.eye(D, dtype=x.dtype)
    omega = D * torch.linalg.inv(scatter + ridge)
    W = omega @ mu.T
    return W.float(), (-np.log(len(mu)) - 0.5 * (mu.T * W).sum(0)).float(), omega.float()


# %% [markdown]
# **PAA: one score of all patches and [CLS].** $g_{ic} = \mathrm{softmax}_c((x_i W + b)/500)$,
# evidence $e_c = \max_i g_{ic}$, and
# $\mathrm{score} = 0.9\,\mathrm{softmax}_c(m\,e) + 0.1\,\mathrm{softmax}_c(s\,\mathrm{CLS}\cdot t_c)$.


# %%
def aggregate(patches, cls, text, W, b, s, m):
    """Patches [B, N, D] and [CLS] [B, D] to scores [B, C]."""
    evidence = torch.softmax((patches @ W + b) / 500, dim=-1).amax(dim=1)
    return 0.9 * torch.softmax(m * evidence, -1) + 0.1 * torch.softmax(s * cls @ text.T, -1)


# %% [markdown]
# That is all. The three functions against the estimator, on all pictures:

# %%
text = config.text.cpu()
s, m = config.constants["cls_scale"], config.constants["patch_scale"]

W, b, omega = gda(*select(learn.patches["scclip"], text), text)
torch.testing.assert_close(W, piaa.coef_.T.cpu(), rtol=1e-3, atol=1e-3)
torch.testing.assert_close(b, piaa.intercept_.cpu(), rtol=1e-3, atol=1e-3)

ours = aggregate(test.patches["scclip"], test.cls, text, W, b, s, m).numpy()
scores = nb06.score_split(piaa, test.cls, test.patches["scclip"])
np.testing.assert_allclose(ours, scores, atol=1e-4)
error = np.abs(ours - scores).max()
config.claim(error < 1e-4, f"PIAA from an empty file: largest difference of a score {error:.0e}")

# %% [markdown]
# And on numbers that you can check with a pencil: two patches, two classes, $m = 2$. The first patch
# is sure of class 0, the second leans to class 1; [CLS] knows nothing.

# %% tags=["nbval-check-output"]
x_W = torch.tensor([[[500.0, 0.0], [0.0, 250.0]]])  # already x W + b, so W = I and b = 0
score = aggregate(x_W, torch.zeros(1, 2), torch.eye(2), torch.eye(2), torch.zeros(2), s=5, m=2)
print("g, patch 0", torch.softmax(torch.tensor([1.0, 0.0]), 0).numpy().round(3))
print("g, patch 1", torch.softmax(torch.tensor([0.0, 0.5]), 0).numpy().round(3))
print("score     ", score[0].numpy().round(3))

# %% [markdown]
# What the paper says, what its released code does, and what runs here:
#
# | | paper and released code | this notebook |
# | --- | --- | --- |
# | encoder | SC-CLIP (also ITACLIP, SCLIP); features depend on the batch | SC-CLIP, each picture by itself |
# | Stage I | the $K$ surest patches of a class, however few pictures they come from | the same $K$, at most one of a picture ("spread") |
# | Stages II, III | purify by $q \ge$ mean + deviation, learn again | none; `purify="released"` has them |
# | GDA, PAA | the formulas above | the same |
# | $s$, $m$ | set for each data set | set for each data set, `config.constants` |
#
# The formulas, and "released", are tested against numbers from the authors' code
# (`tests/test_golden_*.py`, to 1e-4 of the largest value). Why "spread" and not "released" is the
# next section.
#
# ## 3 · What does each step add?
#
# An **ablation** puts the method together step by step and measures each state. Ours climbs so:
# [CLS] alone; [CLS] at the scale $s$ that the authors use for VOC, where this world uses another;
# patches read by the text, with CLIP's ordinary last block ("vanilla") and with SC-CLIP; the learned
# classifier in place of the text, as released and spread; and, with PAA on top, PIAA. Where a
# row has no PAA, the score of a class is the maximum of its patches. To *read* patches with the text,
# the rows use scale 10 (`ablation.TEXT_SCALE`), chosen on `val` for the best patch; 60 is for *selecting*
# (notebook 03).


# %%
def ladder(f, spread, released=None):
    """{row: scores [n, C]}; `spread` and `released` are the W and b of the two classifiers."""
    x, voc = f.patches["scclip"], constants.CONSTANTS["voc07"]["cls_scale"]
    rows = {"[CLS]": cls_scores(f.cls, text, s)}
    if s != voc:
        rows["[CLS] at VOC's scale"] = cls_scores(f.cls, text, voc)
    for name in ("vanilla", "scclip"):
        p = torch.softmax(ablation.TEXT_SCALE * f.patches[name] @ text.T, dim=-1)
        rows[f"patches + text, {name}"] = p.amax(dim=1)
    if released is not None:
        rows["+ PVCL as released"] = spatial_softmax(x @ released[0] + released[1]).amax(dim=1)
    evidence = rows["+ PVCL, spread"] = spatial_softmax(x @ spread[0] + spread[1]).amax(dim=1)
    rows["+ PAA = PIAA"] = 0.9 * torch.softmax(m * evidence, dim=-1) + 0.1 * rows["[CLS]"]
    return rows


# %% [markdown]
# Two test sets: one in the art styles that the mini-CLIP was trained on, one in a style it never saw
# (with photographs, both are the plain test set). For the second, PVCL learns from unlabelled
# pictures of that style; the released classifier is measured on the first only.

# %%
names = config.class_names
released_bank = bank(config, "learn", per_image=None)
released = learn_classifier(released_bank, text, "released", config.constants["purify_temperature"])

# %%
unseen = features(config, "test_unseen", ("vanilla", "scclip"))
new_style = learn_classifier(bank(config, "learn_unseen"), text, "spread", class_names=names)

rungs = {"test": ladder(test, (W, b), released), "unseen style": ladder(unseen, new_style)}
labels = {"test": test.labels, "unseen style": unseen.labels}
np.testing.assert_allclose(rungs["test"]["+ PAA = PIAA"], scores, atol=1e-4)

# %% [markdown]
# Each point is the mean average precision (mAP, notebook 00) on all test pictures. The bar is a **95 %
# bootstrap interval**: had other pictures of the same kind been drawn, mAP might lie anywhere in there.
# *Look for* rows that stay left of the dashed line of [CLS], and for the largest jump between
# neighbours.

# %%
rows = [r for where in rungs for r in nb06.intervals(rungs[where], labels[where], where, n=500)]
plots.ablation_figure(rows, title="PIAA, step by step")

# %% [markdown]
# The bars of two rows overlap even where one is surely better: the same hard pictures lower both.
# A fair comparison is **paired**: draw pictures again, take the mAP of *both* rows on the same draw,
# and look at the difference. If its interval holds zero, the step is not shown to help, or to hurt.


# %%
def gain(where, better, worse):
    """Points of mAP by which a row leads another, the ends of the paired interval, in words."""
    a, b = rungs[where][better], rungs[where][worse]
    points, low, high = (100 * x for x in paired_bootstrap(labels[where], a, b, n=500))
    verdict = "helps" if low > 0 else "hurts" if high < 0 else "not shown"
    said = f"{points:+.1f} [{low:+.1f}, {high:+.1f}]"
    print(f"{where:13}{better:24} - {worse:24} {said:18} {verdict}")
    return low, points, said


encoder = [gain(w, "patches + text, scclip", "patches + text, vanilla") for w in rungs]
pvcl = [gain(w, "+ PVCL, spread", "patches + text, scclip") for w in rungs]

# %%
paa = [gain(w, "+ PAA = PIAA", "+ PVCL, spread") for w in rungs]
whole = [gain(w, "+ PAA = PIAA", "[CLS]") for w in rungs]
step = gain("test", "+ PVCL as released", "patches + text, scclip")
way = gain("test", "+ PVCL, spread", "+ PVCL as released")

# %%
message = "SC-CLIP's patches beat vanilla ones, beyond the intervals: " + ", ".join(
    said for _, _, said in encoder
)
config.claim(all(low > 0 for low, _, _ in encoder), message)
message = f"PAA beats the maximum of the patches, beyond the intervals: {paa[0][2]}, {paa[1][2]}"
config.claim(all(low > 0 for low, _, _ in paa), message)
message = f"the whole leads [CLS] at the same s on both sets: {whole[0][2]}, {whole[1][2]}"
config.claim(all(points > 0 for _, points, _ in whole), message)
config.claim(way[0] > 0, f"spread beats released, beyond the interval: {way[2]}")

# %% [markdown]
# **A harder rival.** Here [CLS] has the scale $s$ that PIAA uses, and $s$ and $m$ were chosen for PIAA.
# Notebook 05, section 5, gave [CLS] a scale of its own, chosen on `val`; then PIAA is *behind* it on
# `test`. The next lines repeat that, for both sets.

# %%
many_s, val = np.geomspace(0.5, 2000, 19), features(config, "val")  # the grid of notebook 05
own_s = max(
    many_s, key=lambda v: mean_average_precision(val.labels, cls_scores(val.cls, text, v)).map
)
for where, f in (("test", test), ("unseen style", unseen)):
    rungs[where]["[CLS] at its own s"] = cls_scores(f.cls, text, own_s)
own = [gain(w, "+ PAA = PIAA", "[CLS] at its own s") for w in rungs]
config.claim(
    own[0][1] < 0 < own[1][0],
    f"[CLS] at its own s = {own_s:.2g}: PIAA is behind on test, {own[0][2]},\n  and ahead in "
    f"the unseen style, {own[1][2]}",
)

# %% [markdown]
# Three things to take from these lines.
#
# - **The whole against [CLS]**: compare the lead at the same $s$ with the gains of the single steps. It
#   is small enough that one scale decides who is ahead on `test`. Where the figure has the row "[CLS] at
#   VOC's scale", that is the same [CLS] at a scale that does not suit this world: an easy rival.
# - **Whether the learned classifier beats the text** on the same patches: two lines, one for each set.
#   Read both verdicts. "Not shown" is a result too; it is not "no effect".
# - **A step can hurt.** The next cell says why the classifier as released stays behind the spread one.


# %%
def sources(some_bank):
    """How many pictures the patches of each class come from, median over the classes."""
    image, y = some_bank.image_id, some_bank.labels
    return int(np.median([len(image[y == c].unique()) for c in range(len(names))]))


few_pictures, many = sources(released_bank), sources(spread_bank)
print(f"median pictures behind a class: as released {few_pictures}, spread {many}")
config.claim(
    many > 3 * few_pictures,
    f"a class is learned from {many / few_pictures:.0f} times as many "
    f"pictures when each gives one patch only",
)

# %% [markdown]
# **Think.** The released bank holds the patches of *lowest* entropy, so on average surer ones than the
# spread bank. Why can it teach less?
# <details><summary>Answer</summary>Patches of one picture resemble each other. Hundreds of near copies
# from a handful of pictures show how those pictures look, not how the class looks: the mean leans to
# them, and the covariance holds their noise. Variety is what is missing, not certainty.</details>
#
# ## 4 · Which classes gain?
#
# *Is the gain a little for all, or much for some?* mAP is a mean over classes, so its gain is the
# mean of the classes' gains. Each class gets its own paired interval: blue where it lies above
# zero, orange where below, grey where it holds zero.

# %%
cls_only = rungs["test"]["[CLS]"].numpy()
gains = nb06.class_gains(test.labels, scores, cls_only)
np.testing.assert_allclose(np.nanmean(gains[:, 0]), whole[0][1], atol=1e-3)
nb06.gain_figure(gains, names)

# %%
up, down = int((gains[:, 1] > 0).sum()), int((gains[:, 2] < 0).sum())
losers = int((gains[:, 0] < 0).sum())
config.claim(
    losers > 0,
    f"PIAA does not help every class: {losers} of {len(names)} lose; intervals "
    f"above zero: {up}, below: {down}, holding it: {len(names) - up - down}",
)

# %% [markdown]
# Do not read too much into single classes. Among twenty 95 % intervals one misses the truth by chance,
# and a class that few pictures show has a wide one.
#
# ### Exercise 1 · The class that gains most
#
# `gains[c, 0]` is the gain of class `c` in points (NaN for a class that is in no picture), `names` its
# name. Write **one line** that computes the *name* of the class with the largest gain. Put it in
# `answer`.
#
# **Expected output**: a tick, the name, and its gain: the topmost row of the figure.
#
# <details><summary>Hint</summary>`np.nanargmax` gives the position of the largest entry that is not
# NaN.</details>

# %% tags=["exercise"]
# solution
answer = names[np.nanargmax(gains[:, 0])]
# end solution

# %% tags=["check"]
nb06.exercise_1(answer, gains, names)

# %% [markdown]
# ## 5 · Which pictures gain, and which lose?
#
# mAP asks of a class: *do the pictures that show it come first?* A user of one picture asks
# otherwise: *do the classes that it shows come first?* For that count, for each class in the picture,
# the **wrong classes ahead**: absent classes with a higher score. Zero is perfect. An example:


# %% tags=["nbval-check-output"]
def wrong_ahead(scores, labels):
    """[n, C] absent classes that score higher than each class that is there; NaN for the absent."""
    absent = np.where(labels == 1, -np.inf, scores)
    ahead = (absent[:, None, :] > scores[:, :, None]).sum(axis=2)
    return np.where(labels == 1, ahead, np.nan)


row = np.array([[0.10, 0.40, 0.20, 0.25, 0.05]])  # scores of cat, dog, cow, bus, boat
there = np.array([[1, 1, 1, 0, 0]])  # the picture shows a cat, a dog and a cow
print("wrong classes ahead:", wrong_ahead(row, there)[0])

# %%
ahead, ahead_cls = wrong_ahead(scores, test.labels), wrong_ahead(cls_only, test.labels)
np.testing.assert_array_equal(ahead, nb06.wrong_ahead(scores, test.labels))
for name, a in (("[CLS]", ahead_cls), ("PIAA", ahead)):
    print(
        f"{name:6} wrong classes ahead, mean {np.nanmean(a):.2f}; "
        f"none ahead {100 * np.mean(a[test.labels == 1] == 0):.0f} %"
    )

# %% [markdown]
# Two measures, two questions; they need not agree. mAP never compares two classes of one picture, and
# a count within pictures never compares two pictures. Say which one you mean.
#
# Now the reasons. Everything below uses labels and masks, and only to *explain*: PIAA has seen none.
# For each class in a picture, its **rival** is the absent class that PIAA scores highest. Three reasons
# why a class may fall behind, each computed from the data:
#
# - **tiny**: its visible pixels are below 2 % of the picture, about four patches;
# - **look-alike**: the rival's best patch lies on the object itself;
# - **company**: the rival goes with a class in the picture at least twice as often as chance, counted in
#   the labels of `learn`: $\mathrm{lift}(a, b) = P(a, b) / (P(a)P(b))$.
#
# The table has a row for each picture and class in it (`label`). `ahead`: wrong classes ahead by PIAA,
# `ahead_cls`: by [CLS], `gain`: how many fewer by PIAA; `share`: of the picture that the class covers;
# `partner`: the class in the picture that the rival goes with most.

# %%
g = spatial_softmax(test.patches["scclip"] @ W + b)  # [n, N, C]
peak = g.argmax(dim=1).numpy()  # the best patch of each class
known = learn.labels.astype(float)
often = known.mean(axis=0)
lift = known.T @ known / len(known) / np.maximum(np.outer(often, often), 1e-9)

shares = object_shares(data)
pairs = nb06.pair_table(test.labels, scores, cls_only, shares, test.truth, peak, lift)
named = {k: [names[c] for c in pairs[k]] for k in ("label", "rival", "partner")}
pairs.assign(**named).round({"share": 3}).head(4)

# %%
more, low, high = nb06.interval(pairs, lambda w: np.average(-pairs.gain, weights=w))
config.claim(
    low > 0,
    f"within pictures PIAA has {more:.2f} [{low:.2f}, {high:.2f}] more wrong classes ahead than "
    "[CLS]:\n  it is behind, although its mAP at the same s is higher",
)

# %% [markdown]
# First the gallery. The three are chosen by rule: the pairs of picture and class whose number of wrong
# classes ahead falls most from [CLS] to PIAA, each picture and each class once. The heat map (dark:
# high patch score) is that class's, the outline its mask.

# %%
maps = g.transpose(1, 2).unflatten(2, (config.backbone_.grid, -1)).numpy()
scenes = nb06.Scenes(data, maps, {"[CLS]": cls_only, "PIAA": scores})
by_gain = pairs.sort_values("gain", ascending=False, kind="stable")
best = by_gain.drop_duplicates("picture").drop_duplicates("label").head(3)
words = [nb06.say_gain(pair, shares, names) for pair in best.itertuples()]
nb06.gallery_figure(best, words, scenes, "Best pictures: PIAA gains on [CLS]")

# %% [markdown]
# And those for which it rises most, with the reasons that hold.

# %%
worst = by_gain[::-1].drop_duplicates("picture").drop_duplicates("label").head(3)
words = [nb06.say_reason(pair, names) for pair in worst.itertuples()]
nb06.gallery_figure(worst, words, scenes, "Worst pictures: PIAA falls behind [CLS]")

# %% [markdown]
# Before the reasons, look at the heat maps, in both galleries: does the heat lie *inside* the outline? A
# class can move up although its best patch lies elsewhere, on what usually stands behind it, say. Then
# the answer is right for the wrong reason. So count: how often does the best patch of a class that was
# found (no wrong class ahead) lie on its own object, and how often would a random patch?

# %%
found = pairs[pairs.ahead == 0]
on_it = test.truth[found.picture, peak[found.picture, found.label]] == found.label
print(
    f"{len(found)} of {len(pairs)} pairs are found; in {100 * on_it.mean():.0f} % of them the best "
    f"patch lies on the object, a random patch in {100 * found.share.mean():.0f} %"
)

# %% [markdown]
# A gallery persuades easily: with three reasons at hand, one fits nearly every failure. So **test the
# reasons**. From here on the question is what PIAA *misses*, and no longer where it is behind [CLS].
# How often does each reason hold where PIAA *succeeds*? A reason that is as frequent among
# successes explains nothing. *Look for* the pair of bars where "missed" is much higher.

# %%
nb06.reason_figure(pairs)

# %%
missed = pairs.ahead > 0
share = {r: (100 * pairs[missed][r].mean(), 100 * pairs[~missed][r].mean()) for r in nb06.REASONS}
for reason, (when_missed, when_found) in share.items():
    print(
        f"{reason:10} holds in {when_missed:.0f} % of the missed, {when_found:.0f} % of the found"
    )
config.claim(
    share["tiny"][0] > 2 * share["tiny"][1],
    f"a missed class is tiny "
    f"{share['tiny'][0] / share['tiny'][1]:.1f} times as often as a found one",
)

# %% [markdown]
# Size is the reason that stands the test. Read the other two off the figure: where the bar of the
# missed is no higher than that of the found, the reason explains nothing *by itself*. But size may hide
# it: a rival's best patch, for one, seldom lands on an object that has hardly any patches. So compare
# like with like: part the pairs into five groups of about the same size, take missed less found in each, and
# average.

# %%
for reason in nb06.REASONS:
    step, low, high = nb06.interval(pairs, partial(nb06.at_like_size, pairs, reason))
    print(
        f"{reason:10} missed less found {share[reason][0] - share[reason][1]:+5.1f} points, "
        f"at like size {step:+5.1f} [{low:+.1f}, {high:+.1f}]"
    )

# %% [markdown]
# **What to look for.** An interval that leaves zero out. What looked the same on both sides may differ
# once sizes are alike; and a large lead may shrink, as that of *tiny* must, for inside a group sizes hardly
# differ.
#
# ### Exercise 2 · Explain a failure
#
# A picture shows a bus that fills a fifth of it, on a road. PIAA scores *car* above *bus*; there is no
# car. The best patch for *car* lies on the road beside the bus. In the pictures to learn from, cars and
# buses are together 2.4 times as often as chance. Which reason of this section fits?
#
# - **a**: tiny
# - **b**: look-alike
# - **c**: company
# - **d**: none of the three: [CLS] put the car first, and PIAA believed it
#
# Put the letter in `answer`, for example `answer = "a"`.
#
# **Expected output**: a tick and why; for a wrong letter, what speaks against it.
#
# <details><summary>Hint</summary>Go through the three definitions above one by one.</details>

# %% tags=["exercise"]
# solution
answer = "c"
# end solution

# %% tags=["check"]
nb06.exercise_2(answer)

# %% [markdown]
# ### Exercise 3 · Won and lost
#
# Each row of `pairs` is a picture and a class in it. PIAA **wins** a pair if it has no wrong class ahead
# of it (`ahead`) and [CLS] has (`ahead_cls`); it **loses** one the other way round. Compute the pairs
# won less the pairs lost. Put the number in `answer`.
#
# **Expected output**: a tick, and how many are won and lost. The sign should fit what section 5 printed
# about "none ahead".
#
# <details><summary>Hint</summary>`(pairs.ahead == 0) & (pairs.ahead_cls > 0)` is True where a pair is
# won; `.sum()` counts.</details>

# %% tags=["exercise"]
# solution
won = (pairs.ahead == 0) & (pairs.ahead_cls > 0)
lost = (pairs.ahead > 0) & (pairs.ahead_cls == 0)
answer = int(won.sum() - lost.sum())
# end solution

# %% tags=["check"]
nb06.exercise_3(answer, pairs)

# %% [markdown]
# ## 6 · A style that CLIP never saw
#
# *What if the pictures look different from all that CLIP was trained on?* Text vectors cannot know.
# But PVCL only needs unlabelled pictures, and those of the new style are free. So compare two
# classifiers on the unseen style: one learned from the old pictures, one from new ones. Same CLIP, same
# text, no label. (With photographs there is no second style, and the difference is zero.)

# %%
old_pictures = ladder(unseen, (W, b))["+ PAA = PIAA"]
new_pictures = rungs["unseen style"]["+ PAA = PIAA"]
difference, low, high = (
    100 * x for x in paired_bootstrap(unseen.labels, new_pictures, old_pictures, n=500)
)
for row in ("[CLS]", "patches + text, scclip", "+ PVCL, spread", "+ PAA = PIAA"):
    before, after = (100 * mean_average_precision(labels[w], rungs[w][row]).map for w in rungs)
    print(f"{row:24} {before:.1f} on test, {after:.1f} in the unseen style: {after - before:+.1f}")

# %%
config.claim(
    low > 0,
    f"learned from pictures of the new style instead of the old ones, PIAA gains "
    f"{difference:.1f} points there [{low:.1f}, {high:.1f}]",
)

# %% [markdown]
# All rows fall, and none is spared. But the classifier follows the style without a label: this is where
# learning from patches pays.
#
# ## 7 · A new class at test time
#
# *Tomorrow someone asks for a class that nobody thought of. Start again?* There are two ways.
#
# **By its word.** The GDA gives a class without rows its text vector as its mean. $\Omega$ was learned
# from the other classes and stays, so the old columns of $W$ stay too, and the new one is
#
# $$w_{new} = \Omega\,t_{new}, \qquad b_{new} = \log\tfrac1C - \tfrac12\,t_{new}^\top\Omega\,t_{new}.$$
#
# No picture is needed. $\log\frac1C$ is the same for all classes, so the softmax does not see it.
#
# **By its patches.** Run `select` once more on the unlabelled pictures, with the longer list of names.
#
# The new classes are those of the world's long list that most test pictures show.

# %%
new_names, new_labels = nb06.new_classes(config, 5)
longer = (*names, *new_names)
text_long = config.backbone_.encode_text(longer).cpu()
t = text_long[len(names) :]

W_word = torch.cat([W, omega @ t.T], dim=1)
b_word = torch.cat([b, -np.log(len(names)) - 0.5 * (t @ omega * t).sum(1)])

weights = spread_bank.probs.gather(1, spread_bank.labels[:, None])[:, 0]
fallback = GaussianDiscriminantAnalysis(prototypes=text_long.numpy(), weigh_covariance=False)
fallback.fit(spread_bank.features.numpy(), spread_bank.labels.numpy(), weights.numpy())
torch.testing.assert_close(W_word, torch.tensor(fallback.coef_.T).float(), rtol=1e-3, atol=1e-3)
print("One column for each new word is the estimator's fallback:", ", ".join(new_names))

# %%
W_own, b_own, _ = gda(*select(learn.patches["scclip"], text_long), text_long)
all_labels = np.concatenate([test.labels, new_labels], axis=1)
ways = {"[CLS]": cls_scores(test.cls, text_long, s)}
for way, w in (("its word", (W_word, b_word)), ("its patches", (W_own, b_own))):
    ways[way] = aggregate(test.patches["scclip"], test.cls, text_long, *w, s, m)
ap = {way: average_precision(all_labels, value) for way, value in ways.items()}
nb06.new_class_figure({way: a[len(names) :] for way, a in ap.items()}, new_names)

# %%
old = {way: 100 * np.nanmean(a[: len(names)]) for way, a in ap.items()}
before = 100 * mean_average_precision(test.labels, scores).map
before_cls = 100 * mean_average_precision(test.labels, cls_only).map
print(
    f"the old classes, [CLS] with the longer list: mAP {old['[CLS]']:.1f}, before {before_cls:.1f}"
)
moved = {way: old[way] - before for way in ("its word", "its patches")}
for way in moved:
    print(f"the old classes, new ones by {way}: mAP {old[way]:.1f}, before {before:.1f}")
config.claim(
    min(moved.values()) > -1,
    f"new classes do not harm the old ones: mAP moves by {moved['its word']:+.1f} (word) and "
    f"{moved['its patches']:+.1f} (patches) points",
)

# %% [markdown]
# A longer list also changes both softmaxes, so the old scores move, those of [CLS] too; compare with the
# lead of section 3.
#
# *Look for*: is either way always ahead? Compare with [CLS] too: where a mark lies left of the circle,
# the new column adds nothing to what [CLS] knows. With few pictures of a class among the test set its AP is
# rough, so differences of a few points mean nothing. What holds is that both ways work without a label,
# and that the word alone is enough to start.
#
# ### Exercise 4 · Add a class
#
# Write a function that adds one class to a linear classifier by its text vector. It gets `W` [D, C],
# `b` [C], the precision `omega` [D, D] and the unit vector `t` [D], all float32, and returns the new W
# [D, C + 1] and b [C + 1], as a tuple. Any constant that is the same in all entries of b is fine.
#
# **Expected output**: a tick. A wrong answer shows the smallest input on which it differs.
#
# <details><summary>Hint</summary>The two formulas above; `torch.cat` along the last dimension. In b, the
# old entries hold log(1/C) with the old C: use the same for the new one.</details>


# %% tags=["exercise"]
def add_class(W, b, omega, t):
    """W [D, C], b [C], omega [D, D] and t [D] to W [D, C + 1] and b [C + 1]."""
    # solution
    column = omega @ t
    new = -np.log(len(b)) - 0.5 * t @ column
    return torch.cat([W, column[:, None]], dim=1), torch.cat([b, new[None]])
    # end solution


# %% tags=["check"]
nb06.exercise_4(add_class)

# %% [markdown]
# ## 8 · A step beyond the paper: one encoder selects, another is learned
#
# *Must the classifier be learned on the very patches that the text reads?* The text reads SC-CLIP's
# patches better than CLIP's ordinary ones: look at the two rows "patches + text" of section 3.
# SC-CLIP makes them readable by averaging each patch with its likes, and an average may lose detail. The
# text needs readable patches; a classifier that is *learned* may need only to be told *which* patches to
# learn from. So let the text read SC-CLIP's patches, $\tilde x_i$, and learn from the ordinary embeddings
# $x_i$ of the same patches:
#
# $$p_{ic} = \operatorname{softmax}_c(60\,\tilde x_i \cdot t_c), \qquad
# \mu_c = \sum_i p_{ic}\, x_i \Big/ \sum_i p_{ic}.$$
#
# This is ours, not the paper's. In the package it is one more word, `selector`. By hand it is section 2
# again: glue the two embeddings of a patch together, let the text read the first half, and learn
# from the second.


# %%
def learn_two(split, selector="scclip"):
    """PIAA on CLIP's ordinary patches, which the text selects by reading the selector's."""
    scales = constants.CONSTANTS["mini_vanilla" if config.world == "mini" else config.world]
    two = PIAA(names, config.backbone_, encoder="vanilla", selector=selector, **scales)
    return two.fit_bank(bank(config, split, encoder="vanilla", selector=selector))


x = features(config, "learn", ("vanilla", "scclip")).patches
glued = torch.cat([x["scclip"], x["vanilla"]], dim=-1)
x, y, p = select(glued, torch.cat([text, torch.zeros_like(text)], dim=-1))
W_two, _, _ = gda(x[:, text.shape[1] :], y, p, text)
torch.testing.assert_close(W_two, learn_two("learn").coef_.T.cpu(), rtol=1e-3, atol=1e-3)
print("The glued patches give the W of PIAA(encoder='vanilla', selector='scclip').")

# %% [markdown]
# Four questions, each on both sets. Does the learned classifier read ordinary patches better than the
# text does? Is it the second encoder that helps, or would ordinary patches selected by themselves
# ("vanilla alone") do as well? Are two encoders ahead of one? And of [CLS], at PIAA's scale and
# at its own?

# %%
for where, split, f in (("test", "learn", test), ("unseen style", "learn_unseen", unseen)):
    x = f.patches["vanilla"]
    for row, selector in (("two encoders", "scclip"), ("vanilla alone", "vanilla")):
        two = learn_two(split, selector)
        evidence = spatial_softmax(two.decision_function(x)).amax(dim=1)
        rungs[where] |= {f"{row}, PVCL": evidence, f"{row}, PIAA": two.score_features(x, f.cls)}

read_better = [gain(w, "two encoders, PVCL", "patches + text, vanilla") for w in rungs]
max_only = [gain(w, "two encoders, PVCL", "+ PVCL, spread") for w in rungs]

# %%
by_second = [gain(w, "two encoders, PIAA", "vanilla alone, PIAA") for w in rungs]
beyond = [gain(w, "two encoders, PIAA", "+ PAA = PIAA") for w in rungs]
over_cls = [gain(w, "two encoders, PIAA", "[CLS]") for w in rungs]
over_own = [gain(w, "two encoders, PIAA", "[CLS] at its own s") for w in rungs]

# %%
steps = {
    "on the ordinary patches, PVCL beats the text": read_better,
    "PIAA of two encoders beats PIAA on ordinary patches alone": by_second,
    "PIAA of two encoders beats PIAA of one": beyond,
    "PIAA of two encoders beats [CLS] at PIAA's s": over_cls,
}
for what, of_step in steps.items():
    said = ", ".join(said for _, _, said in of_step)
    config.claim(all(low > 0 for low, _, _ in of_step), f"{what}, on both sets:\n  {said}")
said = ", ".join(said for _, _, said in over_own)
ahead_of_own = all(points > 0.5 for _, points, _ in over_own)
config.claim(ahead_of_own, f"PIAA of two encoders leads [CLS] at its own s on both sets: {said}")

# %% [markdown]
# *Look for* three things.
#
# - The lead over [CLS] at its own $s$, against that of section 3: PIAA of one encoder was behind on
#   `test`, PIAA of two is ahead. See how near zero the lower end of the interval comes there.
# - The lines "two encoders, PVCL - + PVCL, spread": without PAA, two encoders are *behind* one. So it
#   is not that ordinary patches are simply the better ones. The gain appears when PAA puts all classes
#   of a picture and [CLS] together; why, these lines do not say.
# - What was tuned. The scales $s$ and $m$ of one encoder and of two were chosen on the same pictures,
#   those of `val` and `val_unseen`, each pair for its own. And this variant is the best of about two dozen
#   that were tried on those 300 pictures, so expect less of it elsewhere than there.
#
# Whether two encoders help photographs as well has not been measured: that needs the real CLIP and the
# real pictures, so try it.
#
# ## 9 · What does it cost?
#
# *Twelve blocks for [CLS], and twelve again for the patches?* No: blocks 1 to 11 are the same for both.
# They run once, and only the last block branches (notebook 02). Timed here on one batch: CLIP's own
# `encode_image`, our [CLS] alone, and [CLS] with SC-CLIP's patches; the shortest of several runs,
# taken in turns. Then what comes on top: scoring. Learning happens once, not for each picture.

# %%
clip = config.backbone_
pixels = torch.stack([clip.preprocess(data[i]) for i in range(8)]).to(clip.device)
some = encode(clip, pixels)
plain = torch.no_grad()(lambda: clip.model.encode_image(pixels))
ways = {"CLIP's encode_image": plain, "[CLS]": partial(encode, clip, pixels, ())}
ways["[CLS] + scclip patches"] = partial(encode, clip, pixels, ("scclip",))
ways["PAA on these features"] = partial(piaa.score_features, some["scclip"], some["cls"])
ways["once: GDA on the bank"] = partial(piaa.fit_bank, spread_bank)
seconds = nb06.least_seconds(ways, rounds=4)
for name, value in seconds.items():
    each = "" if name.startswith("once") else f", {1000 * value / len(pixels):6.2f} ms a picture"
    print(f"{name:24}{1000 * value:8.1f} ms{each}")

# %% [markdown]
# A time depends on the machine and on what else it does. The **operations** (multiplications and
# additions in matrix products) do not, so the claim is about them.

# %%
one = pixels[:1]
plain_pass = nb06.operations(partial(clip.model.encode_image, one))
both = nb06.operations(partial(encode, clip, one, ("scclip",)))
print(
    f"a picture: {plain_pass / 1e6:.0f} million operations, with patches {both / 1e6:.0f} million"
)
time_ratio = seconds["[CLS] + scclip patches"] / seconds["CLIP's encode_image"]
print(f"time with patches, by plain CLIP's: {time_ratio:.2f} (this machine, now)")
config.claim(
    both < 1.5 * plain_pass,
    f"[CLS] and patches take {both / plain_pass:.2f} times the "
    f"operations of plain CLIP, far from two passes",
)

# %% [markdown]
# Operations are not seconds: what SC-CLIP adds is mostly comparing all patches with each other, with
# much sorting, masking and softmax that no product counts, and a busy machine blurs any time. Compare the
# two ratios above. The wider the tower, the less such extras weigh beside the blocks: ViT-B/16 is six
# times as wide as the mini-CLIP.
#
# ## 10 · Explore
#
# Choose a picture and a class. Left: where in the picture PIAA sees the class most (the colours go from
# this class's lowest patch to its highest), with the outline of its mask. Right: the scores of all classes by [CLS] and by PIAA, each
# sorted by itself; orange classes are in the picture, the chosen one is bold. The pictures to choose from
# are those of the gallery and the most crowded ones, so you can look for the reasons of section 5
# yourself.

# %%
most = np.argsort(-np.where(masked, test.labels.sum(axis=1), -1), kind="stable")[:6]
choice = list(dict.fromkeys([*worst.picture, *best.picture, *most.tolist()]))
look = partial(nb06.explore, scenes=scenes)
explorer(look, picture=choice, class_name=names)

# %% [markdown]
# Without a kernel: the first picture of the slider, where a class fell behind most, and that class.

# %%
look(int(worst.picture.iloc[0]), names[worst.label.iloc[0]])

# %% [markdown]
# **Think.** In the explorer the scores of [CLS] are flat and those of PIAA steep, or the other way
# round. Does that tell which one is better?
# <details><summary>Answer</summary>No. The scales $s$ and $m$ decide how steep a softmax is, and the order
# of the classes in a picture does not change with them in either branch; in PIAA's sum it may, for they
# also shift the balance between the two (notebook 05, section 5). What does change is the order of *pictures* for a
# class, and with it mAP: that is why a scale must be chosen, for both (notebook 05).</details>
#
# ### Exercise 5 · PIAA in ten lines
#
# Now from memory. Unlabelled pictures `learn` [n, N, D] to learn from, `patches` [B, N, D] and `cls` [B, D]
# to score, `text` [C, D], all unit vectors, and the scales `s` and `m`: return the scores [B, C]. Use
# the functions of this notebook, or `PatchBank`, `learn_classifier` and `spatial_softmax` of the package;
# "spread" (one patch of a picture for a class), share of [CLS] 0.1.
#
# **Expected output**: a tick. A wrong answer shows the first score that differs.
#
# <details><summary>Hint</summary>Three steps: bank, classifier, aggregation. In `PatchBank` the limit is
# `per_image=1`; fill it with `bank.update(learn, text, range(len(learn)))`, as in section 1. In
# `learn_classifier` the option is `"spread"`.</details>


# %% tags=["exercise"]
def ten_line_piaa(learn, patches, cls, text, s, m):
    """Unlabelled patches to learn from, and patches and [CLS] to score: scores [B, C]."""
    # solution
    own_bank = PatchBank(len(text), per_image=1)
    own_bank.update(learn, text, range(len(learn)))
    W, b, _ = learn_classifier(own_bank, text, "spread")
    evidence = spatial_softmax(patches @ W + b).amax(dim=1)
    by_patches = torch.softmax(m * evidence, dim=-1)
    by_cls = torch.softmax(s * cls @ text.T, dim=-1)
    return 0.9 * by_patches + 0.1 * by_cls
    # end solution


# %% tags=["check"]
nb06.exercise_5(ten_line_piaa)

# %% [markdown]
# ## What you have seen
#
# - **The estimator.** `fit` without labels, `predict_proba`, `patch_scores`, `save`, `load`. Three
#   functions of about thirty lines give the same W, b and scores: you can rebuild PIAA.
# - **The ablation.** Encoder and aggregation each add several points, and both intervals stay above zero.
#   The whole leads [CLS] at the same $s$. Against [CLS] at a scale of its own it is behind on `test` and
#   ahead in the unseen style. PVCL as released stays behind in this world, where its classes are learned from a handful of pictures. Overlapping
#   bars say little; paired intervals decide.
# - **Where it fails.** Some classes lose. A right answer may rest on the wrong patches: count it. Of three plausible reasons, size stands the test against the
#   successes; a reason is only as good as its base rate, and among objects of like size. Ranking within
#   pictures and mAP are different questions: here PIAA is ahead of [CLS] in mAP at the same $s$, and
#   behind it within pictures.
# - **New style, new class.** Unlabelled pictures of a new style improve the classifier there. A new class
#   costs one column of W, or one more selection, and does not harm the old ones. A step beyond the paper:
#   one encoder selects, another is learned; with PAA on top, that leads PIAA of one encoder and [CLS], at
#   either scale, on both sets.
# - **The cost.** One trunk serves [CLS] and patches: far fewer operations than two passes of plain CLIP.
#
# **Try next**: change the first line of the configuration to photographs and the paper's CLIP, and read
# the ablation again: which verdicts turn, and does section 8 hold? Or take another encoder in `PIAA(encoder=...)`, or your own
# folder of pictures and your own words.
#
# **In the paper**: the three steps together: mitigating semantic entanglement (patch encoders), PVCL
# (Stage I, Gaussian discriminant analysis, class-prototype fallback; Stages II and III in
# `purify="released"`), PAA; its table of results and its ablation. Section 8 is not in it.
#
# **References**
#
# - Wang, Deng, Hu, Zhao, Tai, Li, "[CLS] is Not Enough: Multi-Label Recognition via Patch-Level Inference
#   and Adaptive Aggregation", ICML 2026, arXiv 2605.25821.
# - Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021 (CLIP).
# - Kubokawa, Srivastava, "Estimation of the precision matrix of a singular Wishart distribution and its
#   application in high-dimensional data", Journal of Multivariate Analysis 99, 2008.
# - Efron, Tibshirani, "An Introduction to the Bootstrap", Chapman and Hall, 1993.
# - Pedregosa et al., "Scikit-learn: Machine Learning in Python", JMLR 12, 2011 (the estimator's manners).

# %% tags=["versions"]
print(versions())
