# %% [markdown]
# # 09 · Scaling out
#
# <!-- badges -->
#
# **The classifier that 2 workers learn from the halves of a collection is that of one process in
# every bit, all 2580 numbers of it, and also when a worker is killed on the way.**
#
# **After this notebook you can**
#
# - say why banks of patches can be merged exactly, in any order, and what cannot be merged so;
# - run PIAA's learning as map and reduce, and name the conditions under which it gives the
#   classifier of one process in every bit;
# - kill a worker in the middle of its work and say what is lost;
# - work out on paper what ten million images would take, from costs that you measured.
#
# **Before**: notebook 03, or this: PIAA learns from a *bank*, the K patches of each class that the
# text is surest of (lowest entropy), and a closed formula (notebook 04) turns the bank into W and b.
#
# **Time**: 25 minutes to read and solve, about a minute to run.

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
# ## 1 · The question
#
# *A collection lies on ten machines. Must its patches come together in one place?* PIAA reads a
# collection once and keeps, for each class, the K patches of lowest entropy. So split the collection
# into **shards**, keep the K best of each shard, and then the K best of what was kept. A patch among
# the best K of all is among the best K of its shard, so nothing that counts is lost:
#
# $$\operatorname{best}_K(A \cup B) = \operatorname{best}_K\big(\operatorname{best}_K(A) \cup
# \operatorname{best}_K(B)\big).$$
#
# How few patches survive, and from how many pictures they come, shows how little has to travel.
# Below, the bank of the whole set to learn from, class by class:

# %%
import numpy as np

from piaa_utils.lessons import bank, features
from piaa_utils.plots import subplots

whole = bank(config, "learn")
patches = features(config, "learn").patches["scclip"]
images = [len(ids.unique()) for ids in whole.image_id.split(whole.counts.tolist())]
order = np.argsort(images)
figure, ax = subplots(1, 1, size=(9, 5.5))
ax.barh([config.class_names[c] for c in order], np.array(images)[order], color="#0173b2")
ax.set(xlabel="pictures that the patches of a class come from", title="What a bank keeps")
figure.alt_text = (
    f"Pictures behind the bank's patches of each class, from {min(images)} for "
    f"{config.class_names[order[0]]} to {max(images)} for {config.class_names[order[-1]]}."
)
figure

# %%
kept, seen = len(whole), patches.shape[0] * patches.shape[1]
print(f"{seen} patches of {len(patches)} pictures were seen, {kept} are in the bank")
config.claim(kept < seen / 10, f"the bank keeps {100 * kept / seen:.1f} per cent of the patches")

# %% [markdown]
# ## 2 · Merging compares, and never adds
#
# It follows that merging is **associative** and **commutative**: any order, any tree, one result. Ties
# of the entropy go to the lower number of the image, then of the patch, so there is no doubt who is in.
# And it is exact on a computer too, because merging only *compares and chooses*. Adding is not so kind:
# a sum of floating-point numbers depends on the order. That is why training on many machines, which
# adds up gradients, seldom gives the same bits twice.

# %% tags=["nbval-check-output"]
import itertools


def best(bank, other, k=2):
    """Two lists of (entropy, image, patch), and the k lowest of both."""
    return sorted(bank + other)[:k]


a, b, c = [(0.2, 0, 5), (0.7, 1, 3)], [(0.1, 2, 8), (0.9, 3, 0)], [(0.2, 4, 1), (0.3, 5, 2)]
merged = [best(best(x, y), z) for x, y, z in itertools.permutations((a, b, c))]
merged += [best(x, best(y, z)) for x, y, z in itertools.permutations((a, b, c))]
print("merged, 12 ways:", {str(bank) for bank in merged})
print("summed,  3 ways:", sorted({(0.1 + 0.2) + 0.3, 0.1 + (0.2 + 0.3), (0.1 + 0.3) + 0.2}))

# %% [markdown]
# Now real banks: the pictures to learn from, cut into eight shards, merged in random orders along random
# trees, against the bank of one pass.

# %%
import random

import torch

from piaa_utils import Recipe

