# %% [markdown]
# # 05 · Adaptive aggregation
#
# <!-- badges -->
#
# **One patch is enough: the largest posterior of each class, joined with a tenth of [CLS], reaches
# 77.3 mAP in the style that CLIP never saw, where [CLS] by itself reaches 70.0.**
#
# **After this notebook you can**
#
# - say why the largest *logit* of a patch is a poor score for a picture, and what the softmax mends;
# - write PAA in four lines, and say what the maximum, the mean and [CLS] each do to small objects;
# - show that a softmax over classes keeps the order *within* a picture and changes the order *of
#   pictures*, which is what mAP measures;
# - predict how the scales must change when the bank or the embedding changes: at a given covariance only
#   m·D/(T·n) matters;
# - turn scores into tags with a threshold, and say why these scores are no probabilities.
#
# **Before**: PyTorch; notebook 04, or just this: a linear classifier W, b gives each patch one
# decision value for each class. AP and mAP are made by hand in notebook 00.
#
# **Time**: 35 minutes to read and solve, about a minute to run.

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
# ## 1 · From 196 answers to one
#
# PIAA reads a picture patch by patch: a 14 × 14 grid gives 196 answers, each with one number for
# each class. A user wants one number for each class. This notebook is about the way from there to
# here, on pictures in the style that CLIP never saw. Below is the scene of the series: the classifier
# that notebook 04 learned reads its patches.

# %%
import torch

from piaa_utils.aggregation import cls_scores, evidence, paa, patch_scores, posterior
from piaa_utils.lessons import features, follow, learned
from piaa_utils.lessons.figures import maps_row

x, scene = features(config, "val_unseen"), follow(config)
W, b, report = learned(config, "learn_unseen")
logits = x.patches["scclip"] @ W + b  # [n, N, C]
text, y, scales = config.text, x.labels, config.scales
names = [config.class_names[c] for c in scene.classes]

g = posterior(logits, scales.T)  # [n, N, C]
data = config.split(scene.split)
mask, grid = data.mask(scene.index), config.backbone_.grid
shown = scene.classes[:2] + scene.classes[-1:]
maps_row(
    data[scene.index],
    [g[scene.index, :, c].view(grid, grid) for c in shown],
    [config.class_names[c] for c in shown],
    None if mask is None else mask >= 0,
    label="posterior g of the patch",
)

# %% [markdown]
# **What to look for.** The smallest object (on the right) fills a few patches, and these few stand out.
# (Here all posteriors lie near 1/20; their order is what is used, and the colours are stretched: section
# 5.) An average over 196 patches would drown them; the **largest** value does not. That is
# the idea of **prediction adaptive aggregation (PAA)**, and this is all of it:

# %%
from piaa_utils.lessons.figures import diagram

diagram("max_and_cls")

# %% [markdown]
# $$g_{ic} = \operatorname{softmax}_c\frac{x_i W + b}{T}, \qquad e_c = \max_i g_{ic},$$
#
# $$s^{patch} = \operatorname{softmax}_c(m\,e), \qquad
# s^{cls} = \operatorname{softmax}_c(s\cos(CLS, t_c)),$$
#
# $$\text{score} = 0.9\,s^{patch} + 0.1\,s^{cls}.$$
#
# $x_i$ is the embedding of patch $i$, $W, b$ the classifier learned from pictures without labels,
# $t_c$ the text embedding of class $c$; $T$, $m$ and $s$ are three scales.
#
# **Read it from the inside out.** The inner softmax asks one patch one question: *if you show one of
# these classes, which?* The answer $g_{ic}$ is a share. A patch of plain background has to give its
# share to somebody too, and spreads it about evenly. The maximum asks the whole picture: *is there a
# patch that is sure of* $c$? One is enough, and the 195 others cannot vote it down. The outer softmax
# lets the classes of one picture compete for what evidence there is. The last line adds CLIP's own
# answer: [CLS] has looked at the whole and is drawn to what strikes; a patch sees its own place and knows
# nothing of the rest. They err in different places, which is why a tenth of one can help the other.
#
# Four lines of PyTorch:

