"""Every tensor on the device where it belongs: the whole of PIAA on a GPU that is pretended."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from piaa_utils import PIAA, Recipe, load_backbone, mini_scenes
from piaa_utils.worlds import VOC_CLASSES

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "notebooks" / "source").glob("0[0-8]*.py"))


def test_the_pretended_gpu_refuses_what_a_gpu_refuses(gpu):
    x, here = gpu(np.array([1, 2, 3], np.float32)), torch.ones(3)
    for there in (x + x, x * 2, x[x > 1], here.to(gpu.device), torch.zeros(3, device=gpu.device)):
        assert there.device == gpu.device
    assert x.cpu().device.type == torch.zeros(3).device.type == "cpu"
    for mixed in (lambda: x + here, lambda: torch.cat([x, here]), lambda: here[x > 1]):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    with pytest.raises(RuntimeError, match="same device"):
        x[x > 1] = torch.ones(2)
    for to_numpy in (np.asarray, torch.Tensor.numpy):
        with pytest.raises((TypeError, RuntimeError)):
            to_numpy(x)
    if gpu.device.type == "mps":
        with pytest.raises(TypeError, match="float64"):
            x.double()
    assert x[torch.tensor([2, 0])].cpu().tolist() == [3, 1]
    x[1:] += x[:1]
    assert x.cpu().tolist() == [1, 3, 4]


@pytest.mark.filterwarnings("ignore:.*selected no patch", "ignore:.*kept no patch")
@pytest.mark.parametrize(
    ("encoder", "purify"),
    [(name, None) for name in ("scclip", "sclip", "itaclip", "maskclip", "clearclip")]
    + [("scclip", "released")],
)
def test_the_whole_of_piaa(mini, gpu, encoder, purify, tmp_path):
    learn, seen = mini_scenes("learn").paths[:48], mini_scenes("val").paths[:6]
    backbone, recipe = gpu.move(load_backbone(device="cpu")), Recipe(k=16, purify=purify)
    here, there = (PIAA(VOC_CLASSES, b, encoder, recipe).fit(learn) for b in (mini, backbone))
    for learned in (there.text_, there.coef_, there.intercept_):
        assert learned.device == gpu.device
    scores = there.predict_proba(seen)
    np.testing.assert_allclose(scores, here.predict_proba(seen), atol=1e-4)
    torch.testing.assert_close(there.heat_maps(seen[0]), here.heat_maps(seen[0]), atol=1e-4, rtol=0)
    there.save(tmp_path / "classifier.safetensors")
    loaded = PIAA.load(tmp_path / "classifier.safetensors", backbone=backbone)
    assert loaded.coef_.device == gpu.device
    np.testing.assert_array_equal(loaded.predict_proba(seen), scores)


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
