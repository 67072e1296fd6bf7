# %% [markdown]
# # 00 · Start here: why is [CLS] not enough?
#
# <!-- badges -->
#
# This series takes apart **PIAA** (*P*atch-level *I*nference and *A*daptive *A*ggregation), the method
# of Wang et al., "[CLS] is Not Enough", ICML 2026: "the paper" from here on.
#
# **After this notebook you can**
#
# - say what CLIP's [CLS] token names in a picture of several things, and what it leaves out;
# - tell single-label from multi-label recognition, and a softmax from independent scores;
# - compute mean average precision (mAP), the number of the paper's table, by hand;
# - run the whole of PIAA in a few lines, and say in which notebook each of its steps is opened up.
#
# **Before**: Python and a little PyTorch. You need to know nothing about CLIP.
#
# **Time**: 15 minutes to read, under one to run.

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
import torch
from IPython.display import Markdown

from piaa_utils.aggregation import cls_scores
from piaa_utils.lessons import bank, explorer, features, mask_or_none, nb00, versions
from piaa_utils.metrics import mean_average_precision, paired_bootstrap
from piaa_utils.pipeline import PIAA
from piaa_utils.plots import scene_figure

# %% [markdown]
# ## 1 · One picture, one name
#
# CLIP has two halves. One turns a picture into a vector, the other turns a sentence into a vector
# of the same length, and the two were trained together so that a picture and its caption point the
# same way. To ask what a picture shows, compare its vector with those of "a photo of a cat", "a
# photo of a dog" and so on, and take the closest.
#
# The picture's vector is read from one single place: a token called **[CLS]**, which looked at all
# patches (small squares) of the picture and had to sum them up. A caption names what strikes a person most. So
# what does [CLS] say when there are four things to name?
#
# The scores, in the paper's notation ($t_c$ is the unit text vector of class $c$; $s$, a scale, is in the
# configuration's constants and printed below):
#
# $$s_\text{cls} = \operatorname{softmax}_c\big(s \cdot \cos(\text{CLS},\, t_c)\big)$$

# %%
data = config.dataset("test")
x = features(config, "test")  # from the cache on disk, or computed now
names, text, s = config.class_names, config.text.cpu(), config.constants["cls_scale"]

cosine = x.cls @ text.T  # unit vectors: [pictures, classes]
by_hand = torch.exp(s * cosine) / torch.exp(s * cosine).sum(dim=1, keepdim=True)
scores = {"[CLS]": cls_scores(x.cls, text, s)}
torch.testing.assert_close(by_hand, scores["[CLS]"])
print(f"s = {s:g}, scores of {len(data)} pictures for {len(names)} classes")

# %% [markdown]
# The package's `cls_scores` computes just that. Now one picture. It is not a random one: of those
# that show four classes or more, and whose largest class [CLS] ranks first, it is the one whose
# smallest class [CLS] ranks lowest. How common such cases are comes right after.

# %%
pixels = nb00.class_pixels(data)  # how much of each class is seen, known from the masks
many = (data.labels.sum(1) >= 4) & (pixels.sum(1) > 0)
rank = (-scores["[CLS]"].numpy()).argsort(1).argsort(1)
smallest = np.where((data.labels == 1) & (pixels > 0), pixels, pixels.max() + 1).argmin(1)
row = np.arange(len(data))
typical = many & (rank[row, pixels.argmax(1)] == 0)
picture = int(np.where(typical, rank[row, smallest], -1).argmax())
lost = smallest[picture]
print(f"its smallest class: {names[lost]}, place {rank[picture, lost] + 1} of {len(names)}")
nb00.explore(picture, 8, data, {"[CLS]": scores["[CLS]"].numpy()})

# %% [markdown]
# **What to look for.** Blue bars are classes that are in the picture (it may also hold things that
# are in no list). What is largest is at the top; what is small is lost among things that are not
# there at all, or falls off the list.
#
# Is that the rule? Take every picture of the test set, ask [CLS] for as many names as there are
# classes in it, and count how often it names the class with the most pixels, and how often the
# others.

# %%
hit = nb00.named(scores["[CLS]"].numpy(), data.labels)
seen = (data.labels == 1) & (pixels > 0)
biggest = seen & (pixels == pixels.max(1, keepdims=True))
share = {"the biggest": hit[biggest].mean(), "all others": hit[seen & ~biggest].mean()}
Markdown(
    "| class | named by [CLS] |\n|---|---|\n"
    + "\n".join(f"| {k} | {v:.0%} |" for k, v in share.items())
)

