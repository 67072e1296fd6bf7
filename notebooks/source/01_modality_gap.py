# %% [markdown]
# # 01 · The modality gap
#
# <!-- badges -->
#
# **After this notebook you can**
#
# - measure the modality gap, see it, and separate pictures from texts with one plane;
# - say where the gap comes from: from the start, and from a loss that hardly pulls on it;
# - move texts along the gap, and derive from the formula which scores change and which do not;
# - say why a text vector is a poor classifier for patches, and how much there is to win;
# - tell the part of the gap that does no harm from the part that has to be learned.
#
# **Before**: notebook 00, or: what CLIP's [CLS] token and a text vector are. Vectors, means,
# softmax.
#
# **Time**: 25 minutes to read, one to run.

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

import numpy as np
import open_clip
import pandas as pd
import torch
import torch.nn.functional as F
from IPython.display import display
from sklearn import decomposition, linear_model, metrics, model_selection

from piaa_utils.ablation import separability
from piaa_utils.aggregation import cls_scores
from piaa_utils.encoders import encode
from piaa_utils.gda import GaussianDiscriminantAnalysis
from piaa_utils.lessons import explorer, features, nb01, versions
from piaa_utils.selection import patch_probabilities

# %% [markdown]
# ## 1 · Do pictures and texts mix?
#
# CLIP puts pictures and texts into one space, as vectors of length 1, and was trained so that a
# picture and its caption point the same way. So one would expect them to mix, a picture of a cat
# lying beside "a photo of a cat". Look at the **cosines** (the dot products of unit vectors: 1 for
# the same direction, 0 for a right angle) of four kinds of pairs.
#
# `pictures` are those of the test split, as [CLS] sees them. `text` holds the $t_c$ of the classes;
# `texts` those of many more sentences, so that their mean is not that of a handful: in the mini
# world one for each thing on its long list, classes and others; with photographs each class in
# several sentences.

# %%
x = features(config, "test")  # from the cache on disk, or computed now
pictures, text = x.cls, config.text.cpu()  # unit vectors [n, D], and t_c [C, D]
names, templates = nb01.text_list(config)
backbone = config.backbone_
texts = torch.cat([backbone.encode_text(names, (each,)) for each in templates]).cpu()
shows = torch.tensor(x.labels).bool()
print(f"{len(pictures)} pictures, {len(text)} class texts in text, {len(texts)} in texts")
nb01.cosine_figure(pictures, texts, shows, text)

# %% [markdown]
# **What to look for.** A picture and a text that it does not show are, on average, less alike than
# two pictures or two texts taken at random: each kind keeps to its own. The pairs that
# belong together lie further to the right. Training did not mix the rest.


# %%
def mean_of_pairs(v):
    """The mean cosine of two different vectors of a set."""
    return float((v @ v.T).sum() - len(v)) / (len(v) * (len(v) - 1))


strangers = float((pictures @ text.T)[~shows].mean())
alike = mean_of_pairs(pictures), mean_of_pairs(texts)
config.claim(
    strangers < min(alike),
    f"Two pictures {alike[0]:.2f}, two texts {alike[1]:.2f}, a picture and a text that it does "
    f"not show {strangers:.2f}",
)

# %% [markdown]
# The **modality gap** puts a number on this (Liang et al., 2022). With the mean picture $m_x$ and
# the mean text $m_t$,
#
# $$\delta = m_x - m_t, \qquad
# \lVert\delta\rVert^2 = \overline{\cos}(x, x') + \overline{\cos}(t, t')
# - 2\,\overline{\cos}(x, t),$$
#
# where the bars are means over all pairs, each vector with itself included. So the gap's squared
# length says in one number what the figure shows: how much more alike vectors are within their kind
# than across.

# %%
gap = pictures.mean(0) - texts.mean(0)
within_pictures = (pictures @ pictures.T).mean()
within_texts, across = (texts @ texts.T).mean(), (pictures @ texts.T).mean()
torch.testing.assert_close(gap.norm() ** 2, within_pictures + within_texts - 2 * across)
print(f"two pictures {within_pictures:.3f}, two texts {within_texts:.3f}, across {across:.3f}")
print(f"length of the gap {gap.norm():.3f}")

# %% [markdown]
# The same on four vectors, to check by hand: two pictures, near $(1, 0)$, and two texts, near
# $(0, 1)$.

# %% tags=["nbval-check-output"]
a, b = np.array([[1, 0], [0.8, 0.6]]), np.array([[0, 1], [0.6, 0.8]])
print("means", a.mean(0).round(2), b.mean(0).round(2))
print("length of the gap", np.linalg.norm(a.mean(0) - b.mean(0)).round(3))
within, across_them = [float((v @ v.T).mean()) for v in (a, b)], (a @ b.T).mean()
print("within", np.round(within, 2), "across", across_them.round(2))
print("from the cosines", np.sqrt(sum(within) - 2 * across_them).round(3))

