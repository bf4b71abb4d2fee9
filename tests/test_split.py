import json
from pathlib import Path

import polars as pl
import pytest
from ruamel.yaml import YAML

from stages import download, split
from stages.data.covers import write_covers
from stages.errors import InputError

PARAMS = Path(__file__).parents[1] / "params.yaml"
NAMES = ("items", "train", "valid", "test", "full")


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    content = YAML(typ="safe").load(PARAMS)
    content["download"] |= {"sample_users": 60, "sample_items": 40, "sample_topics": 3}
    content["dataset"] = "sample"
    YAML().dump(content, Path("params.yaml"))


def read(name: str) -> pl.DataFrame:
    return pl.read_parquet(f"artifacts/split/{name}.parquet")


def test_train_valid_and_test_joined_are_the_full_histories() -> None:
    download.main()
    split.main()
    joined = read("train").join(read("valid"), on="user").join(read("test"), on="user", suffix="_test")
    whole = [[*row["items"], row["item"], row["item_test"]] for row in joined.sort("user").rows(named=True)]
    assert whole == read("full")["items"].to_list()
    assert read("full")["user"].to_list() == list(range(60))


def test_items_are_numbered_from_one_and_counted_in_training_only() -> None:
    download.main()
    split.main()
    items = read("items")
    assert items["item"].to_list() == list(range(1, items.height + 1))
    assert items["cover"].mean() > 0.8  # some are missing
    in_training = read("train")["items"].explode()
    assert items["count"].to_list() == [(in_training == item).sum() for item in items["item"]]
    metrics = json.loads(Path("metrics/split.json").read_text())
    assert metrics["interactions"] == len(in_training) + 2 * 60
    assert metrics["sparsity"] == 1 - metrics["interactions"] / (metrics["users"] * metrics["items"])


def test_how_many_interactions_have_no_title_is_said() -> None:
    download.main()
    file = Path("artifacts/raw/sample_item.csv")
    lines = file.read_text(encoding="utf-8").splitlines()
    item = lines[0].split(",")[0]
    file.write_text("\n".join([f"{item},,", *lines[1:]]) + "\n", encoding="utf-8")
    count = Path("artifacts/raw/sample_pair.csv").read_text().count(f"{item},")
    assert split.main().endswith(f"; without {count} interactions with items that have no title")


def test_the_same_raw_files_give_the_same_bytes() -> None:
    download.main()
    split.main()
    first = [Path(f"artifacts/split/{name}.parquet").read_bytes() for name in NAMES]
    split.main()
    assert [Path(f"artifacts/split/{name}.parquet").read_bytes() for name in NAMES] == first


