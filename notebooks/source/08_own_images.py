# %% [markdown]
# # 08 · Your own images: your words, your pictures, your classifier
#
# <!-- badges -->
#
# **After this notebook you can**
#
# - ask PIAA about your own pictures, with classes, synonyms and background classes in your own words;
# - learn the classifier from a folder of pictures that nobody has labelled, save it, and share it;
# - turn scores into tags by a rule that you understand, and say what a score is not;
# - find the pictures that need a look, and do it all with one command;
# - say why the small CLIP of this series must not be trusted with a photograph, and what to do instead.
#
# **Before**: notebook 00, and notebook 06 if you want to know what happens inside. A scene is a drawn
# picture of the embedded world.
#
# **Time**: 45 minutes to read and try, about two to run.

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
import json
import tempfile
import warnings
from functools import partial

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score

from piaa_utils.__main__ import main
from piaa_utils.encoders import encode
from piaa_utils.lessons import explorer, features, nb08, versions
from piaa_utils.metrics import mean_average_precision, paired_bootstrap
from piaa_utils.pipeline import PIAA
from piaa_utils.predict import choose_tags, needs_a_look, photo_notice, read_classes, tag_images

# %% [markdown]
# ## 1 · Pictures in
#
# *Which pictures?* Press the button and choose some, or write the name of a folder into `FOLDER`; then
# run the cell after it again. Leave both, and the notebook takes a dozen scenes from all over its test set.
# On paper and on the web there is no button: you lose nothing, all below is shown for the scenes.
#
# As shipped this notebook uses the **mini-CLIP**, which has seen drawn scenes only. Photographs need a
# real CLIP. Section 8 shows why.

# %%
FOLDER = None  # or your folder, such as "holiday"
upload = nb08.upload_button()
upload

