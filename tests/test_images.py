"""Images of every kind become upright RGB; those that cannot be read are counted and named."""

import os
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from piaa_utils import images
from piaa_utils.images import ImageBatches, UnreadableImage, list_images, open_image

ORIENTATION = 0x0112


def gradient(height=12, width=18):
    """An RGB image in which every place has its own colour."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([rows * 9, columns * 9, 0 * rows + 60], -1).astype(np.uint8))


def top_left(image):
    """A preprocess whose result tells which image it came from."""
    return torch.tensor(image.getpixel((0, 0)), dtype=torch.float32)[:, None, None]


def solid(level):
    return Image.new("RGB", (4, 4), (level, level, level))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    values = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    for deep, expected in ((values, [0, 1, 128, 255]), (values[:, :2], [0, 1])):  # dark stays dark
        Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
        image = np.asarray(open_image(str(tmp_path / f"deep.{suffix}")))
        assert image.tolist() == [[[level] * 3 for level in expected]]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (np.int32, [0, 1, 1], [0, 1, 1]),
        (np.int32, [0, 128, 255], [0, 128, 255]),
        (np.int32, [0, 257, 65535], [0, 1, 255]),
        (np.float32, [0.0, 0.5, 1.0], [0, 128, 255]),
        (np.float32, [0.0, 100.2, 200.0], [0, 100, 200]),
    ],
)
def test_32_bit_grey_keeps_its_range(kind, values, expected):
    image = Image.fromarray(np.array([values], dtype=kind))
    assert np.asarray(open_image(image))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("bits", "kind", "white_is", "data"),
    [
        (12, 1, 1, b"\xff\xf8\x00"),  # 4095 and 2048
        (16, 1, 1, struct.pack("<HH", 65535, 32896)),
        (16, 2, 1, struct.pack("<hh", 32767, 16384)),
        (16, 1, 0, struct.pack("<HH", 0, 32639)),
    ],
)
def test_a_tiff_says_what_is_white(tmp_path, bits, kind, white_is, data):
    """A grey TIFF of two pixels, one strip, uncompressed, little-endian."""
    tags = {256: 2, 257: 1, 258: bits, 259: 1, 262: white_is, 273: 8, 277: 1}
    tags |= {278: 1, 279: len(data), 339: kind}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    ifd = struct.pack("<H", len(tags)) + entries + bytes(4)
    file = tmp_path / "grey.tif"
    file.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + ifd)
    assert np.asarray(open_image(file)).tolist() == [[[255] * 3, [128] * 3]]


def test_transparency_lies_on_white_and_a_dark_picture_stays_dark(tmp_path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("LA", (2, 2), (0, 128)).save(tmp_path / "half.png")
    (tmp_path / "dark.pgm").write_bytes(b"P5 2 1 65535\n" + struct.pack(">HH", 200, 0))
    for name, level in (("clear.png", 255), ("half.png", 127), ("dark.pgm", 1)):
        assert open_image(tmp_path / name).getpixel((0, 0)) == (level, level, level)
    image = Image.new("L", (3, 3), 7)
    assert open_image(image).getpixel((0, 0)) == (7, 7, 7) and image.mode == "L"  # left as it is


# What a camera stores for each orientation, such that turning it back gives the picture.
STORED = (
    "- FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_90 TRANSVERSE ROTATE_270"
).split()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_exif_rotation_is_applied_once(tmp_path, orientation, suffix):
    upright, exif = gradient(), Image.Exif()
    stored = STORED[orientation - 1]
    turned = upright if stored == "-" else upright.transpose(Image.Transpose[stored])
    exif[ORIENTATION] = orientation
    turned.save(tmp_path / f"turned.{suffix}", exif=exif, lossless=True)
    found = np.asarray(open_image(tmp_path / f"turned.{suffix}"))
    assert np.array_equal(found, np.asarray(upright))


def test_orientation_beside_a_tag_that_pillow_cannot_write(tmp_path):
    head = struct.pack("<H", 2) + struct.pack("<HHIHH", ORIENTATION, 3, 1, 6, 0)
    ifd = head + struct.pack("<HHII", 0x111, 2, 5, 38) + bytes(4) + b"abcd\0"
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + ifd
    solid(1).resize((8, 4)).save(tmp_path / "a.jpg")
    raw = (tmp_path / "a.jpg").read_bytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "a.jpg").write_bytes(raw[:2] + segment + raw[2:])
    assert open_image(tmp_path / "a.jpg").size == (4, 8)
    (tmp_path / "b.jpg").write_bytes(raw[:2] + segment[:30] + bytes(40) + raw[2:])
    assert open_image(tmp_path / "b.jpg").size in ((4, 8), (8, 4)), "a broken EXIF is no reason"


def test_a_picture_in_memory_that_cannot_be_used(tmp_path):
    gradient(64, 64).save(file := tmp_path / "truncated.jpg")
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])

    def grey(value):
        return Image.fromarray(np.array([[0.0, value]], dtype=np.float32))

    with Image.open(file) as opened:
        for image, kind, message in (
            (opened, UnreadableImage, r"truncated\.jpg: cannot be decoded"),
            (grey(-1.0), UnreadableImage, r"0\.\.65535"),
            (grey(70000.0), UnreadableImage, r"0\.\.65535"),
            (grey(np.nan), UnreadableImage, r"0\.\.65535"),
            (Image.new("RGB", (0, 3)), UnreadableImage, "no pixels"),
            (np.zeros((4, 4, 3), dtype=np.uint8), TypeError, r"ndarray.*fromarray"),
        ):
            with pytest.raises(kind, match=message):
                open_image(image)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_devices_and_dead_links_among_the_pictures_are_skipped_at_once(tmp_path):
    solid(1).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to("/dev/zero")
    (tmp_path / "d.png").symlink_to(tmp_path / "nowhere.png")
    found = ImageBatches(tmp_path, top_left)
    with pytest.warns(UserWarning, match=r"3 of 4 images.*b\.png"):
        assert [indices for indices, _ in found] == [[0]]
    wanted = ["no regular file", "no regular file", "there is no such file"]
    assert all(w in reason for w, (_, _, reason) in zip(wanted, found.skipped, strict=True))


def test_very_large_pictures_are_halved_or_refused_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "LARGEST", 5000)
    gradient(80, 100).save(tmp_path / "large.jpg", quality=95)
    gradient(80, 100).save(tmp_path / "large.png")
    with pytest.warns(UserWarning, match=r"large\.jpg is very large"):
        half = open_image(tmp_path / "large.jpg")
    assert half.size == (50, 40)
    wanted = np.asarray(gradient(80, 100).resize((50, 40)), float)
    assert np.abs(np.asarray(half, float) - wanted).mean() < 8
    (tmp_path / "large.png").write_bytes((tmp_path / "large.png").read_bytes()[:99])
    for source in (tmp_path / "large.png", Image.open(tmp_path / "large.png")):
        with pytest.raises(UnreadableImage, match=r"large\.png: .*100 x 80 pixels it is too large"):
            open_image(source)


def names_in(folder):
    return [path.relative_to(folder).as_posix() for path in list_images(folder)]


def test_folder_is_searched_deeply_and_sorted(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/2.png", "c.JPG", "a.jpeg", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert names_in(tmp_path) == ["a.jpeg", "b/2.png", "c.JPG"]
    assert list_images(str(tmp_path)) == list_images(tmp_path)


def test_links_are_followed_without_loops_or_doubles(tmp_path):
    here, disk = tmp_path / "here", tmp_path / "disk"
    for folder in (here / "real", disk / "sub", tmp_path / "beside"):
        folder.mkdir(parents=True)
        solid(1).save(folder / "a.png")
    for link, target in {
        "disk": disk,
        "again": disk / "sub",  # leads to what is there already
        "a_link": here / "real",
        "loop": here,
        "up": tmp_path,  # would bring in everything beside the folder
        "real/b.png": disk / "sub/a.png",
        "gone": tmp_path / "nowhere",
    }.items():
        (here / link).symlink_to(target)
    (disk / "back").symlink_to(here)
    assert names_in(here) == ["again/a.png", "real/a.png", "real/b.png"]
    (tmp_path / "link").symlink_to(here)
    assert len(names_in(tmp_path / "link")) == 3, "the folder itself may be a link"


class Pairs:
    """A Dataset of (image, label) pairs that keeps what was fetched, and fails at ``bad``."""

    def __init__(self, n, bad=None):
        self.n, self.bad, self.fetched = n, bad, []

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        self.fetched.append(index)
        if index == self.bad:
            raise OSError("disk fell off")
        return solid(index), {"label": index}


def test_single_images_lists_and_datasets(tmp_path, monkeypatch):
    image, dataset = solid(1), Pairs(2)
    image.save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert list_images(tmp_path / "a.png") == [tmp_path / "a.png"]
    assert list_images(image) == [image]
    assert list_images([image, "a.png"]) == [image, "a.png"]
    assert list_images(np.array(["a.png", "b.png"])) == ["a.png", "b.png"]
    assert list_images(path for path in ["a.png"]) == ["a.png"]
    assert len(list_images(".")) == 1
    for nothing in ([], (), iter(())):
        with pytest.raises(ValueError, match="no images"):
            list_images(nothing)
    with pytest.raises(ValueError, match="path of the images is empty"):
        list_images("")  # which is not the working folder
    listed = list_images(dataset)
    assert len(listed) == 2 and dataset.fetched == []
    assert listed[1].getpixel((0, 0)) == (1, 1, 1) and dataset.fetched == [1]
    dataset.paths = ["a.png", "b.png"]
    assert list_images(dataset) == ["a.png", "b.png"]


def test_dataset_that_fails_on_an_image_is_reported():
    found = ImageBatches(Pairs(4, bad=2), top_left, batch_size=3)
    with pytest.warns(UserWarning, match="1 of 4 .*image 2.*disk fell off"):
        assert [indices for indices, _ in found] == [[0, 1], [3]]
    assert found.skipped == [(2, "image 2", "disk fell off")]


def test_other_errors_are_not_taken_for_unreadable_images():
    with pytest.raises(ZeroDivisionError):
        list(ImageBatches([solid(0)], lambda image: 1 / 0))


def test_images_are_read_one_batch_ahead_not_all_at_once():
    dataset = Pairs(100)
    reader = iter(ImageBatches(dataset, top_left, batch_size=2))
    next(reader)
    reader.close()
    assert len(dataset.fetched) <= 4
