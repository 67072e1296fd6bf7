"""The backbone: what is loaded, from where, and what is refused; no network."""

import hashlib
import json
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from golden_tower import (
    SMALL,
    TEXT,
    VISION,
    golden_clip,
    golden_images,
    seeded_images,
    small_clip,
    write,
)
from open_clip.constants import OPENAI_DATASET_MEAN as MEAN
from open_clip.constants import OPENAI_DATASET_STD as STD
from open_clip.model import convert_weights_to_fp16
from open_clip.transformer import QuickGELU
from PIL import Image
from safetensors.torch import save_file

from piaa_utils import backbone as module
from piaa_utils.backbone import Backbone, load_backbone
from piaa_utils.checkpoint import is_torchscript, read_state_dict
from piaa_utils.encoders import encode
from piaa_utils.settings import Calibration, Scales
from piaa_utils.vocabulary import Vocabulary

pytestmark = pytest.mark.usefixtures("architectures")


@pytest.fixture(scope="module")
def words():
    """A backbone with CLIP's vocabulary."""
    clip = small_clip(**SMALL, text={"vocab_size": 49408, "context_length": 77})
    return load_backbone(clip, device="cpu")


# What a backbone is


def test_the_model_is_frozen_and_the_callers_is_left_alone():
    clip = small_clip(**SMALL).half().train()
    backbone = load_backbone(clip, device="cpu")
    assert not backbone.model.training
    assert all(p.dtype == torch.float32 for p in backbone.model.parameters())
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert clip.training
    assert all(p.requires_grad and p.dtype == torch.float16 for p in clip.parameters())


def test_gelu_is_told_from_quickgelu():
    clips = [small_clip(quick_gelu=q, layers=2, image_size=112) for q in (True, False)]
    quick, plain = (load_backbone(clip, device="cpu") for clip in clips)
    assert quick.quick_gelu and not plain.quick_gelu
    assert quick.weights_hash == plain.weights_hash  # the weights do not tell
    images = seeded_images(1, seed=0, size=112)
    a, b = (encode(backbone, images, [])["cls"] for backbone in (quick, plain))
    assert not torch.allclose(a, b, atol=1e-3)  # but the features differ


def test_an_activation_in_one_block_only_is_refused():
    clip = small_clip(quick_gelu=False, **SMALL)
    clip.visual.transformer.resblocks[1].mlp.gelu = QuickGELU()
    with pytest.raises(ValueError, match="computes GELU and QuickGELU"):
        load_backbone(clip)


def test_weights_hash():
    clip = small_clip(**SMALL)
    backbone = load_backbone(clip, device="cpu")
    digest = hashlib.sha256()
    for name in sorted(clip.state_dict()):
        digest.update(name.encode() + clip.state_dict()[name].numpy().tobytes())
    assert backbone.weights_hash == digest.hexdigest()
    with torch.no_grad():
        clip.visual.proj[0, 0] += 1e-3
    assert load_backbone(clip, device="cpu").weights_hash != digest.hexdigest()


def test_best_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert module.best_device() == "cpu"
    assert load_backbone(small_clip(**SMALL)).device.type == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert module.best_device() == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert module.best_device() == "cuda"


# Preprocessing


def test_preprocess_is_resize_crop_and_normalise(golden):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    resized = np.asarray(image.resize((373, 224), Image.Resampling.BICUBIC))  # 100 * 224 / 60
    left = round((373 - 224) / 2)
    expected = (resized[:, left : left + 224] / 255 - np.array(MEAN)) / np.array(STD)
    found = golden.preprocess(image)
    assert found.shape == (3, 224, 224) and found.dtype == torch.float32
    np.testing.assert_allclose(found.permute(1, 2, 0), expected, atol=1e-5)


# Text


def test_text_of_one_template(words):
    text = words.encode_text(["cat", "tv monitor"])
    tokens = open_clip.tokenize(["a photo of a cat", "a photo of a tv monitor"])
    own = words.model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(text, own)
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(2))
    assert not text.requires_grad


def test_text_of_many_classes(words):
    names = [f"thing {i}" for i in range(300)]
    text = words.encode_text(names)
    torch.testing.assert_close(
        text[[0, 255, 256, 299]],
        words.encode_text(["thing 0", "thing 255", "thing 256", "thing 299"]),
    )


