"""Train the mini-CLIP from scratch: contrastive loss on captioned scenes, coarse pictures first.

    python data/build/train.py ART RUN [--stages plan.json] [--start data/mini_clip]

ART is what art.py wrote; RUN is a folder for checkpoints and the log. Stop it whenever you like:
the same command goes on from the last checkpoint. A stage is a grid size, a kind of scene and a
number of samples; positions are interpolated from one stage to the next. Text is trained on the
tokens that occur, with the context cut to 16: exact, since attention in the text tower is causal.

Each process computes on one thread and the gradients are averaged: small matrices gain 1.3 to 1.6
times over two threads in one process; jemalloc preloaded gains about as much again.
"""

import argparse
import json
import math
import tempfile
import time
from functools import cache
from pathlib import Path
from types import MethodType

import numpy as np
import open_clip
import torch
import torch.distributed as dist
import torch.nn.functional as F
from concepts import SYNONYMS, VOC
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file
from scenes import GROUNDS, TEMPLATES, Art, SceneMaker, captions, labels
from sklearn.metrics import average_precision_score

STYLES = ("noto", "twemoji", "noto-v1", "openmoji", "emojione", "fxemoji")  # never fluent
CONTEXT = 16
MUON_FACTOR = 4  # Muon's learning rate, relative to AdamW's
SEED = 0
INTERVAL = 60  # seconds between checkpoints
STAGES = [  # grid, kind of scene, samples, and the learning rate from first to last step
    {
        "name": "single objects, 4x4",
        "grid": 4,
        "objects": [1, 1],
        "sizes": [0.55, 1.05],
        "grounds": 0.0,
        "empty": 0.0,
        "themed": 0.0,
        "samples": 512_000,
        "batch": 512,
        "captions": 1,
        "dropout": 0.0,
        "lr": [2e-3, 2e-3],
    },
    {
        "name": "few objects, 7x7",
        "grid": 7,
        "objects": [1, 4],
        "sizes": [0.25, 0.9],
        "grounds": 0.0,
        "empty": 0.0,
        "themed": 0.5,
        "samples": 230_400,
        "batch": 512,
        "captions": 2,
        "dropout": 0.0,
        "lr": [2e-3, 1.5e-3],
    },
    {
        "name": "full scenes, 14x14, half of the patches",
        "grid": 14,
        "objects": [1, 6],
        "sizes": [0.13, 0.95],
        "grounds": 0.5,
        "empty": 0.08,
        "themed": 0.6,
        "samples": 46_080,
        "batch": 256,
        "captions": 2,
        "dropout": 0.5,
        "lr": [1.5e-3, 1.2e-3],
    },
    {
        "name": "full scenes, 14x14",
        "grid": 14,
        "objects": [1, 6],
        "sizes": [0.13, 0.95],
        "grounds": 0.5,
        "empty": 0.08,
        "themed": 0.6,
        "samples": 51_200,
        "batch": 128,
        "captions": 2,
        "dropout": 0.0,
        "lr": [1.2e-3, 0.0],
    },
]


class Attention(torch.autograd.Function):
    """softmax(q k^T / sqrt(d)) v of [B, T, d] on a CPU: 1.5 times the training speed.

    PyTorch's fused attention saves memory; its backward pass took a third of a step's time here.
    """

    @staticmethod
    def forward(ctx, q, k, v):
        scale = q.shape[-1] ** -0.5
        empty = q.new_empty(1)
        attention = torch.baddbmm(empty, q, k.transpose(1, 2), beta=0, alpha=scale).softmax(-1)
        ctx.save_for_backward(q, k, v, attention)
        return attention @ v

    @staticmethod
    def backward(ctx, grad):
        q, k, v, attention = ctx.saved_tensors
        scores = torch._softmax_backward_data(
            grad @ v.transpose(1, 2), attention, -1, attention.dtype
        )
        scores.mul_(q.shape[-1] ** -0.5)
        return scores @ k, scores.transpose(1, 2) @ q, attention.transpose(1, 2) @ grad


