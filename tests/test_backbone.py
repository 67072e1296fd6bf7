"""The backbone: what is loaded, from where, and what is refused; no network."""

import hashlib
import json
import pickle
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from golden_tower import SMALL, TEXT, VISION, golden_clip, small_clip, write
from open_clip.constants import OPENAI_DATASET_MEAN as MEAN
from open_clip.constants import OPENAI_DATASET_STD as STD
from open_clip.model import convert_weights_to_fp16
from open_clip.transformer import QuickGELU
from PIL import Image
from safetensors.torch import save_file

from piaa_utils import backbone as module
from piaa_utils.backbone import load_backbone
from piaa_utils.checkpoint import read_state_dict
from piaa_utils.encoders import encode
from piaa_utils.settings import Calibration, Scales
from piaa_utils.vocabulary import Vocabulary

pytestmark = pytest.mark.usefixtures("architectures")


@pytest.fixture(scope="module")
def words():
    """A backbone with CLIP's vocabulary."""
    clip = small_clip(**SMALL, text={"vocab_size": 49408, "context_length": 77})
    return load_backbone(clip, device="cpu")


def test_the_model_is_frozen_and_the_callers_is_left_alone():
    clip = small_clip(**SMALL).half().train()
    backbone = load_backbone(clip, device="cpu")
    assert not backbone.model.training
    for p in backbone.model.parameters():
        assert p.dtype == torch.float32 and not p.requires_grad
    assert clip.training
    assert all(p.requires_grad and p.dtype == torch.float16 for p in clip.parameters())


def test_the_activation_is_told_and_must_be_one():
    clips = [small_clip(quick_gelu=quick, **SMALL) for quick in (True, False)]
    quick, plain = (load_backbone(clip, device="cpu") for clip in clips)
    assert quick.quick_gelu and not plain.quick_gelu
    assert quick.weights_hash == plain.weights_hash  # the weights do not tell
    assert quick.identity() != plain.identity()
    clips[1].visual.transformer.resblocks[1].mlp.gelu = QuickGELU()
    with pytest.raises(ValueError, match="computes GELU and QuickGELU"):
        load_backbone(clips[1])


def test_weights_hash():
    clip, digest = small_clip(**SMALL), hashlib.sha256()
    for name in sorted(clip.state_dict()):
        digest.update(name.encode() + clip.state_dict()[name].numpy().tobytes())
    assert load_backbone(clip, device="cpu").weights_hash == digest.hexdigest()


def test_the_best_device_is_cuda_then_mps_then_the_cpu(monkeypatch):
    for cuda, mps, best in ((0, 0, "cpu"), (0, 1, "mps"), (1, 0, "cuda"), (1, 1, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=cuda: bool(there))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=mps: bool(there))
        assert module.best_device() == best


@pytest.mark.parametrize("device", ["gpu", "cuda", torch.device("mps")])
def test_a_device_that_is_not_there(device, monkeypatch):
    def empty(*_, device):
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(module, "best_device", lambda: "cpu")
    with pytest.raises(ValueError, match=f"No device '{device}' .--device. here: there is cpu"):
        load_backbone("no-such-model", device=device)  # found before any weights are read


def test_preprocess_is_resize_crop_and_normalise(golden):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    resized = np.asarray(image.resize((373, 224), Image.Resampling.BICUBIC))  # 100 * 224 / 60
    left = round((373 - 224) / 2)
    expected = (resized[:, left : left + 224] / 255 - np.array(MEAN)) / np.array(STD)
    found = golden.preprocess(image)
    assert found.shape == (3, 224, 224) and found.dtype == torch.float32
    np.testing.assert_allclose(found.permute(1, 2, 0), expected, atol=1e-5)


