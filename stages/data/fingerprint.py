"""Fingerprints of files outside the project, from names, sizes and times or a server's headers, not from content.

Only the standard library is imported: this runs in every `dvc repro`.
"""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

HEADERS = ("ETag", "Last-Modified", "Content-Length")
NO_HEAD = (403, 405, 501)  # answers of servers that support only GET
TIMEOUT = 5  # seconds


def path_fingerprint(place: Path) -> str:
    """Hash of the names, sizes and modification times of a folder's files (hidden ones left out), or of one file.

    Raises OSError when something cannot be read.
    """
    digest = hashlib.sha256()
    for name, path in sorted(_files(place)):
        status = path.stat()
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def url_fingerprint(url: str) -> str:
    """Hash of what a server says of a file: ETag, date and size. Raises OSError when it cannot be asked."""
    try:
        headers = _headers(url, "HEAD")
    except urllib.error.HTTPError as error:
        if error.code not in NO_HEAD:
            raise
        headers = _headers(url, "GET")
    return hashlib.sha256("\n".join(headers).encode()).hexdigest()[:16]


def _headers(url: str, method: str) -> list[str]:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=TIMEOUT) as response:
        return [response.headers.get(name, "") for name in HEADERS]


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