# %%
g = (logits / scales.T).softmax(-1)  # [n, N, C] what each patch says
e = g.amax(1)  # [n, C] the surest patch of each class
s_patch, s_cls = (scales.m * e).softmax(-1), (scales.s * x.cls @ text.T).softmax(-1)
score = 0.9 * s_patch + 0.1 * s_cls

torch.testing.assert_close(score, paa(logits, x.cls, text, scales))
torch.testing.assert_close(e, evidence(posterior(logits, scales.T)))
print(f"scores {list(score.shape)}; s = {scales.s:g}, m = {scales.m:g}, T = {scales.T:g}")

# %%
import numpy as np

from piaa_utils import interval, mean_average_precision
from piaa_utils.lessons.exercises import e05


def mean_ap(scores):
    """mAP in per cent, on the pictures of val_unseen."""
    return mean_average_precision(y, np.asarray(scores)).map


alone = cls_scores(x.cls, text, config.backbone_.constants["cls_alone"])
gain = interval(y, score.numpy(), alone.numpy())
config.claim(
    gain.above_zero,
    f"PAA {mean_ap(score):.1f} mAP, [CLS] at the scale that suits it best {mean_ap(alone):.1f}: "
    f"{gain} points",
)
best = {
    who: v[scene.index].argsort(descending=True) for who, v in (("[CLS]", alone), ("PAA", score))
}
place = {who: order.tolist().index(scene.smallest) + 1 for who, order in best.items()}
print(f"the {config.class_names[scene.smallest]} of the scene, place among all classes:", place)

# %% [markdown]
# Every sign in the formula is a decision. We take them one by one.
#
# ## 2 · Why not the largest logit?
#
# Because logits tell classes apart, not patches. The Gaussian of notebook 04 says
#
# $$\log p(c \mid x) =
# \underbrace{x\,\Omega\mu_c - \tfrac12\mu_c^\top\Omega\mu_c + \log\tfrac1C}_{\ell_c}
# \;+\; (\text{a number that depends on } x \text{ only}).$$
#
# The last number is the same for all classes, so the classifier leaves it out. Within a patch nothing
# changes. But two *patches* can no longer be compared. Two pictures of one patch each, by hand:

# %% tags=["nbval-check-output"]
by_hand = torch.tensor([[[3.0, 1.0]], [[5.0, 6.0]]])  # pictures A and B, one patch, cat and dog
soft = posterior(by_hand, T=1.0)
print("            logit cat  logit dog     g cat   g dog")
for name, line, prob in zip("AB", by_hand[:, 0], soft[:, 0], strict=True):
    print(f"picture {name}   {line[0]:9.1f}  {line[1]:9.1f}   {prob[0]:7.2f} {prob[1]:7.2f}")

# %% [markdown]
# By the largest cat logit picture B is more of a cat. But B's patch says dog; all its logits are
# high. The softmax over classes takes out what a patch says about everything alike, and picture A
# wins.
#
# How much of our logits is of that kind? Split each patch's logits into their mean over the classes,
# which the softmax takes out, and the rest, which it keeps.

# %%
offset = logits.mean(-1, keepdim=True)  # [n, N, 1] what a patch says about everything alike
share = float(offset.var() / logits.var())
torch.testing.assert_close(posterior(logits - offset, scales.T), posterior(logits, scales.T))
print(f"the mean over classes makes {share:.0%} of the variance of all logits; no posterior moves")

# %% [markdown]
# The same trap waits wherever the scores of a linear classifier are compared *between inputs*: images
# retrieved by their largest logit, one threshold laid on the logits of all pictures, a sample called
# certain because its logit is large. Cosines with a text embedding are less prone to it, for both
# sides have length one, but not free of it: a patch near the middle of all texts is near to each.
#
# On all pictures, the maximum of logits and that of posteriors, and for comparison the text's:

