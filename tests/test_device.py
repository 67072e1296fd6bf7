"""Every tensor on the device where it belongs: the whole of PIAA on a GPU that is pretended."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pretend_gpu import OnGPU, PretendGPU
from safetensors.torch import load_file
from torch.nn.functional import normalize

from piaa_utils import reproduce, resume
from piaa_utils.__main__ import main
from piaa_utils.backbone import load_backbone
from piaa_utils.datasets import MINI_CLASSES, mini_scenes
from piaa_utils.lessons import nb07
from piaa_utils.pipeline import PIAA
from piaa_utils.selection import PatchBank

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "notebooks" / "source").glob("0[0-8]*.py"))

WAYS = {
    "spread": {},
    "released": {"purify": "released"},
    "no purification": {"purify": None},
    "two encoders": {"encoder": "vanilla", "selector": "scclip"},
    "sclip": {"encoder": "sclip"},
    "itaclip": {"encoder": "itaclip"},
    "maskclip": {"encoder": "maskclip"},
    "clearclip": {"encoder": "clearclip"},
}


@pytest.fixture(scope="module")
def cpu():
    return load_backbone(device="cpu")


@pytest.fixture(params=["cuda", "mps"])
def gpu(request, monkeypatch):
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)  # PyTorch would look for a driver
    with PretendGPU(request.param) as device:
        yield device


@pytest.fixture
def backbone(gpu):
    return gpu.move(load_backbone(device="cpu"))


def test_the_pretended_gpu_refuses_what_a_gpu_refuses(gpu):
    x = gpu(np.array([1, 2, 3], np.float32))
    assert (x + x).device == (x * 2).device == x[x > 1].device == gpu.device
    assert x.cpu().device.type == "cpu" and torch.zeros(3).device.type == "cpu"
    assert isinstance(torch.zeros(3, device=gpu.device), OnGPU)
    assert isinstance(torch.zeros(3).to(gpu.device), OnGPU)
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(3)
    with pytest.raises(RuntimeError, match="same device"):
        torch.cat([x, torch.ones(3)])
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(3)[x > 1]
    with pytest.raises(RuntimeError, match="same device"):
        x[x > 1] = torch.ones(2)
    assert x[torch.tensor([2, 0])].cpu().tolist() == [3, 1]
    for to_numpy in (np.asarray, torch.Tensor.numpy):
        with pytest.raises((TypeError, RuntimeError)):
            to_numpy(x)
    if gpu.device.type == "mps":
        with pytest.raises(TypeError, match="float64"):
            x.double()
    else:
        assert x.double().device == gpu.device
    x[0] = 5
    x[1:] += x[:1]
    assert x.cpu().tolist() == [5, 7, 8]


@pytest.mark.filterwarnings("ignore:.*selected no patch", "ignore:.*kept no patch")
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_whole_of_piaa(cpu, gpu, backbone, way, tmp_path):
    learn, seen = mini_scenes("learn").paths[:48], mini_scenes("val").paths[:6]
    options = {"n_select": 16, "progress": False, **way}
    here = PIAA(MINI_CLASSES, cpu, **options).fit(learn)
    there = PIAA(MINI_CLASSES, backbone, **options).fit(learn)
    for learned in (there.text_, there.coef_, there.intercept_):
        assert learned.device == gpu.device
    scores = there.predict_proba(seen)
    np.testing.assert_allclose(scores, here.predict_proba(seen), atol=1e-4)
    torch.testing.assert_close(
        there.patch_scores(seen[0]), here.patch_scores(seen[0]), atol=1e-4, rtol=0
    )
    there.save(tmp_path / "classifier.safetensors")
    loaded = PIAA.load(tmp_path / "classifier.safetensors", backbone=backbone, progress=False)
    assert loaded.coef_.device == gpu.device
    np.testing.assert_array_equal(loaded.predict_proba(seen), scores)


def test_a_reproduction_that_goes_on_after_a_stop(cpu, gpu, backbone, tmp_path, monkeypatch):
    """Stopped after the first checkpoint, and taken up again."""
    command = ["reproduce", "--dataset", "mini", "--limit", "6", "--save-every", "1"]
    command += ["--batch-size", "2", "--encoder", "scclip", "--out"]
    boot, write, loaded = reproduce.bootstrap_map, resume.write_whole, [cpu]
    monkeypatch.setattr(reproduce, "bootstrap_map", lambda *a, **k: boot(*a, n=20, **k))
    monkeypatch.setattr(reproduce, "load_backbone", lambda *a, **k: loaded[0])
    monkeypatch.setattr(reproduce, "device_name", str)
    monkeypatch.setattr(resume, "SAVING_SHARE", float("inf"))
    main([*command, str(tmp_path / "here")])

    def write_and_stop(path, data):
        write(path, data)
        raise InterruptedError("the power went")

    loaded[0] = backbone
    monkeypatch.setattr(resume, "write_whole", write_and_stop)
    with pytest.raises((InterruptedError, SystemExit)):
        main([*command, str(tmp_path / "there")])
    monkeypatch.setattr(resume, "write_whole", write)
    main([*command, str(tmp_path / "there")])
    results = [
        reproduce.read_result(next((tmp_path / where).glob("*.json")))
        for where in ("here", "there")
    ]
    assert [result["run"]["resumed"] for result in results] == [0, 1]
    ours, theirs = (
        load_file(tmp_path / where / result["files"]["scores"])
        for where, result in zip(("here", "there"), results, strict=True)
    )
    assert len(ours) == 3
    for row in ours:
        torch.testing.assert_close(theirs[row], ours[row], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [path.stem for path in SOURCES])
def test_a_notebook_on_a_gpu(name, tmp_path):
    """All its cells, claims and checks, as on Colab with a GPU.

    Not 09: its workers are processes of their own, in which nothing is pretended.
    """
    command = [sys.executable, str(ROOT / "tests" / "notebook_on_gpu.py"), "cuda", name]
    own = {"PIAA_CACHE": str(ROOT / "cache" / "pretended_gpu"), "IPYTHONDIR": str(tmp_path)}
    own |= {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]


def test_banks_and_text_may_lie_apart(gpu):
    """Notebook 07's shares: on MPS a bank is on the CPU, for it is float64, the text is not."""
    generator = torch.Generator().manual_seed(0)
    patches = normalize(torch.randn(6, 9, 8, generator=generator), dim=-1)
    text = normalize(torch.randn(3, 8, generator=generator), dim=-1)
    here, there = PatchBank(3, 20), PatchBank(3, 20)
    here.update(patches, text, range(6))
    there.update(gpu(patches), gpu(text), range(6))
    assert there.features.device.type == ("cpu" if gpu.device.type == "mps" else "cuda")
    shares = nb07.kept_shares(here, text, [0.01, 100])
    np.testing.assert_allclose(nb07.kept_shares(there, gpu(text), [0.01, 100]), shares)
    assert 0 < np.nanmean(shares) < 1