# %% [markdown]
# Two finite samples never have exactly the same mean. How long a gap would chance give? Throw all
# vectors into one bag, draw as many "pictures" as before, call the rest "texts", and measure; a
# hundred times.

# %%
rng = np.random.default_rng(config.seed)
bag = torch.cat([pictures, texts])
chance = []
for _ in range(100):
    mixed = bag[torch.from_numpy(rng.permutation(len(bag)))]
    chance.append(float((mixed[: len(pictures)].mean(0) - mixed[len(pictures) :].mean(0)).norm()))
config.claim(
    float(gap.norm()) > 1.5 * max(chance),
    f"The gap is {gap.norm():.2f} long; the longest of 100 by chance is {max(chance):.2f}",
)

# %% [markdown]
# ### Exercise 1 · The gap in one line
#
# Write `gap_length(a, b)`: the length of the gap between two sets of vectors, tensors [n, D] and
# [m, D]; n and m may differ.
#
# **Expected output**: `✓ Exercise 1 is right.` On the four vectors above your function gives the
# length printed there.
#
# <details><summary>Hint</summary>
#
# The mean over rows is `a.mean(0)`, the length of a vector `v.norm()`. The mean distance of all
# pairs is another thing: it is large even where the two sets are the same.
#
# </details>


# %% tags=["exercise"]
def gap_length(a, b):
    """The distance between the mean of the rows of a and that of b."""
    # solution
    return (a.mean(0) - b.mean(0)).norm()
    # end solution


# %% tags=["check"]
nb01.exercise_1(gap_length)

# %% [markdown]
# ## 2 · Can the gap be seen?
#
# The space has too many dimensions to look at. **Principal component analysis** (PCA) turns it
# so that the first axes show as much of the spread as possible. With the centred vectors as rows
# of $Z$ and its singular value decomposition
#
# $$Z = U S V^\top, \qquad \text{coordinates} = Z V, \qquad
# \text{share of axis } k = s_k^2 / \textstyle\sum_j s_j^2 .$$
#
# So that neither kind outvotes the other, as many pictures as texts go in.

# %%
some = pictures[torch.from_numpy(nb01.spread_out(len(pictures), len(texts)))]
both = torch.cat([some, texts])
is_text = np.arange(len(both)) >= len(some)
Z = both - both.mean(0)
U, S, Vt = torch.linalg.svd(Z, full_matrices=False)
coordinates = (Z @ Vt[:2].T).numpy()
shares = (S**2 / (S**2).sum())[:2].tolist()
reference = decomposition.PCA(2).fit_transform(both.numpy())  # the sign of an axis is free
np.testing.assert_allclose(np.abs(coordinates), np.abs(reference), atol=1e-3)

in_gap_plane = (both @ nb01.gap_plane(both, gap)).numpy()
nb01.clouds_figure(coordinates, is_text, in_gap_plane, shares)

# %% [markdown]
# **What to look for.** On the left two clouds that overlap, with an arrow between their means. PCA
# is not asked for the gap; it shows much of it because the gap is one of the directions in which
# the vectors spread most. It need not be the first: what the pictures show spreads them too. On the
# right, seen along the gap on purpose, the same points come apart.
#
# How much of the gap's length survives in PCA's picture?

# %%
seen = float((Vt[:2] @ F.normalize(gap, dim=0)).norm())
by_chance = (2 / both.shape[1]) ** 0.5  # for a random direction, root mean square
config.claim(
    seen > 2 * by_chance,
    f"PCA's two axes hold {seen:.0%} of the gap's length; of a random direction, {by_chance:.0%}",
)

# %% [markdown]
# ## 3 · Can one plane separate them?
#
# In PCA's picture the clouds overlap. In all dimensions together they hardly do. A linear
# classifier says "text" where $x \cdot a + d > 0$; we learn $a$ and $d$ by logistic regression, on
# four fifths of the vectors, and ask it about the fifth that it has not seen, five times over. In a
# space of many dimensions a plane can separate a few points whatever they are, so only the held-out
# answer counts. And as there are more pictures than texts, accuracy is the mean of the two kinds'.

# %%
X, y = bag.numpy(), np.repeat([0, 1], [len(pictures), len(texts)])
model = linear_model.LogisticRegression(class_weight="balanced", C=100.0, max_iter=1000)
decision = model_selection.cross_val_predict(model, X, y, cv=5, method="decision_function")
parted = metrics.balanced_accuracy_score(y, decision > 0)
np.testing.assert_allclose(separability(pictures.numpy(), texts.numpy()), parted, atol=0.01)
nb01.line_figure(decision, y == 1)

# %%
shuffled = X[rng.permutation(len(X))]  # the same vectors, but who is a text is drawn by lot
control = separability(shuffled[: len(pictures)], shuffled[len(pictures) :])
config.claim(
    parted > 0.95 and control < 0.65,
    f"One plane tells pictures from texts in {parted:.1%} of the cases that it has not seen;\n  "
    f"with lots drawn, in {control:.1%}",
)