def test_text_of_a_vocabulary_and_of_many_classes(words):
    vocabulary = Vocabulary(["cat", "sofa"], {"sofa": ["couch"]}, ["sky"], ["a {}", "one {}"])
    text = words.encode_text(vocabulary)
    sofa = [words.encode_text([n], [t]) for n in ("sofa", "couch") for t in ("a {}", "one {}")]
    torch.testing.assert_close(text[1], F.normalize(torch.cat(sofa).mean(0), dim=0))
    torch.testing.assert_close(text[2:], words.encode_text(["sky"], ["a {}", "one {}"]))
    many = words.encode_text([f"thing {i}" for i in range(300)])
    few = words.encode_text(["thing 0", "thing 255", "thing 256", "thing 299"])
    torch.testing.assert_close(many[[0, 255, 256, 299]], few)


LONG = "a place where somebody left a great number of old things in the rain, " * 6


def test_prompts_that_do_not_fit_and_names_that_are_read_alike(words, golden):
    too_long = "'.*cat' has 9. tokens, .* reads 77: shorten"
    for backbone, names, template, message in (
        (words, [LONG + "cat"], "a photo of a {}", too_long),
        (words, ["cat"], LONG + "{}", too_long),
        # CLIP's tokenizer unescapes HTML: no comparison of the names could foresee it.
        (words, ["dog", "R&B", "R&amp;B"], "{}", "reads 'R&B' and 'R&amp;B' alike: remove one"),
        (words, ["cat", "Cat"], "{}", "class_names holds the same name twice"),
        (golden, ["cat"], "{}", "another vocabulary than CLIP's: set backbone.tokenizer"),
    ):
        with pytest.raises(ValueError, match=message):
            backbone.encode_text(names, [template])
    longest = " ".join(["cat"] * 75)  # with a start and an end
    assert words.encode_text([longest, "dog"], ["{}"]).shape == (2, 64)


RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
TIMM = {"timm_model_name": "resnet10t", "timm_model_pretrained": False, "image_size": 64}
QUICK = "ViT-B-16-quickgelu"


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        (lambda: open_clip.CLIP(64, RESNET, TEXT), None, "a ResNet.*need a plain ViT"),
        (lambda: open_clip.CLIP(64, TIMM, TEXT), None, "a timm trunk"),
        (lambda: small_clip(**SMALL, attentional_pool=True), None, "an attentional pool"),
        (lambda: small_clip(**SMALL, pool_type="avg"), None, "'avg' pooling"),
        (lambda: small_clip(**SMALL, qk_norm=True), None, "of CustomResidualAttentionBlocks"),
        (lambda: small_clip(**SMALL, ls_init_value=0.1), None, "layer scale"),
        (lambda: small_clip(layers=2, image_size=(32, 64)), None, "images of .32, 64. pixels"),
        (lambda: small_clip(layers=1, image_size=32), None, "1 block"),
        (lambda: SimpleNamespace(visual=torch.nn.Linear(2, 2)), None, "no open_clip model"),
        (lambda: (golden_clip(), None), None, "not a tuple: give its first element"),
        (lambda: torch.nn.Linear(2, 2), None, "an open_clip model, not a Linear"),
        (golden_clip, "missing.pt", "no checkpoint file missing.pt"),
        ("mini", "openai", "brings its own weights: leave out pretrained='openai'"),
        ("RN50", "openai", "RN50 is a ResNet.*need a plain ViT"),
        ("ViT-B-16-SigLIP", "webli", "a timm trunk .vit_base_patch16_siglip_224"),
        ("coca_ViT-B-32", "openai", "a CoCa model.*need a plain ViT"),
        ("xlm-roberta-base-ViT-B-32", "openai", "text tower of transformers .pass the object"),
        ("ViT-B-17", "openai", "no architecture 'ViT-B-17'"),
        ("ViT-B/16", "openai", "with QuickGELU.*use model='ViT-B-16-quickgelu'"),
        (QUICK, None, "ViT-B-16-quickgelu needs weights"),
        (QUICK, "opnai", "'opnai' is neither .* tag.*openai"),
        (QUICK, Path("missing.pt"), "missing.pt' is neither"),
    ],
)
def test_models_and_weights_that_are_refused(model, pretrained, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_backbone(model() if callable(model) else model, pretrained)


def test_a_tag_is_asked_of_open_clip(monkeypatch):
    def create_model(name, pretrained):
        return small_clip("quickgelu" in name, **SMALL)

    monkeypatch.setattr(open_clip, "create_model", create_model)
    for model, tag in (("ViT-B/16-quickgelu", "openai"), ("ViT-B-16", "laion2b_s34b_b88k")):
        backbone = load_backbone(model, tag, device="cpu")
        assert backbone.name == f"{model.replace('/', '-')}/{tag}"
        assert backbone.quick_gelu == ("quickgelu" in model)
        assert backbone.tokenizer(["cat"]).shape == (1, 77)
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: 1 / 0)
    with pytest.raises(ConnectionError, match="division by zero.*give the file as pretrained"):
        load_backbone(model, tag)


