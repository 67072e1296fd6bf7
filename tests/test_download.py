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
from torchvision.datasets.voc import DATASET_YEAR_DICT
from trees import annotation, write_voc

from piaa_utils import download, files
from piaa_utils.download import ARCHIVES, EMBEDDED, REGISTRY, checksum, download_data, unpack
from piaa_utils.worlds import load_world


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
        write_voc(tmp_path / split / "VOCdevkit/VOC2007", {split: [("dog", 0)]}, split)
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
    shutil.rmtree(root)
    shutil.move(tmp_path / "trainval", root)  # this part is there, and stays
    mine = root / "VOCdevkit/VOC2007/Annotations/trainval.xml"
    mine.write_text(annotation(("cat", 0)))
    download.download_world("voc07", root, progress=False)
    assert len(Handler.asked) == 3 and "cat" in mine.read_text()


def test_what_cannot_be_fetched_or_has_another_checksum_is_refused(voc07, tmp_path):
    root = tmp_path / "root"
    voc07.write_text(voc07.read_text().replace("md5:", "md5:0"))
    with pytest.raises(ValueError, match="VOCtrainval.*does not match the known hash"):
        download.download_world("voc07", root, progress=False)
    shutil.rmtree(tmp_path / "served")
    with pytest.raises(OSError, match=r"VOCtrainval\S+ cannot be fetched .*404.* put it at .*root"):
        download.download_world("voc07", root, progress=False)
    assert not [p for p in root.rglob("*") if p.is_file()]
    with pytest.raises(FileNotFoundError, match="no program can fetch it: ask for"):
        download.download_world("nus", tmp_path)
    with pytest.raises(ValueError, match="no world .imagenet."):
        download.download_world("imagenet", tmp_path)


def test_the_registry_knows_every_archive_and_the_data_of_this_clone():
    lines = [line.split() for line in REGISTRY.read_text().splitlines() if line[:1] != "#"]
    known = {name: more for name, *more in lines}
    for archive in (name for archives in ARCHIVES.values() for name in archives):
        kind, digest = known[archive][0].split(":")
        assert len(digest) == 2 * hashlib.new(kind).digest_size
        assert known[archive][1].endswith(f"/{archive}")
    for year in ("2007", "2007-test", "2012"):
        entry = DATASET_YEAR_DICT[year]
        assert known[entry["filename"]][0] == f"md5:{entry['md5']}"
    for name in EMBEDDED:  # python data/build/registry.py brings it in step
        assert checksum(files.data_dir() / name) == known[name][0]


def zip_of(path, name, text):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, text)


@pytest.mark.parametrize("name", ["../evil", "/evil", "..\\evil", "tar ../evil", "tar link"])
def test_members_outside_the_folder_are_refused(tmp_path, name):
    archive, member = tmp_path / "archive", tarfile.TarInfo(name.removeprefix("tar "))
    if name == "tar link":
        member.type, member.linkname = tarfile.SYMTYPE, "../../evil"
    if name.startswith("tar"):
        with tarfile.open(archive, "w") as tar:
            tar.addfile(member, io.BytesIO())
    else:
        zip_of(archive, name, "x")
    with pytest.raises(ValueError, match="archive was not unpacked"):
        unpack(archive, tmp_path / "deep/target")
    assert not list(tmp_path.rglob("evil*")) and not list((tmp_path / "deep/target").iterdir())


def test_damaged_archives(tmp_path):
    (tmp_path / "page.tar").write_text("<html>please log in</html>")
    data = bytes(range(256)) * 40
    zip_of(tmp_path / "a.zip", "a", data)
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes().replace(data, data[::-1]))
    for name in ("page.tar", "a.zip"):
        with pytest.raises(ValueError, match=f"{name} was not unpacked"):
            unpack(tmp_path / name, tmp_path / "target")
    assert not list((tmp_path / "target").iterdir())
    encrypted = bytearray((tmp_path / "a.zip").read_bytes())
    encrypted[6] = encrypted[encrypted.index(b"PK\1\2") + 8] = 1
    (tmp_path / "e.zip").write_bytes(encrypted)
    with pytest.raises(ValueError, match=r"e\.zip was not unpacked .*password.*remove it"):
        unpack(tmp_path / "e.zip", tmp_path / "target")


def test_the_embedded_data_is_fetched_where_it_is_looked_for(server, tmp_path, monkeypatch):
    """From a repository on the server whose data/ is two small folders; other data is refused."""
    lines = []
    for name in EMBEDDED:
        (folder := tmp_path / "repo-1/data" / name).mkdir(parents=True)
        (folder / "a.txt").write_text(name)
        lines.append(f"{name} {checksum(folder)}\n")
    (registry := tmp_path / "registry.txt").write_text("".join(lines))
    place = tmp_path / f"served/o/r/archive/refs/tags/v{download.version('piaa-utils')}"
    place.parent.mkdir(parents=True)
    shutil.make_archive(place, "zip", tmp_path, "repo-1")
    monkeypatch.setattr(download, "REGISTRY", registry)
    monkeypatch.setattr(download, "REPOSITORY", f"{server}/o/r")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PIAA_DATA", raising=False)
    monkeypatch.setattr(files, "__file__", str(tmp_path / "site-packages/piaa_utils/files.py"))
    registry.write_text("".join(lines)[:-3] + "00\n")
    with pytest.raises(ValueError, match="another data/mini_scenes than this package was made"):
        download_data(progress=False)
    registry.write_text("".join(lines))
    download_data(progress=False)
    assert (files.data_dir() / "mini_scenes/a.txt").read_text() == "mini_scenes"
    assert sorted(path.name for path in files.data_dir().iterdir()) == sorted(EMBEDDED)
    monkeypatch.setattr(download, "REPOSITORY", f"{server}/moved")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    with pytest.raises(OSError, match="404.*let PIAA_DATA name its folder"):
        download_data(progress=False)