cuts = torch.arange(len(patches)).tensor_split(8)
banks = []
for ids in cuts:
    banks.append(Recipe().bank(len(config.text)))
    for part in ids.split(64):
        banks[-1].update(patches[part], config.text, part.tolist())


def merged_at_random(banks, seed):
    """The banks in a random order, merged along a random tree."""
    rng = random.Random(seed)
    banks = rng.sample(banks, len(banks))
    while len(banks) > 1:
        i = rng.randrange(len(banks) - 1)
        banks[i : i + 2] = [banks[i].merge(banks[i + 1])]
    return banks[0]


def same_bits(one, other):
    """Whether two banks agree in every bit."""
    a, b = one.state(), other.state()
    return all(torch.equal(a[name], b[name]) for name in a)


rows = sum(len(bank) for bank in banks)
agree = [same_bits(merged_at_random(banks, seed), whole) for seed in range(8)]
config.claim(
    all(agree),
    f"{len(agree)} random orders and trees of {len(banks)} banks with {rows} rows: each time the "
    f"bank of one pass, {kept} rows, in every bit",
)

# %% [markdown]
# What else could be learned so? Anything whose memory is a *choice* (the largest, the first, the union),
# and anything whose memory is a *count of whole numbers*. A mean of floating-point numbers can be merged
# as well, but only to the last bits; GDA's means and covariance would be of that kind, if they were
# summed up shard by shard. Here they are not: the bank is small, so it is sent whole, and the sums are
# done once, in one place and in one order. What cannot be merged at all is a result that depends on what
# was seen before it: a network trained by gradient steps, k-means after its first round, a running
# threshold. This is the quiet gift of a method that selects: the hard part of learning from ten million
# pictures is a choice, and choices commute.
#
# ## 3 · Map and reduce
#
# So learning is a **map** (each shard to its bank) and a **reduce** (merge two by two), and then one
# GDA. Paths travel to the workers, banks come back; pictures never travel.
# [Dask](https://www.dask.org) does the running: it gives tasks to workers, keeps results where they were
# made, and gives a task to another worker if one dies. `scaling.connect(workers=2)` starts two processes
# here. On a cluster, `scaling.connect("tcp://address:8786")` finds the workers that are there, and **the
# rest of the code is the same**. Each worker loads the frozen CLIP once.
#
# The question is whether the classifier is the *same*: not close, the same in every bit.

# %%
import time
import warnings
from contextlib import ExitStack

from piaa_utils import PIAA, scaling

warnings.filterwarnings("ignore", "Stage I selected no patch")  # few pictures here
paths = config.split("learn").paths[:64]


def new():
    """An unfitted PIAA that takes little: K = 32, eight pictures a batch."""
    return PIAA(
        config.class_names, config.backbone_, recipe=Recipe(k=32), batch_size=8, progress=False
    )


with scaling.torch_threads(1):
    start = time.perf_counter()
    alone = new().fit(paths)
    speed_alone = len(paths) / (time.perf_counter() - start)

stack = ExitStack()  # so that a later cell can close what this one opens
client = stack.enter_context(scaling.connect(workers=2))
by_two = scaling.fit(new(), paths, client, batches_per_shard=1)


def same_classifier(a, b):
    return torch.equal(a.coef_, b.coef_) and torch.equal(a.intercept_, b.intercept_)


numbers = alone.coef_.numel() + alone.intercept_.numel()
config.claim(
    same_classifier(by_two, alone),
    f"W and b, {numbers} numbers, of 2 workers are those of one process in every bit",
)

# %% [markdown]
# **Under which conditions?** Merging is exact by itself. The *features* are not: matrix products add, and
# how they add depends on the shape of the product and on the number of threads that share it.
#
# | condition | because | who sees to it |
# | --- | --- | --- |
# | shards are whole batches | a picture's features depend a little on how many are encoded with it | `scaling.shards` cuts between batches only |
# | the same number of PyTorch threads | threads split a product, and so the order of its sums | `threads` of `scaling.fit`, `torch_threads` around the single process |
# | the same kind of processor or GPU, the same versions | each has its own order of sums | you |
# | the same weights | clear | each worker compares its weights with yours and refuses others |
#
# How much is it here, if we encode one picture by itself?

# %%
from piaa_utils import encode

