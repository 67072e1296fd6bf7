"""Images of every kind become upright RGB; those that cannot be read are counted and named."""

import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from piaa_utils import images
from piaa_utils.images import ImageBatches, UnreadableImage, batches, list_images, open_image

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


# Kinds of image


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    image = open_image(tmp_path / "cmyk.jpg")
    assert image.mode == "RGB"
    assert np.abs(np.array(image.getpixel((4, 4))) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    values = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    image = np.asarray(open_image(str(tmp_path / f"deep.{suffix}")))
    assert image.tolist() == [[[0] * 3, [1] * 3, [128] * 3, [255] * 3]]


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("I", [0, 1, 1], [0, 1, 1]),
        ("I", [0, 128, 255], [0, 128, 255]),
        ("I", [0, 257, 65535], [0, 1, 255]),
        ("F", [0.0, 0.5, 1.0], [0, 128, 255]),
        ("F", [0.0, 100.2, 200.0], [0, 100, 200]),
    ],
)
def test_32_bit_grey_keeps_its_range(mode, values, expected):
    image = Image.fromarray(np.array([values], dtype=np.int32 if mode == "I" else np.float32))
    assert image.mode == mode
    assert np.asarray(open_image(image))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("bad", [-1.0, 70000.0, np.nan])
def test_grey_of_unknown_range_is_refused(bad):
    image = Image.fromarray(np.array([[0.0, bad]], dtype=np.float32))
    with pytest.raises(UnreadableImage, match=r"0\.\.65535"):
        open_image(image)


def tiff(path, values, bits, kind=1, photometric=1):
    """A grey TIFF, one strip, uncompressed, little-endian; values as they lie in the file."""
    height, width, data = *values[0], values[1]
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1}
    tags |= {278: height, 279: len(data), 339: kind}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    ifd = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + ifd)
    return open_image(path).getpixel((0, 0))[0], open_image(path).getpixel((1, 0))[0]


def test_tiff_says_what_is_white(tmp_path):
    path = tmp_path / "grey.tif"
    packed = b"\xff\xf8\x00"  # 12 bits a sample: 4095 and 2048
    assert tiff(path, ((1, 2), packed), 12) == (255, 128)
    assert tiff(path, ((1, 2), struct.pack("<hh", 32767, 16384)), 16, kind=2) == (255, 128)
    assert tiff(path, ((1, 2), struct.pack("<HH", 65535, 32896)), 16) == (255, 128)
    assert tiff(path, ((1, 2), struct.pack("<HH", 0, 32639)), 16, photometric=0) == (255, 128)


def test_a_dark_16_bit_picture_stays_dark(tmp_path):
    (tmp_path / "dark.pgm").write_bytes(b"P5 2 1 65535\n" + struct.pack(">HH", 200, 0))
    assert open_image(tmp_path / "dark.pgm").getpixel((0, 0)) == (1, 1, 1)


def test_palette_image_shows_its_colours(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.save(tmp_path / "palette.png")
    assert open_image(tmp_path / "palette.png").getpixel((2, 2)) == (200, 100, 50)


def test_transparency_lies_on_white(tmp_path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert open_image(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)
    Image.new("LA", (2, 2), (0, 128)).save(tmp_path / "half.png")
    assert open_image(tmp_path / "half.png").getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animation_gives_its_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (6, 6), color) for color in ((0, 0, 255), (255, 0, 0))]
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"moving.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    assert open_image(path).getpixel((3, 3)) == (0, 0, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    # What a camera stores for this orientation, such that turning it back gives the picture.
    stored = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    upright = gradient()
    turned = upright
    for method in stored:
        turned = turned.transpose(method)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turned.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(np.asarray(open_image(tmp_path / "turned.png")), np.asarray(upright))


