# %% [markdown]
# # 09 · Scaling out: the same classifier from many machines
#
# <!-- badges -->
#
# **After this notebook you can**
#
# - say why banks of patches can be merged exactly, in any order, and what cannot be merged so;
# - run PIAA's learning as map and reduce, on two processes or on a cluster, and get the classifier of
#   one process in every bit, and name the conditions for that;
# - kill a worker in the middle of its work and say what is lost;
# - show that a worker's memory does not grow with the number of images;
# - work out on paper what ten million images would take, from costs that you measured.
#
# **Before**: notebook 03, or this: PIAA learns from a *bank*, the K patches of each class that the text
# classifier is surest of (lowest entropy), and a closed formula (GDA, notebook 04) turns the bank into
# W and b.
#
# **Time**: 25 minutes to read, about one to run.

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
import itertools
import math
import signal
import tempfile
import time
import warnings
from contextlib import ExitStack
from functools import partial

import numpy as np
import torch

from piaa_utils import scaling
from piaa_utils.encoders import encode
from piaa_utils.lessons import explorer, nb09, versions
from piaa_utils.pipeline import PIAA

# %% [markdown]
# ## 1 · Why can banks be merged?
#
# *A collection lies on ten machines. Must its patches come together in one place?* PIAA reads a
# collection once and keeps, for each class, the K patches of lowest entropy. So split the collection
# into **shards**, keep the K best of each shard, and then the K best of what was kept. A patch among the
# best K of all is among the best K of its shard, so nothing that counts is lost:
#
# $$\operatorname{best}_K(A \cup B) = \operatorname{best}_K\big(\operatorname{best}_K(A) \cup
# \operatorname{best}_K(B)\big).$$
#
# It follows that merging is **associative** and **commutative**: any order, any tree, one result. Ties
# of the entropy go to the lower number of the image, then of the patch, so there is no doubt who is in.
#
# And it is exact on a computer too, because merging only *compares and chooses*. Adding is not so kind:
# a sum of floating-point numbers depends on the order. That is why training on many machines, which
# adds up gradients, seldom gives the same bits twice.


# %% tags=["nbval-check-output"]
def best(bank, other, k=2):
    """Two lists of (entropy, image, patch), and the k lowest of both."""
    return sorted(bank + other)[:k]


a, b, c = [(0.2, 0, 5), (0.7, 1, 3)], [(0.1, 2, 8), (0.9, 3, 0)], [(0.2, 4, 1), (0.3, 5, 2)]
merged = [best(best(x, y), z) for x, y, z in itertools.permutations((a, b, c))]
merged += [best(x, best(y, z)) for x, y, z in itertools.permutations((a, b, c))]
print("merged, 12 ways:", {str(bank) for bank in merged})
print("summed,  3 ways:", sorted({(0.1 + 0.2) + 0.3, 0.1 + (0.2 + 0.3), (0.1 + 0.3) + 0.2}))

# %% [markdown]
# Now real banks. `PIAA.select(paths, first_id)` makes the bank of a list of pictures, numbered from
# `first_id` on; `PatchBank.merge` joins two. We cut a few unlabelled pictures into six shards. K is
# small here, 32 in place of 512, and a picture may give any number of patches (`purify=None`). So banks
# are soon full, as those of a large collection are, and merging has to choose.

# %%
name, _, weights = config.backbone_.name.partition("/")  # a worker loads it by this name
options = {"pretrained": weights or None, "device": config.device, "progress": False}
options |= {"n_select": 32, "purify": None, "batch_size": 8}
new_piaa = partial(PIAA, config.class_names, name, **options)
data = config.dataset("learn")
paths = data.paths[:48]
shards = scaling.shards(len(paths), batch_size=8, batches_per_shard=1)
print(f"{len(shards)} shards, the first two: {shards[0]}, {shards[1]}")

with scaling.torch_threads(1):  # what this line and the batches are for: section 2
    one = new_piaa()
    banks = [one.select(paths[s.start : s.stop], first_id=s.start) for s in shards]

# %%
tries = [nb09.merged_at_random(banks, seed) for seed in range(40)]
agree = all(nb09.same_bits(bank, tries[0]) for bank in tries)
config.claim(agree, f"{len(tries)} random orders and trees of merging: the same bits each time")
rows, kept = sum(len(bank) for bank in banks), len(tries[0])
config.claim(
    kept < 0.7 * rows,
    f"and merging had to choose: {kept} rows of {rows} in the {len(banks)} banks stayed",
)