SMALLEST = "small-test-quickgelu"  # see conftest.py
FORMATS = ["weights.safetensors", "state.pt", "pytorch_model.bin", "training.pt", "torchscript.pt"]


@pytest.mark.parametrize("file", FORMATS)
def test_a_local_checkpoint(tmp_path, file):
    clip, mine = small_clip(**SMALL), small_clip(**SMALL, seed=9)
    convert_weights_to_fp16(clip)  # as OpenAI's files: convolution and matrices, not the norms
    path, before = write(clip, tmp_path / file), mine.visual.proj.detach().clone()
    for model, name in ((SMALLEST, SMALLEST), (mine, "custom")):
        backbone = load_backbone(model, path, device="cpu")
        assert backbone.name == f"{name}/{file}" and backbone.quick_gelu
        for key, tensor in backbone.model.state_dict().items():
            assert tensor.dtype == torch.float32
            assert tensor.equal(clip.state_dict()[key].float()), key
    assert mine.visual.proj.equal(before)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match=f"{file} cannot be read as weights"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("model", "vision", "message"),
    [
        ("small-test", {}, "QuickGELU.*use model='small-test-quickgelu'"),  # an archive: OpenAI's
        (SMALLEST, {"patch_size": 32}, r"'visual.positional_embedding' is \(2, 128\) in the file"),
        (SMALLEST, {"layers": 1}, r"resblocks.1.*missing in the file and \(128,\) in the model"),
        (SMALLEST, {"layers": 3}, r"resblocks.2.* in the file and missing in the model"),
    ],
)
def test_a_checkpoint_of_another_architecture(tmp_path, model, vision, message):
    path = write(small_clip(**{**SMALL, **vision}), tmp_path / "torchscript.pt")
    with pytest.raises(ValueError, match=f"torchscript.pt.*{message}"):
        load_backbone(model, path)


def test_a_guess_of_the_activation_is_said_aloud(tmp_path, recwarn):
    clip = small_clip(**SMALL)
    single, half = write(clip, tmp_path / "1.pt"), write(clip.half(), tmp_path / "half.pt")
    for path in (single, half):
        load_backbone(SMALLEST, path, device="cpu")  # chosen, and fitting
    assert not recwarn
    message = "small-test computes GELU.*must be 'small-test-quickgelu'"
    for path, found in ((single, "nothing that tells"), (half, "half-precision values, as OpenAI")):
        with pytest.warns(UserWarning, match=f"{found}.*{message}"):
            load_backbone("small-test", path, device="cpu")


class Intruder:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return open, ("mark", "w")


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Intruder()}, "state.pt")
    with zipfile.ZipFile("archive.pt", "w") as archive:
        archive.writestr("archive/constants.pkl", b"")
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": Intruder()}, 2))
    for file in ("state.pt", "archive.pt"):
        with pytest.raises(ValueError, match="objects other than tensors"):
            read_state_dict(file)
    assert not Path("mark").exists()


