"""Train the mini-CLIP so that its patches can be read: eight stages on captioned scenes.

    python data/build/train.py ART RUN --start FOLDER [--stages plan.json] [--device cuda]

ART is what art.py wrote; RUN is a folder for checkpoints and the log; FOLDER holds the exported
model to start from: the weights of commit 902d878, which learned from 1.85 million simpler scenes

    git show 902d878:data/mini_clip/model.safetensors > FOLDER/model.safetensors

(without --start the towers start at random, and need as many scenes first). Stop it whenever you
like: the same command goes on from the last checkpoint, at most a minute back. RUN/training.jsonl
gets the loss every minute and every `WATCH` samples the watch figures of measure.py on `val` and
`val_unseen`; the test splits are never looked at.

What each stage adds, and why, stands at `STAGES`. The text tower reads only tokens that occur, and
as many positions as the longest caption needs: exact, for its attention is causal.

On a CPU each process computes on one thread and the gradients are averaged: small matrices gain 1.3
to 1.6 times over two threads in one process; jemalloc preloaded gains about as much again. Products
are in bfloat16 where the processor has it in hardware. With --device cuda one process computes, and
worker processes render.
"""

import argparse
import copy
import json
import math
import os
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

import measure
import numpy as np
import open_clip
import torch
import torch.distributed as dist
import torch.nn.functional as F
from concepts import LISTED, SYNONYMS, VOC
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file
from scenes import GROUNDS, TEMPLATES, Art, SceneMaker, captions, labels

from piaa_utils.backbone import Backbone

STYLES = ("noto", "twemoji", "noto-v1", "openmoji", "emojione", "fxemoji")  # never fluent
CONTEXT, GRID, PATCH = 16, 14, 16
MUON_FACTOR = 2  # Muon's learning rate, relative to AdamW's; 4 from scratch
SEED = 0
INTERVAL = 60  # seconds between checkpoints
WATCH = 20_480  # samples between two looks at the watch figures
USES = 2  # each rendered scene is seen so often, each time other patches and other captions
CAPTIONS = 2  # of a scene at a time
BATCH = 256
WARM_UP = 50  # steps of each stage
LATE, LATE_SHARE = (0, 6, 9, 11), (0.25, 0.15, 0.2, 0.4)  # first block in which [CLS] reads

# Each stage keeps what the one before it switched on.
STAGES = [
    # b. Patches without an object are left out but for 10 to 30 %: the background is taught no
    # word. Each picture is told apart from the names of all concepts that it does not show.
    {"name": "objects, not grounds", "samples": 81_920, "tokens": 112, "lr": [1e-3, 1e-3]},
    # c. Stochastic depth, chiefly on the MLPs: no block may rely on one other.
    {"name": "stochastic depth", "samples": 40_960, "drop": 0.45, "lr": [1e-3, 1e-3]},
    # d. The last block's output is enlarged, so that the residual stream no longer drowns it; and
    # [CLS] may attend only from block 0, 6, 9 or 11 on: what it needs must be in the last blocks'
    # values, which is what the patch encoders read.
    {
        "name": "[CLS] reads late",
        "samples": 61_440,
        "enlarge": 3.5,
        "late": True,
        "lr": [1e-3, 8e-4],
    },
    # e. Plain InfoNCE: a caption of another picture that fits this one too is no longer left out.
    {"name": "plain InfoNCE", "samples": 51_200, "exempt": False, "lr": [8e-4, 5e-4]},
    # f. The learning rate falls.
    {"name": "annealed", "samples": 71_680, "tokens": 100, "lr": [5e-4, 1e-5]},
    # Names had to be told right; now captions alone say what a picture is called, as for CLIP.
    {"name": "captions alone", "samples": 40_960, "names": False, "lr": [3e-4, 1e-5]},
    # The same two once more, for longer: each time the patches come out easier to read.
    {
        "name": "names once more",
        "samples": 102_400,
        "tokens": 112,
        "names": True,
        "lr": [5e-4, 2e-4],
    },
    {
        "name": "captions alone again",
        "samples": 61_440,
        "tokens": 100,
        "names": False,
        "lr": [3e-4, 1e-5],
    },
]
DEFAULTS = {"tokens": 112, "drop": 0.0, "late": False, "exempt": True, "names": True}


# What is learned from


