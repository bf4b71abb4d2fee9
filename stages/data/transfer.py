"""Download archives with resume and checksum into `.cache/downloads`, where the next dataset finds them."""

import hashlib
import re
import tarfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import gdown
import requests
from filelock import FileLock
from tqdm import tqdm

from stages.data.fingerprint import malformed, url_fingerprint
from stages.errors import InputError
from stages.files import cache_folder

OFFICIAL = "https://drive.google.com/uc?id=15RlthgPczrFbP4U7l6QflSImK5wSGP5K"  # NineRec's Downstream_datasets.tar.gz
QUOTA_CURE = (
    "when Google Drive's quota is used up, wait a day, or download Downstream_datasets.tar.gz in a browser "
    "and set `source` to it"
)
CHUNK = 1 << 16  # bytes written at a time; an unfinished chunk is lost when the connection breaks


def download_official(sha256: str, url: str = OFFICIAL, retries: int = 5) -> Path:
    """Download NineRec's archive from Google Drive by gdown, which keeps a `.part` and resumes it.

    Raises InputError when Drive refuses (quota) or cannot be reached, or when the file is not the archive.
    """
    target = cache_folder("downloads") / f"{_key(url)}-Downstream_datasets.tar.gz"
    with FileLock(f"{target}.lock"):  # two experiments of a queue must not write one .part
        if not target.exists():
            try:
                gdown.download(url=url, output=str(target), resume=True, retries=retries, timeout=(10, 60))
            except (gdown.exceptions.DownloadError, requests.RequestException) as error:
                reason = " ".join(str(error).split())
                raise InputError(
                    f"source: NineRec's official archive did not arrive ({reason:.300}): {QUOTA_CURE}"
                ) from error
        _check_download(target, sha256, f"Google Drive ({url})", f"; {QUOTA_CURE}")
    return target


def download_url(url: str, sha256: str) -> Path:
    """Download the archive at an http(s) URL, from where an earlier run stopped, or again if the server has another.

    Raises InputError when the address is malformed, the server cannot be reached or refuses, or the file is no archive
    with that checksum.
    """
    try:
        path = urlsplit(url).path
    except ValueError as error:
        raise malformed(url, error) from error
    name = re.sub(r"[^\w.-]", "_", Path(unquote(path)).name) or "archive"
    target = cache_folder("downloads") / f"{_key(url)}-{name[-80:]}"
    with FileLock(f"{target}.lock"):
        fingerprint = _remove_outdated(target, url)
        if not target.exists():
            part = target.with_name(f"{target.name}.part")
            while not _continue(url, part):  # broken off: try again as long as each attempt adds bytes
                pass
            part.replace(target)
            _etag_file(part).unlink(missing_ok=True)
            _fingerprint_file(target).write_text(fingerprint, encoding="utf-8")
        _check_download(target, sha256, url, "")
    return target


def check_sha256(path: Path, sha256: str) -> None:
    """InputError when the file's SHA-256 is not the expected one; an empty expectation accepts anything."""
    if not sha256:
        return
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise InputError(f"download.sha256: {sha256!r} is not a SHA-256 (64 hexadecimal digits)")
    found = _sha256(path)
    if found != sha256.lower():
        raise InputError(f"{path}: SHA-256 is {found}, download.sha256 expects {sha256}: get it anew or mend the key")


def is_zip(path: Path) -> bool:
    """Whether the first bytes are a zip's; `zipfile.is_zipfile` looks at the end and accepts a tar of stored zips."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _key(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_download(path: Path, sha256: str, origin: str, cure: str) -> None:
    """Raise InputError for a file that is no archive or has another checksum, and remove it from the cache."""
    try:
        if not is_archive(path):
            with path.open("rb") as file:
                start = file.read(40)
            raise InputError(f"source: {origin} sent no archive, it starts with {start!r}{cure}")
        check_sha256(path, sha256)
    except InputError:
        path.unlink()
        raise
    if not sha256:
        print(f"{path.name}: SHA-256 {_sha256(path)} (set download.sha256 to it to have it checked)")


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar, compressed or not."""
    try:
        return is_zip(path) or tarfile.is_tarfile(path)
    except EOFError:  # a gzip file cut within its first bytes
        return False


def _remove_outdated(target: Path, url: str) -> str:
    """Remove a download that is not what the server has now. → the fingerprint of what it has, '' if it is silent."""
    try:
        found = url_fingerprint(url)
    except OSError:  # a file that is here is used without the network; one that is not will say what is wrong
        return ""
    record = _fingerprint_file(target)
    if target.exists() and record.exists() and record.read_text(encoding="utf-8") != found:
        target.unlink()
    return found


def _fingerprint_file(target: Path) -> Path:
    return target.with_name(f"{target.name}.fingerprint")


def _etag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _continue(url: str, part: Path) -> bool:
    """Request the bytes that `part` lacks; True when it is complete, False when the connection broke again."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # Range counts the bytes of the file, not of a compressed body
    if have:
        headers["Range"] = f"bytes={have}-"
        if _etag_file(part).exists():
            headers["If-Range"] = _etag_file(part).read_text(encoding="utf-8")  # a changed file is sent whole: 200
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(10, 60)) as response:
            return _store(response, part, have)
    except requests.RequestException as error:
        stored = part.stat().st_size if part.exists() else 0
        if stored > have:
            return False
        reason = " ".join(str(error).split())
        raise InputError(
            f"source: {url} did not arrive ({reason:.200}): check the address and the network, then run again; "
            f"{stored:,} bytes are stored"
        ) from error


def _store(response: requests.Response, part: Path, have: int) -> bool:
    """Append the body of a 206 to `part`, or write that of a 200; RequestException when the body ends early."""
    if response.status_code == 416:  # no bytes after ours: `part` is complete, or the file at the URL is shorter now
        if response.headers.get("Content-Range", "") == f"bytes */{have}":
            return True
        part.unlink()
        _etag_file(part).unlink(missing_ok=True)
        return False
    if response.status_code not in (200, 206):
        raise InputError(f"source: {response.url} answered {response.status_code} {response.reason}: check the address")
    resumed = response.status_code == 206
    if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise InputError(
            f"source: {response.url} sent another range than asked: download it by hand, set `source` to it"
        )
    if not resumed:
        have = 0
        _remember_etag(response, part)
    length = response.headers.get("Content-Length")
    total = have + int(length) if length else None
    with (
        part.open("ab" if resumed else "wb") as file,
        tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.name, disable=None) as bar,
    ):
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    return True


def _remember_etag(response: requests.Response, part: Path) -> None:
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):  # a weak ETag does not promise the same bytes
        _etag_file(part).write_text(etag, encoding="utf-8")
    else:
        _etag_file(part).unlink(missing_ok=True)
