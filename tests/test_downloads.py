"""Fetching against a local server that cuts, refuses and knows or ignores ranges; unpacking."""

import hashlib
import io
import shutil
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from test_coco import box, write_coco
from test_datasets import write_voc

from piaa_utils import __main__, downloads
from piaa_utils.downloads import ARCHIVES, Archive, download_world, fetch, unpack
from piaa_utils.worlds import WORLDS, load_world

DATA = bytes(range(256)) * 40
MD5 = hashlib.md5(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """files: {path: bytes}; ranges: whether it knows them; cut: bytes an answer sends at most;
    answers: statuses to give before the file; length: whether it tells one; asked: the requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.ranges, self.cut, self.answers = {"/a.bin": DATA}, True, None, []
        self.length, self.asked = True, []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        data = server.files.get(self.path)
        if server.answers or data is None:
            self.send_error(server.answers.pop(0) if server.answers else 404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if server.length:
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:][: server.cut])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def get(server, path, *arguments, **options):
    options = {"wait": 0, "progress": False, **options}
    return fetch(f"{server.url}/a.bin", path, *arguments, **options)


def test_a_file_is_fetched_whole(server, tmp_path):
    path = tmp_path / "new/folder/a.bin"
    for checksum in (None, MD5, hashlib.sha256(DATA).hexdigest().upper()):
        path.unlink(missing_ok=True)
        assert get(server, path, checksum) == path
        assert path.read_bytes() == DATA and list(path.parent.iterdir()) == [path]
    assert server.asked == [("/a.bin", None)] * 3


def test_what_is_there_is_left(server, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"mine")
    get(server, path)
    with pytest.raises(ValueError, match=r"a\.bin is not the file wanted \(its md5.*move .* away"):
        get(server, path, MD5)
    assert path.read_bytes() == b"mine" and server.asked == []


def test_it_goes_on_where_it_was_cut(server, tmp_path):
    server.cut = 4000
    get(server, tmp_path / "a.bin", MD5, tries=1)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert [wanted for _, wanted in server.asked] == [None, "bytes=4000-", "bytes=8000-"]


def test_it_goes_on_after_a_break_of_the_program(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(DATA[:1000])
    get(server, tmp_path / "a.bin", MD5)
    assert server.asked == [("/a.bin", "bytes=1000-")]


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    server.ranges = False
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    get(server, tmp_path / "a.bin", MD5)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_server_without_ranges_that_always_cuts(server, tmp_path):
    server.ranges, server.cut = False, 4000
    with pytest.raises(OSError, match=r"ended after 4000 of 10240 bytes\).*put it at .*a\.bin\."):
        get(server, tmp_path / "a.bin", tries=2)
    assert len(server.asked) == 3, "one attempt with new bytes, two without"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin.part"]


def test_a_whole_part_and_one_that_is_too_long(server, tmp_path):
    for part in (DATA, DATA + b"more"):
        (tmp_path / "a.bin").unlink(missing_ok=True)
        (tmp_path / "a.bin.part").write_bytes(part)
        get(server, tmp_path / "a.bin", MD5)
        assert (tmp_path / "a.bin").read_bytes() == DATA


def test_wrong_checksum(server, tmp_path):
    with pytest.raises(ValueError, match=f"its md5 is {MD5}, not {'0' * 32}.; it was removed"):
        get(server, tmp_path / "a.bin", "0" * 32)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="'abc' must be an MD5 of 32"):
        get(server, tmp_path / "a.bin", "abc")


def test_a_server_that_does_not_tell_the_length(server, tmp_path):
    server.length = False
    assert get(server, tmp_path / "a.bin", MD5).read_bytes() == DATA


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, tmp_path):
    server.answers = [503, 429]
    assert get(server, tmp_path / "a.bin").read_bytes() == DATA
    server.asked.clear()
    server.answers = [404]
    with pytest.raises(OSError, match=r"refuses .*/a\.bin \(404 Not Found\).*put it at .*b\.bin"):
        get(server, tmp_path / "b.bin")
    assert len(server.asked) == 1


def test_waits_grow(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(downloads.time, "sleep", waits.append)
    server.answers = [503] * 3
    get(server, tmp_path / "a.bin", wait=1.0)
    assert waits == [1, 2, 4]


def test_no_network(tmp_path):
    with Server() as server:
        url = server.url
    server.server_close()
    with pytest.raises(OSError, match=rf"{url}/a.bin cannot be fetched.*put it at .*a\.bin\.$"):
        fetch(f"{url}/a.bin", tmp_path / "a.bin", wait=0, tries=2, progress=False)


def test_a_place_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="cannot be written .*room and permission"):
        get(server, tmp_path / "file/a.bin")


# Archives


def tar_of(folder, path):
    with tarfile.open(path, "w") as tar:
        for entry in sorted(folder.iterdir()):
            tar.add(entry, entry.name)
    return path


def zip_of(folder, path):
    with zipfile.ZipFile(path, "w") as file:
        for entry in sorted(folder.rglob("*")):
            file.write(entry, entry.relative_to(folder))
    return path


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_unpacking_leaves_what_is_there(tmp_path, pack):
    source, target = tmp_path / "source", tmp_path / "target"
    for name in ("x/a", "x/y/b", "c"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(f"new {name}")
    (target / "x").mkdir(parents=True)
    (target / "x/a").write_text("mine")
    archive = pack(source, tmp_path / "archive")
    assert unpack(archive, target) == 2
    assert (target / "x/a").read_text() == "mine" and (target / "x/y/b").read_text() == "new x/y/b"
    assert sorted(path.name for path in target.iterdir()) == ["c", "x"], "nothing else is left"
    assert unpack(archive, target) == 0


def test_members_outside_the_folder_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("../evil", "x")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("../evil")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    for name in ("a.zip", "a.tar"):
        with pytest.raises(ValueError, match=f"{name} was not unpacked: "):
            unpack(tmp_path / name, tmp_path / "deep/target")
    assert not list(tmp_path.rglob("evil")) and not list((tmp_path / "deep/target").iterdir())


def test_a_tar_that_ends_in_a_zip_is_no_zip(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("a")
    zip_of(source, tmp_path / "z.zip").rename(source / "z.zip")
    archive = tar_of(source, tmp_path / "a.tar")
    assert zipfile.is_zipfile(archive), "or this tests nothing"
    assert unpack(archive, tmp_path / "target") == 2
    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == ["a", "z.zip"]


def test_damaged_archives(tmp_path):
    (tmp_path / "page.tar").write_text("<html>please log in</html>")
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(DATA)
    archive = zip_of(source, tmp_path / "a.zip")
    archive.write_bytes(archive.read_bytes().replace(DATA, DATA[::-1]))
    for name in ("page.tar", "a.zip"):
        with pytest.raises(ValueError, match=f"{name} is damaged or no archive .*fetch it again"):
            unpack(tmp_path / name, tmp_path / "target")
    assert not list((tmp_path / "target").iterdir())


# Whole data sets


def test_the_table_of_archives():
    for name, archives in ARCHIVES.items():
        for archive in archives:
            assert archive.split in WORLDS[name].splits
            assert (archive.md5 is not None) == (name != "coco")
    torchvision = pytest.importorskip("torchvision.datasets.voc").DATASET_YEAR_DICT
    known = [torchvision[year] for year in ("2007", "2007-test", "2012")]
    for ours, theirs in zip(ARCHIVES["voc07"] + ARCHIVES["voc12"], known, strict=True):
        assert ours.md5 == theirs["md5"] and ours.url.endswith(f"/{theirs['filename']}")


@pytest.fixture
def voc(server, tmp_path, monkeypatch):
    """VOC07 on the server: one archive a split."""
    archives = []
    for split, scenes in {"trainval": {"1": []}, "test": {"2": [("dog", 0)]}}.items():
        write_voc(tmp_path / split / "VOCdevkit/VOC2007", scenes, split)
        data = tar_of(tmp_path / split, tmp_path / f"{split}.tar").read_bytes()
        server.files[f"/{split}.tar"] = data
        part = {"trainval": "learn"}.get(split, split)
        md5 = hashlib.md5(data).hexdigest()
        archives.append(Archive(f"{server.url}/{split}.tar", md5, ".", part))
    monkeypatch.setitem(ARCHIVES, "voc07", archives)


def test_voc_is_fetched_and_unpacked_once(server, voc, tmp_path):
    root = tmp_path / "root"
    assert download_world("voc07", root, progress=False) == root / "VOCdevkit/VOC2007"
    assert load_world("voc07", root, "test").labels.sum() == 1
    assert len(server.asked) == 2 and len(list((root / "archives").iterdir())) == 2
    download_world("voc07", root, progress=False)
    assert len(server.asked) == 2, "nothing is fetched that is there"


@pytest.mark.parametrize("given", ["VOCdevkit", "VOCdevkit/VOC2007"])
def test_a_part_that_is_there_is_completed_in_its_place(server, voc, tmp_path, given, monkeypatch):
    root = tmp_path / "root"
    (tmp_path / "trainval").rename(root)
    assert download_world("voc07", root / given, progress=False) == root / "VOCdevkit/VOC2007"
    assert [path for path, _ in server.asked] == ["/test.tar"]
    assert [len(load_world("voc07", root / given, split)) for split in ("learn", "test")] == [1, 1]
    assert not (root / "VOCdevkit/VOCdevkit").exists()
    assert not (root / "VOCdevkit/VOC2007/VOCdevkit").exists()
    monkeypatch.chdir(root / given)
    (root / "VOCdevkit/VOC2007/ImageSets/Main/test.txt").unlink()
    download_world("voc07", ".", progress=False)
    assert len(load_world("voc07", root, "test")) == 1


def test_a_part_in_a_folder_of_another_name_is_left_alone(server, voc, tmp_path):
    (tmp_path / "trainval/VOCdevkit/VOC2007").rename(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"mine holds a part .* VOCdevkit/VOC2007: rename it"):
        download_world("voc07", tmp_path / "mine", progress=False)
    assert server.asked == []


def test_coco_is_fetched_and_unpacked_once(server, tmp_path, monkeypatch):
    for split in ("train2014", "val2014"):
        write_coco(tmp_path / "coco", {9: [("cat", box(0, 0, 4, 4), 0)]}, split)
    archives = []
    for name, split in {"annotations": "learn", "train2014": "learn", "val2014": "test"}.items():
        source = tmp_path / "source" / name
        source.mkdir(parents=True)
        (tmp_path / "coco" / name).rename(source / name)
        server.files[f"/{name}.zip"] = zip_of(source, tmp_path / f"{name}.zip").read_bytes()
        archives.append(Archive(f"{server.url}/{name}.zip", None, "coco", split))
    monkeypatch.setitem(ARCHIVES, "coco", archives)
    for _ in range(2):
        __main__.main(["download", "coco", "--data-root", str(tmp_path / "root")])
    assert len(load_world("coco", tmp_path / "root", "test")) == 1
    own = tmp_path / "root" / "coco"
    for folder in ("annotations", "val2014"):
        shutil.rmtree(own / folder)
    assert download_world("coco", own, progress=False) == own
    assert len(load_world("coco", own, "test")) == 1 and not (own / "coco").exists()
    del server.asked[3:]
    assert [path for path, _ in server.asked] == [f"/{a.url.rpartition('/')[2]}" for a in archives]


def test_nus_wide_has_to_be_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be downloaded.*ask for.*nus_wide\.$"):
        download_world("nus", tmp_path)
    with pytest.raises(ValueError, match="no data set 'imagenet'"):
        download_world("imagenet", tmp_path)
