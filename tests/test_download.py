import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages import download
from stages.errors import InputError

PARAMS = Path(__file__).parents[1] / "params.yaml"


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)


def set_params(**changes: object) -> None:
    content = YAML(typ="safe").load(PARAMS)
    content["download"] |= {"sample_users": 40, "sample_items": 40, "sample_topics": 3}
    YAML().dump(content | changes, Path("params.yaml"))


def test_the_sample_is_written_in_the_layout_of_ninerec() -> None:
    set_params(dataset="sample")
    download.main()
    names = sorted(file.name for file in Path("artifacts/raw").iterdir())
    assert names == ["sample_cover.zip", "sample_item.csv", "sample_pair.csv"]
    metrics = json.loads(Path("metrics/download.json").read_text())
    total = sum(file.stat().st_size for file in Path("artifacts/raw").iterdir())
    assert 30 < metrics.pop("covers") <= 40  # some are missing
    assert metrics == {"dataset": "sample", "files": 3, "bytes": total}


def test_a_relative_source_gives_the_chosen_dataset_and_replaces_the_folder() -> None:
    set_params(dataset="sample")
    download.main()
    Path("mine").mkdir()
    Path("mine/My_Set_pair.csv").write_text("v1,u1,1\n")
    Path("mine/My_Set_item.csv").write_text("v1,a,b\n")
    set_params(dataset="My_Set", source="mine")
    download.main()
    assert sorted(file.name for file in Path("artifacts/raw").iterdir()) == ["My_Set_item.csv", "My_Set_pair.csv"]
    assert json.loads(Path("metrics/download.json").read_text())["covers"] == 0


def test_a_failed_download_leaves_the_earlier_folder_as_it_was() -> None:
    set_params(dataset="sample")
    download.main()
    before = {file: file.read_bytes() for file in Path("artifacts").rglob("*.*")}
    Path("half").mkdir()
    Path("half/My_Set_item.csv").write_text("v1,a,b\n")
    set_params(dataset="My_Set", source="half")
    with pytest.raises(InputError, match="has no My_Set_pair.csv"):
        download.main()
    assert {file: file.read_bytes() for file in Path("artifacts").rglob("*.*")} == before


def test_columns_of_params_are_used() -> None:
    Path("mine").mkdir()
    Path("mine/My_Set_pair.csv").write_text("wer,was,wann\nu1,v1,5\n")
    set_params(dataset="My_Set", source="mine", columns={"user": "wer", "item": "was", "time": "wann", "title": None})
    download.main()
    assert Path("artifacts/raw/My_Set_pair.csv").read_text() == "v1,u1,5\n"
    assert Path("artifacts/raw/My_Set_item.csv").read_text() == "v1,,\n"
    Path("mine/My_Set_pair.csv").write_text("7,8,5\n")
    set_params(dataset="My_Set", source="mine", columns={"user": 1, "item": 2, "time": None, "title": None})
    download.main()
    assert Path("artifacts/raw/My_Set_pair.csv").read_text() == "8,7,5\n"