def test_files_that_hold_no_weights(tmp_path):
    broken = write(small_clip(**SMALL), tmp_path / "a.pt").read_bytes()
    broken = broken.replace(b"PK\x01\x02", b"PK\x00\x00")  # its table of contents
    for file in ("a.pt", "a.safetensors"):
        for content in (b"", b"this is a text\n" * 99, broken):
            (tmp_path / file).write_bytes(content)
            with pytest.raises(ValueError, match=f"{file} cannot be read as weights"):
                read_state_dict(tmp_path / file)
    for other in ({}, {"epoch": 3}, [torch.zeros(2)], {"state_dict": 1}):
        torch.save(other, tmp_path / "a.pt")
        with pytest.raises(ValueError, match="holds no state dict"):
            read_state_dict(tmp_path / "a.pt")


def test_an_archive_is_read_as_torch_reads_it(tmp_path):
    views, whole = torch.nn.Module(), torch.arange(12.0).view(3, 4)
    parts = {"whole": whole, "turned": whole.T, "part": whole[1:, 2:], "empty": torch.zeros(0, 4)}
    for name, view in parts.items():
        views.register_buffer(name, view)
    views.steps, views.scales, views.label = [1, 2], {"a": 0.5}, "views"  # no weights
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(views).save(str(tmp_path / "views.pt"))
    state = read_state_dict(tmp_path / "views.pt")
    assert state.keys() == views.state_dict().keys()
    for name, tensor in views.state_dict().items():
        assert state[name].shape == tensor.shape and state[name].equal(tensor), name


def test_another_image_size_interpolates_the_positions():
    clip = small_clip(layers=2, image_size=64)  # 4 x 4
    with torch.no_grad():  # grows downwards
        clip.visual.positional_embedding[1:, 0] = torch.arange(4.0).repeat_interleave(4)
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
    for size in (100, 0, -16):
        with pytest.raises(ValueError, match="multiple of the patch size, 16"):
            load_backbone(clip, device="cpu", image_size=size)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder data/ with a mini-CLIP of random weights in it, laid out as the real one."""
    (folder := tmp_path / "mini_clip").mkdir()
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    vision = {"image_size": 112, "layers": 2}
    save_file(small_clip(**vision, text=text).half().state_dict(), folder / "model.safetensors")
    clip = {"embed_dim": 64, "quick_gelu": True, "vision_cfg": VISION | vision, "text_cfg": text}
    config = {"model_cfg": clip, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    monkeypatch.setenv("PIAA_DATA", str(tmp_path))
    return folder


def test_mini(folder, recwarn):
    backbone = load_backbone(device="cpu")
    assert (backbone.name, backbone.image_size, backbone.depth) == ("mini", 112, 2)
    assert backbone.quick_gelu and not recwarn
    assert backbone.encode_text(["cat", "dog"]).shape == (2, 64)
    white = backbone.preprocess(Image.new("RGB", (20, 20), "white"))
    torch.testing.assert_close(white, torch.ones(3, 112, 112))
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="no open_clip_config.json: take a whole clone"):
        load_backbone()


def test_a_models_own_constants(folder):
    """Those that lie beside its weights; the paper's where there are none."""
    backbone = load_backbone(device="cpu")
    assert (backbone.constants, backbone.calibration) == ({}, Calibration(0.4, 0.3, 3.0))
    assert backbone.scales == Scales() and backbone.scales[:3] == (80, 200, 500)
    constants = {
        "scclip": {"beta": 0.9, "cls_share": 0.1, "gain": 5.0},
        "scales": {"s": 5.0, "m": 40.0, "T": 20.0},
    }
    (folder / "constants.json").write_text(json.dumps(constants))
    for model in ("mini", folder):
        own = load_backbone(model, device="cpu")
        assert own.constants == constants
        assert own.calibration == Calibration(0.9, 0.1, 5.0)
        assert own.scales[:3] == (5.0, 40.0, 20.0) and own.scales.source != Scales().source