# %% [markdown]
# **Think.** CLIP still recognises things, although all pictures lie on one side of a plane and all
# texts on the other. Why is that no contradiction?
#
# <details><summary>Answer</summary>
#
# To recognise is to compare: which of the *texts* is closest to this picture? All texts are about
# equally far across the gap, so the distance across does not decide who is closest. Section 6 makes
# this exact.
#
# </details>
#
# ## 4 · Where does it come from? The start
#
# Is it learned? Build a CLIP of the same shape, with random initial weights, and give it the same
# pictures and texts. (The weights are open_clip's usual start, not the one this very model began
# with.) Three random seeds, so that nobody can blame one draw; few pictures, since the untrained
# network must encode them now.

# %%
sample = nb01.spread_out(len(pictures), 24)
data = config.dataset("test")
pixels = torch.stack([backbone.preprocess(data[i]) for i in sample])


def mean_cosines(a, b):
    """Mean cosines of two different pictures, two different texts, and across."""
    m, n = a.mean(0), b.mean(0)  # k m.m sums a vector's cosine with itself, 1, and k - 1 others
    pictures, texts = ((k * v @ v - 1) / (k - 1) for k, v in ((len(a), m), (len(b), n)))
    return {"two pictures": pictures, "two texts": texts, "a picture and a text": m @ n}


# %%
rows, fresh_gaps = [], []
for seed in range(3):
    fresh = nb01.fresh_clip(backbone, seed)
    a = encode(fresh, pixels, ())["cls"].cpu()
    b = torch.cat([fresh.encode_text(names, (each,)) for each in templates]).cpu()
    rows += [("fresh, 3 seeds", *each) for each in mean_cosines(a, b).items()]
    fresh_gaps.append(float((a.mean(0) - b.mean(0)).norm()))
rows += [("trained", *each) for each in mean_cosines(pictures[sample], texts).items()]
table = pd.DataFrame(rows, columns=["model", "pairs", "cosine"])
table["cosine"] = table.cosine.astype(float)
nb01.cones_figure(table)

# %% [markdown]
# **What to look for.** Before any training all pictures look nearly alike to the network, and so
# do all texts: each tower maps whatever comes in into a narrow **cone**. A deep network does that
# by itself, likely because its layers add the same biases and pass the same nonlinearities for
# every input. Two towers, two sets of random weights, two cones; and two random directions in a
# space of many dimensions are nearly at right angles, so the cones lie far apart.
#
# Training widens the cones and brings them closer. It does not join them.

# %%
config.claim(
    min(fresh_gaps) > 1.2 * float(gap.norm()),
    f"The gap untrained: {min(fresh_gaps):.2f} to {max(fresh_gaps):.2f}; trained {gap.norm():.2f}",
)
narrow = table[(table.model != "trained") & (table.pairs != "a picture and a text")].cosine.min()
config.claim(narrow > 0.6, f"Untrained, two of a kind have a mean cosine of at least {narrow:.2f}")

# %% [markdown]
# ## 5 · Why does training not close it? The temperature
#
# CLIP's loss, for $n$ pairs, finds each picture's text among all texts, and each text's picture
# among all pictures. With the scale $s$, one over the **temperature**,
#
# $$L = -\frac{1}{2n} \sum_i \Big[ \log \operatorname{softmax}_j(s\, x_i \cdot t_j)_i
# + \log \operatorname{softmax}_j(s\, x_j \cdot t_i)_i \Big].$$

# %%
some_x, some_t = pictures[: len(text)], text
logits = 20.0 * some_x @ some_t.T
to_texts = logits.log_softmax(dim=1).diagonal()
to_pictures = logits.log_softmax(dim=0).diagonal()
loss = -(to_texts + to_pictures).mean() / 2
torch.testing.assert_close(loss, nb01.contrastive_loss(some_x, some_t, 20.0))
torch.testing.assert_close(loss, open_clip.ClipLoss()(some_x, some_t, torch.tensor(20.0)))
v = torch.randn(text.shape[1])  # any vector, added to all texts
torch.testing.assert_close((logits + 20.0 * (some_x @ v)[:, None]).softmax(1), logits.softmax(1))

# %% [markdown]
# The last line says it: add one vector $v$ to *all* texts, and the first half of the loss does not
# notice, since every $x_i \cdot t_j$ grows by the same $x_i \cdot v$, which softmax drops. The
# second half does see it, as far as $x_j \cdot v$ differs from picture to picture; in its turn it
# is blind to a vector added to all pictures. The loss never asks whether a picture and its text are
# close, only whether they are closer than the others. So little in it pulls the two kinds together
# as such.
#
# And what does pull depends on the temperature. A toy shows it: no towers, 48 pictures and 48 texts
# that are free vectors on the sphere and walk down the loss, in 32 dimensions. They start in
# two cones, and, to compare, all over the sphere.

# %%
scales = (1.0, 3.0, 10.0, 30.0, 100.0)
cones = nb01.train_free_pairs(scales, two_cones=True)
everywhere = nb01.train_free_pairs(scales, two_cones=False)
nb01.toy_figure(cones, everywhere)

