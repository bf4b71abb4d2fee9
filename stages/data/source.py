"""Copy NineRec's files of one dataset from a folder, an archive or a URL into one layout.

Written: `NAME_pair.csv`, `NAME_item.csv` and, if the source has covers, `NAME_cover.zip` (stored, `ITEM.jpg`).
"""

import errno
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tqdm import tqdm

from stages.data.ninerec import write_covers
from stages.data.transfer import check_sha256, download_official, download_url, is_zip
from stages.errors import InputError
from stages.files import user_path

DAMAGED = (EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


Open = Callable[[], IO[bytes]]


class Entry(NamedTuple):
    """A regular file of a source: its path there, and how to open it."""

    path: PurePosixPath
    open: Open


def fetch(dataset: str, source: str, sha256: str, folder: Path) -> None:
    """Write the files of `dataset` found in `source` into `folder` (which the caller makes atomic).

    source: a folder, a tar or zip archive, an http(s) URL of one, or '' for NineRec's official archive.
    Raises InputError, naming the source, when it is missing, damaged, unsafe, or lacks the dataset's files.
    """
    with _readable(source or "NineRec's official archive"):
        place = _locate(source, sha256)
        entries = _folder_entries(place) if place.is_dir() else _archive_entries(place)
        _collect(tqdm(entries, desc=f"unpack {place.name}", unit=" files", disable=None), dataset, place, folder)


def _locate(source: str, sha256: str) -> Path:
    if not source:
        return download_official(sha256)
    if source.startswith(("https://", "http://")):
        return download_url(source, sha256)
    place = user_path(source)
    if place.is_dir() and sha256:
        raise InputError(f"download.sha256 is set but source {place} is a folder, which has no checksum: empty the key")
    if not place.exists():
        raise InputError(f"source: {place} is no folder or archive here: mend the path, or use an https:// address")
    if place.is_file():
        check_sha256(place, sha256)
    return place


@contextmanager
def _readable(source: str) -> Iterator[None]:
    """Turn the exceptions of a damaged source, a full disk or an unreadable file into one InputError."""
    try:
        yield
    except DAMAGED as error:
        reason = " ".join(str(error).split())  # tarfile gives one line for each format that it tried
        raise InputError(f"source: {source} is damaged or no archive ({reason:.60}): get it anew, run again") from error
    except NotImplementedError as error:  # zipfile, for an unknown compression method
        raise InputError(f"source: {source} is packed in a way that cannot be read ({error}): pack it anew") from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise InputError(
                f"no room on the disk to unpack {source} ({error.strerror}): free some, run again"
            ) from error
        if error.errno is None:  # gzip.BadGzipFile and other errors that are not the system's
            raise InputError(f"source: {source} is damaged ({error}): get it anew, then run again") from error
        raise InputError(f"{error.filename or source}: {error.strerror}: mend it, then run again") from error


def _collect(entries: Iterable[Entry], dataset: str, place: Path, folder: Path) -> None:
    """Copy the tables and the covers of `dataset` to `folder`, the covers packed in order of their item ids."""
    tables = {f"{dataset}_pair.csv", f"{dataset}_item.csv"}
    found: set[str] = set()
    others: set[str] = set()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        spool = Path(name)
        covers: dict[str, Path] = {}
        for path, open_entry in entries:
            if path.name in tables:
                _refuse_second(path.name in found, place, path.name)
                found.add(path.name)
                _copy(open_entry, spool / path.name)
            elif path.parent.name == f"{dataset}_cover" and path.suffix.lower() == ".jpg":
                _add_cover(covers, path, open_entry, spool, place)
            elif path.name == f"{dataset}_cover.zip":
                packed = spool / path.name
                _refuse_second(packed.exists(), place, path.name)
                _copy(open_entry, packed)
                for cover in _zip_entries(packed):
                    if cover.path.suffix.lower() == ".jpg":
                        _add_cover(covers, cover.path, cover.open, spool, place)
            elif path.name.endswith("_pair.csv"):
                others.add(path.name.removesuffix("_pair.csv"))
        if missing := sorted(tables - found):
            has = f"it holds {', '.join(sorted(others))}" if others else "it holds no NAME_pair.csv"
            raise InputError(f"source: {place} has no {missing[0]} ({has}): mend `dataset` or `source`")
        if covers:
            packing = ((f"{item}.jpg", covers[item].read_bytes()) for item in sorted(covers))
            write_covers(spool / "packed", packing)
            (spool / "packed").replace(folder / f"{dataset}_cover.zip")
        for table in tables:
            (spool / table).replace(folder / table)


def _add_cover(covers: dict[str, Path], path: PurePosixPath, open_entry: Open, spool: Path, place: Path) -> None:
    _refuse_second(path.stem in covers, place, f"cover {path.name}")
    covers[path.stem] = spool / str(len(covers))  # a number, as some file systems ignore case in names
    _copy(open_entry, covers[path.stem])


def _refuse_second(seen: bool, place: Path, name: str) -> None:
    if seen:
        raise InputError(
            f"source: {place} has {name} twice: remove one, or set `source` to the folder of the right one"
        )


def _copy(open_entry: Open, target: Path) -> None:
    with open_entry() as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer)


def _folder_entries(folder: Path) -> Iterator[Entry]:
    """The files of a folder; symbolic links are followed (DVC and shared disks use them), each folder is read once."""
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = Path(root).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in sorted(files):
            path = Path(root) / name
            if not name.startswith("._"):
                yield Entry(PurePosixPath(path.as_posix()), partial(_open_file, path))


def _open_file(path: Path) -> IO[bytes]:
    return path.open("rb")


def _raise(error: OSError) -> None:
    raise error


def _archive_entries(path: Path) -> Iterator[Entry]:
    return _zip_entries(path) if is_zip(path) else _tar_entries(path)


def _zip_entries(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = _safe_name(path, member.filename)
            if member.flag_bits & 1:
                raise InputError(f"source: {path} is encrypted: unpack it, then set `source` to the folder")
            if not member.is_dir() and not stat.S_ISLNK(member.external_attr >> 16) and not name.name.startswith("._"):
                yield Entry(name, partial(archive.open, member))


def _tar_entries(path: Path) -> Iterator[Entry]:
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            name = _safe_name(path, member.name)
            if member.isreg() and not name.name.startswith("._"):
                yield Entry(name, partial(_open_member, archive, member))
        _check_end(archive)


def _open_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    assert file is not None  # None is for links and folders; this is a regular file
    return file


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise ReadError unless only zero bytes follow: tarfile takes a damaged header for the end of the archive."""
    reader = archive.fileobj
    assert reader is not None  # open for reading
    length = 0
    while block := reader.read(1 << 20):
        length += len(block)
        if block.strip(b"\0"):
            raise tarfile.ReadError("a damaged header amid the archive")
    if not length:
        raise tarfile.ReadError("the archive's end is missing")


def _safe_name(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise InputError(f"source: {archive} has the unsafe path {name!r}: get it from a place you trust, or repack it")
    return path
