"""Files whole or not at all, the data folder, and words that are safe to print."""

import os
from pathlib import Path

import pytest

from piaa_utils import files
from piaa_utils.files import data_dir, printable, some, write_whole


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path, monkeypatch):
    def write_half(path, data):
        with open(path, "wb") as file:
            file.write(data[:2])
        raise OSError(28, "No space left on device")

    write_whole(tmp_path / "a", b"none")
    write_whole(str(tmp_path / "a"), b"one")
    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(OSError, match="could not be saved .*No space left.*has room"):
        write_whole(tmp_path / "a", b"two!")
    assert (tmp_path / "a").read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["a"]


def test_the_data_folder(tmp_path, monkeypatch):
    """What PIAA_DATA names, the clone's, or what was fetched; never any folder named data."""
    monkeypatch.delenv("PIAA_DATA", raising=False)
    assert data_dir() == Path(files.__file__).parents[1] / "data"
    site, cache = tmp_path / "site-packages", tmp_path / "cache"
    (site / "data").mkdir(parents=True)  # another package's
    monkeypatch.setattr(files, "__file__", str(site / "piaa_utils" / "files.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    with pytest.raises(FileNotFoundError, match="clone http.*PIAA_DATA"):
        data_dir()
    (cache / "piaa" / "data" / "mini_clip").mkdir(parents=True)
    assert data_dir() == cache / "piaa" / "data"
    monkeypatch.setenv("PIAA_DATA", str(tmp_path))
    assert data_dir() == tmp_path
    monkeypatch.setenv("PIAA_DATA", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="PIAA_DATA names .*gone: no folder"):
        data_dir()


def test_no_name_steers_the_terminal():
    name = "\x1b]0;title\x07cat\r\n\u202egpj.jpg\udcff"
    assert printable(name) == r"\x1b]0;title\x07cat\r\n\u202egpj.jpg\udcff"
    assert printable("Größe 猫 (1).jpg") == "Größe 猫 (1).jpg"
    assert some([name, "b"]).isprintable() and some(range(9), 2) == "0, 1 and 7 more"
    printable(name).encode()  # a name that is no UTF-8 can be printed, too
