"""Fetch the paper's data sets, or the embedded data for a package outside a clone: checked, whole.

All checksums are in registry.txt; what has none, or another, is never put in its place.
"""

import argparse
import hashlib
import os
import tarfile
import tempfile
import zipfile
import zlib
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pooch

from piaa_utils.files import REPOSITORY, fetched_dir, make_folder, printable
from piaa_utils.worlds import WORLDS, load_world

REGISTRY = Path(__file__).with_name("registry.txt")
EMBEDDED = ("mini_clip", "mini_scenes")  # folders of data/ that the package needs
RETRIES = 1  # after a transfer that broke or was damaged
Downloader = partial(pooch.HTTPDownloader, chunk_size=1 << 20, timeout=30)
# The archives of each data set, and the splits that need them. NUS-WIDE is gone from the web.
ARCHIVES: dict[str, dict[str, tuple[str, ...]]] = {
    "voc07": {"VOCtrainval_06-Nov-2007.tar": ("learn",), "VOCtest_06-Nov-2007.tar": ("test",)},
    "voc12": {"VOCtrainval_11-May-2012.tar": ("learn", "test")},
    "coco": {
        "annotations_trainval2014.zip": ("learn", "test"),
        "train2014.zip": ("learn",),
        "val2014.zip": ("test",),
    },
}


def download_world(name: str, data_root: str | os.PathLike[str], progress: bool = True) -> Path:
    """Fetch and unpack one of the paper's data sets; what is there already is left as it is.

    name : "voc07" (0.9 GB), "voc12" (2 GB) or "coco" (20 GB); twice that while it is unpacked.
    data_root : the folder to unpack in; the archives stay in ``data_root/archives``.

    An unknown name or another checksum is a ValueError, NUS-WIDE a FileNotFoundError, no network or
    room an OSError.
    """
    root = Path(data_root)
    for archive, splits in ARCHIVES.get(name, {}).items():
        try:
            for split in splits:
                load_world(name, split, root)
        except FileNotFoundError:
            file = _fetch(archive, root / "archives", progress)
            unpack(file, root / "coco" if name == "coco" else root)
    for split in ("learn", "test"):
        load_world(name, split, root)  # says what is missing, and where it is to be had
    return root


def download_data(progress: bool = True) -> Path:
    """Fetch ``data/`` of the repository, where :func:`piaa_utils.files.data_dir` finds it.

    Other data than this version's is a ValueError; no network or no such repository an OSError.
    """
    url, target = f"{REPOSITORY}/archive/refs/tags/v{version('piaa-utils')}.zip", fetched_dir()
    make_folder(target)
    known = dict(line.split()[:2] for line in REGISTRY.read_text().splitlines() if line[:1] != "#")
    with tempfile.TemporaryDirectory(prefix=".data-", dir=target) as beside:
        file = Path(beside) / "repository.zip"
        try:
            Downloader(progressbar=progress)(url, file, None)
        except OSError as error:
            what = f"The embedded data cannot be fetched from {url} ({error})"
            mend = (
                "check the network, or get the repository and let PIAA_DATA name its folder data/"
            )
            raise OSError(f"{what}: {mend}.") from None
        unpack(file, beside)
        for name in EMBEDDED:
            found = next(Path(beside).glob(f"*/data/{name}"), Path(beside))
            if checksum(found) != known[name]:
                raise ValueError(f"{url} holds another data/{name} than this package was made for.")
            if not (target / name).exists():
                os.replace(found, target / name)
    return target


def checksum(folder: Path) -> str:
    """SHA-256 (hex) of a folder: names and bytes of all its files but hidden ones, in order."""
    sha = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("[!.]*") if p.is_file()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        sha.update(f"{path.relative_to(folder).as_posix()} {digest}\n".encode())
    return sha.hexdigest()


def unpack(archive: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Unpack a tar or zip archive into a folder: each file whole, none that is there replaced.

    One that is damaged, or has a member that would land elsewhere, is a ValueError.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as beside:
        try:
            if tarfile.is_tarfile(archive):  # a tar that ends in a zip looks like that zip
                with tarfile.open(archive) as tar:
                    tar.extractall(beside, filter="data")
            else:
                with zipfile.ZipFile(archive) as file:
                    if bad := [n for n in file.namelist() if n[:1] in "/\\" or ".." in n]:
                        raise zipfile.BadZipFile(f"{bad[0]!r} would land elsewhere")
                    file.extractall(beside)
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            what = f"{printable(archive)} was not unpacked ({error})"
            raise ValueError(f"{what}: remove it.") from None
        for path in sorted(Path(beside).rglob("*")):
            place = folder / path.relative_to(beside)
            if path.is_dir():
                place.mkdir(exist_ok=True)
            elif not place.exists():
                os.replace(path, place)


def _fetch(name: str, folder: Path, progress: bool) -> Path:
    """A file of the registry, in `folder`; one that is there with its checksum stays."""
    known = pooch.create(folder, "", retry_if_failed=RETRIES)
    known.load_registry(REGISTRY)
    try:
        return Path(known.fetch(name, downloader=Downloader(progressbar=progress)))
    except OSError as error:
        what = f"{known.get_url(name)} cannot be fetched ({error}): check network, room and"
        mend = f"permission, or fetch it elsewhere and put it at {folder / name}."
        raise OSError(f"{what} {mend}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``piaa download``."""
    parser.add_argument("world", choices=sorted(WORLDS), help="the data set")
    parser.add_argument("--data-root", type=Path, default=Path("datasets"), help="where to unpack")


def run_command(options: argparse.Namespace) -> None:
    """``piaa download``: :func:`download_world`, or :func:`download_data` for "mini"."""
    mini = options.world == "mini"
    place = download_data() if mini else download_world(options.world, options.data_root)
    print(f"{options.world} is in {place}.")