class Vocabulary:
    """CLIP's tokens that occur in our captions, renumbered; the end token stays the largest."""

    def __init__(self, concepts: list[str]):
        self.clip = SimpleTokenizer()
        names = concepts + [s for words in SYNONYMS.values() for s in words] + GROUNDS
        words = " ".join(names + [t.format("and on") for t in TEMPLATES]).split()
        ids = {i for w in words for i in self.clip.encode(w)}
        self.ids = sorted(ids | {0, self.clip.sot_token_id, self.clip.eot_token_id})
        self.number = {t: n for n, t in enumerate(self.ids)}

    @cache  # noqa: B019 (one vocabulary lives as long as the process)
    def word(self, word: str) -> tuple[int, ...]:
        return tuple(self.number[i] for i in self.clip.encode(word))

    def __call__(self, texts: list[str]) -> torch.Tensor:
        out = torch.zeros(len(texts), CONTEXT, dtype=torch.long)
        first, last = self.number[self.clip.sot_token_id], self.number[self.clip.eot_token_id]
        for row, text in zip(out, texts, strict=True):
            tokens = [first, *(n for w in text.split() for n in self.word(w))][: CONTEXT - 1]
            row[: len(tokens) + 1] = torch.tensor([*tokens, last])
        return out


def concept_weights(concepts: list[str]) -> np.ndarray:
    """How often things are drawn: VOC's classes most, then those of the long list."""
    return np.array([6.0 if c in VOC else 3.0 if c in LISTED else 0.5 for c in concepts])


class Batch(NamedTuple):
    """B scenes as they are learned from."""

    images: torch.Tensor  # float [B, 3, S, S], normalised
    kept: torch.Tensor  # int [B, n]: the patches that enter the tower
    seen: torch.Tensor  # bool [B, n]: whether the others may look at a patch
    tokens: torch.Tensor  # int [2 B, CONTEXT]: two captions a scene, first ones first
    fits: torch.Tensor  # bool [B, 2 B]: the scene shows all that the caption names
    shown: torch.Tensor  # bool [B, concepts]
    named: torch.Tensor  # bool [B, concepts]: in one of its captions


def batches(art: Art, vocabulary: Vocabulary, stage: dict, batch: int, seed: list[int]):
    """Batches without end; each scene comes `USES` times."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    size, weights = GRID * PATCH, concept_weights(art.concepts)
    maker = SceneMaker(art, rng, STYLES, weights, 0.6, (1, 6), (0.13, 0.95))
    while True:
        scenes = maker.make(batch, size)
        shown = labels(scenes, art, size)
        images = normalise(scenes.images)
        for _ in range(USES):
            spoken = [captions(scenes, art, rng, size) for _ in range(CAPTIONS)]
            texts, named = [t for ts, _ in spoken for t in ts], [m for _, m in spoken]
            lacking = (~shown).astype(np.float32) @ np.concatenate(named).T.astype(np.float32)
            kept, seen = choose_patches(scenes.owner > 0, stage["tokens"], generator)
            yield Batch(
                images,
                kept,
                seen,
                vocabulary(texts),
                torch.from_numpy(lacking < 0.5),
                torch.from_numpy(shown[:, : len(art.concepts)]),
                torch.from_numpy(np.logical_or(*named)[:, : len(art.concepts)]),
            )


def choose_patches(on_object: torch.Tensor, n: int, generator) -> tuple[torch.Tensor, torch.Tensor]:
    """n patches of each picture: those of objects first, and 10 to 30 % of the empty ones.

    Where objects and that share are fewer than n, further empty patches fill the places, unseen.
    """
    side = on_object.shape[-1] // GRID
    share = F.avg_pool2d(on_object.float()[:, None], side).flatten(1)  # [B, N]
    thing = share > 0.1
    few = 0.1 + 0.2 * torch.rand(len(share), 1, generator=generator)
    wanted = thing | (torch.rand(share.shape, generator=generator) < few)
    order = torch.rand(share.shape, generator=generator) + 2.0 * thing + 1.0 * wanted
    kept = order.topk(n, dim=1).indices
    return kept, wanted.gather(1, kept)


def normalise(images: torch.Tensor) -> torch.Tensor:
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


class Stream(torch.utils.data.IterableDataset):
    """`batches`, for a data loader: each of its workers draws scenes of its own."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __iter__(self):
        *most, seed = self.arguments
        worker = torch.utils.data.get_worker_info()
        torch.set_num_threads(1)
        yield from batches(*most, [*seed, worker.id if worker else 0])


# The two towers, as they are trained