@pytest.mark.parametrize(
    "tag", [(0x111, 2, 5, b"abcd\0"), (0x11A, 5, 1, struct.pack("<II", 72, 0))]
)
def test_orientation_beside_a_tag_that_pillow_cannot_write(tmp_path, tag):
    number, kind, count, value = tag
    head = struct.pack("<H", 2) + struct.pack("<HHIHH", ORIENTATION, 3, 1, 6, 0)
    ifd = head + struct.pack("<HHII", number, kind, count, 38) + bytes(4) + value
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + ifd
    solid(1).resize((8, 4)).save(tmp_path / "a.jpg")
    raw = (tmp_path / "a.jpg").read_bytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "a.jpg").write_bytes(raw[:2] + segment + raw[2:])
    assert open_image(tmp_path / "a.jpg").size == (4, 8)
    (tmp_path / "b.jpg").write_bytes(raw[:2] + segment[:30] + bytes(40) + raw[2:])
    assert open_image(tmp_path / "b.jpg").size in ((4, 8), (8, 4)), "a broken EXIF is no reason"


@pytest.mark.parametrize("suffix", ["tif", "jpg", "webp"])
def test_a_picture_is_turned_once(tmp_path, suffix):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    solid(1).resize((8, 4)).save(tmp_path / f"a.{suffix}", exif=exif)
    assert open_image(tmp_path / f"a.{suffix}").size == (4, 8)


def test_pil_image_is_left_as_it_is():
    image = Image.new("L", (3, 3), 7)
    assert open_image(image).getpixel((0, 0)) == (7, 7, 7)
    assert image.mode == "L"


# What cannot be read


