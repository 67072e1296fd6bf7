"""Fetching from a server on this machine, with checksums; unpacking; the embedded data."""

import functools
import hashlib
import io
import shutil
import tarfile
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from piaa_utils import download, files
from piaa_utils.download import ARCHIVES, EMBEDDED, REGISTRY, checksum, download_data, unpack
from piaa_utils.worlds import load_world

XML = "<annotation><object><name>{}</name><difficult>0</difficult></object></annotation>"


class Handler(SimpleHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address of a server of the files in tmp_path/served."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "RETRIES", 0)
    (tmp_path / "served").mkdir()
    Handler.asked = []
    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def voc07(server, tmp_path, monkeypatch):
    """VOC07 on the server, one picture a split."""
    lines = []
    for archive, split in zip(ARCHIVES["voc07"], ("trainval", "test"), strict=True):
        root = tmp_path / split / "VOCdevkit/VOC2007"
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)
        Image.new("RGB", (8, 6)).save(root / f"JPEGImages/{split}.jpg")
        (root / f"Annotations/{split}.xml").write_text(XML.format("dog"))
        (root / f"ImageSets/Main/{split}.txt").write_text(f"{split}\n")
        packed = shutil.make_archive(tmp_path / split, "tar", tmp_path / split)
        shutil.move(packed, tmp_path / "served" / archive)
        digest = hashlib.md5((tmp_path / "served" / archive).read_bytes()).hexdigest()
        lines.append(f"{archive} md5:{digest} {server}/{archive}\n")
    monkeypatch.setattr(download, "REGISTRY", tmp_path / "registry.txt")
    (tmp_path / "registry.txt").write_text("".join(lines))
    return tmp_path / "registry.txt"


def test_a_data_set_is_fetched_and_unpacked_once(voc07, tmp_path):
    root = tmp_path / "root"
    for _ in range(2):
        assert download.download_world("voc07", root, progress=False) == root
        assert load_world("voc07", "test", root).labels.sum() == 1
    assert Handler.asked == [f"/{archive}" for archive in ARCHIVES["voc07"]]


def test_a_part_that_is_there_stays_and_the_rest_is_added(voc07, tmp_path):
    shutil.move(tmp_path / "trainval", root := tmp_path / "root")
    mine = root / "VOCdevkit/VOC2007/Annotations/trainval.xml"
    mine.write_text(XML.format("cat"))
    download.download_world("voc07", root, progress=False)
    assert len(Handler.asked) == 1 and "cat" in mine.read_text()


def test_a_file_with_another_checksum_is_refused(voc07, tmp_path):
    voc07.write_text(voc07.read_text().replace("md5:", "md5:0"))
    with pytest.raises(ValueError, match="VOCtrainval.*does not match the known hash"):
        download.download_world("voc07", tmp_path / "root", progress=False)
    assert not [p for p in (tmp_path / "root").rglob("*") if p.is_file()]


def test_a_file_that_does_not_come_is_named_with_where_to_put_it(voc07, tmp_path):
    shutil.rmtree(tmp_path / "served")
    with pytest.raises(OSError, match=r"VOCtrainval\S+ cannot be fetched .*404.* put it at .*root"):
        download.download_world("voc07", tmp_path / "root", progress=False)


def test_nus_wide_has_to_be_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="no program can fetch it: ask for"):
        download.download_world("nus", tmp_path)
    with pytest.raises(ValueError, match="no world .imagenet."):
        download.download_world("imagenet", tmp_path)


def test_every_archive_has_a_checksum_and_an_address():
    lines = (line.split() for line in REGISTRY.read_text().splitlines() if line[:1] != "#")
    known = {name: more for name, *more in lines}
    for archive in (name for archives in ARCHIVES.values() for name in archives):
        kind, digest = known[archive][0].split(":")
        assert len(digest) == 2 * hashlib.new(kind).digest_size
        assert known[archive][1].endswith(f"/{archive}")
    torchvision = pytest.importorskip("torchvision.datasets.voc").DATASET_YEAR_DICT
    for year in ("2007", "2007-test", "2012"):
        entry = torchvision[year]
        assert known[entry["filename"]][0] == f"md5:{entry['md5']}"


# Archives