# %%
cosines = x.patches["scclip"] @ text.T
pooled = {
    "largest logit": logits.amax(1),
    "largest posterior, e": e,
    "mean posterior": g.mean(1),
    "text, largest of softmax(60 cos)": evidence((60 * cosines).softmax(-1)),
}
for name, value in pooled.items():
    print(f"{name:34} {mean_ap(value):5.1f} mAP")
lead = interval(y, pooled["largest posterior, e"].numpy(), pooled["mean posterior"].numpy())
print(f"largest - mean posterior: {lead} points")

# %% [markdown]
# Mind the second line: in this style the maximum by itself is ahead of PAA. The tenth of [CLS] pays in
# the styles that CLIP knows (notebook 06), and $s$ and $m$ are a compromise: they were chosen so that the
# smaller of the two gains over [CLS] is as large as it can be.
#
# ## 3 · The maximum and the size of things
#
# Which pooling a class needs depends on how much of the picture it covers. Take, for each pooling, how
# high the true classes of a picture stand among all twenty, and look at it by size.

# %%
from piaa_utils.lessons import areas
from piaa_utils.plots import subplots

size = areas(data, grid)  # patches' worth of each class
edges = (1, 4, 8, 16, 32, 196)
poolings = {
    "mean": g.mean(1),
    "top 10": g.topk(10, dim=1).values.mean(1),
    "max": e,
    "[CLS]": alone,
    "PAA": score,
}
figure, ax = subplots(1, 1, size=(9, 5))
curves = {}
for (name, value), mark in zip(poolings.items(), "sD^oP", strict=True):
    rank = (-value.numpy()).argsort(1).argsort(1) + 1
    curves[name] = [
        rank[(size >= low) & (size < high)].mean()
        for low, high in zip(edges, edges[1:], strict=False)
    ]
    ax.plot(curves[name], marker=mark, label=name)
    if name != "PAA":
        ax.annotate(name, (-0.12, curves[name][0]), va="center", ha="right")
ax.annotate("PAA", (3, curves["PAA"][3] - 0.3), ha="center")
ax.set(xticks=range(5), xlim=(-1.1, 4.2), ylabel="mean place (1 is best)", xlabel="patches covered")
ax.set_xticklabels([f"{a} to {b}" for a, b in zip(edges, edges[1:], strict=False)])
ax.invert_yaxis()
figure.alt_text = "Mean place of a true class by its size: " + "; ".join(
    f"{n} {c[0]:.1f} for the smallest, {c[-1]:.1f} for the largest" for n, c in curves.items()
)
figure

# %% [markdown]
# **What to look for.** Read the left end first, the smallest things: the mean has lost them among 196
# patches, the maximum keeps more of them. To the right all but the mean draw together, for a thing that
# fills the picture wins by any other rule. "Top 10" lies in between, as it must: for things of ten
# patches and more it is nearly the maximum, for smaller ones it mixes in patches that show something
# else. And mind [CLS]: under eight patches it places the true class *higher* than the maximum does, for a
# tiny thing gives one mixed patch, and what goes together says more. From 8 to 32 patches the maximum is
# ahead. "Misses what is small" was true of our scene, not of the mean. PAA, which joins the two, is near
# the better one throughout.

# %%
config.claim(
    curves["max"][0] < curves["mean"][0],
    f"a class of 1 to 4 patches stands at place {curves['max'][0]:.1f} by the maximum, "
    f"{curves['mean'][0]:.1f} by the mean, {curves['[CLS]'][0]:.1f} by [CLS]",
)

# %% [markdown]
# ## 4 · The second softmax changes the order of pictures
#
# Within a picture $\operatorname{softmax}_c(m\,e)$ is monotone: the classes keep their order. But mAP
# compares the *same class over pictures*, and there the softmax divides by a sum that differs from
# picture to picture. Two pictures, by hand: A shows a dog alone, B a dog, a cat and a bus, and the
# evidence for dog is the same.