# %%
config.claim(
    share["the biggest"] > 1.2 * share["all others"],
    f"[CLS] names the biggest class of a picture in {share['the biggest']:.0%} of cases, "
    f"the others in {share['all others']:.0%}",
)

# %% [markdown]
# ## 2 · Softmax or independent scores?
#
# In **single-label** recognition one class is right, and a softmax fits: its shares sum to 1, so
# one class's gain is the others' loss. In **multi-label** recognition any number of classes may be
# right. Suppose a picture shows a cat and a dog, equally well, and no bus:

# %% tags=["nbval-check-output"]
logits = torch.tensor([3.0, 3.0, 0.0])  # cat, dog, bus
shares = logits.softmax(0)
print("softmax:    ", shares.numpy().round(2), " sum", round(float(shares.sum()), 2))
print(
    "independent:",
    logits.sigmoid().numpy().round(2),
    " sum",
    round(float(logits.sigmoid().sum()), 2),
)

# %% [markdown]
# The softmax gives cat and dog just under one half each: with a threshold at one half it names
# nothing. Independent scores (a sigmoid for each class) say yes twice. But a sigmoid asks "is this
# logit above zero?", and CLIP's cosines were never trained to have a meaningful zero. What is left
# is their **order**, and that is what is measured next.
#
# **Think.** PIAA's final scores are softmax shares too. Why is that no contradiction?
# <details><summary>Answer</summary>Because the measure, mAP, compares the same class over all
# pictures and looks at nothing but the order. A share of 0.2 may be the highest that a class
# reaches in any picture. Notebook 05 shows what the softmax does to that order.</details>

# %% [markdown]
# ## 3 · mAP by hand, on five pictures
#
# Take one class, "cat", and sort the pictures by its score. Walk down the list; at each picture
# that really shows a cat, note the share of cats so far: the *precision*. The mean of these notes
# is the **average precision** (AP) of the class, and its mean over the classes is **mAP**.
#
# $$\text{AP} = \frac{1}{\#\text{cats}} \sum_{k\,:\,\text{picture } k \text{ shows a cat}}
# \frac{\text{cats among the first } k}{k}$$

# %% tags=["nbval-check-output"]
shows_cat = np.array([1, 0, 1, 0, 1])  # five pictures, best score first
precision = []
for k in range(1, 6):
    cats = shows_cat[:k].sum()
    note = f"noted {cats}/{k}" if shows_cat[k - 1] else ""
    print(f"place {k}: {'cat' if shows_cat[k - 1] else '-  '}  {note}")
    if shows_cat[k - 1]:
        precision.append(cats / k)
by_hand = np.mean(precision)
print(f"AP = {by_hand:.4f}")

# %%
score = np.array([0.9, 0.8, 0.5, 0.4, 0.1])
package = mean_average_precision(shows_cat[:, None], score[:, None]).map
np.testing.assert_allclose(by_hand, package)
any_rising_function = mean_average_precision(shows_cat[:, None], np.exp(50 * score)[:, None]).map
config.claim(
    package == any_rising_function,
    f"only the order counts: AP stays {package:.4f} if each score s becomes exp(50 s)",
)

# %% [markdown]
# ## 4 · PIAA in a few lines
#
# PIAA asks the same frozen CLIP again, but it reads the **patches**: a picture of 224 × 224 pixels
# is cut into a grid of 14 × 14 squares of 16 × 16 pixels each, and each of them has a token of its own. It takes three steps, and
# trains nothing:
#
# 1. an **encoder** gets a clean embedding for each patch (notebook 02);
# 2. from patches of pictures *without labels*, those that the text is surest of are picked
#    (notebook 03), and a **visual classifier** is computed from them in closed form (notebook 04);
#    the paper calls this PVCL, patch-based visual classifier learning;
# 3. the patches' answers and [CLS] are **aggregated** to one score for each class (notebook 05): PAA,
#    prediction adaptive aggregation.
#
# In `piaa_utils` that is the following. (`fit_bank` and `score_features` take features from the
# cache, so that you need not wait; `piaa.fit(pictures)` and `piaa.predict_proba(pictures)` do the
# same from the files, and notebook 06 shows that the numbers are the same.)

# %%
piaa = PIAA(names, config.backbone_, **config.constants)  # the frozen CLIP and the class names
piaa.fit_bank(bank(config, "learn"))  # unlabelled pictures in, a classifier out
scores["PIAA"] = piaa.score_features(x.patches[piaa.encoder], x.cls)  # [pictures, classes]