class Attention(torch.autograd.Function):
    """softmax(q k^T / sqrt(d) + bias) v of [B, T, d]: on a CPU 1.5 times the training speed.

    PyTorch's fused attention saves memory; its backward pass took a third of a step's time here.
    """

    @staticmethod
    def forward(ctx, q, k, v, bias):
        attention = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5).softmax(-1)
        ctx.save_for_backward(q, k, v, attention)
        return attention @ v

    @staticmethod
    def backward(ctx, grad):
        q, k, v, attention = ctx.saved_tensors
        scores = torch._softmax_backward_data(
            grad @ v.transpose(1, 2), attention, -1, attention.dtype
        )
        scores.mul_(q.shape[-1] ** -0.5)
        values = attention.transpose(1, 2) @ grad
        return scores @ k, scores.transpose(1, 2) @ q, values, None


def attend(block, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The attention branch of a block on x [B, T, width]; bias [B or 1, 1 or T, T]."""
    batch, tokens, width = x.shape
    attn = block.attn
    packed = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = packed.view(batch, tokens, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = (t.reshape(batch * attn.num_heads, tokens, -1) for t in (q, k, v))
    bias = bias.to(q.dtype).expand(batch, -1, -1).repeat_interleave(attn.num_heads, 0)
    y = Attention.apply(q, k, v, bias)
    y = y.view(batch, attn.num_heads, tokens, -1).transpose(1, 2).reshape(batch, tokens, width)
    return attn.out_proj(y)


def encode_image(visual, images, kept, seen, drop: float, late: bool) -> torch.Tensor:
    """The [CLS] embedding [B, D] from the kept patches, with stochastic depth and a late [CLS]."""
    batch, blocks, device = len(images), visual.transformer.resblocks, images.device
    x = visual.conv1(images).flatten(2).transpose(1, 2) + visual.positional_embedding[1:]
    x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[-1]))
    cls = (visual.class_embedding + visual.positional_embedding[0]).expand(batch, 1, -1)
    x = visual.ln_pre(torch.cat([cls, x], dim=1))
    seen = F.pad(seen, (1, 0), value=True)[:, None]  # [B, 1, 1+n]
    bias = torch.zeros(seen.shape, device=device).masked_fill_(~seen, -torch.inf)
    first = torch.zeros(batch, dtype=torch.long, device=device)
    if late:
        draw = torch.multinomial(torch.tensor(LATE_SHARE), batch, replacement=True)
        first = torch.tensor(LATE)[draw].to(device)
    for number, block in enumerate(blocks):
        p = drop * (number + 1) / len(blocks)
        gate = (torch.rand(batch, 1, 1, device=device) >= p / 4) / (1 - p / 4)
        gate = gate.expand(-1, x.shape[1], -1).clone()
        gate[:, 0] *= (number >= first)[:, None]
        x = x + attend(block, x, bias) * gate
        if p == 0:
            x = x + block.mlp(block.ln_2(x))
        else:  # the MLP's branch is computed only for the pictures that keep it
            rows = torch.randperm(batch, device=device)[: round(batch * (1 - p))]
            y = block.mlp(block.ln_2(x[rows]))
            x = x.index_add(0, rows, y.to(x.dtype), alpha=batch / len(rows))
    return visual.ln_post(x[:, 0]) @ visual.proj


def encode_text(model, tokens: torch.Tensor) -> torch.Tensor:
    """Text embeddings [n, D] of tokens [n, CONTEXT], cut where the longest one ends."""
    end = tokens.argmax(1)
    length = int(end.max()) + 1
    x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    bias = torch.full((1, length, length), -torch.inf, device=x.device).triu_(1)
    for block in model.transformer.resblocks:
        x = x + attend(block, x, bias)
        x = x + block.mlp(block.ln_2(x))
    x = x[torch.arange(len(x), device=x.device), end]  # only the end token is read
    return model.ln_final(x) @ model.text_projection


def contrastive_loss(image, text, names, scale, batch: Batch, settings: dict) -> torch.Tensor:
    """CLIP's loss on captions, the names of absent things as further wrong ones; and on names.

    `image` [B, D], `text` [2 B, D] and `names` [concepts, D] are unit rows. With "names", names are
    matched with images as captions are; what an image shows but no caption of its names is neither
    right nor wrong for it. With "exempt" the same holds for captions of others that are true of it.
    """
    own = torch.eye(len(image), dtype=torch.bool, device=image.device).repeat(1, CAPTIONS)
    true = batch.fits | own if settings["exempt"] else own
    captions = scale * image @ text.T
    things = scale * image @ names.T
    absent = things.masked_fill(batch.shown, -torch.inf)
    parts = [told_apart(captions, own, true, 1, absent), told_apart(captions, own, true, 0)]
    if settings["names"]:
        parts += [told_apart(things, batch.named, batch.shown, dim) for dim in (1, 0)]
    return sum(parts) / len(parts)


def told_apart(logits, right, true, dim: int, more=None) -> torch.Tensor:
    """Mean over right pairs of -log of their share among themselves and the wrong, along `dim`."""
    wrong = logits.masked_fill(true, -torch.inf)
    wrong = torch.logsumexp(wrong if more is None else torch.cat([wrong, more], 1), dim, True)
    return F.softplus(wrong - logits)[right].mean()


# Weights


def model_config(vocabulary: int, context: int) -> dict:
    """ViT-B/16's shape at a sixth of its width."""
    return {
        "embed_dim": 128,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": GRID * PATCH,
            "layers": 12,
            "width": 128,
            "head_width": 64,
            "patch_size": PATCH,
        },
        "text_cfg": {
            "context_length": context,
            "vocab_size": vocabulary,
            "width": 128,
            "heads": 2,
            "layers": 3,
        },
    }