def test_text_of_a_vocabulary(words):
    vocabulary = Vocabulary(["cat", "sofa"], {"sofa": ["couch"]}, ["sky"], ["a {}", "one {}"])
    text = words.encode_text(vocabulary)
    sofa = [words.encode_text([n], [t]) for n in ("sofa", "couch") for t in ("a {}", "one {}")]
    torch.testing.assert_close(text[1], F.normalize(torch.cat(sofa).mean(0), dim=0))
    torch.testing.assert_close(text[2:], words.encode_text(["sky"], ["a {}", "one {}"]))
    with pytest.raises(ValueError, match="class_names holds the same name twice"):
        words.encode_text(["cat", "Cat"])


LONG = "a place where somebody left a great number of old things in the rain, " * 6


@pytest.mark.parametrize(
    ("names", "templates"),
    [([LONG + "cat", LONG + "dog"], ["a photo of a {}"]), (["cat", "dog"], ["{}", LONG + "{}"])],
)
def test_a_prompt_that_does_not_fit(words, names, templates):
    with pytest.raises(ValueError, match="The prompt '.*cat' has 9. tokens, .* reads 77: shorten"):
        words.encode_text(names, templates)
    longest = " ".join(["cat"] * 75)  # with a start and an end
    assert words.encode_text([longest, "dog"], ["{}"]).shape == (2, 64)


def test_two_names_that_clip_reads_alike(words):
    """CLIP's tokenizer unescapes HTML: no comparison of the names could foresee it."""
    with pytest.raises(ValueError, match="reads 'R&B' and 'R&amp;B' alike: remove one"):
        words.encode_text(["dog", "R&B", "R&amp;B"])


def test_text_of_another_vocabulary():
    backbone = load_backbone(small_clip(**SMALL), device="cpu")
    with pytest.raises(ValueError, match="set backbone.tokenizer"):
        backbone.encode_text(["cat"])


# Towers that are no plain ViTs


def resnet():
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    return open_clip.CLIP(64, vision, TEXT)


def timm_trunk():
    vision = {"timm_model_name": "resnet10t", "timm_model_pretrained": False, "image_size": 64}
    return open_clip.CLIP(64, vision, TEXT)


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (resnet, "a ResNet"),
        (timm_trunk, "a timm trunk"),
        (lambda: small_clip(**SMALL, attentional_pool=True), "a ViT with an attentional pool"),
        (lambda: small_clip(**SMALL, pool_type="avg"), "'avg' pooling"),
        (lambda: small_clip(**SMALL, qk_norm=True), "a ViT of CustomResidualAttentionBlocks"),
        (lambda: small_clip(**SMALL, ls_init_value=0.1), "layer scale"),
        (lambda: small_clip(layers=2, image_size=(32, 64)), "a ViT for images of .32, 64. pixels"),
        (lambda: small_clip(layers=1, image_size=32), "1 block"),
    ],
)
def test_objects_that_are_no_plain_vits(build, found):
    with pytest.raises(ValueError, match=f"custom is .*{found}.*need a plain ViT"):
        load_backbone(build())


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("RN50", "a ResNet"),
        ("ViT-B-16-SigLIP", "a timm trunk \\(vit_base_patch16_siglip_224\\)"),
        ("coca_ViT-B-32", "a CoCa model"),
    ],
)
def test_names_that_are_no_plain_vits(name, found):
    with pytest.raises(ValueError, match=f"{name} is {found}.*need a plain ViT"):
        load_backbone(name, "openai")


def test_a_text_tower_of_another_library():
    with pytest.raises(ValueError, match="text tower of transformers .pass the object"):
        load_backbone("xlm-roberta-base-ViT-B-32", "laion5b_s13b_b90k")


class VisionTransformer(torch.nn.Linear):
    """Named as that of OpenAI's own package, which is not open_clip's."""