# %%
end, free = (
    each[each.step == each.step.max()].groupby("scale")[["gap", "loss", "found"]].mean()
    for each in (cones, everywhere)
)
print(f"two cones\n{end.round(3).to_string()}\n\nno cones\n{free.round(3).to_string()}")
low, high = end.gap[scales[0]], end.gap[scales[-1]]
config.claim(
    high > 5 * low and high > 0.25,
    f"Cones: a gap of {low:.3f} is left at scale {scales[0]:g}, {high:.3f} at {scales[-1]:g}",
)
started, left = everywhere[everywhere.step == 0].gap.mean(), free.gap[scales[-1]]
config.claim(
    left < 0.6 * high and left < 1.2 * started,
    f"No cones: {left:.3f} is left at scale {scales[-1]:g}, of {started:.3f}, which is chance",
)

# %% [markdown]
# **What to look for.** At a small scale (a high temperature) the gap closes at once. At a large one
# it falls a little and then stays. The tables say why. At every scale each picture ends with its
# own text as the closest (`found`). At a large scale that is enough: the softmax is sharp, the loss
# is practically 0, and with it the pull. At a small scale the loss stays high and goes on pulling,
# until the pairs coincide. OpenAI's CLIP ends at a scale of 100. On the right: the temperature
# *keeps* a gap that was there at the start (dotted). Without cones to start from, none arises: the
# blue line stays below its dotted one, the distance of the means of two small random samples.
#
# How far this goes: it is a toy with free vectors, one optimiser and few steps. A real CLIP has
# towers, noisy captions and a scale that is itself learned. Captions that name only a part of what
# a picture shows are another cause that has been found (Schrodi et al., 2024); it is not tested
# here.
#
# ### Exercise 2 · Why does the gap stay?
#
# At scale 100 the toy's gap stops shrinking early. Why?
#
# - **a**: It started farther away than at the other scales.
# - **b**: Once each picture's own text is the closest, the loss is nearly 0, and so is what pulls.
# - **c**: At that scale the loss is smallest when there is a gap.
# - **d**: A large scale makes the gradient small from the first step on.
#
# Put it in `answer`, the letter as a string, for example `answer = "a"`.
#
# **Expected output**: `✓ Exercise 2 is right.` and the reason.
#
# <details><summary>Hint</summary>
#
# Compare the columns `loss` and `found` of the table, and the first steps of the left figure.
#
# </details>

# %% tags=["exercise"]
# solution
answer = "b"
# end solution

# %% tags=["check"]
nb01.exercise_2(answer)

# %% [markdown]
# ## 6 · Move the texts along the gap
#
# If the gap is the trouble, close it: move every text towards the pictures,
#
# $$t_c' = \frac{t_c + \lambda\,\delta}{n_c}, \qquad
# n_c = \lVert t_c + \lambda\,\delta \rVert
# = \sqrt{1 + 2\lambda\, t_c \cdot \delta + \lambda^2 \lVert\delta\rVert^2},
# \qquad x \cdot t_c' = \frac{x \cdot t_c + \lambda\, x \cdot \delta}{n_c}.$$
#
# Before running it, read the last formula. The move adds $\lambda\, x \cdot \delta$, **the same
# number for all classes of one picture** (or patch).
#
# - *Compare classes within one picture* (argmax, softmax over classes): a number added to all
#   classes changes nothing. What changes anything is only the renormalisation, the $n_c$, which
#   differ a little from class to class and, taken together, act on the softmax as a smaller or
#   larger $s$.
# - *Compare pictures within one class* (average precision of the raw cosine): the other way round.
#   Dividing by $n_c$ changes nothing, since it is the same for all pictures of the class; but
#   $x \cdot \delta$ differs from picture to picture and mixes up the ranking.

# %%
s, shift = config.constants["cls_scale"], 1.0
plain = text + shift * gap  # moved, not renormalised
n_c = (1 + 2 * shift * text @ gap + shift**2 * gap @ gap).sqrt()
torch.testing.assert_close(plain / n_c[:, None], F.normalize(plain, dim=-1))
torch.testing.assert_close(
    (s * pictures @ plain.T).softmax(-1), (s * pictures @ text.T).softmax(-1), atol=1e-4, rtol=1e-3
)
moves = nb01.move_text(x, text, texts, s)
ap_plain = nb01.mean_average_precision(x.labels, (pictures @ plain.T).numpy()).map
ap_unit = moves.curves["[CLS]"]["cosine"][moves.shifts.tolist().index(shift)]
np.testing.assert_allclose(100 * ap_plain, ap_unit, atol=0.05)  # n_c changes no ranking of pictures
print(f"lengths n_c: from {n_c.min():.3f} to {n_c.max():.3f}")

# %% [markdown]
# The same on two patches and three classes, to check by hand. Each patch's winner stays when the
# texts move by $\delta = (1, -1)$; renormalised, the classes change against each other.

