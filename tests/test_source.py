import errno
import json
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages import source
from stages.errors import InputError

PARAMS = Path(__file__).parents[1] / "params.yaml"


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def run(place: str, dataset: str = "Shop") -> dict[str, str]:
    """metrics/source.json after the stage."""
    content = YAML(typ="safe").load(PARAMS)
    YAML().dump(content | {"dataset": dataset, "source": place}, Path("params.yaml"))
    source.main()
    written: dict[str, str] = json.loads(source.OUTPUT.read_text())
    return written


def run_encoders(text: str, image: str = "tiny") -> dict[str, dict[str, str]]:
    """metrics/encoders.json after the stage, of the built-in sample."""
    content = YAML(typ="safe").load(PARAMS)
    YAML().dump(content | {"text_encoder": text, "image_encoder": image}, Path("params.yaml"))
    source.main()
    written: dict[str, dict[str, str]] = json.loads(source.ENCODERS.read_text())
    return written


def make_folder() -> Path:
    folder = Path("mine")
    (folder / "covers").mkdir(parents=True)
    (folder / "log.csv").write_text("v1,u1,1\n")
    (folder / "covers" / "v1.jpg").write_bytes(b"1")
    return folder


def test_the_sample_has_no_source() -> None:
    assert run("", "sample") == {"source": "", "fingerprint": ""}
    with pytest.raises(InputError, match="source=nowhere: dataset=sample is built in and reads no source: set dataset"):
        run("nowhere", "sample")


def test_a_dataset_of_the_user_s_own_has_a_source_and_one_of_ninerec_need_not() -> None:
    assert run("", "Bili_Food") == {"source": "", "fingerprint": ""}
    with pytest.raises(InputError, match="dataset=MyShop is none of NineRec's .*, and source is empty: set source"):
        run("", "MyShop")


@pytest.mark.parametrize("change", [
    lambda folder: (folder / "log.csv").write_text("v1,u1,2\n"),
    lambda folder: (folder / "new.csv").touch(),
    lambda folder: (folder / "covers" / "v1.jpg").unlink(),
    lambda folder: (folder / "covers" / "v1.jpg").rename(folder / "covers" / "v2.jpg"),
    lambda folder: os.utime(folder / "covers" / "v1.jpg", (5, 5)),
])  # fmt: skip
def test_any_change_of_a_folder_changes_its_fingerprint(change) -> None:
    folder = make_folder()
    os.utime(folder / "log.csv", (1, 1))
    before = run("mine")
    written = source.OUTPUT.stat().st_mtime_ns
    assert run("mine") == before
    assert source.OUTPUT.stat().st_mtime_ns == written  # nothing was written again
    change(folder)
    assert run("mine") != before


def test_a_changed_archive_changes_its_fingerprint() -> None:
    Path("a.zip").write_bytes(b"1")
    before = run("a.zip")
    Path("a.zip").write_bytes(b"12")
    assert run("a.zip") != before


def test_hidden_files_and_loops_of_links_do_not_matter() -> None:
    folder = make_folder()
    before = run("mine")
    (folder / ".DS_Store").touch()
    (folder / "loop").symlink_to(folder.resolve())
    assert run("mine") == before


def test_a_source_that_cannot_be_reached_counts_as_unchanged_only_if_it_was_read_before() -> None:
    folder = make_folder()
    before = run("mine")
    folder.rename("elsewhere")
    assert run("mine") == before
    with pytest.raises(InputError, match="source: other cannot be read .no folder or archive here.: mend the path"):
        run("other")


@pytest.mark.parametrize("place", ["artifacts", "artifacts/raw/mine", "link/mine", ".", ".."])
def test_data_among_the_artifacts_which_dvc_deletes_is_refused(place: str) -> None:
    Path("artifacts/raw/mine").mkdir(parents=True)
    Path("link").symlink_to("artifacts/raw")
    with pytest.raises(
        InputError, match=f"source={place} (lies in|contains) artifacts/, which .*(move it|folder of its)"
    ):
        run(place)


def test_an_encoder_among_the_artifacts_is_refused_and_so_is_an_unknown_user_s_folder() -> None:
    Path("artifacts/encoders/text").mkdir(parents=True)
    with pytest.raises(InputError, match="text_encoder=artifacts/encoders/text lies in artifacts/"):
        run_encoders("artifacts/encoders/text")
    with pytest.raises(InputError, match="source=~nobody-of-this-name/x: .*: mend the path"):
        run("~nobody-of-this-name/x")


