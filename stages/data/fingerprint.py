"""Fingerprints of files outside the project, from names, sizes and times or a server's headers, not from content.

Only the standard library is imported, but for a URL: this runs in every `dvc repro`.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stages.errors import InputError

if TYPE_CHECKING:
    import requests

HEADERS = ("ETag", "Last-Modified", "Content-Length")
NO_HEAD = (403, 405, 501)  # answers of servers that support only GET
TIMEOUT = 5  # seconds


def path_fingerprint(place: Path) -> str:
    """Hash of the names, sizes and modification times of a folder's files (hidden ones left out), or of one file.

    Of a symbolic link to nothing (DVC and git-annex leave them for files that are not fetched) its target counts.
    Raises OSError when something cannot be read.
    """
    digest = hashlib.sha256()
    for name, path in sorted(_files(place)):
        leads_nowhere = path.is_symlink() and not path.exists()
        status, target = (path.lstat(), str(path.readlink())) if leads_nowhere else (path.stat(), "")
        line = f"{name}\0{status.st_size}\0{status.st_mtime_ns}{target}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def url_fingerprint(url: str) -> str:
    """Hash of what a server says of a file: ETag, date and size.

    Raises OSError when it cannot be asked, InputError when the address is malformed.
    """
    try:
        response = _ask("HEAD", url)
        if response.status_code in NO_HEAD:
            response = _ask("GET", url)
        response.raise_for_status()
    except ValueError as error:  # which requests' errors of a malformed address are, besides OSError
        raise malformed(url, error) from error
    return hashlib.sha256("\n".join(response.headers.get(name, "") for name in HEADERS).encode()).hexdigest()[:16]


def malformed(url: str, error: ValueError) -> InputError:
    """The error of a URL that cannot be one."""
    return InputError(f"source: {url} is no address that can be asked ({error}): mend the address")


def _ask(method: str, url: str) -> "requests.Response":
    import requests  # slow to import, and not needed for a folder

    headers = {"Accept-Encoding": "identity"}  # or Content-Length is that of a compressed body
    with requests.request(method, url, headers=headers, timeout=TIMEOUT, allow_redirects=True, stream=True) as response:
        return response


def _files(place: Path) -> Iterator[tuple[str, Path]]:
    if place.is_file():
        yield place.name, place
        return
    seen = set()
    for root, folders, files in os.walk(place, followlinks=True, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if (real := os.path.realpath(root)) in seen:  # symbolic links may form a loop
            folders.clear()
            continue
        seen.add(real)
        for name in files:
            if not name.startswith("."):
                path = Path(root, name)
                yield os.path.relpath(path, place), path


def _raise(error: OSError) -> None:
    raise error