# %% tags=["nbval-check-output"]
patches, classes = np.array([[0.8, 0.6], [0.6, 0.8]]), np.array([[0, 1], [0.6, 0.8], [0.8, 0.6]])
moved = classes + np.array([1, -1])
unit = moved / np.linalg.norm(moved, axis=1, keepdims=True)
for what, prototypes in (("as they are", classes), ("moved", moved), ("renormalised", unit)):
    cosines = patches @ prototypes.T
    print(f"{what:13}", cosines.round(2).tolist(), "winners", cosines.argmax(1).tolist())

# %% [markdown]
# Now for all $\lambda$, on the real vectors. For [CLS] two scores are ranked: the raw cosine and
# $s_\text{cls} = \operatorname{softmax}_c(s \cdot \cos(\text{CLS}, t_c))$. For patches the share
# counts of those on an object whose closest text is that object's class; the gap is theirs, from
# the mean text to the mean patch. (All of it is measured on the test split, for looking, not for
# choosing a $\lambda$.)

# %%
nb01.moves_figure(moves)

# %% [markdown]
# **What to look for.** The dashed lines, without renormalisation, are flat: that is the formula.
# The raw cosine of [CLS] falls when the texts go far: then $x \cdot \delta$ ranks the pictures, the
# same way for all classes. The softmax and the patches change only through $n_c$.
#
# Then why does the softmax rise at *both* ends? There the $n_c$ are long, and dividing by them is a
# smaller scale $s$. The last cell below leaves the texts where they are and divides $s$ by the mean
# length $\bar n$: that does about as well. So the rise is no effect of closing the gap.

# %%
cosine, softmax, flat = moves.curves["[CLS]"].values()
argmax, flat_patches = moves.curves["patches"].values()
config.claim(
    np.ptp(flat) < 0.1 and np.ptp(flat_patches) < 0.1,
    f"Without renormalisation nothing moves: {np.ptp(flat):.3f} points of mAP, "
    f"{np.ptp(flat_patches):.3f} points of patches",
)
config.claim(
    cosine.max() - min(cosine[0], cosine[-1]) > 3,
    f"[CLS], raw cosine: from {min(cosine[0], cosine[-1]):.1f} at an end to {cosine.max():.1f} mAP",
)

# %%
start = softmax[nb01.SHIFTS.index(0.0)]
for end in (0, -1):
    shift = nb01.SHIFTS[end]
    mean_length = (text + shift * gap).norm(dim=-1).mean()
    scores = cls_scores(pictures, text, s / mean_length)  # the texts where they are
    unmoved = 100 * nb01.mean_average_precision(x.labels, scores.numpy()).map
    config.claim(
        mean_length > 1.2 and abs(unmoved - softmax[end]) < 1,
        f"Shift {shift:+g}: mean length {mean_length:.2f}, softmax {softmax[end]:.1f} mAP;\n  not "
        f"moved, with s divided by that length, {unmoved:.1f}; not moved, with s, {start:.1f}",
    )

# %% [markdown]
# The explorer moves the texts while you watch. *Question*: when the texts lie amid the patches,
# what has become of the share read right? (It needs a running kernel; the figure above shows both
# curves, the one below the explorer at its two main settings.)

# %%
explorer(
    partial(nb01.explore_moves, moves=moves),
    kind=list(nb01.KINDS),
    shift=[each for each in nb01.SHIFTS if each >= 0],
)

# %%
display(nb01.explore_moves("[CLS]", 1.0, moves))
nb01.explore_moves("patches", 1.0, moves)

# %% [markdown]
# ### Exercise 3 · Move texts
#
# Write `move(text, gap, shift)`: the texts [C, D] moved by `shift` times the vector `gap` [D], and
# brought back to unit length.
#
# **Expected output**: `✓ Exercise 3 is right.` The text $(0, 1)$, moved by $(1, 0)$, becomes
# $(0.71, 0.71)$.
#
# <details><summary>Hint</summary>
#
# Broadcasting adds a vector to every row. `F.normalize(v, dim=-1)` divides each row by its length.
#
# </details>


# %% tags=["exercise"]
def move(text, gap, shift):
    """The texts moved along the gap, each of unit length again."""
    # solution
    return F.normalize(text + shift * gap, dim=-1)
    # end solution


# %% tags=["check"]
nb01.exercise_3(move)

# %% [markdown]
# ### Exercise 4 · What cannot change?
#
# All texts are moved by one vector. Which of these can *not* change, whatever the vector?
#
# - **a**: the order of the pictures by their raw cosine with "a photo of a cat", not renormalised;
# - **b**: the class that wins at a patch, renormalised;
# - **c**: the class that wins at a patch, not renormalised;
# - **d**: none of them: all can change.
#
# Put it in `answer`, the letter as a string, for example `answer = "a"`.
#
# **Expected output**: `✓ Exercise 4 is right.` and the reason.
#
# <details><summary>Hint</summary>
#
# Write down the score of one patch for two classes, and subtract.
#
# </details>