def shipped(folder: Path, vocabulary: Vocabulary) -> dict:
    """The weights of an exported model, as a checkpoint holds them."""
    state = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
    state["token_embedding.weight"] = state["token_embedding.weight"][vocabulary.ids]
    state["positional_embedding"] = state["positional_embedding"][:CONTEXT]
    return state


@torch.no_grad()
def enlarge_last_block(visual, factor: float) -> None:
    """Multiply what the last block adds: LayerNorm sees no size, so all before it shrinks."""
    block = visual.transformer.resblocks[-1]
    for layer in (block.attn.out_proj, block.mlp.c_proj):
        layer.weight.mul_(factor)
        layer.bias.mul_(factor)


def optimizers(model) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for the rest (weight decay on matrices only)."""
    matrices, decay, plain = [], [], []
    for name, p in model.named_parameters():
        if "resblocks" in name and p.ndim == 2:
            matrices.append(p)
        else:
            (decay if p.ndim >= 2 and "positional" not in name else plain).append(p)
    adam = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )
    muon = torch.optim.Muon(matrices, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    return [adam, muon]


def learning_rate(stage: dict, done: int, started: int) -> float:
    """Linear from the stage's first to its last, after a warm-up wherever the run began."""
    first, last = stage["lr"]
    warm = min(1.0, (done - started + BATCH) / (WARM_UP * BATCH))
    return warm * (first + done / stage["samples"] * (last - first))