with scaling.torch_threads(1):
    clip, data = config.backbone_, config.split("learn")
    pixels = torch.stack([clip.preprocess(data[i]) for i in range(8)])
    together = encode(clip, pixels)
    single = [encode(clip, picture[None]) for picture in pixels]
for what in ("cls", "scclip"):
    gap = (together[what] - torch.cat([s[what] for s in single])).abs().max().item()
    print(f"{what:7} largest difference, alone or in a batch of 8: {gap:.0e}")

# %% [markdown]
# A zero means that this processor adds alike in both shapes; do not count on it. The difference is
# harmless for a score, and still may decide which of two nearly equal patches enters the bank. Hence the
# care.
#
# ## 4 · Kill a worker
#
# *Hardware fails; on a thousand machines some machine fails every day.* What is lost? A shard is a small
# task that anyone can repeat: its result depends on its paths only. And merging does not care who made a
# bank, or when. We do it live: after the second shard, a worker that is computing gets the signal that
# cannot be refused, SIGKILL. (`on_shard` is called after each shard.)

# %%
import signal

killed = []


def kill_one(done, total):
    """After the second shard: end a worker that is at work."""
    if done == 2:
        busy = max(worker for worker, tasks in client.processing().items() if tasks)
        killed.append(client.run(os.getpid)[busy])
        os.kill(killed[0], signal.SIGKILL)


survived = scaling.fit(new(), paths, client, batches_per_shard=1, on_shard=kill_one)
config.claim(
    bool(killed) and same_classifier(survived, alone),
    f"a worker was killed after two of {len(survived.shards_)} shards, and W and b are the same",
)

# %% [markdown]
# Smaller shards lose less when a worker dies, and cost more messages.
#
# **Think.** The worker that died had finished shards before. Why may they have to be computed again?
# <details><summary>Answer</summary>A bank stays in the memory of the worker that made it until it is
# merged. If it was not merged elsewhere yet, it died with its worker. That is also why merging is given
# priority over the next shard: then few banks wait.</details>
#
# Two ways to fail are worse than to die. A worker may be **slow**: a full disk, a hot processor. The
# others wait for its last shard, and small shards help here too. And a worker may be **wrong**: other
# weights, another version, another kind of processor. Nothing crashes, and the numbers are a little off
# for ever. That is why each worker compares the hash of its weights with yours before it does anything,
# and why the other conditions stand in the table above: what cannot be checked should at least be known.
# A worker that is short of memory is of the first kind. Dask pauses it, and if all are paused the
# learning would wait without end; `scaling.fit` waits half a minute and then says which number is too
# small.
#
# ## 5 · Memory, and what an image costs
#
# A worker holds CLIP, a batch, and a bank of at most $C \cdot K$ rows. Nothing in that list depends on the
# number of pictures. So give the workers three times as many, and read how much memory each process held
# after each of its shards.

# %%
more = config.split("learn").paths[:192]
by_more = scaling.fit(new(), more, client, batches_per_shard=2)
stack.close()  # the workers are no longer needed; their processes end here

figure, ax = subplots(1, 1, size=(9, 4.5))
of_process = {}
for shard in by_more.shards_:
    of_process.setdefault(shard.pid, []).append(shard)
for place, shards in enumerate(of_process.values()):
    done = np.cumsum([s.images for s in shards])
    memory = [s.memory / 1e6 for s in shards]
    ax.plot(done, memory, marker="o", color=("#0173b2", "#de8f05")[place % 2])
    above = 24 * (-1) ** place  # points: one label above, one below
    ax.annotate(
        f"worker {place + 1}", (done[-1], memory[-1]), (-60, above), textcoords="offset points"
    )
most = max(s.memory for s in by_more.shards_) / 1e6
ax.set(xlabel="pictures that the worker has read", ylabel="memory (MB)", ylim=(0, 1.2 * most))
grown = max(s[-1].memory - s[0].memory for s in of_process.values())
figure.alt_text = (
    f"Memory of each worker over the pictures it has read: grows by {grown / 1e6:.0f} MB."
)
figure

