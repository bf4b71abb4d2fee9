"""One's own data by the lines of README.md's section, through all stages."""

import importlib
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from dvc.utils.hydra import apply_overrides

from stages.errors import InputError
from tests.clone import ROOT
from tests.own_data.shop import (
    ITEMS,
    LENGTH,
    UNTITLED,
    USERS,
    make_shop,
    write_csv,
    write_images,
    write_parquet,
    write_recbole,
)

DATA = ("source", "download", "split")
REST = ("pairs", "sft", "embed", "pretrain", "posttrain", "evaluate", "report")
SMALL = [
    "dim=16", "sequence.layers=1", "sequence.max_length=10", "encoders.workers=0", "sft.epochs=1", "pretrain.epochs=1",
    "posttrain.epochs=1", "evaluate.bootstrap=100", "baselines=[]",
]  # fmt: skip
SHOP = make_shop()
UNTITLED_EVENTS = sum(item == UNTITLED for _, item, _ in SHOP.events)

Run = Callable[..., Path]


def readme_lines() -> list[list[str]]:
    """The values that the lines of *Your own data* set, by line."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Your own data")[1].split("\n## ")[0]
    lines = re.findall(r"^    dvc exp run (.*dataset=MyShop.*)$", section, re.MULTILINE)
    return [[word for word in shlex.split(line, comments=True) if word != "-S"] for line in lines]


def run_stages(folder: Path, stages: tuple[str, ...], overrides: list[str]) -> Path:
    """Run stages in `folder` with these values set by DVC's own code for -S. → `folder`."""
    folder.mkdir(exist_ok=True)
    params = folder / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    apply_overrides(params, [*overrides, *SMALL])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DVC_ROOT", raising=False)
        for stage in stages:
            importlib.import_module(f"stages.{stage}").main()
    return folder


def split_json(folder: Path) -> dict:
    return json.loads((folder / "metrics/split.json").read_text())


def check_evaluation(folder: Path) -> None:
    written = json.loads((folder / "metrics/evaluate.json").read_text())
    assert 0 <= written["ndcg@10"] <= written["hit@10"] <= 1
    assert (folder / "metrics/table4.md").is_file()


@pytest.fixture(scope="module")
def csv_source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("csv")
    write_csv(SHOP, folder)
    return folder


@pytest.fixture(scope="module")
def with_text(tmp_path_factory, csv_source) -> Path:
    """After all stages: the first line of README.md on CSV files, one language, no images."""
    overrides = [value.replace("FOLDER", str(csv_source)) for value in readme_lines()[0]]
    return run_stages(tmp_path_factory.mktemp("with_text"), DATA + REST, overrides)


def test_the_first_line_of_the_readme_goes_from_csv_files_to_metrics(with_text):
    check_evaluation(with_text)


def test_split_json_says_what_there_is_and_what_was_dropped(with_text):
    said = split_json(with_text)
    assert said["users"] == USERS
    assert said["items"] == len(SHOP.titles) == ITEMS - 1
    assert said["interactions"] == USERS * LENGTH - UNTITLED_EVENTS
    assert said["dropped"]["untitled_interactions"] == UNTITLED_EVENTS > 0
    assert said["dropped"]["short_users"] == 0


def test_parquet_and_recbole_files_give_the_same_split_as_csv(with_text, tmp_path):
    for write in (write_parquet, write_recbole):
        source = tmp_path / write.__name__
        write(SHOP, source)
        overrides = [value.replace("FOLDER", str(source)) for value in readme_lines()[0]]
        folder = run_stages(tmp_path / f"run_{write.__name__}", DATA, overrides)
        assert split_json(folder) == split_json(with_text)
        for name in ("items", "train", "valid", "test"):
            path = f"artifacts/split/{name}.parquet"
            assert pl.read_parquet(folder / path).equals(pl.read_parquet(with_text / path))


def test_the_second_line_of_the_readme_names_columns_and_uses_titles_and_images(tmp_path):
    source = tmp_path / "source"
    write_csv(SHOP, source, columns=("buyer", "sku", "ordered_at"))
    write_images(SHOP, source)
    overrides = [value.replace("FOLDER", str(source)) for value in readme_lines()[1]]
    folder = run_stages(tmp_path / "run", DATA + REST, overrides)
    items = pl.read_parquet(folder / "artifacts/split/items.parquet")
    assert items["cover"].sum() == len(SHOP.titles) - 2
    assert (items["title_en"] == items["title_zh"]).all()
    check_evaluation(folder)


def test_without_titles_and_images_ids_alone_are_trained(tmp_path):
    source = tmp_path / "source"
    write_recbole(SHOP, source)
    (source / "MyShop.item").unlink()
    line = ["dataset=MyShop", f"source={source}"]
    with pytest.raises(InputError, match="run with -S 'modalities="):
        run_stages(tmp_path / "refused", DATA, line)
    folder = run_stages(tmp_path / "run", DATA + REST, [*line, "modalities=[id]"])
    assert split_json(folder)["interactions"] == USERS * LENGTH
    check_evaluation(folder)


def test_images_alone_are_enough(tmp_path):
    source = tmp_path / "source"
    write_csv(SHOP, source)
    (source / "items.csv").unlink()
    write_images(SHOP, source)
    line = ["dataset=MyShop", f"source={source}", "modalities=[id,image]"]
    check_evaluation(run_stages(tmp_path / "run", DATA + REST, line))