def test_a_full_disk_leaves_the_record_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before = run(str(make_folder()))
    Path("mine/log.csv").write_text("v1,u1,1\nv2,u1,2\n")
    monkeypatch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full"):
        source.main()
    assert json.loads(source.OUTPUT.read_text()) == before
    assert {path.name for path in Path("metrics").iterdir()} == {"encoders.json", "source.json"}


def test_a_link_to_nothing_counts_by_its_target() -> None:  # DVC and git-annex leave them for files not fetched
    folder = make_folder()
    (folder / "big.csv").symlink_to("cache/1")
    before = run("mine")
    assert run("mine") == before
    (folder / "log.csv").write_text("v1,u1,2\n")
    edited = run("mine")
    assert edited != before
    (folder / "big.csv").unlink()
    (folder / "big.csv").symlink_to("cache/2")
    assert run("mine") != edited


def test_a_source_that_is_here_but_cannot_be_read_does_not_count_as_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder()
    run("mine")

    def refuse(folder: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / "covers"))

    monkeypatch.setattr(source, "path_fingerprint", refuse)
    with pytest.raises(InputError, match="source: mine/covers cannot be read .Permission denied.: mend it, run"):
        run("mine")


def test_encoders_that_are_built_in_or_on_the_hub_never_change() -> None:
    assert run_encoders("google-bert/bert-base-chinese") == {
        "text_encoder": {"name": "google-bert/bert-base-chinese", "fingerprint": ""},
        "image_encoder": {"name": "tiny", "fingerprint": ""},
    }


def test_new_weights_in_an_encoder_s_folder_change_its_fingerprint() -> None:
    weights = Path("bert", "model.safetensors")
    weights.parent.mkdir()
    weights.write_bytes(b"1")
    before = run_encoders("bert")
    written = source.ENCODERS.stat().st_mtime_ns
    assert run_encoders("bert") == before
    assert source.ENCODERS.stat().st_mtime_ns == written  # nothing was written again
    weights.write_bytes(b"12")
    assert source.main() == "sample: unchanged; an encoder is another, or its files have changed"
    after = run_encoders("bert")
    assert after["text_encoder"]["fingerprint"] != before["text_encoder"]["fingerprint"]
    assert after["image_encoder"] == before["image_encoder"]


def test_an_encoder_s_folder_that_is_not_here_counts_as_unchanged_while_its_name_is() -> None:
    make_folder()
    before = run_encoders("mine")
    Path("mine").rename("elsewhere")
    assert run_encoders("mine") == before
    assert run_encoders("other")["text_encoder"] == {"name": "other", "fingerprint": ""}


@pytest.mark.parametrize("file", [source.OUTPUT, source.ENCODERS])
def test_a_record_with_the_conflicts_of_a_merge_is_named(file: Path) -> None:
    run("", "sample")
    file.write_text("<<<<<<< HEAD\n" + file.read_text())
    with pytest.raises(InputError, match=f"{file} is damaged .*: delete it, run again"):
        source.main()


def test_an_encoder_s_folder_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / "model.safetensors"))

    make_folder()
    monkeypatch.setattr(source, "path_fingerprint", refuse)
    with pytest.raises(InputError, match="image_encoder: mine/model.safetensors cannot be read .Permission denied.: m"):
        run_encoders("tiny", "mine")


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_changed_file_on_a_server_changes_its_fingerprint(url: str) -> None:
    Path("a.zip").write_bytes(b"1")
    before = run(f"{url}/a.zip")
    assert run(f"{url}/a.zip") == before
    Path("a.zip").write_bytes(b"12")
    after = run(f"{url}/a.zip")
    assert after != before
    Path("a.zip").unlink()
    assert run(f"{url}/a.zip") == after
    with pytest.raises(InputError, match="cannot be read"):
        run(f"{url}/b.zip")


@pytest.mark.parametrize("name", ["my file.zip", "数据.zip", "100%.zip"])
def test_blanks_and_foreign_letters_in_an_address_are_escaped(url: str, name: str) -> None:
    Path(name).write_bytes(b"1")
    before = run(f"{url}/{name}")
    Path(name).write_bytes(b"12")
    assert run(f"{url}/{name}") != before


@pytest.mark.parametrize(
    "address", ["http://[bad/x.zip", "http://host:port/x.zip", "https:///x.zip", "http://a..b/x.zip"]
)
def test_a_malformed_address_is_named(address: str) -> None:
    with pytest.raises(InputError, match="is no address that can be asked .*: mend the address") as caught:
        run(address)
    assert f"source: {address} " in str(caught.value)