def test_a_model_of_another_package():
    clip = torch.nn.Module()
    clip.visual = VisionTransformer(2, 2)
    message = "no open_clip model.*VisionTransformer: name the architecture.*pt file as pretrained"
    with pytest.raises(ValueError, match=message):
        load_backbone(clip)
    with pytest.raises(ValueError, match="not a tuple: give its first element"):
        load_backbone((golden_clip(), None))
    with pytest.raises(ValueError, match="an open_clip model, not a Linear"):
        load_backbone(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("device", ["gpu", "cuda", torch.device("mps")])
def test_a_device_that_is_not_there(device, monkeypatch):
    def empty(*_, device):
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(module, "best_device", lambda: "cpu")
    with pytest.raises(ValueError, match=f"No device '{device}' .--device. here: there is cpu"):
        load_backbone("no-such-model", device=device)  # found before any weights are read


# Names and tags


@pytest.mark.parametrize(
    ("model", "pretrained", "kind", "message"),
    [
        ("ViT-B-17", "openai", ValueError, "no architecture 'ViT-B-17'"),
        ("ViT-B-16-quickgelu", None, ValueError, "ViT-B-16-quickgelu needs weights"),
        ("ViT-B/16", "openai", ValueError, "with QuickGELU.*use model='ViT-B-16-quickgelu'"),
        ("ViT-B-16-quickgelu", "opnai", FileNotFoundError, "'opnai' is neither .* tag.*openai"),
        ("ViT-B-16-quickgelu", Path("missing.pt"), FileNotFoundError, "missing.pt' is neither"),
        (golden_clip(), "missing.pt", FileNotFoundError, "no checkpoint file missing.pt"),
        ("mini", "openai", ValueError, "brings its own weights: leave out pretrained='openai'"),
    ],
)
def test_a_name_or_weights_that_are_not_there(model, pretrained, kind, message):
    with pytest.raises(kind, match=message):
        load_backbone(model, pretrained)


def test_gelu_weights_demand_gelu():
    assert "laion2b_s34b_b88k" in open_clip.list_pretrained_tags_by_model("ViT-B-16")
    config = {"quick_gelu": True}
    with pytest.raises(ValueError, match="'laion' were trained with GELU.*use model='ViT-B-16'"):
        module.check_activation("ViT-B-16-quickgelu", config, False, "laion")


def test_a_tag(monkeypatch):
    asked = []

    def create_model(name, pretrained):
        asked.append((name, pretrained))
        return golden_clip()

    monkeypatch.setattr(open_clip, "create_model", create_model)
    backbone = load_backbone("ViT-B/16-quickgelu", "openai", device="cpu")
    assert asked == [("ViT-B-16-quickgelu", "openai")]
    assert backbone.name == "ViT-B-16-quickgelu/openai"
    assert backbone.quick_gelu
    assert backbone.tokenizer(["cat"]).shape == (1, 77)


def test_no_network(monkeypatch):
    def create_model(name, pretrained):
        raise RuntimeError("no route to host")

    monkeypatch.setattr(open_clip, "create_model", create_model)
    with pytest.raises(ConnectionError, match="no route to host.*give the file as pretrained"):
        load_backbone("ViT-B-16-quickgelu", "openai")


# Local checkpoints


@pytest.fixture(scope="module")
def small(architectures):
    return load_backbone(small_clip(**SMALL), device="cpu")


FORMATS = ["weights.safetensors", "state.pt", "pytorch_model.bin", "training.pt", "torchscript.pt"]


@pytest.mark.parametrize("file", FORMATS)
def test_a_local_checkpoint(tmp_path, file):
    clip = small_clip(**SMALL)
    convert_weights_to_fp16(clip)  # as OpenAI's files: convolution and matrices, not the norms
    backbone = load_backbone("small-test-quickgelu", write(clip, tmp_path / file), device="cpu")
    assert backbone.name == f"small-test-quickgelu/{file}"
    assert backbone.quick_gelu
    for name, tensor in backbone.model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert tensor.equal(clip.state_dict()[name].float()), name


def test_weights_into_an_object(tmp_path, small):
    path = write(small_clip(**SMALL), tmp_path / "weights.safetensors")
    mine = small_clip(**SMALL, seed=9)
    before = mine.visual.proj.detach().clone()
    backbone = load_backbone(mine, path, device="cpu")
    assert backbone.name == "custom/weights.safetensors"
    assert backbone.weights_hash == small.weights_hash
    assert mine.visual.proj.equal(before)


def test_a_scale_of_one_element_is_a_scalar(tmp_path, small):
    state = small_clip(**SMALL).state_dict()
    torch.save({**state, "logit_scale": state["logit_scale"].reshape(1)}, tmp_path / "state.pt")
    backbone = load_backbone("small-test-quickgelu", tmp_path / "state.pt", device="cpu")
    assert backbone.weights_hash == small.weights_hash


def test_an_archive_of_openai_demands_quickgelu(tmp_path):
    path = write(small_clip(**SMALL), tmp_path / "torchscript.pt")
    with pytest.raises(ValueError, match="QuickGELU.*use model='small-test-quickgelu'"):
        load_backbone("small-test", path)


def test_a_guess_of_the_activation_is_said_aloud(tmp_path, recwarn):
    clip = small_clip(**SMALL)
    single, half = write(clip, tmp_path / "1.pt"), write(clip.half(), tmp_path / "half.pt")
    for path in (single, half):
        load_backbone("small-test-quickgelu", path, device="cpu")  # chosen, and fitting
    assert not recwarn
    message = "small-test computes GELU.*must be 'small-test-quickgelu'"
    for path, found in ((single, "nothing that tells"), (half, "half-precision values, as OpenAI")):
        with pytest.warns(UserWarning, match=f"{found}.*{message}"):
            load_backbone("small-test", path, device="cpu")


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"patch_size": 32}, r"'visual.positional_embedding' is \(2, 128\) in the file and \(5, "),
        ({"layers": 1}, r"resblocks.1.*missing in the file and \(128,\) in the model; name the"),
        ({"layers": 3}, r"resblocks.2.* in the file and missing in the model"),
    ],
)
def test_a_checkpoint_of_another_architecture(tmp_path, vision, message):
    path = write(small_clip(**{**SMALL, **vision}), tmp_path / "torchscript.pt")
    with pytest.raises(ValueError, match=f"torchscript.pt was not made for small-test.*{message}"):
        load_backbone("small-test-quickgelu", path)