# %% tags=["exercise"]
# solution
answer = "c"
# end solution

# %% tags=["check"]
nb01.exercise_4(answer)

# %% [markdown]
# ## 7 · How poor a classifier of patches is the text?
#
# The rest of PIAA works on **patches**, the small squares into which the picture is cut (here as
# the encoder SC-CLIP sees them; notebook 02 is about encoders). The text reads a patch by its
# closest $t_c$. How much better could it be read *from the same features*? For this, cheat: take
# the masks, which say what each patch shows, and learn from the patches of a learn split
#
# - the **nearest class mean**: $\mu_c$, the mean of the patches of class $c$, in place of $t_c$,
#   $$\hat y = \arg\min_c \lVert x - \mu_c \rVert^2
#   = \arg\max_c \; x \cdot \mu_c - \tfrac12 \lVert\mu_c\rVert^2;$$
# - **Gaussian discriminant analysis** (GDA): the same with a distance that knows how patches spread
#   about their mean. With the precision $\Omega$, the inverse of their covariance (shrunk;
#   notebook 04),
#   $$\hat y = \arg\max_c \; x \cdot W_c + b_c, \qquad W = \Omega\mu^\top, \qquad
#   b_c = \log\tfrac1C - \tfrac12\, \mu_c^\top \Omega\, \mu_c .$$
#
# An **oracle** like this is no method: it uses labels that PIAA does not have. It measures the
# **head-room**, what there is to win.
#
# The mini world has four splits for this: `learn` and `test` in the art styles that CLIP was
# trained on, `learn_unseen` and `test_unseen` in one that it never saw. (Photographs: `learn` and
# `test`.)

# %%
learned, read, t = {}, {}, text.double().numpy()
for split in dict.fromkeys(learn for learn, _ in nb01.world_pairs(config)):
    rows, classes = nb01.object_patches(features(config, split))
    learned[split] = GaussianDiscriminantAnalysis(prototypes=t).fit(rows, classes)
for pair in nb01.world_pairs(config):
    gda = learned[pair[0]]
    rows, truth = nb01.object_patches(features(config, pair[1]))
    by_mean = (rows @ gda.means_.T - 0.5 * (gda.means_**2).sum(1)).argmax(1)
    W = gda.precision_ @ gda.means_.T
    b = np.log(1 / len(t)) - 0.5 * np.einsum("cd,dc->c", gda.means_, W)
    np.testing.assert_allclose(rows[:500] @ W + b, gda.decision_function(rows[:500]), rtol=1e-6)
    said = {"text": (rows @ t.T).argmax(1), "nearest mean": by_mean, "GDA": gda.predict(rows)}
    read[pair] = (truth, said)

# %%
table = pd.DataFrame(
    [
        (f"measured on {measured}\nlearned on {learn}", reader, 100 * np.mean(labels == truth))
        for (learn, measured), (truth, said) in read.items()
        for reader, labels in said.items()
    ],
    columns=["sets", "reader", "right"],
)
nb01.readers_figure(table)

# %% [markdown]
# **What to look for.** The text does not read what the patches know: GDA, from the very same
# features, is ahead. The nearest mean may or may not be: a better place for the prototype alone is
# little help on the styles that CLIP was trained on. Far more is to be won where the pictures look
# unlike those of the training (the third group, learned on pictures of that same style; the words
# for things do not change with the style, but the patches do). Learned on *other* styles, as in the
# second group, less of it carries over.

# %%
right = {pair: {r: 100 * np.mean(p == truth) for r, p in said.items()}
         for pair, (truth, said) in read.items()}  # fmt: skip
for (learn, measured), each in right.items():
    print(f"{measured}, learned on {learn}: nearest mean - text "
          f"{each['nearest mean'] - each['text']:+.1f}, GDA - text "
          f"{each['GDA'] - each['text']:+.1f} points")  # fmt: skip
first, last = list(right.values())[0], list(right.values())[-1]
gains = [each["GDA"] - each["text"] for each in right.values()]
config.claim(
    gains[0] > 1.5 and gains[-1] > 3 and gains[-1] == max(gains),
    f"Head-room: text {first['text']:.1f}, oracle {first['GDA']:.1f} % on the first set; "
    f"text {last['text']:.1f}, oracle {last['GDA']:.1f} % on the last",
)

# %% [markdown]
# And the cheap cure of section 6? Moving the texts by any $\lambda$ is a move of one vector; it
# wins little of what the oracle shows. This is even the best $\lambda$ chosen on the test set
# itself.

# %%
last_pair = nb01.world_pairs(config)[-1]
unseen = features(config, last_pair[1])
rows, truth = nb01.object_patches(unseen)
delta = (unseen.patches["scclip"].flatten(0, 1).mean(0) - texts.mean(0)).double().numpy()
curve = []
for shift in nb01.SHIFTS:
    moved = t + shift * delta
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    curve.append(100 * np.mean((rows @ moved.T).argmax(1) == truth))
best, plain_text = max(curve), curve[nb01.SHIFTS.index(0.0)]
config.claim(
    best - plain_text < 0.5 * (last["GDA"] - last["text"]),
    f"The best shift wins {best - plain_text:.1f} points on the last set, the oracle "
    f"{last['GDA'] - last['text']:.1f}",
)