def bfloat16_in_hardware(device: str) -> bool:
    """Elsewhere PyTorch emulates it, twenty times slower than float32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def average_gradients(model, flag: bool) -> bool:
    """Average the gradients over the processes; true where process 0 raised its flag."""
    if dist.get_world_size() == 1:
        return flag
    grads = [p.grad for p in model.parameters()]
    flat = torch.cat([g.flatten() for g in grads] + [torch.tensor([float(flag)])])
    dist.all_reduce(flat)
    for g, mean in zip(grads, flat[:-1].split([g.numel() for g in grads]), strict=True):
        g.copy_((mean / dist.get_world_size()).view_as(g))
    return bool(flat[-1] > 0)


def watch(model, vocabulary, rank: int, world: int) -> dict:
    """The watch figures of `val` and `val_unseen`, the splits shared out among the processes."""
    frozen = Backbone(copy.deepcopy(model), "in training", vocabulary)
    splits = ("val", "val_unseen")[rank::world]
    with torch.inference_mode():
        mine = {split: measure.watch(frozen, split) for split in splits}
    parts: list = [None] * world
    dist.all_gather_object(parts, mine)
    return {split: figures for part in parts for split, figures in part.items()}


def train(rank: int, options, stages: list[dict], meeting: str) -> None:
    """One of the training processes; all hold the same model and see different scenes."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    world, device = options.processes, options.device
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    art = Art.load(options.art)
    vocabulary = Vocabulary(art.concepts)
    names = vocabulary([TEMPLATES[0].format(c) for c in art.concepts]).to(device)
    options.run.mkdir(parents=True, exist_ok=True)
    checkpoint, log = options.run / "checkpoint.pt", options.run / "training.jsonl"
    saved = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else None
    if saved is None and options.start is not None:
        saved = {"stage": 0, "model": shipped(options.start, vocabulary)}
    begin, settings = time.time(), dict(DEFAULTS)
    for number, stage in enumerate(stages):
        settings |= stage
        if saved and saved["stage"] > number:
            continue
        torch.manual_seed(SEED)  # the same first weights everywhere
        model = open_clip.CLIP(**model_config(len(vocabulary.ids), CONTEXT)).to(device).train()
        optimisers = optimizers(model)
        if saved:
            model.load_state_dict({**model.state_dict(), **saved["model"]})
        done = 0
        if saved and "done" in saved:
            done = saved["done"]
            for o, state in zip(optimisers, saved["optimisers"], strict=True):
                o.load_state_dict(state)
        elif "enlarge" in stage:
            enlarge_last_block(model.visual, stage["enlarge"])
        # a resumed run draws other scenes than an uninterrupted one, never the same twice
        torch.manual_seed(1000 * done + rank)
        stream = Stream(art, vocabulary, settings, BATCH // world, [SEED, number, done, rank])
        workers = 0 if device == "cpu" else max(1, (os.cpu_count() or 2) - 1)
        loader = iter(torch.utils.data.DataLoader(stream, batch_size=None, num_workers=workers))
        losses, since, started = [], time.time(), done
        while done < stage["samples"]:
            lr = learning_rate(stage, done, started)
            for o, factor in zip(optimisers, (1, options.muon), strict=True):
                for group in o.param_groups:
                    group["lr"] = lr * factor
            batch = Batch(*(t.to(device) for t in next(loader)))
            with torch.autocast(device, torch.bfloat16, enabled=options.bfloat16):
                image = encode_image(
                    model.visual,
                    batch.images,
                    batch.kept,
                    batch.seen,
                    settings["drop"],
                    settings["late"],
                )
                text = encode_text(model, torch.cat([batch.tokens, names]))
            image, text = F.normalize(image.float(), dim=1), F.normalize(text.float(), dim=1)
            text, things = text.split([len(batch.tokens), len(names)])
            scale = model.logit_scale.exp()
            loss = contrastive_loss(image, text, things, scale, batch, settings)
            for o in optimisers:
                o.zero_grad()
            loss.backward()
            now = time.time()
            late = now - begin > options.stop_after
            report = average_gradients(model, rank == 0 and (late or now - since > INTERVAL))
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for o in optimisers:
                o.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))
            done += BATCH
            losses.append(float(loss.detach()))
            look = done % WATCH == 0 or done >= stage["samples"]
            if not (report or look):
                continue
            saved = {
                "stage": number,
                "done": done,
                "model": model.state_dict(),
                "optimisers": [o.state_dict() for o in optimisers],
            }
            entry = {
                "stage": stage["name"],
                "samples": done,
                "loss": round(float(np.mean(losses)), 4),
                "scenes_per_s": round(BATCH * len(losses) / (now - since), 1),
                "lr": round(lr, 6),
                "scale": round(float(model.logit_scale.detach().exp()), 1),
                "seconds": round(now - since),
            }
            if look:
                entry |= watch(model, vocabulary, rank, world)
            if rank == 0:
                with log.open("a") as f:
                    f.write(json.dumps(entry) + "\n")
                print(entry, flush=True)
                part = checkpoint.with_suffix(".part")
                torch.save(saved, part)
                part.replace(checkpoint)
            losses, since = [], time.time()
            stop = torch.tensor([float(rank == 0 and since - begin > options.stop_after)])
            dist.all_reduce(stop)
            if stop:
                return
        saved = {"stage": number + 1, "model": {k: v.cpu() for k, v in saved["model"].items()}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("art", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--start", type=Path, help="folder of an exported model to go on from")
    parser.add_argument("--stages", type=Path, help="JSON of another plan than STAGES")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--stop-after", type=float, default=math.inf, help="seconds")
    options = parser.parse_args()
    options.processes = 2 if options.device == "cpu" else 1
    options.muon = MUON_FACTOR if options.start else 2 * MUON_FACTOR
    options.bfloat16 = bfloat16_in_hardware(options.device)
    plan = json.loads(options.stages.read_text()) if options.stages else STAGES
    with tempfile.TemporaryDirectory() as folder:
        arguments = (options, plan, f"{folder}/meeting")
        torch.multiprocessing.spawn(train, arguments, nprocs=options.processes)