def attention_forward(self, x, *_, **__):
    """Stands in for ``nn.MultiheadAttention.forward`` in the image tower: no mask, no dropout."""
    batch, tokens, width = x.shape
    packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)
    q, k, v = packed.view(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
    y = Attention.apply(*(t.reshape(batch * self.num_heads, tokens, -1) for t in (q, k, v)))
    y = y.view(batch, self.num_heads, tokens, -1).transpose(1, 2).reshape(batch, tokens, width)
    return F.linear(y, self.out_proj.weight, self.out_proj.bias), None


def model_config(grid: int, vocabulary: int, context: int, dropout: float = 0.0) -> dict:
    """ViT-B/16's shape at a sixth of its width."""
    return {
        "embed_dim": 128,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 16 * grid,
            "layers": 12,
            "width": 128,
            "head_width": 64,
            "patch_size": 16,
            "patch_dropout": dropout,
        },
        "text_cfg": {
            "context_length": context,
            "vocab_size": vocabulary,
            "width": 128,
            "heads": 2,
            "layers": 3,
        },
    }


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


def contrastive_loss(image, text, scale, matches, own):
    """CLIP's loss, with true matches that are not the image's own captions left out.

    `image` [B, D] and `text` [B*k, D] unit; `matches` bool [B, B*k]: the image shows all that the
    caption names; `own` int [B*k]: the image each caption was written for.
    """
    logits = scale * image @ text.T
    mine = own[None] == torch.arange(len(image))[:, None]
    others = logits.masked_fill(matches, -torch.inf)  # negatives only
    negatives = torch.logsumexp(others, 1, keepdim=True)
    to_text = F.softplus(negatives - logits)[mine].mean()
    negatives = torch.logsumexp(others, 0, keepdim=True)
    to_image = F.softplus(negatives - logits)[mine].mean()
    return (to_text + to_image) / 2


def interpolate_positions(state: dict, grid: int) -> dict:
    """Positions of a tower of another grid size (bicubic); all else untouched."""
    key = "visual.positional_embedding"
    cls, patches = state[key][:1], state[key][1:]
    old = math.isqrt(len(patches))
    if old != grid:
        square = patches.T.reshape(1, -1, old, old)
        square = F.interpolate(square, (grid, grid), mode="bicubic", align_corners=False)
        state = {**state, key: torch.cat([cls, square.flatten(2)[0].T])}
    return state


def shipped(folder: Path, vocabulary: Vocabulary) -> dict:
    """The weights of an exported model, as a checkpoint holds them."""
    state = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
    state["token_embedding.weight"] = state["token_embedding.weight"][vocabulary.ids]
    state["positional_embedding"] = state["positional_embedding"][:CONTEXT]
    return state


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


def concept_weights(concepts: list[str]) -> np.ndarray:
    """Everyday things are seen more often: VOC's classes 4 times, what themes hold twice."""
    from scenes import THEMES

    common = {w for names, _ in THEMES.values() for w in names.split(", ")}
    return np.array([4.0 if c in VOC else 2.0 if c in common else 1.0 for c in concepts])


@torch.no_grad()
def validate(model, vocabulary, art, grid: int, stage: dict) -> dict:
    """[CLS] mAP over VOC's classes on 384 fresh scenes, in the known styles and in the unseen."""
    model.eval()
    text = F.normalize(model.encode_text(vocabulary([f"a photo of a {c}" for c in VOC])), dim=1)
    out = {}
    for name, styles in (("seen", ("noto", "twemoji")), ("unseen", ("fluent",))):
        rng = np.random.default_rng(12345)
        weights = concept_weights(art.concepts)
        n, sizes = stage["objects"], stage["sizes"]
        maker = SceneMaker(art, rng, styles, weights, stage["themed"], n, sizes, 0.5)
        truth, scores = [], []
        for _ in range(3):
            scenes = maker.make(128, 16 * grid)
            truth.append(labels(scenes, art, 16 * grid))
            image = F.normalize(model.encode_image(normalise(scenes.images)), dim=1)
            scores.append((80 * image @ text.T).softmax(1).numpy())
        truth = np.concatenate(truth)[:, [art.concepts.index(c) for c in VOC]]
        scores = np.concatenate(scores)
        present = truth.any(0)
        ap = average_precision_score(truth[:, present], scores[:, present], average="macro")
        out[name] = round(100 * float(ap), 2)
    model.train()
    return out


MEAN = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
STD = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)


def normalise(images: torch.Tensor) -> torch.Tensor:
    return (images - MEAN) / STD


def average_gradients(model, flag: bool) -> bool:
    """Average the gradients over the processes; true where process 0 raised its flag."""
    grads = [p.grad for p in model.parameters()]
    flat = torch.cat([g.flatten() for g in grads] + [torch.tensor([float(flag)])])
    dist.all_reduce(flat)
    for g, mean in zip(grads, flat[:-1].split([g.numel() for g in grads]), strict=True):
        g.copy_((mean / dist.get_world_size()).view_as(g))
    return bool(flat[-1] > 0)


