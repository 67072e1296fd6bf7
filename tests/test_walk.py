"""The loop that encodes: order, resuming, what cannot be read, and a cache that runs nothing."""

import pickle
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from piaa_utils import walk as walking
from piaa_utils.encoders import encode
from piaa_utils.images import UnreadableImage, open_image
from piaa_utils.settings import Calibration
from piaa_utils.walk import encoded, walk


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def pictures(noise, tmp_path):
    """Seven files that a test may damage."""
    return [Path(shutil.copy(path, tmp_path)) for path in noise[:7]]


def test_features_are_those_of_each_picture_in_order(tiny, pictures):
    batches = list(walk(tiny, pictures, ["sclip", "scclip"], batch_size=3))
    assert [batch.ids for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    pixels = torch.stack([tiny.preprocess(open_image(path)) for path in pictures])
    expected = encode(tiny, pixels, ("sclip", "scclip"))
    torch.testing.assert_close(torch.cat([b.cls for b in batches]), expected["cls"])
    for name in ("sclip", "scclip"):
        got = torch.cat([b.patches[name] for b in batches])
        torch.testing.assert_close(got, expected[name], rtol=1e-4, atol=1e-4)


def test_a_walk_that_goes_on_gives_the_same_bits(tiny, pictures):
    class Pictures:
        def __len__(self):
            return 7

        def __getitem__(self, i):
            return Image.open(pictures[i]), "a label"

    whole = list(walk(tiny, pictures, ["sclip"], batch_size=2))
    for images in (pictures, Pictures()):
        rest = list(walk(tiny, images, ["sclip"], batch_size=2, start=4))
        assert [batch.ids for batch in rest] == [[4, 5], [6]]
        for one, other in zip(whole[2:], rest, strict=True):
            assert torch.equal(one.patches["sclip"], other.patches["sclip"])
    assert list(walk(tiny, pictures, ["sclip"], start=7)) == []


def test_unreadable_pictures_are_listed_as_they_are_met(tiny, pictures):
    for i in (1, 5, 6):
        pictures[i].write_text("no picture")
    skipped, seen = [(0, "from before", "why")], []
    with pytest.warns(UserWarning, match="2 of 5 images.*5.png, .*6.png"):
        for batch in walk(tiny, pictures, ["sclip"], batch_size=2, start=2, skipped=skipped):
            seen.append((batch.ids, [i for i, _, _ in skipped]))
    assert seen == [([2, 3], [0]), ([4], [0, 5])]
    assert [i for i, _, _ in skipped] == [0, 5, 6] and skipped[1][1].endswith("5.png")
    assert list(walk(tiny, pictures, ["sclip"], start=5)) == [], "those before 5 were read"
    with pytest.raises(UnreadableImage, match="None of the 2"):
        list(walk(tiny, pictures[5:], ["sclip"]))


@pytest.mark.parametrize("what", ["cls", "sclip"])
def test_features_that_are_not_finite_name_their_picture(tiny, pictures, monkeypatch, what):
    def broken(*arguments, **more):
        features = encode(*arguments, **more)
        features[what][1] = torch.nan
        return features

    monkeypatch.setattr(walking, "encode", broken)
    with pytest.raises(ValueError, match=r"features of .*5\.png are not finite"):
        list(walk(tiny, pictures, ["sclip"], batch_size=2, start=4))


def test_only_what_is_missing_is_computed(tiny, pictures, cache, monkeypatch):
    asked = []

    def listening(backbone, images, encoders, *more):
        asked.append(encoders)
        return walk(backbone, images, encoders, *more)

    monkeypatch.setattr(walking, "walk", listening)
    encoded(tiny, pictures, ["sclip"], cache)
    both = encoded(tiny, pictures, ["sclip", "maskclip"], cache)
    assert asked == [["sclip"], ["maskclip"]] and list(both.patches) == ["sclip", "maskclip"]
    encoded(tiny, pictures[:6], ["sclip"], cache)  # other pictures
    encoded(tiny, pictures, ["sclip"], cache, calibration=Calibration(gain=1.0))
    pictures[0].write_bytes(pictures[0].read_bytes() + b"more")  # another size
    encoded(tiny, pictures, ["sclip"], cache)
    encoded(tiny, pictures, ["sclip"])  # no cache
    assert asked[2:] == [["sclip"]] * 4
    again = encoded(tiny, pictures, ["sclip"], cache)
    assert len(asked) == 6 and again.ids == list(range(7))
    fresh = encoded(tiny, pictures, ["sclip"])
    assert torch.equal(fresh.cls, again.cls)
    assert torch.equal(fresh.patches["sclip"], again.patches["sclip"])


@pytest.mark.parametrize("damage", ["cut", "flip", "pickle", "another kind"])
def test_a_damaged_file_is_made_again_and_never_run(tiny, pictures, tmp_path, cache, damage):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "it ran"), "w")

    first = encoded(tiny, pictures, ["sclip"], cache)
    for path in cache.iterdir():
        data = path.read_bytes()
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        new = {"cut": data[:-50], "flip": flipped, "pickle": pickle.dumps(Bomb())}
        new["another kind"] = safetensors.torch.save({"features": torch.ones(2).bfloat16()})
        path.write_bytes(new[damage])
    again = encoded(tiny, pictures, ["sclip"], cache)
    assert torch.equal(first.patches["sclip"], again.patches["sclip"])
    assert torch.equal(first.cls, again.cls) and not (tmp_path / "it ran").exists()


def test_what_is_not_cached(tiny, pictures, tmp_path, cache):
    images = [Image.open(path) for path in pictures]
    assert len(encoded(tiny, images, [], cache).cls) == 7
    bad = [*pictures[:3], tmp_path / "bad.png"]
    bad[3].write_text("no picture")
    with pytest.raises(UnreadableImage, match=r"1 of 4 pictures cannot be read.*bad\.png"):
        encoded(tiny, bad, ["sclip"], cache)
    assert not cache.exists()
    cache.write_text("a file")  # so that nothing can be written there
    with pytest.warns(UserWarning, match="not kept"):
        assert len(encoded(tiny, pictures, ["sclip"], cache).cls) == 7
