"""Turn a training checkpoint into the open_clip model that ships in data/mini_clip.

    python data/build/export.py ART RUN data/mini_clip [FACTOR]

FACTOR enlarges what the last block adds once more, as the third stage of the training did.

Puts the trained tokens back in their places of CLIP's vocabulary (the others are zero: a
word never heard says nothing), pads the text positions back to 77, and stores half precision.
"""

import json
import sys
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from scenes import Art
from train import CONTEXT, Vocabulary, enlarge_last_block, model_config


def main(art_folder: Path, run: Path, out: Path, enlarge=1.0) -> None:
    checkpoint = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
    trained = checkpoint["model"]
    ids = Vocabulary(Art.load(art_folder).concepts).ids
    config = model_config(49408, 77)
    state = open_clip.CLIP(**config).state_dict()
    state["token_embedding.weight"].zero_()
    for name, tensor in trained.items():
        if name == "token_embedding.weight":
            state[name][ids] = tensor
        elif name == "positional_embedding":
            state[name][:CONTEXT] = tensor
            state[name][CONTEXT:] = 0
        elif name != "attn_mask":
            state[name] = tensor
    model = open_clip.CLIP(**config)
    model.load_state_dict({**model.state_dict(), **state})
    enlarge_last_block(model.visual, float(enlarge))
    state = model.state_dict()
    out.mkdir(parents=True, exist_ok=True)
    half = {k: v.half().contiguous() for k, v in state.items() if k != "attn_mask"}
    save_file(half, out / "model.safetensors")
    looks = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    both = {"model_cfg": config, "preprocess_cfg": looks}
    (out / "open_clip_config.json").write_text(json.dumps(both, indent=2) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *sys.argv[4:5])