for method, value in scores.items():
    print(f"{method:6} mAP {100 * mean_average_precision(data.labels, value).map:.1f} %")

# %%
gain, low, high = (100 * v for v in paired_bootstrap(data.labels, scores["PIAA"], scores["[CLS]"]))
config.claim(
    low > 0,
    f"PIAA is {gain:.1f} points above [CLS] at the same s (95 % interval {low:.1f} to {high:.1f})",
)

# %% [markdown]
# **What to look for.** The interval comes from drawing the test pictures again and again with
# replacement: if it excludes zero, the gain is not the luck of these pictures. How large the gain
# is depends on the CLIP, on the pictures and on the scales: a [CLS] with a scale of its own is a harder
# rival (notebook 05, section 5). Notebook 06 takes the gain apart, step by step.
#
# PIAA scores every patch, so one may also ask *where* it sees a class. Here is the picture from above,
# with the outline of each object from the mask. The number beside a name is the score of the whole
# picture; the colours are those of its patches.

# %%
shown = np.flatnonzero(data.labels[picture])
maps = piaa.patch_scores(data.paths[picture])[shown]
mask = mask_or_none(data, picture)
masks = None if mask is None else [mask == c for c in shown]
of_picture = scores["PIAA"][picture, shown]
scene_figure(data.paths[picture], [names[c] for c in shown], maps, of_picture, masks)

# %%
best = np.array([m.argmax() for m in maps.flatten(1).numpy()])
on_it = [x.truth[picture, patch] == c for patch, c in zip(best, shown, strict=True)]
Markdown(
    f"**Read the colour bar before you judge.** All patches lie between {maps.min():.4f} and "
    f"{maps.max():.4f}, close to 1/{len(names)} (notebook 04, section 4, says why), and for {sum(on_it)} of {len(shown)} classes the "
    "highest patch is on the object. Notebook 02 asks why a patch speaks of what it does not show."
)

# %% [markdown]
# ## 5 · Explore: who names what?
#
# Which method names the small things? Move through pictures that show four classes or more. Blue
# is in the picture, grey is not. Do not expect wonders in any one picture: the gain is one over many.

# %%
arrays = {name: value.numpy() for name, value in scores.items()}
choices = {}
for i in (picture, *np.flatnonzero(many)[:30].tolist()):
    choices[f"{i}: " + ", ".join(names[c] for c in np.flatnonzero(data.labels[i]))] = i
explorer(partial(nb00.explore, data=data, methods=arrays), picture=choices, show=[8, 5, 12])

# %% [markdown]
# Without a kernel, here is its first setting: the same picture as above, by both methods.

# %%
nb00.explore(picture, 8, data, arrays)

# %% [markdown]
# ## 6 · The map of the series
#
# | notebook | question |
# | --- | --- |
# | 00 Start here | why is [CLS] not enough? |
# | [01 The modality gap](01_modality_gap.ipynb) | why is a text vector a poor classifier for patches? |
# | [02 Patch entanglement](02_patch_entanglement.ipynb) | what does the last block do to patches, and who undoes it? |
# | [03 Entropy selection](03_entropy_selection.ipynb) | which patches can be trusted without labels? |
# | [04 GDA](04_gda.ipynb) | from trusted patches to a linear classifier in closed form |
# | [05 Adaptive aggregation](05_adaptive_aggregation.ipynb) | from patches to one score |
# | [06 The whole of PIAA](06_whole_piaa.ipynb) | what does each step add, and where does it fail? |
# | [07 The reproduction](07_reproduction.ipynb) | do the paper's numbers come out, and what are they made of? |
# | [08 Your own images](08_own_images.ipynb) | how do I use this on my pictures and my classes? |
# | [09 Scaling out](09_scaling_out.ipynb) | what if there are ten million pictures? |
#
# Every notebook runs offline on the same small world: pictures made of emoji, of which each
# pixel's owner is known, and a small CLIP trained on such pictures. That is why the series can
# *measure* what papers can only illustrate. What holds here need not hold on photographs: change
# the one line of the configuration and see.

# %% [markdown]
# ## 7 · Exercises
#
# Write your answer, run the cell, then run the check below it: it says at once what is wrong. Where
# there is no function to write, put your answer in the name that the cell gives. The solutions are in this notebook's full version, `notebooks/00_start_here.ipynb`.
#
# ### Exercise 1 · One line: the names of a picture
#
# Complete `top_classes`, which returns the `k` names with the highest scores, best first.
#
# **Expected output:** `✓ Exercise 1 is right.`
# <details><summary>Hint</summary><code>np.argsort</code> sorts from small to large; sort the
# negative scores, and keep the first k.</details>