# %% [markdown]
# In a picture. It is the one of the last set in which the oracle gains most patches on the text,
# with the classes that gain there (up to two). Left, the text's probability of the class,
# $\operatorname{softmax}_c(60\, x_i \cdot t_c)$; right, GDA's. (With the scale 60 the paper has the
# text read patches too, where it looks for some to learn from. That is Stage I of PVCL, patch-based
# visual classifier learning, the subject of notebooks 03 and 04. The paper's $\Omega$ is about
# $D/n$ times the inverse covariance, so that with this many rows its softmax is nearly flat
# (notebook 04, section 4). The winner is the same; for probabilities we take the factor out.)

# %%
patches, gda, said = unseen.patches["scclip"], learned[last_pair[0]], read[last_pair][1]
on = unseen.truth >= 0
gained = np.zeros(on.shape)
gained[on] = (said["GDA"] == truth).astype(float) - (said["text"] == truth)
index = int(gained.sum(1).argmax())
here = unseen.truth[index]
by_class = {int(c): gained[index][here == c].sum() for c in np.unique(here[here >= 0])}
most = sorted((c for c in by_class if by_class[c] > 0), key=by_class.get, reverse=True)[:2]
n_over_d = (features(config, last_pair[0]).truth >= 0).sum() / len(delta)
print("patches gained:", ", ".join(f"{config.class_names[c]} {by_class[c]:.0f}" for c in most))

# %%
logits = {
    "text": 60 * patches[index].double() @ torch.from_numpy(t).T,
    "GDA": n_over_d * torch.from_numpy(gda.decision_function(patches[index].numpy())),
}
p_text = patch_probabilities(patches[index], text)
torch.testing.assert_close(logits["text"].softmax(-1).float(), p_text, atol=1e-4, rtol=0)
grid = backbone.grid
maps = {r: z.softmax(-1)[:, most].T.reshape(-1, grid, grid) for r, z in logits.items()}
scenes = config.dataset(last_pair[1])
masks = [scenes.masks(index) == c for c in most]
nb01.maps_figure(scenes.paths[index], [config.class_names[c] for c in most], maps, masks)

# %% [markdown]
# **What to look for.** Inside the white outline the class should be dark, outside light. Outside,
# both readers are at a loss: they know the classes only, and have no name for the background, so
# some class must win there too. And this is a case chosen because the text does badly; most
# pictures differ less.
#
# ### Exercise 5 · Where is the head-room?
#
# A small investigation. `truth` and `said["text"]`, `said["GDA"]` hold, for every patch on an
# object of the last set, its class and what the two readers say. For which class is the head-room
# largest, and how large is it? Wanted is the share of that class's patches that GDA reads right
# minus the share that the text does, in points (per cent), to one decimal or better. Put it in
# `answer`.
#
# **Expected output**: `✓ Exercise 5 is right.` The number is larger than the head-room over all
# patches: some classes have hardly any, for some the text says nearly always something else.
#
# <details><summary>Hint</summary>
#
# For one class: `of = truth == c`, then `(said["GDA"][of] == c).mean()`. Loop over
# `np.unique(truth)` and take the largest difference.
#
# </details>

# %%
truth, said = read[last_pair]
print(f"{len(truth)} patches, {len(np.unique(truth))} classes, readers: {', '.join(said)}")

# %% tags=["exercise"]
# solution
gains = {}
for c in np.unique(truth):
    by_gda, by_text = (np.mean(said[reader][truth == c] == c) for reader in ("GDA", "text"))
    gains[config.class_names[c]] = 100 * (by_gda - by_text)
answer = max(gains.values())
print(f"{max(gains, key=gains.get)}: {answer:.1f} points")
# end solution

# %% tags=["check"]
nb01.exercise_5(answer, truth, said["text"], said["GDA"])

# %% [markdown]
# ## 8 · Which part of the gap does the harm?
#
# The way from a text to its patches, split in two: what all classes share, and what is a class's
# own,
#
# $$\mu_c - t_c = \underbrace{\bar\mu - \bar t}_{\text{shared}} + \underbrace{(\mu_c - \bar\mu) -
# (t_c - \bar t)}_{\text{own}}, \qquad \bar\mu = \tfrac1C \sum_c \mu_c,\quad
# \bar t = \tfrac1C \sum_c t_c .$$
#
# The shared part is the gap, and moves no argmax (section 6). The own part moves it. Try all
# prototypes with both distances of section 7: the text, the text moved by the shared part, and the
# class means; with the ordinary distance, and with the oracle's covariance.