# %% [markdown]
# ### Exercise 1 · Merge
#
# `a` and `b` are banks of one class: sorted lists of (entropy, image, patch). Write a function that
# returns the bank of both, at most `k` rows, sorted.
#
# **Expected output**: a tick. A wrong answer shows the smallest input on which it differs.
#
# <details><summary>Hint</summary>Python compares tuples from left to right: just the order that the
# ties need.</details>


# %% tags=["exercise"]
def merge(a, b, k):
    """Two sorted lists of (entropy, image, patch) to one of at most k."""
    # solution
    return sorted(a + b)[:k]
    # end solution


# %% tags=["check"]
nb09.exercise_1(merge)

# %% [markdown]
# ### Exercise 2 · What else can be merged?
#
# Each shard reports one of these about its pictures. Which one *cannot* be merged exactly into that of
# the whole collection, however exact the sums?
#
# - **a**: the largest entropy
# - **b**: the mean entropy, and the number of pictures
# - **c**: the median entropy
# - **d**: the ten pictures of lowest entropy
#
# Put the letter in `answer`, for example `answer = "a"`.
#
# **Expected output**: a tick and why; for a wrong letter, how it is merged.
#
# <details><summary>Hint</summary>Try two shards of three numbers each.</details>

# %% tags=["exercise"]
# solution
answer = "c"
# end solution

# %% tags=["check"]
nb09.exercise_2(answer)

# %% [markdown]
# ## 2 · Map and reduce
#
# So learning is a **map** (each shard to its bank) and a **reduce** (merge two by two), and then one GDA.
# *Look for* what travels: paths to the right, banks further right. Pictures never do.

# %%
nb09.flow_figure(4)

# %% [markdown]
# [Dask](https://www.dask.org) does the running: it gives tasks to workers, keeps results where they were
# made, and gives a task to another worker if one dies. `scaling.connect(workers=2)` starts two processes
# here. On a cluster, `scaling.connect("tcp://address:8786")` finds the workers that are there, and **the
# rest of the code is the same**. Each worker loads the frozen CLIP once.

# %%
stack = ExitStack()  # so that the last cell can close what this one opens
client = stack.enter_context(scaling.connect(workers=2))
workers = list(client.scheduler_info()["workers"])
print(len(workers), "workers")

# %% [markdown]
# The question is whether the classifier is the *same*: not close, the same in every bit. First by one
# process, without Dask; then with two workers, and with one worker and other shards.

# %%
start = time.perf_counter()
with scaling.torch_threads(1), warnings.catch_warnings():
    # Few pictures: some classes get no patch, the text stands in, and a warning would say so.
    warnings.simplefilter("ignore")
    alone = new_piaa().fit(paths)
speed_alone = len(paths) / (time.perf_counter() - start)
print(f"one process:  {speed_alone:5.1f} images a second")