# %% tags=["exercise"]
def top_classes(scores, names, k):
    """The k names with the highest scores, best first. scores: array [C]; names: C strings."""
    # solution
    return [names[i] for i in np.argsort(-scores)[:k]]
    # end solution


# %% tags=["check"]
nb00.exercise_1(top_classes)

# %% [markdown]
# ### Exercise 2 · A small function: average precision
#
# Write AP for one class, for pictures in any order. You may assume that no two scores are equal.
#
# **Expected output:** `✓ Exercise 2 is right.` The check compares with scikit-learn's
# `average_precision_score`.
# <details><summary>Hint</summary>Sort the labels by score, best first. The running number of cats
# is <code>np.cumsum</code> of the sorted labels; divide it by the place, 1, 2, 3, ...; average over
# the places with a cat.</details>


# %% tags=["exercise"]
def average_precision(y, scores):
    """AP of one class. y: array [n] of 0 and 1; scores: array [n]. Returns a number, 0 to 1."""
    # solution
    y = y[np.argsort(-scores)]
    precision = np.cumsum(y) / np.arange(1, len(y) + 1)
    return precision[y == 1].mean()
    # end solution


# %% tags=["check"]
nb00.exercise_2(average_precision)

# %% [markdown]
# ### Exercise 3 · Explain
#
# A picture shows a cat and a dog with the very same cosine to their texts. Why can the softmax not
# give both a score above one half?
#
# - **a**: because it compares pictures, not classes
# - **b**: because the shares of a picture sum to 1
# - **c**: because the texts of the two classes are too much alike
# - **d**: because the scale $s$ is too small
#
# Put it in `answer`, for example `answer = "a"`.
#
# **Expected output:** `✓ Exercise 3 is right.` and a sentence that says why.
# <details><summary>Hint</summary>Add up the numbers of the softmax line in section 2.</details>

# %% tags=["exercise"]
# solution
answer = "b"
# end solution

# %% tags=["check"]
nb00.exercise_3(answer)

# %% [markdown]
# ### Exercise 4 · Investigate: is the first name right?
#
# In what share of the test pictures is the class with [CLS]'s highest score really in the picture?
# Use `scores["[CLS]"]` (a tensor [pictures, classes]) and `data.labels` (an array of 0 and 1 of the
# same shape), and put the share, from 0 to 1, in `first_is_right`.
#
# **Expected output:** `✓ Exercise 4 is right.` Compare your number with the table of section 1:
# naming *one* thing is what [CLS] is good at.
# <details><summary>Hint</summary><code>argmax</code> over classes gives a column for each
# picture; <code>data.labels[np.arange(len(data)), column]</code> looks up the labels.</details>

# %% tags=["exercise"]
# solution
first = scores["[CLS]"].argmax(1).numpy()
first_is_right = data.labels[np.arange(len(data)), first].mean()
# end solution
print("share of pictures whose first name is right:", first_is_right)

# %% tags=["check"]
nb00.exercise_4(first_is_right, scores["[CLS]"], data.labels)

# %% [markdown]
# ## What you have seen
#
# - **What [CLS] names.** The biggest thing, most of the time; the others far less often. One vector
#   was trained to match captions, and captions name what strikes most.
# - **Single and multi-label.** A softmax makes classes compete within a picture; independent scores
#   need a zero that CLIP does not have. The order is what can be trusted.
# - **mAP.** Sort the pictures for one class, average the precision at each hit, average over the
#   classes. Any rising function of the scores leaves it as it is.
# - **PIAA.** Encoder, visual classifier, aggregation: a few lines here, one notebook for each.
#
# **Try next**: [01 The modality gap](01_modality_gap.ipynb); or CLIP's ordinary patches in section 4:
# `PIAA(names, config.backbone_, encoder="vanilla", **config.constants)`, fitted on
# `bank(config, "learn", encoder="vanilla")`, scoring
# `features(config, "test", ("vanilla",)).patches["vanilla"]`.
#
# **In the paper**: the introduction, PAA's score of [CLS], and the protocol of its table: mAP.
#
# **References**: Wang et al., "[CLS] is Not Enough", ICML 2026, arXiv 2605.25821. Radford et al.,
# "Learning Transferable Visual Models From Natural Language Supervision" (CLIP), ICML 2021. Everingham
# et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010.

# %% tags=["versions"]
print(versions())
