import functools
import hashlib
import io
import os
import resource
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stages.data.columns import Wanted
from stages.data.fetch import fetch as fetch_columns
from stages.data.transfer import download_official
from stages.errors import InputError

FILES = {
    "down/X/X_pair.csv": b"v1,u1,1\n",
    "down/X/X_item.csv": b"v1,a,b\nv2,c,d\n",
    "down/X/X_cover/v2.jpg": b"two",
    "down/X/X_cover/v1.jpg": b"one",
    "down/X/._X_pair.csv": b"junk",
    "down/X/X_cover/._v1.jpg": b"junk",
    "down/Y/Y_pair.csv": b"v9,u1,1\n",
    "down/Y/Y_cover/v9.jpg": b"nine",
}


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def fetch(dataset: str, source: str, sha256: str, folder: Path) -> None:
    fetch_columns(dataset, source, sha256, Wanted(), folder)


def tar_bytes(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def check_x(folder: Path) -> None:
    assert sorted(contents(folder)) == ["X_cover.zip", "X_item.csv", "X_pair.csv"]
    assert (folder / "X_pair.csv").read_bytes() == FILES["down/X/X_pair.csv"]
    with zipfile.ZipFile(folder / "X_cover.zip") as archive:
        assert [(name, archive.read(name)) for name in archive.namelist()] == [("v1.jpg", b"one"), ("v2.jpg", b"two")]


def failure(tmp_path: Path, source: str, sha256: str = "") -> str:
    with pytest.raises(InputError) as caught:
        fetch("X", source, sha256, tmp_path / "out")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_kind_of_source_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, content in FILES.items():
        path = tmp_path / "loose" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "a.tar.gz").write_bytes(tar_bytes(FILES))
    (tmp_path / "a.tar").write_bytes(tar_bytes(dict(reversed(FILES.items())), "w"))
    (tmp_path / "a.zip").write_bytes(zip_bytes(FILES))
    tables = {name: content for name, content in FILES.items() if "_cover" not in name}
    (tmp_path / "packed.tar").write_bytes(
        tar_bytes(tables | {"X_cover.zip": zip_bytes({"v2.jpg": b"two", "v1.jpg": b"one"})}, "w")
    )
    for source in ("loose", "a.tar.gz", "a.tar", "a.zip", "packed.tar"):  # relative: found from the workspace's root
        fetch("X", source, "", tmp_path / f"out-{source}")
        check_x(tmp_path / f"out-{source}")
        assert contents(tmp_path / f"out-{source}") == contents(tmp_path / "out-loose")


@pytest.mark.parametrize("folder", [".trash", "down/.ipynb_checkpoints", "__MACOSX/down", "down/X/._old"])
def test_hidden_folders_of_any_source_are_left_out(tmp_path: Path, folder: str) -> None:
    files = FILES | {f"{folder}/X_pair.csv": b"v3,u1,1\n", f"{folder}/X_cover/v1.jpg": b"old"}
    (tmp_path / "a.tar.gz").write_bytes(tar_bytes(files))
    (tmp_path / "a.zip").write_bytes(zip_bytes(files))
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "loose")
    for source in ("loose", "a.tar.gz", "a.zip"):
        fetch("X", source, "", tmp_path / f"out-{source}")
        check_x(tmp_path / f"out-{source}")


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    name = os.fsdecode("数据.csv".encode("gbk"))
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / name).write_bytes(b"v1,u1,1\n")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "loose" / name, name)
    for source in ("loose", "a.tar"):
        assert failure(tmp_path, source) == (
            f"source: the name of '\\udcca\\udcfd\\udcbe\\udcdd.csv' in {tmp_path / source} is not UTF-8: rename it"
        )


def test_a_source_without_covers_writes_no_cover_zip(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_bytes({"X_pair.csv": b"v1,u1,1\n", "X_item.csv": b"v1,a,b\n"}))
    fetch("X", str(tmp_path / "a.zip"), "", tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == ["X_item.csv", "X_pair.csv"]


@pytest.mark.parametrize("name", ["../evil/X_pair.csv", "/etc/X_pair.csv", "down/../../X_pair.csv", "..\\X_pair.csv"])
@pytest.mark.parametrize("pack", [tar_bytes, zip_bytes])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: str, pack: functools.partial) -> None:
    (tmp_path / "a.bin").write_bytes(pack(FILES | {name: b"evil"}))
    assert "unsafe path" in failure(tmp_path, "a.bin")
    assert b"evil" not in [file.read_bytes() for file in tmp_path.rglob("*.csv")]