# %% tags=["nbval-check-output"]
two = torch.tensor([[0.9, 0.1, 0.1], [0.9, 0.9, 0.9]])  # dog, cat, bus
for m in (1.0, 5.0, 50.0):
    share = patch_scores(two, m)[:, 0]
    print(f"m = {m:4.0f}: dog in A {share[0]:.2f}, dog in B {share[1]:.2f}")

# %% [markdown]
# So a large $m$ makes the objects of a picture share one cake: the more of them, the less for each. Of
# two pictures with equal evidence for a dog, the one that shows it alone comes first. Is that wanted?
# For mAP it costs: both are right, and the crowded one may sink below a picture without any dog. But a
# large $m$ also does good. It pushes down every class that is not the picture's best, and most of
# these are errors. The two pull against each other, and where they balance depends on how many things
# a picture shows and on how good the evidence is. No formula says; one looks at pictures with labels.
#
# A small $m$ leaves the evidence nearly as it is, and then [CLS], with its tenth, has the say: for
# $s^{patch}$ hardly moves from $1/C$.
# **A weight is no share of influence**: multiply it by the spread of what it weighs.

# %%
spread = {
    m: [float(0.9 * patch_scores(e, m).std(0).mean()), float(0.1 * s_cls.std(0).mean())]
    for m in (1.0, 5.0, scales.m, 4 * scales.m)
}
for m, (patch, cls) in spread.items():
    mAP = mean_ap(paa(logits, x.cls, text, scales._replace(m=m)))
    print(f"m = {m:5.0f}: spread of patches {patch:.5f}, of [CLS] {cls:.5f}; mAP {mAP:.1f}")

# %% [markdown]
# ## 5 · Three scales, of which two are one
#
# Why is $T = 500$ in the paper, and much smaller here? Look at the precision of notebook 04,
#
# $$\Omega = D\,\big((n-1)\,\Sigma + \operatorname{tr}(\Sigma)\,I\big)^{-1}
# \;\approx\; \frac{D}{n-1}\,\Sigma^{-1}.$$
#
# It carries the factor $D/(n-1)$: logits **shrink as the bank grows** and as the embedding gets
# narrower. And for small logits the softmax is nearly linear, so that $m\,e$ depends on $m/T$ alone:
#
# $$m\,e_c \;\approx\; \frac mC + \frac mC\,\max_i \frac{\ell_{ic} - \bar\ell_i}{T}.$$
#
# Together: for a given $\Sigma$ the score depends, to first order, on **m·D/(T·n)**. The paper's 500 fits $D = 512$ and
# banks of ten thousand rows and more. First the bank. With fewer rows the logits are larger, and more so
# than the rows alone would have it: the surest patches are also the most alike, so $\Sigma$ is smaller
# too.

# %%
from piaa_utils import Recipe

spreads = {}
for k in (64, 128, 256, 512):
    small = Recipe(k=k).bank(len(text))
    learn = features(config, "learn_unseen").patches["scclip"]
    for i, part in enumerate(learn.split(100)):
        small.update(part, text, range(100 * i, 100 * i + len(part)))
    w, c, _ = Recipe(k=k).learn(small, text)
    spreads[len(small)] = float((x.patches["scclip"] @ w + c).std(-1).mean())
    print(f"K = {k:3}: n = {len(small):5}, spread of a patch's logits {spreads[len(small)]:8.3f}")
few, many = min(spreads), max(spreads)
ratio = spreads[few] / spreads[many]
config.claim(
    ratio > 0.8 * many / few,
    f"{many / few:.1f} times the rows, logits smaller by a factor of {ratio:.1f}: "
    f"{ratio * few / many:.1f} times what the rows alone explain, since the covariance grew, too",
)