def train(rank: int, options, stages: list[dict], meeting: str) -> None:
    """One of the training processes; all hold the same model and see different scenes."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    world = options.processes
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    art = Art.load(options.art)
    vocabulary = Vocabulary(art.concepts)
    options.run.mkdir(parents=True, exist_ok=True)
    checkpoint, log = options.run / "checkpoint.pt", options.run / "log.jsonl"
    saved = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else None
    if saved is None and options.start is not None:
        saved = {"stage": 0, "model": shipped(options.start, vocabulary)}
    begin = time.time()
    for number, stage in enumerate(stages):
        if saved and saved["stage"] > number:
            continue
        torch.manual_seed(SEED + number)  # the same first weights everywhere
        grid, size = stage["grid"], 16 * stage["grid"]
        config = model_config(grid, len(vocabulary.ids), CONTEXT, stage["dropout"])
        model = open_clip.CLIP(**config)
        for block in model.visual.transformer.resblocks:
            block.attn.forward = MethodType(attention_forward, block.attn)
        optimisers = optimizers(model)
        done = 0
        if saved:
            saved["model"] = interpolate_positions(saved["model"], grid)
            model.load_state_dict({**model.state_dict(), **saved["model"]})
            if saved["stage"] == number and "done" in saved:
                done = saved["done"]
                for o, state in zip(optimisers, saved["optimisers"], strict=True):
                    o.load_state_dict(state)
        model.train()
        # a resumed run draws other scenes than an uninterrupted one, never the same twice
        rng = np.random.default_rng([SEED, number, done, rank])
        torch.manual_seed(1000 * done + rank)
        weights = concept_weights(art.concepts)
        n, sizes = stage["objects"], stage["sizes"]
        maker = SceneMaker(
            art, rng, STYLES, weights, stage["themed"], n, sizes, empty=stage["empty"]
        )
        batch, k = stage["batch"] // world, stage["captions"]
        own = torch.arange(batch).repeat(k)
        losses, since, started = [], time.time(), done
        while done < stage["samples"]:
            warm = min(1.0, (done - started + stage["batch"]) / (50 * stage["batch"]))
            first, last = stage["lr"]
            lr = warm * (first + done / stage["samples"] * (last - first))
            for o, factor in zip(optimisers, (1, MUON_FACTOR), strict=True):
                for group in o.param_groups:
                    group["lr"] = lr * factor
            scenes = maker.make(batch, size)
            spoken = [captions(scenes, art, rng, size, stage["grounds"]) for _ in range(k)]
            named = np.concatenate([m for _, m in spoken])
            shown = labels(scenes, art, size)
            lacking = torch.from_numpy((~shown).astype(np.float32) @ named.T.astype(np.float32))
            matches = (lacking < 0.5) | (own[None] == torch.arange(batch)[:, None])
            with torch.autocast("cpu", torch.bfloat16):
                image = model.encode_image(normalise(scenes.images))
                text = model.encode_text(vocabulary([t for texts, _ in spoken for t in texts]))
            image, text = F.normalize(image.float(), dim=1), F.normalize(text.float(), dim=1)
            loss = contrastive_loss(image, text, model.logit_scale.exp(), matches, own)
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
            done += stage["batch"]
            losses.append(float(loss.detach()))
            if not report and done < stage["samples"]:
                continue
            saved = {
                "stage": number,
                "done": done,
                "model": model.state_dict(),
                "optimisers": [o.state_dict() for o in optimisers],
            }
            if rank == 0:
                entry = {
                    "stage": stage["name"],
                    "samples": done,
                    "loss": round(float(np.mean(losses)), 4),
                    "images_per_s": round(stage["batch"] * len(losses) / (now - since), 1),
                    "lr": round(lr, 6),
                    "scale": round(float(model.logit_scale.detach().exp()), 1),
                    "seconds": round(now - since),
                    "cls_map": validate(model, vocabulary, art, grid, stage),
                }
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
        saved = {"stage": number + 1, "model": saved["model"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("art", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--stages", type=Path, help="JSON of another plan than STAGES")
    parser.add_argument("--start", type=Path, help="folder of an exported model to go on from")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--stop-after", type=float, default=math.inf, help="seconds")
    options = parser.parse_args()
    plan = json.loads(options.stages.read_text()) if options.stages else STAGES
    with tempfile.TemporaryDirectory() as folder:
        arguments = (options, plan, f"{folder}/meeting")
        torch.multiprocessing.spawn(train, arguments, nprocs=options.processes)