# %%
def far_fit(paths, batches_per_shard=1, **more):
    """A classifier learned on the cluster, and images a second."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        piaa = scaling.fit(new_piaa(), paths, client, batches_per_shard, **more)
    return piaa, len(paths) / (time.perf_counter() - start)


def same_classifier(a, b):
    return torch.equal(a.coef_, b.coef_) and torch.equal(a.intercept_, b.intercept_)


# %%
far_fit(paths[:16])  # each worker loads CLIP; this is not to be timed
by_one, _ = far_fit(paths, batches_per_shard=3, workers=workers[:1])
_, speed_one = far_fit(paths, workers=workers[:1])
by_two, speed_two = far_fit(paths)

# %%
config.claim(
    same_classifier(by_two, alone) and same_classifier(by_one, alone),
    f"W and b ({alone.coef_.numel()} and {alone.intercept_.numel()} numbers) of two workers and of "
    f"one, with other shards, are those of one process in every bit",
)

# %% [markdown]
# **Under which conditions?** Merging is exact by itself. The *features* are not: matrix products add,
# and how they add depends on the shape of the product and on the number of threads that share it. So
#
# | condition | because | who sees to it |
# | --- | --- | --- |
# | shards are whole batches | a picture's features depend a little on how many are encoded with it | `scaling.shards` cuts between batches only |
# | the same number of PyTorch threads | threads split a product, and so the order of its sums | `threads` of `scaling.fit`, `torch_threads` around the single process |
# | the same kind of processor or GPU, the same versions | each has its own order of sums | you |
# | the same weights | clear | each worker compares its weights with yours and refuses others |
#
# Where one of the first three fails, results differ as much as two machines differ anyway: in the last
# digits. How much is it here, if we encode one picture by itself?

# %%
with scaling.torch_threads(1):
    clip = config.backbone_
    pixels = torch.stack([clip.preprocess(data[i]) for i in range(8)])
    together = encode(clip, pixels)
    single = [encode(clip, picture[None]) for picture in pixels]
for what in ("cls", "scclip"):
    gap = (together[what] - torch.cat([s[what] for s in single])).abs().max().item()
    print(f"{what:7} largest difference, alone or in a batch of 8: {gap:.0e}")

# %% [markdown]
# A zero means that this processor adds alike in both shapes; do not count on it. A difference of
# $10^{-7}$ is harmless for a score, and still may decide which of two nearly equal patches enters the
# bank. Hence the care.
#
# ## 3 · Kill a worker
#
# *Hardware fails; on a thousand machines some machine fails every day.* What is lost? A shard is a small
# task that anyone can repeat: its result depends on its paths only. And merging does not care who made a
# bank, or when. So Dask gives lost shards to the others.
#
# We do it live. After the second shard, a worker that is computing gets the signal that cannot be
# refused, SIGKILL. (`on_shard` is called after each shard.)

# %%
killed, began = [], time.time()


def kill_one(done, total):
    """After the second shard: end a worker that is at work."""
    if done == 2:
        busy = max(worker for worker, tasks in client.processing().items() if tasks)
        pid = client.run(os.getpid)[busy]
        os.kill(pid, signal.SIGKILL)
        killed.append((pid, time.time()))


survived, _ = far_fit(paths, on_shard=kill_one)

# %%
client.wait_for_workers(2)
gone = killed[0][0] not in client.run(os.getpid).values()
config.claim(
    gone and same_classifier(survived, alone),
    f"process {killed[0][0]} was killed after two of {len(survived.shards_)} shards, and W and b are "
    f"the same in every bit",
)
nb09.timeline_figure(survived.shards_, killed[0], began)

# %% [markdown]
# Each bar is a shard whose bank counted; "16+" begins with picture 16. *Look for* the row of the killed
# process: nothing follows the black line, and bars are missing before it too, if their banks died with it
# and others made them again. A third row, where there is one, is the process that was started in its
# place; before its first bar it had to start and to load CLIP. A gap in the row of the survivor, if you
# see one, is waiting too: Dask had already given the shards that were left to the new process. What is
# lost is time: the shards that the dead worker held, and a wait for the new one. **Smaller shards lose less, and cost more messages.**
#
# **Think.** The worker that died had finished shards before. Why may they have to be computed again?
# <details><summary>Answer</summary>A bank stays in the memory of the worker that made it until it is
# merged. If it was not merged elsewhere yet, it died with its worker. That is also why merging is given
# priority over the next shard: then few banks wait.</details>
#
# A picture that cannot be read is another matter: that is a fact about the collection, to be told as in
# one process, in the order of the list, by whichever worker it was found.

# %%
with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    broken = [Path(folder) / f"broken_{i}.jpg" for i in range(2)]
    for path in broken:
        path.write_text("this is no picture")
    mixed = [*paths[:10], broken[0], *paths[10:20], broken[1]]
    with_broken = scaling.fit(new_piaa(), mixed, client, batches_per_shard=1)
print("skipped:", [(i, Path(path).name) for i, path, _ in with_broken.skipped_])
print("warned: ", [str(w.message).split(":")[0] for w in heard if "read" in str(w.message)])
assert [i for i, _, _ in with_broken.skipped_] == [10, 21]

# %% [markdown]
# ## 4 · Memory that does not grow
#
# *Does a worker need more memory for more pictures?* It holds a batch, CLIP, and a bank of at most
# $C \cdot K$ rows. Nothing in that list depends on the number of pictures. So give the cluster four times
# as many, and read the **peak** of each process's memory, as the operating system counted it.

# %%
paths_4n = data.paths[:192]
by_4n, _ = far_fit(paths_4n, batches_per_shard=2)
runs = [by_one.shards_, by_two.shards_, survived.shards_, with_broken.shards_, by_4n.shards_]
seen = nb09.seen_by_process(runs)

D, N, side = config.text.shape[1], clip.grid**2, clip.image_size
nb09.memory_figure(seen, pixels=3 * side**2 * 4)

# %%
n_peak = max(s.memory for run in runs[:-1] for s in run)
peak = max(s.memory for s in by_4n.shards_)
kept_pixels = (len(paths_4n) - len(paths)) / 2 * 3 * side**2 * 4  # by each of two workers
print(f"peak of a worker with {len(paths)} images {nb09.size(n_peak)}", end=", ")
print(f"with {len(paths_4n)} images {nb09.size(peak)}")
config.claim(
    peak - n_peak < kept_pixels,
    f"four times the images: the peak moved by {(peak - n_peak) / 1e6:+.0f} MB, where keeping their "
    f"pixels would have added {kept_pixels / 1e6:.0f} MB",
)

# %% [markdown]
# Most of that memory is Python with PyTorch and CLIP; it is there before the first picture, and the figure
# leaves it out. *Look for* the difference in kind: the dashed line would rise for ever, the others may climb a
# step, now and then above it at first, and stay. (The README has the same for up to a thousand images.) What
# travels is smaller still. A full bank has $C \cdot K$ rows, each with a feature, the text probabilities, the
# entropy and three numbers that say where it came from:

# %%
paper = partial(nb09.plan, n_classes=len(config.class_names), width=D, patches=N)
full = nb09.full_bank(len(config.class_names), k=512, width=D)
of_paper = paper(1e6, 100, 0.1)
assert nb09.bank_bytes(full) == of_paper.bank_bytes
config.claim(
    nb09.bank_bytes(tries[0]) <= of_paper.bank_bytes * 32 / 512,
    f"the bank of {len(paths)} images takes {nb09.size(nb09.bank_bytes(tries[0]))}; a full one with "
    f"K = 512 takes {nb09.size(of_paper.bank_bytes)}, for any number of images",
)

# %% [markdown]
# ## 5 · How fast?
#
# Images a second with one worker and with two, on this machine, now. If its two cores were idle, the
# ratio comes near 2; if other things run, it may come near 1. And one process without Dask may beat both:
# it sends nothing, and so few pictures are soon encoded. So there is no claim about it here. A
# steadier number is the **processor time** that an image costs a worker, which does not count waiting.
# It is what the paper calculation needs.


# %%
print(
    f"images a second: one process without Dask {speed_alone:.1f}, one worker {speed_one:.1f},\n"
    f"two workers {speed_two:.1f}, {speed_two / speed_one:.2f} times one's (this machine, now)"
)


# %%
def cost(piaa):
    """Processor seconds of an image."""
    log = piaa.shards_
    return sum(s.cpu_seconds for s in log) / sum(s.images for s in log)


cost_n, cost_4n = cost(by_two), cost(by_4n)
config.claim(
    1 / 2 < cost_4n / cost_n < 2,
    f"an image costs {1000 * cost_n:.0f} ms of processor time among {len(paths)} images and "
    f"{1000 * cost_4n:.0f} ms among {len(paths_4n)}: the cost grows with the images and no faster",
)

# %% [markdown]
# **Scores** are simpler: a map without a reduce. Each worker gets W and b and returns rows of scores.

# %%
test = config.dataset("test").paths[:16]
scores = scaling.predict_proba(by_two, test, client, batches_per_shard=1)
with scaling.torch_threads(1):
    expected = alone.predict_proba(test)
config.claim(
    np.array_equal(scores, expected),
    f"the {scores.size} scores of {len(test)} pictures from two workers are those of one process",
)
stack.close()  # the cluster is no longer needed; its processes end here

# %% [markdown]
# ## 6 · Ten million images, on paper
#
# Now multiply. A worker takes shard after shard, in $\lceil \text{shards}/\text{workers} \rceil$ waves.
# Then the banks are merged two by two, in $\lceil \log_2 \text{shards} \rceil$ rounds; the merges of a
# round run side by side:
#
# $$\text{seconds} = \Big\lceil \frac{\text{shards}}{\text{workers}} \Big\rceil \cdot
# \text{images a shard} \cdot \text{seconds an image} + \lceil \log_2 \text{shards} \rceil \cdot
# \text{seconds a merge}.$$
#
# Two of these numbers were measured here: an image, above, and the merge of two full banks with $K = 512$,
# below; a shard has 2048 images. It is a lower bound: that the pictures can be read fast enough, and that banks reach each other
# at no cost, is assumed.

# %%
a_merge = nb09.merge_seconds(len(config.class_names), 512, D)
print(f"an image {1000 * cost_4n:.0f} ms, a merge {1000 * a_merge:.0f} ms; ten million images:")
for n in (1, 10, 100, 1000):
    p = paper(10_000_000, n, cost_4n, a_merge)
    print(f"{n:5d} workers: {nb09.in_words(p.hours):>12}")
print(f"{p.shards} shards, {p.rounds} rounds of merging; one bank {nb09.size(p.bank_bytes)}")
merging = p.rounds * a_merge / 3600 / p.hours
print(f"merging takes {100 * merging:.1f} % of the time with {n} workers")
config.claim(
    p.patch_bytes > 1000 * p.bank_bytes,
    f"if all patches were kept, they would take {nb09.size(p.patch_bytes)}, "
    f"{p.patch_bytes / p.bank_bytes:,.0f} times the bank",
)

# %% [markdown]
# The mini-CLIP is small. ViT-B/16 costs far more an image on a processor and far less on a GPU: put the
# cost that *you* measure into the formula. The form of the answer stays: the time falls as 1/workers
# until each worker has one shard, and merging stays small because its rounds grow with a logarithm only.
#
# ### Exercise 3 · The formula
#
# Write the formula of this section as a function. It gets the number of `images` and of `workers`, the
# images a shard (`shard`; here it divides `images`), the seconds of an image and of a merge. It returns
# **hours**.
#
# **Expected output**: a tick. A wrong answer shows the smallest input on which it differs.
#
# <details><summary>Hint</summary>`math.ceil` and `math.log2`. One shard needs no merging, and
# $\log_2 1 = 0$.</details>


# %% tags=["exercise"]
def hours(images, workers, shard, image_seconds, merge_seconds):
    """How long learning takes, in hours."""
    # solution
    shards = images / shard
    waves, rounds = math.ceil(shards / workers), math.ceil(math.log2(shards))
    return (waves * shard * image_seconds + rounds * merge_seconds) / 3600
    # end solution


# %% tags=["check"]
nb09.exercise_3(hours)

# %% [markdown]
# ## 7 · Explore
#
# Choose the number of workers, the size of the collection and the cost of an image; it begins with the
# cost that was measured above. *Look for* the dotted line, one shard for each worker: what happens to the right of
# it? And: which costs more hours, ten times the images or ten times the cost of an image?

# %%
look = partial(
    nb09.explore,
    merge_seconds=a_merge,
    n_classes=len(config.class_names),
    width=D,
    patches=N,
)
measured = float(f"{cost_4n:.2g}")
explorer(
    look,
    start={"million_images": 10, "seconds_per_image": measured},
    workers=[1, 10, 100, 1000, 10_000],
    million_images=[0.1, 1, 10, 100],
    seconds_per_image=sorted({measured, 0.001, 0.01, 0.1, 1.0}),
)

# %% [markdown]
# Without a kernel: a hundred workers.

# %%
look(workers=100, million_images=10, seconds_per_image=measured)

# %% [markdown]
# **Think.** To the right of the dotted line more workers do not help. What would you change?
# <details><summary>Answer</summary>The size of the shards: smaller ones, for more workers to share. Down to
# one batch the result does not change. The price is more banks to merge and more messages.</details>
#
# **Think.** And the question above: ten times the images, or ten times the cost of an image?
# <details><summary>Answer</summary>Left of the line it is the same: the work grows tenfold. Right of it
# some workers have nothing to do. More images find them first; a higher cost does not, as a shard stays
# with one worker: there the costlier image costs more hours.</details>
#
# ## What you have seen
#
# - **Merging.** The best K of two banks are the best K of both collections. Merging compares and never
#   adds, so any order and any tree give the same bits. A median cannot be merged so, and a sum not to the
#   last bit.
# - **Map and reduce.** Paths go to the workers, banks come back. With whole batches, the same threads,
#   the same kind of processor, versions and weights, W and b are those of one process in every bit; so
#   are the scores.
# - **A killed worker** costs the time of the shards that it held, and nothing else.
# - **Memory.** A worker holds CLIP, a batch and a bank. Four times the images did not move its peak by
#   what their pixels would take.
# - **On paper.** Hours are images times the cost of one, divided by the workers, plus a few rounds of
#   merging; the bank stays the same size for any collection.
#
# **Try next**: start a scheduler and workers in two terminals (`dask scheduler`, `dask worker
# tcp://127.0.0.1:8786 --nthreads 1`), and give the address to `scaling.connect`. Or change
# `batches_per_shard`, and look at the timeline.
#
# **In the paper**: nothing of this; its largest set to learn from has 150,000 images. That its Stage I can
# be split so is a property of the selection: the lowest entropies of each class.
#
# **References**
#
# - Dean, Ghemawat, "MapReduce: Simplified Data Processing on Large Clusters", OSDI 2004.
# - Rocklin, "Dask: Parallel Computation with Blocked Algorithms and Task Scheduling", SciPy 2015.
# - Goldberg, "What Every Computer Scientist Should Know About Floating-Point Arithmetic", ACM Computing
#   Surveys 23, 1991.
# - Wang, Deng, Hu, Zhao, Tai, Li, "[CLS] is Not Enough: Multi-Label Recognition via Patch-Level Inference
#   and Adaptive Aggregation", ICML 2026, arXiv 2605.25821.

# %% tags=["versions"]
print(versions())