# %% [markdown]
# Now the plane of $m$ and $T$. If only $m/T$ matters, mAP is the same along the diagonals, and its
# best values form a **ridge**. Where would the rule break? Where its first step does:
# "small" means small against $T$. The spread of our logits is far below the smallest $T$ here, so the
# diagonals should hold on the whole plane.

# %%
import seaborn as sns

ms, Ts = [2.0**k for k in range(0, 11)], [5.0 * 2**k for k in range(0, 8)]
plane = np.array(
    [[mean_ap(paa(logits, x.cls, text, scales._replace(m=m, T=T))) for m in ms] for T in Ts]
)
figure, ax = subplots(1, 1, size=(10, 6))
sns.heatmap(plane, ax=ax, cmap="viridis", annot=True, fmt=".0f", cbar_kws={"label": "mAP"})
ax.set(xlabel="m", ylabel="T", title="mAP of PAA: a ridge along m / T")
ax.set_xticklabels([f"{m:g}" for m in ms], rotation=0)
ax.set_yticklabels([f"{T:g}" for T in Ts], rotation=0)
row, column = np.unravel_index(plane.argmax(), plane.shape)
figure.alt_text = (
    f"Heat map of mAP over m and T: best {plane.max():.1f} at m = {ms[column]:g}, T = {Ts[row]:g}; "
    "values are nearly equal along diagonals of equal m / T."
)
figure

# %%
steps = [(i, j) for i in range(3, len(Ts) - 1) for j in range(len(ms) - 1)]
along = np.mean([abs(plane[i, j] - plane[i + 1, j + 1]) for i, j in steps])
across = np.mean([abs(plane[i, j] - plane[i + 1, j]) for i, j in steps])
paper = mean_ap(paa(logits, x.cls, text, scales._replace(m=200.0, T=500.0)))
config.claim(
    along < across,
    f"from T = {Ts[3]:g} on, doubling m and T moves mAP by {along:.2f}, doubling T alone by "
    f"{across:.2f}; the paper's m = 200 with T = 500 gives {paper:.1f} here, the best is "
    f"{plane.max():.1f}",
)

# %% [markdown]
# **For a model of your own** this gives a recipe that needs no grid of thirty points. Keep any $T$ above
# the spread of a patch's logits, and vary $m$ alone, by factors of two, on a few hundred pictures with
# labels. If the bank grows $k$-fold later, multiply $m$ by $k$ (or divide $T$); if the embedding gets $k$
# times wider, divide $m$. That is a first guess: where the covariance grows with the bank, as here, the
# logits shrink by more, so look at their spread, and try half and twice that $m$.
#
# To the score $T$ is thus a matter of taste. To a **heat map** it is not, if one wants to read numbers:
# far above the spread of the logits all posteriors lie near $1/C$. Their order, and colours stretched
# from the smallest to the largest, hardly change; what changes is what the numbers say.

# %%
own = spreads[many]  # a temperature as large as the logits' spread
for T in (500.0, scales.T, own):
    of_patch = posterior(logits[scene.index], T)[:, scene.smallest]
    print(f"T = {T:6.2f}: posteriors from {of_patch.min():.4f} to {of_patch.max():.4f}")
config.claim(
    of_patch.max() > 3 / len(text),
    f"at T = {own:.2f} the surest patch of the scene's smallest object gives it {of_patch.max():.2f}",
)

# %% [markdown]
# ## 6 · Move the scales yourself
#
# What happens to the scene's ranking, and to mAP over all pictures?

# %%
from piaa_utils.lessons import explorer


def scores_of_the_scene(m, T, s, cls_weight=0.1):
    """PAA's best classes of the scene for other scales; dark bars are in the picture."""
    other = paa(logits, x.cls, text, scales._replace(m=m, T=T, s=s), cls_weight)
    order = other[scene.index].argsort(descending=True)[:8].tolist()[::-1]
    figure, ax = subplots(1, 1, size=(8, 4.5))
    colours = ["#0173b2" if c in scene.classes else "#bdbdbd" for c in order]
    ax.barh(
        [config.class_names[c] for c in order], other[scene.index, order].tolist(), color=colours
    )
    ax.set(xlabel="score", title=f"mAP of all pictures: {mean_ap(other):.1f}")
    figure.alt_text = f"Scores of the scene for m = {m:g}, T = {T:g}, s = {s:g}: best {config.class_names[order[-1]]}."
    return figure