# %%
gda, (rows, truth) = learned[last_pair[0]], nb01.object_patches(unseen)
way = gda.means_ - t
shared = way.mean(0)
own = way - shared
np.testing.assert_allclose(t + shared + own, gda.means_)
part = len(t) * (shared**2).sum() / (way**2).sum()
still = ((rows @ (t + shared).T).argmax(1) != (rows @ t.T).argmax(1)).mean()
prototypes = {"text": t, "text + shared part": t + shared, "class means": gda.means_}
distances = {"ordinary distance": None, "oracle's covariance": gda.precision_}
recipe = pd.DataFrame(
    {d: {p: 100 * np.mean(nb01.nearest(rows, m, omega) == truth) for p, m in prototypes.items()}
     for d, omega in distances.items()}
)  # fmt: skip
nb01.recipe_figure(recipe, f"Patches read right (%), {last_pair[1]}")

# %%
corner = recipe.loc["class means", "oracle's covariance"]
rest = recipe.drop(index="class means")
config.claim(
    still < 0.001 and np.ptp(rest.iloc[:, 0]) < 2,
    f"The shared part is {part:.0%} of the squared way; it changes the winner of {still:.2%} of\n  "
    f"the patches by cosine, and costs or wins {np.ptp(rest.iloc[:, 0]):.1f} points by distance",
)
config.claim(
    corner > rest.to_numpy().max() + 3 and rest["oracle's covariance"].max() < corner - 10,
    f"Means and covariance of patches together read {corner:.1f} %; with the text for a prototype\n  "
    f"at most {rest.to_numpy().max():.1f} %, and with the covariance {rest.iloc[:, 1].max():.1f} %",
)

# %% [markdown]
# **What to look for.** The first two rows of the left column hardly differ: closing the gap as such
# wins nothing. Right column: the patches' covariance with the *text* as prototype is a disaster.
# The text is no member of the patches' cloud, and a distance that divides by how little patches
# spread in most directions blows up just the differences between text and patches, and the own part
# with the shared. Means and covariance belong together, and both must come from patches.
#
# That is the plan of PVCL: learn $\mu_c$ and $\Omega$ from patches, and use the text only to guess
# which patches to trust, since there are no labels. Notebook 03 does the guessing, 04 the learning.
#
# **Think.** The masks' labels gave $\mu_c$ here. PVCL has only the text's own guesses, and the text
# reads many patches wrongly. What could go wrong?
#
# <details><summary>Answer</summary>
#
# A class's mean is then taken over patches many of which show something else; the classifier learns
# the text's errors. So not all patches may be used, only those that the text is sure of, and one
# has to check whether sure means right. That is notebook 03.
#
# </details>

# %% [markdown]
# ## What you have seen
#
# - *Measure, see, separate.* The gap is the distance of the mean picture and the mean text; its
#   square equals how much more alike vectors are within their kind than across. It is far longer
#   than chance makes it, shows in a PCA, where the clouds still overlap, and one plane parts
#   pictures from texts it has not seen.
# - *Where it comes from.* Untrained towers already map into two narrow cones. The loss asks only
#   which pair is closest, not how close; and at a low temperature it is used up before the gap is
#   closed. The toy keeps a gap rather than making one.
# - *Moving the text.* $x \cdot t_c$ changes by $\lambda\, x \cdot \delta$, the same for all
#   classes: argmax and softmax over classes change only through the renormalisation (for the
#   softmax largely a change of scale), the raw cosine's ranking of pictures only through
#   $x \cdot \delta$.
# - *Text against patches.* From the same features, an oracle with the masks' labels reads more
#   patches than the text, most of all in an art style that CLIP never saw. No shift of the texts
#   gets that.
# - *Harmless and harmful.* The shared part of the way from texts to patches moves no argmax. Each
#   class's own part, and the covariance that goes with it, is what PVCL must learn.
#
# **Try next**: in the first code cell of section 7, at both places,
# `nb01.object_patches(features(config, split, ("vanilla",)), "vanilla")` (the second has `pair[1]`
# for `split`), and draw its bars again: does the text read the patches of CLIP's own last block as
# well as SC-CLIP's, and is the head-room larger? (What follows the bars goes on with SC-CLIP's
# patches.) In section 5, other step counts: does scale 30 close the gap if
# it may walk ten times as long? In section 1, the pictures of `test_unseen`: is their gap longer?
#
# **In the paper**: the motivation of PVCL, and the form of its classifier (Gaussian discriminant
# analysis with a shared covariance, learned from the patches that Stage I picks). The toy, the
# untrained towers and the split into shared and own part are ours, not the paper's.
#
# **References**: Wang et al., "[CLS] is Not Enough", ICML 2026, arXiv 2605.25821. Liang et al.,
# "Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive Representation Learning",
# NeurIPS 2022, arXiv 2203.02053. Schrodi et al., "Two Effects, One Trigger: On the Modality Gap,
# Object Bias, and Information Imbalance in Contrastive Vision-Language Models", arXiv 2404.07983.
# Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML
# 2021, arXiv 2103.00020. Tools: open_clip, scikit-learn.

# %% tags=["versions"]
print(versions())