def unreadable(tmp_path):
    """Files that are no images, by name, and the word that their message must hold."""
    gradient(64, 64).save(tmp_path / "whole.jpg")
    gradient(64, 64).save(tmp_path / "whole.png")
    jpg = (tmp_path / "whole.jpg").read_bytes()
    png = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(jpg[: len(jpg) // 2])
    (tmp_path / "truncated.png").write_bytes(png[: len(png) // 2])
    (tmp_path / "corrupt.png").write_bytes(png[:60] + b"\0" * 60 + png[120:])
    (tmp_path / "text.jpg").write_text("This is not a picture.\n")
    (tmp_path / "empty.jpg").write_bytes(b"")
    Image.new("RGB", (1, 999)).save(tmp_path / "narrow.png")
    (tmp_path / "folder.jpg").mkdir()
    return {
        "truncated.jpg": "decoded",
        "truncated.png": "decoded",
        "corrupt.png": "decoded",
        "text.jpg": "not an image",
        "empty.jpg": "not an image",
        "narrow.png": "1 x 999 pixels",
        "folder.jpg": "folder",
        "missing.jpg": "no such file",
    }


@pytest.mark.parametrize(
    "name",
    [
        "truncated.jpg",
        "truncated.png",
        "corrupt.png",
        "text.jpg",
        "empty.jpg",
        "narrow.png",
        "folder.jpg",
        "missing.jpg",
    ],
)
def test_unreadable_file_is_named_in_one_sentence(tmp_path, name):
    word = unreadable(tmp_path)[name]
    with pytest.raises(UnreadableImage, match=word) as raised:
        open_image(tmp_path / name)
    message = str(raised.value)
    assert str(tmp_path / name) in message
    assert "\n" not in message and message.endswith(".")


def test_opened_file_that_proves_unreadable_is_named(tmp_path):
    unreadable(tmp_path)
    with Image.open(tmp_path / "truncated.jpg") as image:
        with pytest.raises(UnreadableImage, match=r"truncated\.jpg: cannot be decoded"):
            open_image(image)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def test_a_postscript_file_by_another_name_runs_nothing(tmp_path, monkeypatch):
    (tmp_path / "photo.jpg").write_bytes(EPS)
    with Image.open(tmp_path / "photo.jpg") as image:
        assert image.format == "EPS", "Pillow alone would start Ghostscript"
    monkeypatch.setattr("subprocess.check_call", lambda *a, **k: pytest.fail("it was started"))
    with pytest.raises(UnreadableImage, match=r"photo\.jpg: not an image \(JPEG, PNG"):
        open_image(tmp_path / "photo.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_devices_among_the_pictures_are_skipped_at_once(tmp_path):
    solid(1).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to("/dev/zero")
    found = ImageBatches(tmp_path, top_left)
    with pytest.warns(UserWarning, match="2 of 3 images"):
        assert [indices for indices, _ in found] == [[0]]
    assert all("no regular file" in reason for _, _, reason in found.skipped)


def test_very_large_pictures_are_halved_or_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "LARGEST", 5000)
    gradient(80, 100).save(tmp_path / "large.jpg", quality=95)
    gradient(80, 100).save(tmp_path / "large.png")
    with pytest.warns(UserWarning, match=r"large\.jpg is very large"):
        half = open_image(tmp_path / "large.jpg")
    assert half.size == (50, 40)
    wanted = np.asarray(gradient(80, 100).resize((50, 40)), float)
    assert np.abs(np.asarray(half, float) - wanted).mean() < 8
    for source in (tmp_path / "large.png", Image.open(tmp_path / "large.png")):
        with pytest.raises(UnreadableImage, match=r"large\.png: .*100 x 80 pixels it is too large"):
            open_image(source)


def test_a_picture_of_177_million_pixels_does_not_fill_memory(tmp_path):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 13300, 13300, 8, 6, 0, 0, 0)  # RGBA
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (tmp_path / "huge.png").write_bytes(png)
    with pytest.warns(Image.DecompressionBombWarning):
        with pytest.raises(UnreadableImage, match=r"huge\.png: .*13300 x 13300 .* too large"):
            open_image(tmp_path / "huge.png")


def test_a_name_that_is_no_utf_8_can_be_printed(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    solid(1).save(tmp_path / "a.png")
    try:
        (tmp_path / name).write_text("no picture")
    except OSError:
        pytest.skip("this disk takes UTF-8 alone")
    found = ImageBatches(tmp_path, top_left)
    with pytest.warns(UserWarning, match=r"1 of 2 images") as caught:
        list(found)
    (_, _, reason), message = found.skipped[0], str(caught[0].message)
    assert r"caf\udce9.png" in reason and f"{reason} {message}".encode()


def test_image_without_pixels_is_refused():
    with pytest.raises(UnreadableImage, match="no pixels"):
        open_image(Image.new("RGB", (0, 3)))


def test_array_is_refused_with_the_mend():
    with pytest.raises(TypeError, match=r"ndarray.*fromarray"):
        open_image(np.zeros((4, 4, 3), dtype=np.uint8))


# Lists of images


def test_folder_is_searched_deeply_and_sorted(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/2.png", "c.JPG", "a.jpeg", ".hidden.png"):
        solid(1).save(tmp_path / name, format="PNG")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert names == ["a.jpeg", "b/2.png", "c.JPG"]
    assert list_images(str(tmp_path)) == list_images(tmp_path)


def names_in(folder):
    return [path.relative_to(folder).as_posix() for path in list_images(folder)]


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


def test_a_link_to_a_picture_that_is_gone_is_named(tmp_path):
    solid(1).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(UserWarning, match=r"1 of 2 images.*b\.png: there is no such file"):
        list(ImageBatches(tmp_path, top_left))


def test_an_empty_path_is_not_the_working_folder(tmp_path, monkeypatch):
    solid(1).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert len(list_images(".")) == 1
    with pytest.raises(ValueError, match="path of the images is empty"):
        list_images("")


def test_single_images_and_lists(tmp_path):
    image = solid(1)
    image.save(tmp_path / "a.png")
    assert list_images(tmp_path / "a.png") == [tmp_path / "a.png"]
    assert list_images(image) == [image]
    assert list_images([image, "a.png"]) == [image, "a.png"]
    assert list_images(np.array(["a.png", "b.png"])) == ["a.png", "b.png"]
    assert list_images(path for path in ["a.png"]) == ["a.png"]


@pytest.mark.parametrize("nothing", [[], (), iter(())])
def test_empty_list_is_refused(nothing):
    with pytest.raises(ValueError, match="no images"):
        list_images(nothing)


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


def test_dataset_is_fetched_lazily_and_gives_its_images():
    dataset = Pairs(2)
    listed = list_images(dataset)
    assert len(listed) == 2 and dataset.fetched == []
    assert listed[1].getpixel((0, 0)) == (1, 1, 1)
    assert dataset.fetched == [1]


def test_dataset_with_paths_gives_them():
    class WithPaths(Pairs):
        paths = ["a.png", "b.png"]

    assert list_images(WithPaths(2)) == ["a.png", "b.png"]


# Batches


@pytest.mark.parametrize(
    ("n", "size", "lengths"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 5, [2]), (9, 1, [1] * 9)]
)
def test_batches_hold_every_image_once_in_order(n, size, lengths):
    found = batches([solid(level) for level in range(n)], top_left, size)
    assert len(found) == len(lengths)
    got = list(found)
    assert [len(indices) for indices, _ in got] == lengths
    assert [i for indices, _ in got for i in indices] == list(range(n))
    assert torch.cat([tensor for _, tensor in got])[:, 0, 0, 0].tolist() == list(range(n))
    assert got[0][1].shape == (lengths[0], 3, 1, 1)


def test_unreadable_images_are_left_out_listed_and_warned_about(tmp_path):
    unreadable(tmp_path)
    listed = [solid(0), tmp_path / "text.jpg", solid(2), tmp_path / "missing.jpg", solid(4)]
    found = ImageBatches(listed, top_left, batch_size=2)
    with pytest.warns(UserWarning, match=r"2 of 5 images cannot be read.*text\.jpg, .*missing"):
        got = [(indices, tensor[:, 0, 0, 0].tolist()) for indices, tensor in found]
    assert got == [([0], [0.0]), ([2], [2.0]), ([4], [4.0])]
    assert [(index, name) for index, name, _ in found.skipped] == [
        (1, str(tmp_path / "text.jpg")),
        (3, str(tmp_path / "missing.jpg")),
    ]
    assert "not an image" in found.skipped[0][2]
    with pytest.warns(UserWarning, match="2 of 5"):
        list(found)
    assert len(found.skipped) == 2  # a second pass does not count them twice


def test_dataset_that_fails_on_an_image_is_reported():
    found = ImageBatches(Pairs(4, bad=2), top_left, batch_size=3)
    with pytest.warns(UserWarning, match="1 of 4 .*image 2.*disk fell off"):
        assert [indices for indices, _ in found] == [[0, 1], [3]]
    assert found.skipped == [(2, "image 2", "disk fell off")]


def test_no_readable_image_at_all_is_an_error(tmp_path):
    with pytest.raises(UnreadableImage, match=r"None of the 2 images can be read.*a\.png"):
        list(ImageBatches([tmp_path / "a.png", tmp_path / "b.png"], top_left))


def test_other_errors_are_not_taken_for_unreadable_images():
    def broken(image):
        raise RuntimeError("a mistake in preprocess")

    with pytest.raises(RuntimeError, match="a mistake"):
        list(ImageBatches([solid(0)], broken))


def test_batch_size_must_be_positive():
    with pytest.raises(ValueError, match="batch_size"):
        ImageBatches([solid(0)], top_left, batch_size=0)


def test_images_are_read_one_batch_ahead_not_all_at_once():
    dataset = Pairs(100)
    reader = iter(ImageBatches(dataset, top_left, batch_size=2))
    next(reader)
    reader.close()
    assert len(dataset.fetched) <= 4