start = {"m": scales.m, "T": scales.T, "s": scales.s}
explorer(
    scores_of_the_scene,
    start,
    m=sorted({1.0, 5.0, 50.0, 200.0, scales.m}),
    T=sorted({5.0, 100.0, 500.0, scales.T}),
    s=sorted({3.0, 20.0, 80.0, scales.s}),
    cls_weight=[0.1, 0.0, 0.5, 1.0],
)

# %% [markdown]
# Without a kernel, here is its first setting.

# %%
scores_of_the_scene(**start)

# %% [markdown]
# ## 7 · From scores to tags
#
# A tag is a score above a threshold. Choose it where F1 is best, and remember that it was chosen on
# these pictures. And are the scores probabilities? A softmax over classes gives each picture a total
# of 1; the truth gives it as many as it has classes. So the mean score is exactly $1/C$, whatever the
# pictures show: **shares of one cake**, no independent probabilities. A picture with four objects that
# are all found can give none of them more than a quarter, and a picture with one object gives it
# nearly all. One threshold is therefore too high for crowded pictures or too low for plain ones. Who
# needs probabilities fits one logistic curve a class, from the score to yes or no, on pictures with
# labels, and loses "without labels" for that last step; who needs tags can also take the best few.

# %%
order = (-score.numpy()).ravel().argsort()
right = y.ravel()[order].cumsum()
f1 = 2 * right / (np.arange(1, len(order) + 1) + y.sum())
threshold = score.numpy().ravel()[order][f1.argmax()]
np.testing.assert_allclose(score.mean(), 1 / y.shape[1], rtol=1e-4)
print(f"best F1 {f1.max():.2f} at a threshold of {threshold:.3f}")
print(
    f"mean score {score.mean():.3f} = 1/{y.shape[1]}; share of pairs that are right {y.mean():.3f}"
)
tags = [config.class_names[c] for c in np.flatnonzero(score[scene.index] >= threshold)]
print("tags of the scene:", tags)

# %% [markdown]
# > **What this does not show.** All settings here were looked at on the 150 validation pictures in
# > one style; notebook 06 measures on pictures that were never looked at. The scales belong to a model
# > and its bank: on photographs with OpenAI's CLIP the paper's own are s = 80, m = 200 and T = 500. And
# > the sizes of things in the mini world are drawn at random, from a seventh of the picture's side
# > upwards: in photographs small things are smaller still.
#
# ## 8 · Exercises
#
# ### Exercise 1 · PAA in four lines
#
# The core of this notebook. `logits` [N, C] of **one** picture, `cosines` [C] of its [CLS].
#
# **Expected output:** `✓ Exercise 1 is right.`
# <details><summary>Hint</summary>First softmax over the last dimension, then the maximum over the
# first, then softmax again.</details>


# %% tags=["exercise"]
def one_score(logits, cosines, s, m, T):
    """PAA's scores [C] of one picture."""
    # solution
    g = (logits / T).softmax(-1)
    e = g.amax(0)
    return 0.9 * (m * e).softmax(-1) + 0.1 * (s * cosines).softmax(-1)
    # end solution


# %% tags=["check"]
e05.check_paa(one_score)

# %% [markdown]
# ### Exercise 2 · Predict, then run
#
# Every patch of every picture gets a constant added to all of its logits, another constant for each
# patch: `logits + shift`. What happens to PAA's scores, and to the largest logit's mAP?
#
# - **a**: both stay as they are
# - **b**: PAA's scores stay, the largest logit's mAP changes
# - **c**: both change
#
# **Expected output:** two numbers, and `✓ Exercise 2 is right.`
# <details><summary>Hint</summary>Section 2: what does a softmax over classes take out?</details>