# %%
pixels_kept = len(more) / 2 * 3 * clip.image_size**2 * 4
cost = sum(s.cpu_seconds for s in by_more.shards_) / len(more)
config.claim(
    grown < pixels_kept,
    f"memory moved by {grown / 1e6:.0f} MB, where keeping the pixels would have added "
    f"{pixels_kept / 1e6:.0f} MB to each worker",
)
print(
    f"an image costs {1000 * cost:.0f} ms of processor time; one process alone: {speed_alone:.1f} a second"
)

# %% [markdown]
# ## 6 · Ten million images, on paper
#
# A worker takes shard after shard, in $\lceil \text{shards}/\text{workers} \rceil$ waves. Then the
# banks are merged two by two, in $\lceil \log_2 \text{shards} \rceil$ rounds; the merges of a round run
# side by side:
#
# $$\text{seconds} = \Big\lceil \frac{\text{shards}}{\text{workers}} \Big\rceil \cdot
# \text{images a shard} \cdot \text{seconds an image} + \lceil \log_2 \text{shards} \rceil \cdot
# \text{seconds a merge}.$$
#
# Two of these numbers are measured here: an image, above, and the merge of two banks, below. It is a lower
# bound: that the pictures can be read fast enough, and that banks reach each other at no cost, is assumed.

# %%
import math

from piaa_utils.lessons.exercises import e09

start = time.perf_counter()
banks[0].merge(banks[1])
a_merge = time.perf_counter() - start


def hours_on_paper(images, workers, image_seconds, merge_seconds, shard=2048):
    """How long learning takes, in hours."""
    shards = math.ceil(images / shard)
    waves, rounds = math.ceil(shards / workers), math.ceil(math.log2(shards))
    return (waves * shard * image_seconds + rounds * merge_seconds) / 3600


for workers in (1, 10, 100, 1000):
    print(f"{workers:5} workers: {hours_on_paper(1e7, workers, cost, a_merge):10.1f} hours")

# %%
from piaa_utils.lessons import explorer


def hours_figure(million_images, seconds_per_image):
    """Hours over the number of workers; dotted: one shard for each worker."""
    workers = [2**k for k in range(0, 15)]
    images = 1e6 * million_images
    figure, ax = subplots(1, 1, size=(8, 4.5))
    hours = [hours_on_paper(images, w, seconds_per_image, a_merge) for w in workers]
    ax.loglog(workers, hours, marker="o")
    ax.axvline(images / 2048, linestyle=":", color="grey")
    ax.set(xlabel="workers", ylabel="hours", title=f"{million_images:g} million images")
    figure.alt_text = f"{million_images:g} million images: {hours[0]:.1f} hours with one worker, {hours[-1]:.2f} with {workers[-1]}."
    return figure


measured = float(f"{cost:.2g}")
explorer(
    hours_figure,
    start={"million_images": 10, "seconds_per_image": measured},
    million_images=[0.1, 1, 10, 100],
    seconds_per_image=sorted({measured, 0.001, 0.01, 0.1, 1.0}),
)

# %% [markdown]
# Without a kernel: ten million images at the cost that was measured.

# %%
hours_figure(10, measured)

# %% [markdown]
# **What to look for.** The time falls as one over the number of workers until each has one shard (the dotted
# line), and merging stays small, for its rounds grow with a logarithm only. The mini-CLIP is small: put the
# cost that *you* measure for ViT-B/16 into the formula.
#
# **On a cluster of your own**, in this order:
#
# 1. Put the pictures where all machines see them under the *same path*, and the weights too.
# 2. Install the same versions everywhere; the pins of `environment.yml` are made for that.
# 3. Start a scheduler and workers (`dask scheduler`, `dask worker tcp://address:8786 --nthreads 1`), as
#    many workers on a machine as its memory holds copies of CLIP and a batch.
# 4. Learn from a hundred pictures with one worker and with all, and compare W and b in every bit, as
#    above. If they differ, one of the conditions does not hold; better to know it now.
# 5. Multiply: seconds an image, pictures, workers. If reading the pictures is slower than encoding them,
#    more workers on the same disk will not help.
#
# And ask first whether you need it. Measure one machine with the real CLIP on a thousand pictures, and
# multiply by your archive: if the answer is a night, let it run for a night, with `scaling.connect()` on
# the one machine or with nothing of all this. Many machines bring their own troubles, and a result that
# comes a day later on one machine is the same result, in every bit. What needs a cluster is not the
# method but the size of the archive, and a bank that was learned from a tenth of it may be as good.
#
# > **What this does not show.** Two workers on one machine share its memory and its disk. Nothing was run on
# > a cluster: there the network, the disks and the scheduler have a say, and the paper calculation leaves
# > all three out. Seconds differ from machine to machine and from run to run; the bits should not, and where
# > processors differ, they may.
#
# ## 7 · Exercises
#
# ### Exercise 1 · Merge
#
# The core: `a` and `b` are banks of one class, sorted lists of (entropy, image, patch). Return the bank of
# both, at most `k` rows, sorted.
#
# **Expected output:** `✓ Exercise 1 is right.`
# <details><summary>Hint</summary>Python compares tuples from left to right: just the order that the ties
# need.</details>


