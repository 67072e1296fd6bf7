"""Fetch and unpack the archives of the paper's data sets: resumable, checked, whole or not at all.

``python -m piaa_utils download voc07 --data-root data`` does it for one data set.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import ssl
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from piaa_utils.worlds import WORLDS, find_world, load_world

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 20  # bytes


class Archive(NamedTuple):
    """One file to fetch. md5: None where no published checksum is known to us: such a file is
    checked by the length that the server tells and, when it is unpacked, by the archive's own
    checksums. folder: where to unpack it under the data root. split: that it is needed for."""

    url: str
    md5: str | None
    folder: str
    split: str


_VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
_COCO = "http://images.cocodataset.org"

# The MD5 sums of VOC are those that torchvision's VOC data set publishes.
ARCHIVES = {
    "voc07": [
        Archive(
            f"{_VOC}/voc2007/VOCtrainval_06-Nov-2007.tar",
            "c52e279531787c972589f7e41ab4ae64",
            ".",
            "learn",
        ),
        Archive(
            f"{_VOC}/voc2007/VOCtest_06-Nov-2007.tar",
            "b6e924de25625d8de591ea690078ad9f",
            ".",
            "test",
        ),
    ],
    "voc12": [
        Archive(
            f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar",
            "6cd6e144f989b92b3379bac3b3de84fd",
            ".",
            "test",
        ),
    ],
    "coco": [
        Archive(f"{_COCO}/annotations/annotations_trainval2014.zip", None, "coco", "learn"),
        Archive(f"{_COCO}/zips/train2014.zip", None, "coco", "learn"),
        Archive(f"{_COCO}/zips/val2014.zip", None, "coco", "test"),
    ],
}


def fetch(
    url: str,
    path: str | os.PathLike,
    checksum: str | None = None,
    tries: int = 4,
    wait: float = 1.0,
    progress: bool = True,
) -> Path:
    """Fetch a file; one that is there already is checked and left as it is.

    What has come so far is in ``<path>.part``; after a break, also of the program, it goes on from
    there if the server can. The file appears at `path` once it is whole.

    Parameters
    ----------
    url : http or https.
    path : where to put it; folders are made.
    checksum : MD5 (32 hexadecimal digits) or SHA-256 (64); None checks only the length.
    tries : attempts in a row without a new byte before it gives up.
    wait : seconds before the second attempt, doubled for each that follows.
    progress : whether to show a bar.

    Raises
    ------
    ValueError
        The checksum does not fit, or is none.
    OSError
        There is no network, the server does not have the file, or it cannot be written.
    """
    path = Path(path)
    _hash(checksum)
    if path.exists():
        _verify(path, checksum, f"move {path} away and try again")
        return path
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch_part(url, path, part, tries, wait, progress)
    except _Refused as error:
        raise OSError(str(error)) from None
    except OSError as error:
        raise OSError(
            f"{part} cannot be written ({error}): check that there is room and permission."
        ) from None
    try:
        _verify(part, checksum, "it was removed: try again")
    except ValueError:
        part.unlink()
        raise
    os.replace(part, path)
    return path


def download_world(name: str, data_root: str | os.PathLike, progress: bool = True) -> Path:
    """Fetch and unpack one of the paper's data sets; what is there already is left as it is.

    The archives stay in ``data_root/archives``, and may be removed afterwards.

    Parameters
    ----------
    name : "voc07" (0.9 GB), "voc12" (2 GB) or "coco" (20 GB); twice that while it is unpacked.
    data_root : the folder to unpack in, see :func:`piaa_utils.worlds.load_world`. If it is the
        data set's own folder, or VOCdevkit, what is missing is added to that.

    Returns
    -------
    The data set's own folder.

    Raises
    ------
    ValueError
        NUS-WIDE, which has to be asked for; an unknown name; a damaged archive; files are missing
        in a folder that is not called as in the archives.
    OSError
        As :func:`fetch`.
    """
    world, data_root = find_world(name), Path(data_root)
    if name not in ARCHIVES:
        raise ValueError(f"{world.where} Lay it out in {data_root / world.folder}.")
    for archive in ARCHIVES[name]:
        if not _is_there(name, data_root, archive):
            base = _base(world.root(data_root), world.folder)
            file = data_root / "archives" / archive.url.rpartition("/")[2]
            fetch(archive.url, file, archive.md5, progress=progress)
            unpack(file, base / archive.folder)
    return world.root(data_root)


def _base(root: Path, folder: str) -> Path:
    """The folder in which `folder` is the data set's own folder `root`.

    >>> _base(Path("/data/VOCdevkit/VOC2007"), "VOCdevkit/VOC2007").as_posix()
    '/data'
    """
    whole, parts = Path(os.path.abspath(root)), Path(folder).parts
    if whole.parts[-len(parts) :] != parts:
        raise ValueError(
            f"{root} holds a part of the data set, and the archives unpack to {folder}: rename it "
            f"to that, or give another --data-root."
        )
    return whole.parents[len(parts) - 1]


def unpack(archive: str | os.PathLike, folder: str | os.PathLike) -> int:
    """Unpack a tar or zip archive into a folder, and count the files that are new.

    It is unpacked beside its place and then moved, file by file: every file is whole, and none
    that was there is replaced.

    Raises
    ------
    ValueError
        It is damaged, no archive, or has a member that would land outside the folder.
    """
    archive, folder = Path(archive), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as beside:
        try:
            # A tar that ends in a zip looks like that zip.
            if zipfile.is_zipfile(archive) and not tarfile.is_tarfile(archive):
                _unzip(archive, Path(beside))
            else:
                with tarfile.open(archive) as tar:
                    tar.extractall(beside, filter="data")
        except tarfile.FilterError as error:
            raise ValueError(f"{archive} was not unpacked: {error}.") from None
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            reason = str(error).partition("\n")[0].rstrip(":")
            raise ValueError(
                f"{archive} is damaged or no archive ({reason}): remove it and fetch it again."
            ) from None
        return _move_new(Path(beside), folder)


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            path = (folder / name.replace("\\", "/")).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise ValueError(f"{archive} was not unpacked: {name!r} would land elsewhere.")
        file.extractall(folder)


def _move_new(source: Path, target: Path) -> int:
    count = 0
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        elif not place.exists():
            os.replace(path, place)
            count += 1
    return count


def _is_there(name: str, data_root: Path, archive: Archive) -> bool:
    """Whether what the archive holds was unpacked: its split can be loaded, no image missing."""
    if "annotations" in archive.url:
        root = WORLDS[name].root(data_root)
        return all((root / f"annotations/instances_{s}2014.json").is_file() for s in _COCO_SPLITS)
    try:
        load_world(name, data_root, archive.split)
    except FileNotFoundError:
        return False
    return True


_COCO_SPLITS = ("train", "val")


class _Refused(Exception):
    """The file does not come; the message is for the user."""


def _fetch_part(url: str, path: Path, part: Path, tries: int, wait: float, progress: bool) -> None:
    """Fill the .part, in as many attempts as it takes while there are new bytes."""
    failures, best = 0, _size(part)
    while True:
        try:
            _continue(url, part, progress)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 416, 429):
                raise _Refused(
                    f"The server refuses {url} ({error.code} {error.reason}): look for the file "
                    f"elsewhere and put it at {path}."
                ) from None
            reason = error
            if error.code == 416:  # the part is longer than the file
                part.unlink(missing_ok=True)
        except _NETWORK as error:
            reason = error
        failures = 0 if _size(part) > best else failures + 1
        best = max(best, _size(part))
        if failures >= tries:
            raise _Refused(
                f"{url} cannot be fetched ({getattr(reason, 'reason', reason)}): check the network "
                f"and try again, or fetch it elsewhere and put it at {path}."
            )
        time.sleep(wait * 2 ** max(failures - 1, 0))


_NETWORK = (
    urllib.error.URLError,
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
    ssl.SSLError,
)


def _continue(url: str, part: Path, progress: bool) -> None:
    """One attempt: append to the .part what it still lacks."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        whole = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        if error.code == 416 and whole == str(have):
            return
        raise
    with answer:
        if answer.status != 206:
            have = 0  # the server sends it from the start
        length = answer.headers.get("Content-Length")
        whole = None if length is None else have + int(length)
        bar = tqdm(
            total=whole,
            initial=have,
            desc=part.stem,
            unit="B",
            unit_scale=True,
            disable=not progress,
        )
        with open(part, "ab" if have else "wb") as file, bar:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if whole is not None and _size(part) != whole:
        raise ConnectionError(f"the connection ended after {_size(part)} of {whole} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _hash(checksum: str | None):
    if checksum is None:
        return None
    kind = {32: "md5", 64: "sha256"}.get(len(checksum))
    if kind is None:
        raise ValueError(
            f"The checksum {checksum!r} must be an MD5 of 32 or a SHA-256 of 64 hexadecimal digits."
        )
    return hashlib.new(kind)


def _verify(path: Path, checksum: str | None, mend: str) -> None:
    if checksum is None:
        return
    digest = _hash(checksum)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != checksum.lower():
        raise ValueError(
            f"{path} is not the file wanted (its {digest.name} is {digest.hexdigest()}, not "
            f"{checksum.lower()}); {mend}."
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m piaa_utils download``."""
    parser.add_argument("world", choices=sorted(WORLDS), help="the data set")
    parser.add_argument("--data-root", type=Path, default=Path("datasets"), help="where to unpack")


def run_command(options: argparse.Namespace) -> None:
    """``python -m piaa_utils download``: :func:`download_world`."""
    print(f"{options.world} is in {download_world(options.world, options.data_root)}.")