def test_links_in_archives_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("X_pair.csv", tarfile.SYMTYPE), ("X_item.csv", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(tmp_path / "secret")
            archive.addfile(member)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        member = zipfile.ZipInfo("X_pair.csv")
        member.create_system, member.external_attr = 3, 0o120777 << 16
        archive.writestr(member, str(tmp_path / "secret"))
    for source in ("a.tar", "a.zip"):
        assert "has no X_pair.csv" in failure(tmp_path, source)


def test_symbolic_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "X_pair.csv").write_bytes(b"v1,u1,1\n")
    (real / "X_item.csv").write_bytes(b"v1,a,b\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "link").symlink_to(real)
    (real / "loop").symlink_to(real)
    fetch("X", "mine", "", tmp_path / "out")
    assert contents(tmp_path / "out") == {"X_pair.csv": b"v1,u1,1\n", "X_item.csv": b"v1,a,b\n"}


def test_a_truncated_archive_is_called_damaged_at_any_length(tmp_path: Path) -> None:
    big = FILES | {"down/X/X_cover/v3.jpg": hashlib.shake_256(b"").digest(9000)}
    for whole in (tar_bytes(big), tar_bytes(big, "w"), zip_bytes(big)):
        content_end = len(whole.rstrip(b"\0")) + 1
        for cut in (10, 300, 700, content_end // 2, content_end - 300, content_end - 10):
            (tmp_path / "cut.bin").write_bytes(whole[:cut])
            message = failure(tmp_path, "cut.bin")
            assert "cut.bin" in message
            assert "damaged" in message


def test_a_garbled_tar_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    garbled = bytearray(tar_bytes(FILES, "w"))
    garbled[4 * 1024 : 4 * 1024 + 512] = b"x" * 512
    (tmp_path / "a.tar").write_bytes(garbled)
    assert "damaged header" in failure(tmp_path, "a.tar")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    content = bytearray(zip_bytes({"X_pair.csv": b"", "X_item.csv": b""}))
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    (tmp_path / "a.zip").write_bytes(content)
    assert "a.zip is encrypted" in failure(tmp_path, "a.zip")


def test_a_zip_with_an_unknown_compression_method_is_refused(tmp_path: Path) -> None:
    content = bytearray(zip_bytes({"X_pair.csv": b"", "X_item.csv": b""}))
    content[content.index(b"PK\x01\x02") + 10] = 97  # the method in the central directory
    (tmp_path / "a.zip").write_bytes(content)
    assert "a.zip is packed in a way that cannot be read" in failure(tmp_path, "a.zip")


@pytest.mark.parametrize(("start", "kind"), [(b"Rar!\x1a\x07\x01", "a RAR"), (b"7z\xbc\xaf\x27\x1c", "a 7-Zip")])
def test_an_archive_of_another_kind_is_named(tmp_path: Path, start: bytes, kind: str) -> None:
    (tmp_path / "shop.archive").write_bytes(start + bytes(600))
    assert f"shop.archive is {kind} archive: unpack it and name the folder" in failure(tmp_path, "shop.archive")


def test_a_web_page_a_missing_path_and_a_missing_member_are_named(tmp_path: Path) -> None:
    (tmp_path / "page.tar.gz").write_bytes(b"<!DOCTYPE html><title>Quota exceeded</title>" * 20)
    assert "page.tar.gz is damaged or no archive" in failure(tmp_path, "page.tar.gz")
    assert "nowhere is no folder or archive" in failure(tmp_path, "nowhere")
    (tmp_path / "a.zip").write_bytes(zip_bytes({"Y_pair.csv": b""}))
    assert "has no X_pair.csv (it holds Y): mend `dataset`" in failure(tmp_path, "a.zip")


def test_a_file_found_twice_is_ambiguous(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_bytes(FILES | {"backup/X_pair.csv": b"old"}))
    assert "has X_pair.csv twice" in failure(tmp_path, "a.zip")


def test_the_checksum_is_compared_for_archives_and_refused_for_folders(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_bytes(FILES))
    good = hashlib.sha256((tmp_path / "a.zip").read_bytes()).hexdigest()
    fetch("X", "a.zip", good.upper(), tmp_path / "good")
    check_x(tmp_path / "good")
    assert "download.sha256 expects" in failure(tmp_path, "a.zip", "0" * 64)
    assert "is not a SHA-256" in failure(tmp_path, "a.zip", "abc")
    assert "is a folder" in failure(tmp_path, ".", good)
    assert (tmp_path / "a.zip").exists()  # the user's own file stays


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes(FILES | {"X_cover/v7.jpg": bytes(100_000)}, "w"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # writing past it fails as a full disk does
    try:
        message = failure(tmp_path, "a.tar")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "no room on the disk" in message


class Server(ThreadingHTTPServer):
    """A server of `content` with support for Range whose answers break off after `cut` bytes."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut, self.ranges, self.etag, self.status = content, len(content), [], '"1"', 0
        self.url = f"http://127.0.0.1:{self.server_port}/down/archive.tar.gz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.send_response(self.server.status or 200)
        self.send_header("ETag", self.server.etag)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if self.server.status:
            self.send_error(self.server.status)
            return
        current = self.headers.get("If-Range", self.server.etag) == self.server.etag
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and current else 0
        total = len(self.server.content)
        if start and start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("ETag", self.server.etag)
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        self.wfile.write(self.server.content[start : start + self.server.cut])

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(tar_bytes(FILES | {"noise": hashlib.shake_256(b"").digest(2_000_000)})) as running:
        thread = threading.Thread(target=functools.partial(running.serve_forever, poll_interval=0.01))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def downloads(tmp_path: Path) -> list[str]:
    return [
        file.name[17:]
        for file in (tmp_path / ".cache/downloads").iterdir()
        if file.suffix not in (".lock", ".fingerprint")
    ]


def test_a_broken_transfer_is_resumed_and_the_archive_is_cached_for_the_next_dataset(
    tmp_path: Path, server: Server
) -> None:
    server.cut = 800_000
    fetch("X", server.url, hashlib.sha256(server.content).hexdigest(), tmp_path / "out")
    check_x(tmp_path / "out")
    assert server.ranges == [None, "bytes=786432-", "bytes=1572864-"]  # whole chunks of 64 KiB
    assert downloads(tmp_path) == ["archive.tar.gz"]
    fetch("X", server.url, "", tmp_path / "again")
    assert len(server.ranges) == 3


def test_a_failing_server_leaves_the_part_and_a_later_run_resumes_it(tmp_path: Path, server: Server) -> None:
    server.cut = 9000
    part = tmp_path / ".cache/downloads" / f"{hashlib.sha256(server.url.encode()).hexdigest()[:16]}-archive.tar.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(server.content[:5000])
    server.status = 503
    assert "answered 503" in failure(tmp_path, server.url)
    server.status, server.cut = 0, 0
    assert "5,000 bytes are stored" in failure(tmp_path, server.url)
    server.cut = len(server.content)
    fetch("X", server.url, "", tmp_path / "out")
    assert server.ranges[-1] == "bytes=5000-"
    check_x(tmp_path / "out")


def test_a_complete_part_is_used_without_further_bytes(tmp_path: Path, server: Server) -> None:
    part = tmp_path / ".cache/downloads" / f"{hashlib.sha256(server.url.encode()).hexdigest()[:16]}-archive.tar.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(server.content)
    fetch("X", server.url, "", tmp_path / "out")
    check_x(tmp_path / "out")


def test_a_file_that_changed_on_the_server_is_fetched_from_its_start(tmp_path: Path, server: Server) -> None:
    part = tmp_path / ".cache/downloads" / f"{hashlib.sha256(server.url.encode()).hexdigest()[:16]}-archive.tar.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"of an older file")
    part.with_name(part.name + ".etag").write_text('"0"')
    fetch("X", server.url, "", tmp_path / "out")
    check_x(tmp_path / "out")


def test_an_archive_that_changed_on_the_server_is_downloaded_again(tmp_path: Path, server: Server) -> None:
    fetch("X", server.url, "", tmp_path / "out")
    server.content, server.etag = tar_bytes(FILES | {"down/X/X_pair.csv": b"v2,u7,9\n"}), '"2"'
    server.cut = len(server.content)
    fetch("X", server.url, "", tmp_path / "again")
    assert (tmp_path / "again" / "X_pair.csv").read_bytes() == b"v2,u7,9\n"
    server.status = 503  # a server that fails leaves what is here
    fetch("X", server.url, "", tmp_path / "offline")
    assert contents(tmp_path / "offline") == contents(tmp_path / "again")


def test_a_wrong_checksum_or_a_web_page_leaves_nothing_in_the_cache(tmp_path: Path, server: Server) -> None:
    assert "download.sha256 expects" in failure(tmp_path, server.url, "0" * 64)
    assert downloads(tmp_path) == []
    server.content = b"<!DOCTYPE html>" * 100
    server.cut = len(server.content)
    assert "sent no archive, it starts with b'<!DOCTYPE html>" in failure(tmp_path, server.url)
    assert downloads(tmp_path) == []


def test_an_unreachable_server_names_address_and_network(tmp_path: Path, server: Server) -> None:
    server.server_close()
    assert "check the address and the network" in failure(tmp_path, "http://127.0.0.1:1/a.zip")


@pytest.mark.parametrize("address", ["http://[bad/x.zip", "http://host:port/x.zip", "http:///x.zip", "http://a..b/x"])
def test_a_malformed_address_is_named(tmp_path: Path, address: str) -> None:
    assert f"source: {address} is no address that can be asked" in failure(tmp_path, address)


def test_an_address_with_blanks_and_foreign_letters_is_fetched(tmp_path: Path, server: Server) -> None:
    fetch("X", server.url.replace("archive", "我的 archive"), "", tmp_path / "out")
    check_x(tmp_path / "out")


def test_the_official_archive_is_resumed_and_checked(tmp_path: Path, server: Server) -> None:
    server.cut = 800_000
    with pytest.raises(InputError, match="official archive did not arrive .*set `source` to it"):
        download_official("", server.url, retries=0)
    server.cut = len(server.content)
    path = download_official(hashlib.sha256(server.content).hexdigest(), server.url, retries=0)
    assert path.read_bytes() == server.content
    assert server.ranges[-1] == "bytes=524288-"
    with pytest.raises(InputError, match="download.sha256 expects"):
        download_official("0" * 64, server.url, retries=0)
    assert not path.exists()
