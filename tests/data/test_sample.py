import csv
import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from stages.data.covers import cover_names
from stages.data.ninerec import read_items, scan_pairs
from stages.data.sample import write_sample
from stages.data.sample_content import MAKERS, TOPICS
from stages.data.sample_world import LAST, LENGTHS, make_world, walk
from stages.errors import InputError

NAMES = ("sample_pair.csv", "sample_item.csv", "sample_cover.zip")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, users=300, items=120, topics=6, seed=7)
    return folder


def pairs_of(folder: Path) -> pl.DataFrame:
    return scan_pairs(folder / NAMES[0]).collect()


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "again", users=300, items=120, topics=6, seed=7)
    write_sample(tmp_path / "other", users=300, items=120, topics=6, seed=8)
    for name in NAMES:
        assert (sample / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert (sample / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_covers_are_stored_decode_and_are_missing_for_a_few_items(sample: Path) -> None:
    with zipfile.ZipFile(sample / NAMES[2]) as archive:
        assert archive.namelist() == sorted(archive.namelist())
        for member in archive.infolist():
            assert member.compress_type == zipfile.ZIP_STORED
            image = Image.open(io.BytesIO(archive.read(member)))
            assert (image.mode, image.size) == ("RGB", (64, 64))
    present = set(cover_names(sample / NAMES[2]))
    assert present < {f"v{item}" for item in range(120)}
    assert len(present) > 100


def test_histories_never_repeat_an_item_nor_a_time(sample: Path) -> None:
    histories = pairs_of(sample).group_by("raw_user").agg("raw_item", "timestamp")
    lengths = histories["raw_item"].list.len()
    assert (lengths.min(), lengths.max()) == LENGTHS
    assert len(lengths) == 300
    for column in ("raw_item", "timestamp"):
        assert (histories[column].list.n_unique() == lengths).all()


def test_titles_tell_items_apart_by_topic_sub_topic_and_creator_in_both_languages(sample: Path) -> None:
    seen = set()
    for zh, en in read_items(sample / NAMES[1]).select("title_zh", "title_en").rows():
        places = [
            (row, column)
            for row, (words, _) in enumerate(TOPICS)
            for column, word in enumerate(words.split("：")[1].split("、"))
            if word in zh
        ]
        makers = [(in_zh, in_en) for in_zh, in_en, _ in MAKERS if in_zh in zh]
        assert len(places) == len(makers) == 1
        seen.add((*places, *makers))
        if not en:  # a few items have a title in one language
            continue
        topic, subs = TOPICS[places[0][0]][1].split(": ")
        assert topic in en
        assert subs.split(", ")[places[0][1]] in en
        assert makers[0][1] in en
    assert len(seen) == 120


def test_no_item_is_viewed_before_its_release_and_some_are_new_when_the_data_end() -> None:
    rng = np.random.default_rng(3)
    world = make_world(400, 12, rng)
    for _ in range(50):
        history, times = walk(world, rng)
        assert (world.release[history] <= np.array(times)).all()
        assert max(times) < 1.001
    assert (world.release == LAST).any()


def test_a_few_percent_of_the_last_items_occur_in_no_other_users_earlier_history() -> None:
    shares = []
    for seed in (1, 2, 3):
        rng = np.random.default_rng(seed)
        world = make_world(1000, 12, rng)
        histories = [walk(world, rng)[0] for _ in range(1500)]
        known = {item for history in histories for item in history[:-2]}
        shares.append(np.mean([history[-1] not in known for history in histories]))
    assert 0.02 < np.mean(shares) < 0.1


def test_some_titles_need_csv_quoting(sample: Path) -> None:
    with (sample / NAMES[1]).open(encoding="utf-8", newline="") as file:
        titles = [row[2] for row in csv.reader(file)]
    assert any('"' in title for title in titles)
    assert any("," in title for title in titles)


def test_popularity_is_skewed_and_habits_repeat_across_sub_topics(sample: Path) -> None:
    pairs = pairs_of(sample).sort("raw_user", "timestamp")
    counts = np.sort(pairs["raw_item"].value_counts()["count"].to_numpy())
    assert counts[-12:].sum() > 5 * counts[:12].sum()
    steps = pairs.with_columns(next=pl.col("raw_item").shift(-1).over("raw_user")).drop_nulls()
    most_common = Counter(steps.select("raw_item", "next").rows()).most_common(1)[0][1]
    assert most_common > 10  # by chance: fewer than 2,000 steps over 14,400 pairs


@pytest.mark.parametrize(("items", "topics", "key"), [(400, 13, "sample_topics"), (9, 2, "sample_items")])
def test_sizes_that_the_sample_cannot_have_name_their_key(tmp_path: Path, items: int, topics: int, key: str) -> None:
    with pytest.raises(InputError, match=f"download.{key}"):
        write_sample(tmp_path, users=5, items=items, topics=topics, seed=1)