def test_a_file_of_several_parts_gives_the_same_bytes_and_leaves_no_temporary_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    download.main()
    split.main()
    first = [Path(f"artifacts/split/{name}.parquet").read_bytes() for name in NAMES]
    monkeypatch.setattr(split, "PART_BYTES", Path("artifacts/raw/sample_pair.csv").stat().st_size // 5)
    split.main()
    assert [Path(f"artifacts/split/{name}.parquet").read_bytes() for name in NAMES] == first
    assert {path.name for path in Path("artifacts/split").iterdir()} == {f"{name}.parquet" for name in NAMES}


def set_split(**changes: object) -> None:
    content = YAML(typ="safe").load(Path("params.yaml"))
    YAML().dump(content | {"split": content["split"] | changes}, Path("params.yaml"))


def test_a_split_by_time_says_its_moments_and_how_many_users_have_targets() -> None:
    download.main()
    rows = [f"v{1 + (user * 7 + time) % 40},u{user},{time * 60 + user}\n" for time in range(20) for user in range(60)]
    Path("artifacts/raw/sample_pair.csv").write_text("".join(rows))
    set_split(strategy="time", valid_from=0.7, test_from=0.85)
    split.main()
    metrics = json.loads(Path("metrics/split.json").read_text())
    moments = {name: metrics[name] for name in ("valid_from", "test_from", "valid_users", "test_users")}
    assert moments == {"valid_from": 840, "test_from": 1020, "valid_users": 60, "test_users": 60}
    assert set(read("train")["items"].list.len()) <= {13, 14}  # two of an item's repeats may be equal
    assert set(read("test")["history"].list.len()) <= {16, 17}


def test_a_moment_that_is_none_is_refused() -> None:
    download.main()
    set_split(strategy="time", valid_from="spring")
    with pytest.raises(InputError, match=r"split.valid_from=spring: write a fraction such as 0.9, a date"):
        split.main()


def test_a_failed_split_leaves_no_files() -> None:
    download.main()
    content = YAML(typ="safe").load(Path("params.yaml"))
    content["split"]["min_interactions"] = 1000
    YAML().dump(content, Path("params.yaml"))
    with pytest.raises(InputError, match="no user has 1000 interactions"):
        split.main()
    assert not list(Path("artifacts/split").iterdir())


def test_missing_raw_files_name_the_stage_to_run() -> None:
    with pytest.raises(InputError, match="sample_item.csv is missing: run `dvc repro download`"):
        split.main()


def shop(titles: str, **changes: object) -> None:
    """A dataset of three items, titles in the columns that `titles` names."""
    Path("artifacts/raw").mkdir(parents=True)
    rows = [f"v{n},{'题' if 'zh' in titles else ''},{'T' if 'en' in titles else ' '}\n" for n in range(3)]
    Path("artifacts/raw/Shop_item.csv").write_text("".join(rows))
    Path("artifacts/raw/Shop_pair.csv").write_text("".join(f"v{n % 3},u{n // 3},{n}\n" for n in range(9)))
    content = YAML(typ="safe").load(Path("params.yaml"))
    YAML().dump(content | {"dataset": "Shop", "modalities": ["id", "text"]} | changes, Path("params.yaml"))


@pytest.mark.parametrize("modalities", [["id", "text"], ["id", "image"]])
def test_titles_in_the_other_language_alone_name_the_language_to_set(modalities: list[str]) -> None:
    shop("en", language="zh", modalities=modalities)
    with pytest.raises(InputError, match=r"Shop_item.csv: no item has a title_zh: set language=en$"):
        split.main()


def test_a_title_in_the_chosen_language_is_enough() -> None:
    shop("en", language="en")
    split.main()
    assert read("items")["title_en"].to_list() == ["T"] * 3


def test_no_titles_and_text_among_the_modalities_name_modalities() -> None:
    shop("", modalities=["id", "text", "image"])
    with pytest.raises(InputError, match=r"no item has a title, .* -S 'modalities=\[id,image\]', or name the column"):
        split.main()


def test_no_titles_and_no_text_among_the_modalities_keep_every_item() -> None:
    shop("", modalities=["id"])
    split.main()
    assert read("items").height == 3
    assert json.loads(Path("metrics/split.json").read_text())["dropped"]["untitled_interactions"] == 0


def test_the_sample_can_be_split_by_time() -> None:
    download.main()
    set_split(strategy="time", valid_from=0.4, test_from=0.6)
    split.main()
    full = dict(read("full").select("user", "items").iter_rows())
    for name in ("valid", "test"):
        for user, item, history in read(name).rows():
            assert full[user][: len(history) + 1] == [*history, item]


@pytest.mark.parametrize(
    ("covers", "modalities", "without"),
    [(None, ["id", "text", "image"], "id,text"), (["v9.png"], ["id", "image"], "id"), (["v9.png"], ["image"], "id")],
)
def test_image_among_the_modalities_needs_the_cover_of_an_item(covers, modalities, without) -> None:
    shop("zh", modalities=modalities)
    if covers:
        write_covers(Path("artifacts/raw/Shop_cover.zip"), ((name, b"") for name in covers))
    with pytest.raises(InputError, match=rf"no item has a cover: .*modalities=\[{without}\]'"):
        split.main()