def zip_of(path, **members):
    with zipfile.ZipFile(path, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    return path


def test_unpacking_leaves_what_is_there(tmp_path):
    target = tmp_path / "target"
    (target / "x").mkdir(parents=True)
    (target / "x/a").write_text("mine")
    unpack(zip_of(tmp_path / "a.zip", **{"x/a": "new", "x/y/b": "new"}), target)
    assert (target / "x/a").read_text() == "mine" and (target / "x/y/b").read_text() == "new"
    assert [path.name for path in target.iterdir()] == ["x"], "nothing else is left"


def tar_of(path, name, link=False):
    member = tarfile.TarInfo(name)
    if link:
        member.type, member.linkname = tarfile.SYMTYPE, "../../evil"
    with tarfile.open(path, "w") as tar:
        tar.addfile(member, io.BytesIO())
    return path


@pytest.mark.parametrize(
    "pack",
    [
        lambda path: tar_of(path, "../evil"),
        lambda path: tar_of(path, "link", link=True),
        lambda path: zip_of(path, **{"../evil": "x"}),
        lambda path: zip_of(path, **{"/evil": "x"}),
        lambda path: zip_of(path, **{"..\\evil": "x"}),
    ],
)
def test_members_outside_the_folder_are_refused(tmp_path, pack):
    archive = pack(tmp_path / "archive")
    with pytest.raises(ValueError, match="archive was not unpacked"):
        unpack(archive, tmp_path / "deep/target")
    assert not list(tmp_path.rglob("evil*")) and not list((tmp_path / "deep/target").iterdir())


def test_damaged_archives_and_a_tar_that_ends_in_a_zip(tmp_path):
    (tmp_path / "page.tar").write_text("<html>please log in</html>")
    data = bytes(range(256)) * 40
    zip_of(tmp_path / "a.zip", a=data)
    whole = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(whole.replace(data, data[::-1]))
    for name in ("page.tar", "a.zip"):
        with pytest.raises(ValueError, match=f"{name} was not unpacked"):
            unpack(tmp_path / name, tmp_path / "target")
    assert not list((tmp_path / "target").iterdir())
    encrypted = bytearray(whole)
    encrypted[6] = encrypted[encrypted.index(b"PK\1\2") + 8] = 1
    (tmp_path / "e.zip").write_bytes(encrypted)
    with pytest.raises(ValueError, match=r"e\.zip was not unpacked .*password.*remove it"):
        unpack(tmp_path / "e.zip", tmp_path / "target")
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        (tmp_path / "z.zip").write_bytes(whole)
        tar.add(tmp_path / "z.zip", "z.zip")
    assert zipfile.is_zipfile(tmp_path / "b.tar"), "or this tests nothing"
    unpack(tmp_path / "b.tar", tmp_path / "target")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["z.zip"]


# The embedded data


@pytest.fixture
def repository(server, tmp_path, monkeypatch):
    """A repository on the server whose data/ is two small folders, and its registry."""
    lines = []
    for name in EMBEDDED:
        (folder := tmp_path / "repo-1/data" / name).mkdir(parents=True)
        (folder / "a.txt").write_text(name)
        lines.append(f"{name} {checksum(folder)}\n")
    (tmp_path / "registry.txt").write_text("".join(lines))
    place = tmp_path / f"served/o/r/archive/refs/tags/v{download.version('piaa-utils')}"
    place.parent.mkdir(parents=True)
    shutil.make_archive(place, "zip", tmp_path, "repo-1")
    monkeypatch.setattr(download, "REGISTRY", tmp_path / "registry.txt")
    monkeypatch.setattr(download, "REPOSITORY", f"{server}/o/r")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "repo-1/data"


def test_the_embedded_data_is_fetched_where_it_is_looked_for(repository, tmp_path, monkeypatch):
    download_data(progress=False)
    monkeypatch.delenv("PIAA_DATA", raising=False)
    monkeypatch.setattr(files, "__file__", str(tmp_path / "site-packages/piaa_utils/files.py"))
    assert (files.data_dir() / "mini_scenes/a.txt").read_text() == "mini_scenes"
    assert sorted(path.name for path in files.data_dir().iterdir()) == sorted(EMBEDDED)


def test_other_data_than_the_packages_is_refused(repository, tmp_path, monkeypatch):
    text = (tmp_path / "registry.txt").read_text()
    (tmp_path / "registry.txt").write_text(text[:-3] + "00\n")
    with pytest.raises(ValueError, match="another data/mini_scenes than this package was made"):
        download_data(progress=False)
    monkeypatch.setattr(download, "REPOSITORY", f"{download.REPOSITORY}/moved")
    with pytest.raises(OSError, match="404.*let PIAA_DATA name its folder"):
        download_data(progress=False)


def test_the_registry_knows_the_data_of_this_clone():
    known = dict(line.split()[:2] for line in REGISTRY.read_text().splitlines() if line[:1] != "#")
    for name in EMBEDDED:
        assert checksum(files.data_dir() / name) == known[name], (
            f"data/{name} was changed: python data/build/registry.py brings registry.txt in step"
        )
