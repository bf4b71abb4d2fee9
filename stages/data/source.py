"""The files of a source: a folder, a tar or zip archive, a URL of one, or a single table."""

import errno
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tqdm import tqdm

from stages.data.dialect import table_suffix
from stages.data.transfer import check_sha256, download_official, download_url, is_archive, is_zip
from stages.errors import InputError
from stages.files import user_path

DAMAGED = (EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OTHER_ARCHIVES = {b"Rar!": "a RAR", b"7z\xbc\xaf": "a 7-Zip"}  # by their first bytes
Open = Callable[[], IO[bytes]]


class Entry(NamedTuple):
    """A regular file of a source: its path there, and how to open it."""

    path: PurePosixPath
    open: Open


def locate(source: str, sha256: str) -> Path:
    """The folder or file that `source` means, downloaded if need be; '' is NineRec's official archive.

    Raises InputError when it is missing or has another checksum.
    """
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
def readable(source: str, option: str = "source") -> Iterator[None]:
    """Turn the exceptions of a damaged source, a full disk or an unreadable file into one InputError.

    option: the param or option that names the source.
    """
    try:
        yield
    except DAMAGED as error:
        reason = " ".join(str(error).split())  # tarfile gives one line for each format that it tried
        fault = f"{option}: {source} is damaged or no archive ({reason:.60})"
        raise InputError(f"{fault}: get it anew, run again") from error
    except NotImplementedError as error:  # zipfile, for an unknown compression method
        fault = f"{option}: {source} is packed in a way that cannot be read ({error})"
        raise InputError(f"{fault}: pack it anew") from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise InputError(
                f"no room on the disk to unpack {source} ({error.strerror}): free some, run again"
            ) from error
        if error.errno is None:  # gzip.BadGzipFile, pyarrow and other errors that are not the system's
            reason = " ".join(str(error).split())
            raise InputError(f"{option}: {source} is damaged ({reason:.100}): get it anew, then run again") from error
        raise InputError(f"{error.filename or source}: {error.strerror}: mend it, then run again") from error


def list_paths(place: Path) -> list[PurePosixPath]:
    """The paths of all files of a folder or an archive (read to its end, so that damage is found), or of one table.

    Raises InputError for a name that is not UTF-8, as those of an archive made under Windows may be.
    """
    entries = tqdm(_entries(place), desc=f"list {place.name}", unit=" files", disable=None)
    paths = [entry.path for entry in entries]
    for path in paths:
        try:
            path.as_posix().encode()
        except UnicodeEncodeError as error:
            raise InputError(f"source: the name of {path.as_posix()!a} in {place} is not UTF-8: rename it") from error
    return paths


def extract(place: Path, paths: Collection[PurePosixPath], spool: Path) -> dict[PurePosixPath, Path]:
    """{path: file on this disk}, copied into `spool` unless the source is a folder."""
    wanted = set(paths)
    if place.is_dir():
        return {path: place / path for path in wanted}
    files: dict[PurePosixPath, Path] = {}
    spool.mkdir(parents=True, exist_ok=True)
    for number, entry in enumerate(tqdm(_entries(place), desc=f"unpack {place.name}", unit=" files", disable=None)):
        if entry.path in wanted:
            files[entry.path] = spool / str(number)  # as some file systems ignore case in names
            with entry.open() as reader, files[entry.path].open("xb") as writer:
                shutil.copyfileobj(reader, writer)
    return files


def _entries(place: Path) -> Iterator[Entry]:
    if place.is_dir():
        return _folder_entries(place)
    if is_zip(place):
        return _zip_entries(place)
    if table_suffix(PurePosixPath(place.name)) and not is_archive(place):
        return iter([Entry(PurePosixPath(place.name), partial(_open_file, place))])
    with place.open("rb") as file:
        if kind := OTHER_ARCHIVES.get(file.read(4)):
            raise InputError(f"source: {place} is {kind} archive: unpack it and name the folder, or pack it as .zip")
    return _tar_entries(place)


def _folder_entries(folder: Path) -> Iterator[Entry]:
    """The files of a folder; symbolic links are followed (DVC and shared disks use them), each folder is read once."""
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        folders[:] = sorted(name for name in folders if _is_visible(PurePosixPath(name)))
        real = Path(root).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in sorted(files):
            path = Path(root) / name
            if _is_visible(PurePosixPath(name)):
                yield Entry(PurePosixPath(path.relative_to(folder).as_posix()), partial(_open_file, path))


def _open_file(path: Path) -> IO[bytes]:
    return path.open("rb")


def _raise(error: OSError) -> None:
    raise error


def _is_visible(path: PurePosixPath) -> bool:
    """False for hidden files and for all in a hidden folder; macOS adds a hidden ._NAME and a __MACOSX."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _zip_entries(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = _safe_name(path, member.filename)
            if member.flag_bits & 1:
                raise InputError(f"source: {path} is encrypted: unpack it, then set `source` to the folder")
            if not member.is_dir() and not stat.S_ISLNK(member.external_attr >> 16) and _is_visible(name):
                yield Entry(name, partial(archive.open, member))


def _tar_entries(path: Path) -> Iterator[Entry]:
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            name = _safe_name(path, member.name)
            if member.isreg() and _is_visible(name):
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