# %% tags=["exercise"]
# solution
prediction = "b"
# end solution
shift = (
    torch.randn(*logits.shape[:2], 1, generator=torch.Generator().manual_seed(0)) * logits.std() * 3
)
moved_paa = float((paa(logits + shift, x.cls, text, scales) - score).abs().max())
moved_max = mean_ap((logits + shift).amax(1)) - mean_ap(logits.amax(1))
print(f"PAA's scores move by at most {moved_paa:.1g}, the largest logit's mAP by {moved_max:+.1f}")

# %% tags=["check"]
e05.check_shift(prediction, moved_paa, moved_max)

# %% [markdown]
# ### Exercise 3 · Another bank
#
# Somebody learns from a bank with **four times** the rows and the same covariance, and keeps $T$. Which $m$ gives nearly the
# same scores as `scales.m` did? Then somebody else has an embedding of 512 numbers instead of 128, and
# the bank of before: which $m$? Put the two numbers in `m_bank` and `m_width`.
#
# **Expected output:** `✓ Exercise 3, the bank is right.`, and the same of the width.
# <details><summary>Hint</summary>m·D/(T·n) must stay as it is.</details>

# %% tags=["exercise"]
# solution
m_bank = 4 * scales.m
m_width = scales.m / 4
# end solution

# %% tags=["check"]
e05.check_scales(m_bank, m_width, scales.m)

# %% [markdown]
# ### Exercise 4 · Change the aggregation
#
# Replace the maximum by the mean of the `k` best patches. Of `k` = 1, 2, 4, 8, 16, 32 and 64 put in
# `best_k` the one with the highest mAP of `g.topk(k, dim=1).values.mean(1)`.
#
# **Expected output:** the best k, and `✓ Exercise 4 is right.`
# <details><summary>Hint</summary>A dictionary {k: mAP}, then <code>max(d, key=d.get)</code>.</details>

# %% tags=["exercise"]
# solution
of_k = {k: mean_ap(g.topk(k, dim=1).values.mean(1)) for k in (1, 2, 4, 8, 16, 32, 64)}
best_k = max(of_k, key=of_k.get)
# end solution
print("best k:", best_k)

# %% tags=["check"]
e05.check_k(best_k, g, y)

# %% [markdown]
# ## What you have seen
#
# - **The first softmax.** Logits of different patches cannot be compared: each patch has an offset
#   that the classifier leaves out. The softmax over classes cancels it.
# - **The maximum.** One patch is enough for a small object. PAA is four lines.
# - **The second softmax.** Within a picture it is monotone; across pictures it is not, and mAP looks
#   across.
# - **The scales.** Logits shrink as the bank grows and as the embedding narrows; at a given
#   covariance only m·D/(T·n) matters to the score, and T by itself decides what a map shows.
# - **Tags.** A threshold is chosen on pictures with labels; the scores share a 1.
#
# **On OpenAI's CLIP.** The switch: `Config("voc07", data_root="data_sets")`, with the paper's scales
# s = 80, m = 200, T = 500. The paper's reported mAP for SC-CLIP with PIAA on VOC07 is 92.5 (reported).
# It was not run here: neither weights nor photographs can be had where this was written.
#
# **Next**: [06 The whole of PIAA](06_whole_piaa.ipynb). **In the paper**: prediction adaptive
# aggregation; here `piaa_utils/aggregation.py`.
#
# **References**: Wang et al., "[CLS] is Not Enough", ICML 2026, arXiv 2605.25821. Kubokawa and
# Srivastava, "Estimation of the precision matrix of a singular Wishart distribution", 2008. Guo et al.,
# "On Calibration of Modern Neural Networks", ICML 2017.

# %% tags=["versions"]
from piaa_utils.lessons import versions

print(versions())