# %%
data = config.dataset("test")
pictures = nb08.chosen(upload, FOLDER, default=data.paths[:: len(data) // 12][:12])
notice = photo_notice(config.backbone_, pictures)
print(f"{len(pictures)} pictures.", notice or "No notice: the mini-CLIP knows such pictures.")

# %% [markdown]
# Unreadable files are never dropped in silence: they are counted, named, and keep their line in every
# result.
#
# ## 2 · Your words
#
# *What should PIAA look for?* A class is a name. It may have **synonyms**; **background** classes are
# what else your pictures show. In a list, commas stand between classes and `=` between the names of one
# class; the first name is the one in the results. A text file with one class a line is read the same way.

# %% tags=["nbval-check-output"]
classes, synonyms = read_classes("person, dog, cat, bird, bottle, car, sofa = couch = settee")
background, _ = read_classes("bus, horse, bicycle, boat, train")
print("classes   ", classes)
print("synonyms  ", synonyms)
print("background", background)

# %% [markdown]
# **Synonyms and templates.** Every name is put into every template ("a photo of a {}"), and CLIP's text
# encoder makes a vector of each sentence (Radford et al., 2021). The text vector of a class is the mean of
# its unit vectors $u_j$, brought back to length one:
#
# $$t_c = \frac{\bar u}{\lVert \bar u \rVert}, \qquad \bar u = \frac1J \sum_{j=1}^{J} u_j.$$

# %%
ask, names = config.backbone_.encode_text, ["sofa", *synonyms["sofa"]]
templates = ["a photo of a {}", "a drawing of a {}"]
units = torch.stack([ask([name], [each])[0] for name in names for each in templates])
t_sofa = torch.nn.functional.normalize(units.mean(0), dim=-1)
torch.testing.assert_close(t_sofa, ask(["sofa"], templates, synonyms)[0])

apart = units[::2] @ units[::2].T
print(f"cosine of sofa to {names[1]} {apart[0, 1]:.2f}, to {names[2]} {apart[0, 2]:.2f}")
length = units.mean(0).norm()
torch.testing.assert_close((units @ t_sofa).mean(), length)
torch.testing.assert_close((units @ units.T).mean(), length**2)
print(f"length of the mean {length:.2f}; its square {length**2:.2f}")
config.claim(
    apart[0, 1] - apart[0, 2] > 0.2, f"{names[1]} is close to sofa, {names[2]} is far from it"
)

# %% [markdown]
# The two assertions hold for any unit vectors: $\lVert \bar u \rVert$ is the mean cosine of the sentences to
# $t_c$, and its square is the mean cosine of all their pairs, each with itself too. (Write both out; every
# step is a sum.) So the length tells how well the sentences agree: 1 if they all say the same.
#
# A mean speaks for all its names, the poor ones too. The captions that the mini-CLIP learned from say sofa
# and couch, never settee. A word that the model has not met, such as this one, pulls the vector away from
# the good ones. So a synonym can help or hurt; where you have some labels, measure, as section 5 does.
#
# The two templates were for this section. The classifier below keeps to one, PIAA's default "a photo of a {}".
#
# ### Exercise 1 · The text vector of a class
#
# Write the function: `embeddings`, a torch tensor [J, D] with the vectors of all sentences of a class, *of any
# length*, to the unit vector $t_c$, a tensor [D].
#
# **Expected output**: a tick. A wrong answer shows the smallest input on which it differs.
#
# <details><summary>Hint</summary>Normalise, mean over the first axis, normalise again. Without the first
# step a long vector would outvote the others.</details>


# %% tags=["exercise"]
def class_vector(embeddings):
    """Embeddings [J, D] of a class's sentences to its unit text vector [D]."""
    # solution
    u = torch.nn.functional.normalize(embeddings, dim=-1)
    return torch.nn.functional.normalize(u.mean(0), dim=-1)
    # end solution


# %% tags=["check"]
nb08.exercise_1(class_vector)

# %% [markdown]
# ## 3 · Learn from your folder
#
# *Where does the classifier come from?* From pictures of your kind, **without labels**. Any folder will do;
# here two dozen scenes are copied into one. `fit` chooses the surest patches of each class and computes
# the classifier in closed form (Wang et al., 2026; notebooks 03 and 04). Classes that no patch was chosen
# for are named in a warning, and their text vector stands in.

# %%
words = {"synonyms": synonyms, "background": background}
options = {"backbone": config.backbone_, "progress": False, **config.constants}
box = tempfile.TemporaryDirectory()  # gone with the kernel; take a folder of your own to keep
folder = Path(box.name)
for path in config.dataset("learn").paths[:24]:
    (folder / path.name).write_bytes(path.read_bytes())

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    small = PIAA(classes, **words, **options).fit(folder)
print(f"learned from {len(list(folder.iterdir()))} pictures; patches of each class in the bank:")
print(dict(zip([*classes, *background], small.report_["selected"], strict=True)))
print(*(f"Warning: {each.message}" for each in told), sep="\n")

# %% [markdown]
# Two dozen are few; a hundred or more make the classifier steadier. The notebooks keep the features of all
# scenes on disk, so the next line learns from *all* pictures of the split in a moment. With your own
# pictures, `fit` does the same, and takes as long as CLIP needs for them.

# %%
learn, test = features(config, "learn"), features(config, "test")
piaa = nb08.learned(PIAA(classes, **words, **options), learn)
found = tag_images(piaa, pictures)
nb08.gallery(found, range(min(8, len(pictures))), "Your pictures")

# %% [markdown]
# *Look for* tags that are right, tags that are wrong, and things without one. A picture that shows none of
# your classes has tags too, although the rule asks for an even share and background classes compete: some
# class nearly always has more than an even share. Section 5 counts how often, and what a higher limit costs.
#
# **What the background does.** Background classes take part in every softmax and are left out of the
# results. The scores of a picture then sum to less than 1; what is missing went to the background. Does
# the sum know which test scenes show none of our classes? Take all pairs of a scene with a class and a
# scene without: in what share of them is the sum larger for the scene with one? That share is called AUC, the
# area under the ROC curve. Chance is 50 %. Without a background the sum is always 1 and says nothing.

# %%
everything = nb08.tagged(piaa, test, data.paths)
columns = [config.class_names.index(name) for name in classes]
labels = data.labels[:, columns].astype(bool)
shows_one = labels.any(axis=1)
auc = roc_auc_score(shows_one, everything.scores.sum(axis=1))
print(f"{(~shows_one).sum()} of {len(labels)} scenes show none of {', '.join(classes)}")
config.claim(
    auc > 0.6,
    f"the sum of the scores puts a scene with a class before one without in {100 * auc:.0f} % "
    f"of the pairs (AUC)",
)

# %% [markdown]
# ## 4 · See: scores, tags, heat maps
#
# One picture at a time: where PIAA sees a class, and how the scores of all classes compare with an even share.
# The figure is the picture that PIAA is surest about; choose another below.

# %%
look = partial(nb08.explore, piaa=piaa, found=found)
sure = int(np.nanargmin(found.uncertainty))
look(sure, classes[found.scores[sure].argmax()])

# %%
explorer(look, picture=list(range(len(pictures))), class_name=classes)

# %% [markdown]
# The heat map has its own scale: light where its patches speak least for the class, dark where most. With the
# mini-CLIP it may be dark nearly everywhere, or on the wrong thing; a high score is no proof that the place
# is right (notebook 06, section 5).
#
# ## 5 · From scores to tags
#
# *When is a class a tag?* A score of PIAA **ranks**: pictures for a class, classes for a picture. It is no
# probability. Nobody taught the model how often it is right (Guo et al., 2017, measure how far off even trained
# networks are), and scores are shares: they shrink when you add a class. Do the rankings suffer?

# %%
plain = nb08.learned(PIAA(classes, synonyms=synonyms, **options), learn)
without = nb08.tagged(plain, test, data.paths).scores
here, before = everything.scores[labels].mean(), without[labels].mean()
config.claim(
    here < 0.9 * before,
    f"the same objects in the same scenes: mean score {before:.2f} with {len(classes)} classes, "
    f"{here:.2f} after {len(background)} background classes were added",
)
for name, scores in (("without", without), ("with", everything.scores)):
    print(f"{name:8}background: mAP {100 * mean_average_precision(labels, scores).map:.1f}")
gain, low, high = (100 * v for v in paired_bootstrap(labels, everything.scores, without, n=500))
config.claim(
    low > 0, f"the rankings gain: mAP {gain:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}"
)

# %% [markdown]
# A lower score is no worse score: all of them shrank, and the order got better.
#
# The rule of this series: tags are the **three best** classes, of those that have at least an **even
# share**, 1 divided by the number of all classes. Ask for more than an even share, and you get fewer tags,
# surer ones. **Precision** is the share of tags that are right, **recall** the share of objects that are
# tagged. The last two columns count scenes without any tag: those that show one of the classes should have
# one, the others should not.

# %%
even = 1 / (len(classes) + len(background))
quality = {}
print("                                          scenes untagged, of those")
print("lowest score       tags  precision  recall  with a class  without one")
for times in (1, 1.2, 1.5):
    tags = choose_tags(everything.scores, classes, top=3, threshold=times * even)
    table = np.array([[name in each for name in classes] for each in tags])
    p, r = nb08.precision_recall(table, labels)
    bare = ~table.any(axis=1)
    quality[times] = p, r, bare[shows_one].mean(), bare[~shows_one].mean()
    print(
        f"{times:3} even shares {table.sum():7} {100 * p:8.0f} % {100 * r:5.0f} %"
        f"  {bare[shows_one].sum():5} of {shows_one.sum()}"
        f"  {bare[~shows_one].sum():4} of {(~shows_one).sum()}"
    )

# %%
(p1, r1, lost1, free1), (p2, r2, lost2, free2) = quality[1], quality[1.5]
config.claim(
    p2 > p1 + 0.1 and r2 < r1 - 0.1,
    f"a higher limit trades objects for sureness: precision {100 * p1:.0f} to {100 * p2:.0f} %, "
    f"recall {100 * r1:.0f} to {100 * r2:.0f} %",
)
config.claim(
    free1 < 0.1 and free2 > 0.9 and lost2 > 0.3,
    f"an even share leaves {100 * free1:.0f} % of the scenes without a class untagged, one and a half "
    f"{100 * free2:.0f} %, but then {100 * lost2:.0f} % of those with a class have no tag either",
)

# %% [markdown]
# An even share is a low limit: of so many classes the best nearly always has it, whatever the picture shows.
# Which limit is right depends on what a wrong tag costs you and what a missing one does. It depends on the
# classes, the scales and the CLIP as well, so choose it on pictures of your own that you have looked at.
#
# **Did the synonyms help?** Section 2 gave a reason for doubt: to this CLIP *couch* is close to *sofa*, and
# *settee* is a word that it has not met. So measure *sofa* alone and with its synonyms. How much of the
# difference may be chance? The **paired bootstrap** draws the test scenes again and again, with repetition, and
# makes a 95 % interval of how far the difference moves.

# %%
alone = nb08.learned(PIAA(classes, background=background, **options), learn)
sofa = [classes.index("sofa")]
show, ap = labels[:, sofa], {}
for said, who in (("sofa", alone), ("sofa = couch = settee", piaa)):
    ap[said] = nb08.tagged(who, test, data.paths).scores[:, sofa]
    print(f"{said:22} AP {100 * mean_average_precision(show, ap[said]).map:.1f}")
gain, low, high = (100 * v for v in paired_bootstrap(show, *reversed(ap.values()), n=500))
config.claim(
    low < -2 and high > 2,
    f"{show.sum()} scenes with a sofa cannot tell: the synonyms change AP by {gain:+.1f} points, "
    f"95 % interval {low:+.1f} to {high:+.1f}",
)

# %% [markdown]
# An interval with 0 well inside it shows neither help nor harm. Then keep the names that your colleagues would
# use, leave out those that your CLIP cannot know, and label more pictures of the class if it matters.
#
# ### Exercise 2 · The rule
#
# Write it: scores [n, C] (a NumPy array), how many tags at most, and the lowest score of a tag. Return a
# table [n, C], True where the class is a tag.
#
# **Expected output**: a tick. A wrong answer shows the smallest input on which it differs.
#
# <details><summary>Hint</summary>`scores.argsort(axis=1)` twice gives each class its place from the lowest;
# of `-scores`, from the highest. A tag has a place below `top` **and** a score of at least
# `threshold`.</details>


# %% tags=["exercise"]
def tag_rule(scores, top, threshold):
    """Scores [n, C] to a table [n, C], True where the class is a tag of the picture."""
    # solution
    order = np.argsort(-scores, axis=1, kind="stable")
    place = np.argsort(order, axis=1)
    return (place < top) & (scores >= threshold)
    # end solution


# %% tags=["check"]
nb08.exercise_2(tag_rule)

# %% [markdown]
# ## 6 · Which pictures need a look?
#
# *A thousand pictures, an hour of time: which ones do you look at?* Those that the classifier is least sure
# of (Settles, 2009, on asking about the unsure). Let $p_c$ be the scores of a picture, brought to sum 1. Their
# **entropy**, divided by the largest it can be, is 0 where one class has all and 1 where all have the same:
#
# $$u = -\frac{1}{\log C}\sum_{c=1}^{C} p_c \log p_c.$$
#
# PIAA's scores lie close to even, so $u$ lies close to 1 for every scene, and is written with four decimals.
# Its size says little; its **order** is what counts.
#
# Whether the order finds mistakes can be measured, because the scenes have labels: sort them by $u$, and
# count wrong and missing tags in each fifth.

# %%
u, given = everything.uncertainty, nb08.tag_table(everything)
wrong, missing = (given & ~labels).sum(axis=1), (~given & labels).sum(axis=1)
print(f"u of the test scenes: {u.min():.4f} to {u.max():.4f}")
nb08.look_figure(u, wrong, missing)

# %%
counts = {"both": wrong + missing, "wrong": wrong, "missing": missing, "objects": labels.sum(1)}
fifths = {name: nb08.by_sureness(u, count) for name, count in counts.items()}
ends = {name: f"{f[0]:.2f} to {f[-1]:.2f}" for name, f in fifths.items()}
config.claim(
    fifths["both"][-1] > 1.15 * fifths["both"][0],
    f"wrong and missing tags a scene, from the surest fifth to the least sure: {ends['both']}",
)
config.claim(
    fifths["wrong"][-1] > 1.5 * fifths["wrong"][0]
    and fifths["missing"][-1] < 1.15 * fifths["missing"][0]
    and fifths["objects"][-1] < 0.8 * fifths["objects"][0],
    f"wrong ones rise ({ends['wrong']}), missing ones do not ({ends['missing']}), and objects of our "
    f"classes get fewer ({ends['objects']})",
)

# %%
first = needs_a_look(found, 3)
print("Of your pictures, look at these first:", ", ".join(Path(found.names[i]).name for i in first))

# %% [markdown]
# Part of this is plain counting: sure scenes show more objects of the classes, so more of their tags can be
# right. Expect wrong tags at the unsure end; missing ones are everywhere. The surest fifth has mistakes too: a
# model can be sure and wrong. Looking at the least sure pictures finds more mistakes an hour; it does not find
# them all.
#
# ### Exercise 3 · Uncertainty
#
# Write $u$ for scores [n, C] whose rows sum to 1 (a NumPy array): return [n]. A score may be exactly 0; there
# $p \log p$ is 0.
#
# **Expected output**: a tick. A wrong answer shows the smallest input on which it differs.
#
# <details><summary>Hint</summary>`np.log(0)` is minus infinity, and 0 times that is NaN. Clip the scores
# from below at a tiny number first.</details>


# %% tags=["exercise"]
def unsure(scores):
    """Scores [n, C] that sum to 1 to the entropy of each row over its largest value, [n]."""
    # solution
    p = scores.clip(1e-12, 1)
    return -(p * np.log(p)).sum(axis=1) / np.log(scores.shape[1])
    # end solution


# %% tags=["check"]
nb08.exercise_3(unsure)

# %% [markdown]
# ## 7 · Save, share, and the command
#
# *How does a colleague get your classifier?* As one small file. In it are the classifier, the text vectors and
# the settings: classes, synonyms, background, templates, scales. Not in it: CLIP, and your pictures. It is
# data; loading it runs no code.

# %%
saved = folder / "mine.safetensors"
piaa.save(saved)
again = PIAA.load(saved, classes, backbone=config.backbone_, progress=False, **words)
difference = np.abs(again.predict_proba(pictures) - found.scores).max()
config.claim(
    difference < 1e-5,
    f"{saved.stat().st_size / 1024:.0f} KiB; loaded again, the scores differ by at most "
    f"{difference:.0e}",
)

# %% [markdown]
# `load` refuses what would give wrong scores without a word: other classes than you expect, or the same in
# another order (all columns would be swapped); other words or another background (other text vectors); another
# CLIP (the numbers of W mean nothing there); a file that is damaged or something else.

# %%
broken = folder / "broken.safetensors"
broken.write_bytes(saved.read_bytes()[:-1000])
attempts = {
    "another order": dict(path=saved, class_names=classes[::-1]),
    "another background": dict(path=saved, background=["sky"]),
    "other templates": dict(path=saved, templates=["a drawing of a {}"]),
    "a damaged file": dict(path=broken),
}
refused = 0
for what, arguments in attempts.items():
    try:
        PIAA.load(**arguments, backbone=config.backbone_)
    except ValueError as error:
        refused += 1
        print(nb08.wrapped(f"{what}: {error}", folder))

# %%
config.claim(refused == len(attempts), f"{refused} of {len(attempts)} wrong files are refused")

# %% [markdown]
# **The command** does all of this for people who do not program:
#
# ```text
# python -m piaa_utils predict holiday/ "old/*.jpg" --classes "dog, sofa = couch" --background "grass, sky" \
#     --fit-on unlabelled/ --save mine.safetensors --out tags.csv --html sheet.html --review 10
# ```
#
# `tags.csv` (or `.json`) has one line a picture: tags, uncertainty, a score for each class. `sheet.html` is a
# **contact sheet**, one file for any browser, to print or to mail: every picture with its tags and the heat
# maps of its best classes, and those that need a look first. Nothing is written over without `--force`. The
# next cell runs it on your pictures' files, with the saved classifier. (Uploaded pictures have no file; then
# it takes the scenes.) The cell after it shows the top of the sheet. Both files lie in the folder that is gone with
# the kernel: name a place of your own after `--out` and `--html` to keep them.

# %%
files = [os.path.relpath(p) for p in pictures if isinstance(p, Path)] or data.paths[:12]
out, sheet = folder / "tags.json", folder / "sheet.html"
command = ["predict", *files, "--classifier", saved, "--out", out, "--html", sheet]
main([str(word) for word in [*command, "--review", 2, "--force"]])
entry = json.loads(out.read_text(encoding="utf-8"))["images"][0]
print(f"\nsheet.html: {sheet.stat().st_size / 1024:.0f} KiB. The first entry of tags.json:")
print(Path(entry["file"]).name, entry["tags"], entry["scores"])

# %%
nb08.top_of_sheet(sheet.read_text(encoding="utf-8"))

# %% [markdown]
# ### Exercise 4 · What a score says
#
# A classifier with three classes gives your picture *dog* 0.40. Which sentence is true?
#
# - **a**: With probability 40 % there is a dog.
# - **b**: The dog covers 40 % of the picture.
# - **c**: Of two pictures scored by this classifier, that with the higher score is the better bet for a dog.
# - **d**: There is a dog, for 0.40 is more than an even share.
#
# Put the letter in `answer`, for example `answer = "a"`.
#
# **Expected output**: a tick and why; for a wrong letter, what speaks against it.
#
# <details><summary>Hint</summary>Section 5: what happens to a score when you add classes?</details>

# %% tags=["exercise"]
# solution
answer = "c"
# end solution

# %% tags=["check"]
nb08.exercise_4(answer)

# %% [markdown]
# ## 8 · A real photograph
#
# *What does the mini-CLIP say to a photograph?* scikit-learn (Pedregosa et al., 2011) ships two, a temple in
# China and a flower. They are asked about with the classes of this notebook. Neither shows one of them.

# %%
photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
scores = piaa.predict_proba(photos)
tags = choose_tags(scores, classes, top=3, threshold=even)
asked = nb08.Tagged(photos, ["temple", "flower"], tuple(classes), scores, tags, scores[:, 0], {})
nb08.gallery(asked, [0, 1], "Two photographs")

# %%
print(photo_notice(config.backbone_, photos) or "This CLIP has seen photographs.")

# %% [markdown]
# The model answers as if nothing were wrong: some class always has the largest share. *Could the program
# notice that this is no scene, and stay silent?* A plain try: the **strangeness** of a picture is 1 minus the
# largest cosine of its [CLS] vector to those of the known scenes. Here it is for the two photographs, for
# pieces cut out of them (photographs too), and for test scenes in the known and in the unseen style. Where could
# a **limit** lie? The dashed line turns away one in twenty drawn scenes of the unseen style.

# %%
pieces = nb08.crops(photos, 30)


def strange(images):
    """The strangeness of pictures, [n]."""
    pixels = torch.stack([config.backbone_.preprocess(image) for image in images])
    return nb08.strangeness(encode(config.backbone_, pixels, ())["cls"].cpu(), learn.cls)


groups = {
    "photographs": strange(photos),
    "pieces of them": strange(pieces),
    "unseen style": nb08.strangeness(features(config, "test_unseen").cls, learn.cls),
    "known style": nb08.strangeness(test.cls, learn.cls),
}
limit = np.quantile(groups["unseen style"], 0.95)
nb08.strange_figure(groups, limit)

# %%
missed = float((groups["pieces of them"] <= limit).mean())
whole = (groups["photographs"] <= limit).sum()
config.claim(
    missed > 0.15,
    f"the limit lets {100 * missed:.0f} % of the pieces of photographs pass",
)
found_at = ", ".join(f"{s:.3f}" for s in groups["photographs"])
print(
    f"The limit is {limit:.3f}; {whole} of {len(photos)} whole photographs lie below it: {found_at}"
)

# %% [markdown]
# Strangeness says something: the groups differ. But no limit keeps the scenes and catches the photographs, and
# it knows nothing of photographs but these two. A guard that fails so often is worse than none, because people
# trust it. So the package does not guess: whenever the mini-CLIP is asked about pictures from outside its own
# world, it says so.
#
# **What to do instead.** Take a real CLIP: once with a network, or with the weights' file at hand. In Python:
#
# ```text
# from piaa_utils.constants import CONSTANTS
# from piaa_utils.pipeline import PIAA
#
# piaa = PIAA(classes, "ViT-B-16-quickgelu", "openai", background=background, **CONSTANTS["voc07"])
# piaa.fit("unlabelled/")
# ```
#
# In a shell:
#
# ```text
# python -m piaa_utils predict holiday/ --classes "dog, sofa = couch" --fit-on unlabelled/ \
#     --backbone ViT-B-16-quickgelu --pretrained openai --out tags.csv
# ```
#
# `pretrained` may also be the path of OpenAI's file `ViT-B-16.pt`. The scales of `CONSTANTS["voc07"]` are those of
# the authors for photographs; the command takes them by itself when the CLIP is a real one.
#
# **Think.** Your pictures are X-ray images. Is a real CLIP enough?
# <details><summary>Answer</summary>Nobody knows before it is measured. It has seen photographs from the web; X-ray
# images may be as strange to it as photographs are to the mini-CLIP, and it will answer all the same. Label a
# hundred pictures, measure, and believe that.</details>

# %% [markdown]
# ## What you have seen
#
# - **Your words.** A class is a name with synonyms, put into templates: the text vector is the mean of all
#   sentences. Background classes compete and are left out; what the scores lack to 1 went to them.
# - **Your folder.** `fit` learns from pictures without labels. The saved file holds words and scales too, and `load`
#   refuses what does not fit.
# - **Tags by a rule.** Scores rank. They are shares, no probabilities, and shrink as classes are added. A higher limit
#   buys precision with recall.
# - **A look at the unsure ones.** Entropy of the scores sorts scenes by how many tags are wrong, though not
#   perfectly, and not by how many are missing. One command does everything, down to a contact sheet.
# - **Photographs need a real CLIP.** The mini-CLIP answers anyway, and no simple measure tells photographs from
#   drawings dependably. So the package says it plainly every time.
#
# **Try next**: take twenty pictures of your own, write down by hand what they show, and draw the table of section 5 for
# them. Which limit would you choose? Then add three background classes and do it again.
#
# **In the paper**: learning without labels (PVCL), the aggregation (PAA), one template. Synonyms, background classes, the
# rule of tags and the uncertainty are ours.
#
# **References**
#
# - Wang, Deng, Hu, Zhao, Tai, Li, "[CLS] is Not Enough: Multi-Label Recognition via Patch-Level Inference
#   and Adaptive Aggregation", ICML 2026, arXiv 2605.25821.
# - Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021 (CLIP; templates).
# - Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
# - Settles, "Active Learning Literature Survey", University of Wisconsin-Madison, 2009 (asking about the unsure).
# - Pedregosa et al., "Scikit-learn: Machine Learning in Python", JMLR 12, 2011 (its two sample photographs).

# %% tags=["versions"]
print(versions())