# %% tags=["exercise"]
def merge(a, b, k):
    """Two sorted lists of (entropy, image, patch) to one of at most k."""
    # solution
    return sorted(a + b)[:k]
    # end solution


# %% tags=["check"]
e09.check_merge(merge)

# %% [markdown]
# ### Exercise 2 · Predict, then run
#
# Leave one of the eight shards out, and merge the other seven. What share of the rows of the whole bank is
# still there?
#
# - **a**: all of them, for the bank is full in any case
# - **b**: about seven eighths
# - **c**: less than half, for one shard may have held the best
#
# **Expected output:** a share, and `✓ Exercise 2 is right.`
# <details><summary>Hint</summary>Which rows can be lost, and how are the surest patches spread over
# shards?</details>

# %% tags=["exercise"]
# solution
prediction = "b"
# end solution
seven = merged_at_random(banks[:7], 0)
place = [set(zip(b.image_id.tolist(), b.patch_index.tolist(), strict=True)) for b in (seven, whole)]
share = len(place[0] & place[1]) / len(whole)
print(f"still there: {share:.2f} of {len(whole)} rows; the bank of seven shards has {len(seven)}")

# %% tags=["check"]
e09.check_share(prediction, share)

# %% [markdown]
# ### Exercise 3 · Make it faster
#
# A thousand workers, ten million images, 0.1 seconds an image, shards of 8,192 images: the formula of
# section 6 gives `slow`. Choose another size of shards, at least 64 images, so that it takes under 0.3
# hours (merges of 0.1 seconds), and put it in `shard`.
#
# **Expected output:** both hours, and `✓ Exercise 3 is right.`
# <details><summary>Hint</summary>The last wave is seldom full: how many shards does a worker get, and how
# many would be even?</details>

# %% tags=["exercise"]
# solution
shard = 256
# end solution
slow = hours_on_paper(1e7, 1000, 0.1, 0.1, shard=8192)
print(f"{slow:.3f} hours with 8192 images a shard; 0.3 is asked for")

# %% tags=["check"]
e09.check_shard(shard, hours_on_paper)

# %% [markdown]
# ## What you have seen
#
# - **Merging.** The best K of two banks are the best K of both collections. Merging compares and never adds,
#   so any order and any tree give the same bits.
# - **Map and reduce.** Paths go to the workers, banks come back. With whole batches, the same threads, the
#   same kind of processor, versions and weights, W and b are those of one process in every bit.
# - **A killed worker** costs the time of the shards that it held, and nothing else.
# - **On paper.** Hours are images times the cost of one, divided by the workers, plus a few rounds of merging;
#   the bank stays the same size for any collection.
#
# **In the paper**: nothing of this; its largest set to learn from has 150,000 images. That its Stage I can be
# split so is a property of the selection; here `piaa_utils/scaling.py` and `PatchBank.merge`.
#
# **References**: Dean, Ghemawat, "MapReduce", OSDI 2004. Rocklin, "Dask", SciPy 2015. Goldberg, "What Every
# Computer Scientist Should Know About Floating-Point Arithmetic", ACM Computing Surveys 23, 1991. Wang et al.,
# "[CLS] is Not Enough", ICML 2026, arXiv 2605.25821.

# %% tags=["versions"]
from piaa_utils.lessons import versions

print(versions())