@pytest.mark.parametrize("file", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"this is a text\n" * 99])
def test_a_file_that_holds_no_weights(tmp_path, file, content):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} cannot be read as weights"):
        read_state_dict(tmp_path / file)


@pytest.mark.parametrize("file", FORMATS)
def test_a_truncated_file(tmp_path, file):
    path = write(small_clip(**SMALL), tmp_path / file)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match=f"{file} cannot be read as weights"):
        read_state_dict(path)


def test_an_archive_with_a_damaged_table_of_contents(tmp_path):
    path = write(small_clip(**SMALL), tmp_path / "state.pt")
    whole = path.read_bytes()
    path.write_bytes(re.sub(rb"(?s)PK\x01\x02....", b"PK\x01\x02\x00\x03\x63\x00", whole))
    assert not is_torchscript(path), "it is of a later format, 9.9"
    path.write_bytes(whole.replace(b"PK\x01\x02", b"PK\x00\x00"))
    with pytest.raises(ValueError, match="state.pt cannot be read as weights"):
        load_backbone("small-test-quickgelu", path)


@pytest.mark.parametrize(
    "content", [{}, {"epoch": 3}, [torch.zeros(2)], {"state_dict": 1}, {0: torch.zeros(2)}]
)
def test_a_file_of_something_else(tmp_path, content):
    torch.save(content, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_state_dict(tmp_path / "state.pt")


class Intruder:
    """Runs code when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return (open, (self.mark, "w"))


@pytest.mark.parametrize("file", ["state.pt", "archive.pt"])
def test_nothing_in_a_file_is_run(tmp_path, file):
    path, mark = tmp_path / file, tmp_path / "mark"
    if file == "state.pt":
        torch.save({"weight": Intruder(mark)}, path)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/constants.pkl", b"")
            archive.writestr("archive/data.pkl", pickle.dumps({"weight": Intruder(mark)}, 2))
    with pytest.raises(ValueError, match="objects other than tensors"):
        read_state_dict(path)
    assert not mark.exists()


@pytest.mark.parametrize("compiler", ["trace", "script"])
def test_an_archive_is_read_as_torch_reads_it(tmp_path, compiler):
    class Views(torch.nn.Module):
        steps: list[int]  # no weight, nor are the other two
        scales: dict[str, float]

        def __init__(self):
            super().__init__()
            whole = torch.arange(12.0).view(3, 4)
            for name, view in (("whole", whole), ("turned", whole.T), ("part", whole[1:, 2:])):
                self.register_buffer(name, view)
            self.register_buffer("empty", torch.zeros(0, 4))
            self.steps, self.scales, self.label = [1, 2], {"a": 0.5}, "views"

        def forward(self, x):
            return x + self.steps[0] + self.scales["a"]

    views = Views()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if compiler == "trace":
            archive = torch.jit.trace(views, torch.zeros(1))
        else:
            archive = torch.jit.script(views)
        archive.save(str(tmp_path / "views.pt"))
    state = read_state_dict(tmp_path / "views.pt")
    assert state.keys() == views.state_dict().keys()
    for name, tensor in views.state_dict().items():
        assert state[name].shape == tensor.shape
        assert state[name].equal(tensor), name


# Image sizes


def test_another_image_size_interpolates_the_positions():
    clip = small_clip(layers=2, image_size=64)  # 4 x 4
    ramp = torch.arange(4.0).repeat_interleave(4)  # grows downwards
    with torch.no_grad():
        clip.visual.positional_embedding[1:, 0] = ramp
    backbone = load_backbone(clip, device="cpu", image_size=128)
    assert (backbone.name, backbone.image_size, backbone.grid) == ("custom@128", 128, 8)
    positions = backbone.model.visual.positional_embedding
    assert positions.shape == (65, 128) and not positions.requires_grad
    assert positions[0].equal(clip.visual.positional_embedding[0])
    rows = positions[1:, 0].view(8, 8)
    torch.testing.assert_close(rows, rows[:, :1].expand(8, 8))  # nothing changes sideways
    assert (rows.diff(dim=0) > 0).all() and rows[0, 0] < 0.3 and rows[7, 0] > 2.7
    assert encode(backbone, torch.zeros(1, 3, 128, 128))["scclip"].shape == (1, 64, 64)
    assert backbone.preprocess(Image.new("RGB", (50, 40))).shape == (3, 128, 128)
    assert clip.visual.image_size == (64, 64)  # the caller's stays


@pytest.mark.parametrize("image_size", [100, 0, -16])
def test_an_image_size_between_patches(image_size):
    with pytest.raises(ValueError, match="multiple of the patch size, 16"):
        load_backbone(golden_clip(), image_size=image_size)


# The embedded mini-CLIP


@pytest.fixture
def mini_folder(tmp_path, monkeypatch):
    """A folder data/ with a mini-CLIP of random weights in it, laid out as the real one."""
    folder = tmp_path / "mini_clip"
    folder.mkdir()
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    clip = small_clip(image_size=112, layers=2, text=text).half()
    save_file(clip.state_dict(), folder / "model.safetensors")
    config = {
        "model_cfg": {
            "embed_dim": 64,
            "quick_gelu": True,
            "vision_cfg": {**VISION, "image_size": 112, "layers": 2},
            "text_cfg": text,
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    monkeypatch.setenv("PIAA_DATA", str(tmp_path))
    return folder


def test_mini(mini_folder, recwarn):
    backbone = load_backbone(device="cpu")
    assert isinstance(backbone, Backbone)
    assert (backbone.name, backbone.image_size, backbone.depth) == ("mini", 112, 2)
    assert backbone.quick_gelu
    assert backbone.encode_text(["cat", "dog"]).shape == (2, 64)
    white = backbone.preprocess(Image.new("RGB", (20, 20), "white"))
    torch.testing.assert_close(white, torch.ones(3, 112, 112))
    assert encode(backbone, golden_images()[:, :, :112, :112])["scclip"].shape == (3, 49, 64)
    assert not recwarn


def test_a_models_own_constants(mini_folder):
    """Those that lie beside its weights; the paper's where there are none."""
    backbone = load_backbone(device="cpu")
    assert (backbone.constants, backbone.calibration) == ({}, Calibration(0.4, 0.3, 3.0))
    assert backbone.scales == Scales() and backbone.scales[:3] == (80, 200, 500)
    constants = {
        "scclip": {"beta": 0.9, "cls_share": 0.1, "gain": 5.0},
        "scales": {"s": 5.0, "m": 40.0, "T": 20.0},
        "cls_alone": 7.0,
        "how": "chosen",
    }
    (mini_folder / "constants.json").write_text(json.dumps(constants))
    for model in ("mini", mini_folder):
        own = load_backbone(model, device="cpu")
        assert own.constants == constants
        assert own.calibration == Calibration(0.9, 0.1, 5.0)
        assert own.scales[:3] == (5.0, 40.0, 20.0) and own.scales.source != Scales().source
    images = golden_images()[:1, :, :112, :112]
    papers = encode(own, images, calibration=Calibration())["scclip"]
    torch.testing.assert_close(papers, encode(backbone, images)["scclip"])
    assert not torch.allclose(papers, encode(own, images)["scclip"], atol=1e-3)


def test_mini_missing(mini_folder):
    (mini_folder / "open_clip_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="no open_clip_config.json: take a whole clone"):
        load_backbone()
