import gzip
import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from ruamel.yaml import YAML

from stages import recommend
from stages.errors import InputError
from stages.parallel.device import choose_device, precision_in_use
from tests.conftest import Workspace


def run(monkeypatch, capsys, *arguments: str) -> list[dict]:
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["recommend", *arguments, "--json"])
    recommend.main()
    return json.loads(capsys.readouterr().out)


def raw_ids() -> list[str]:
    return pl.read_parquet("artifacts/split/items.parquet")["raw_id"].to_list()


def test_it_ranks_unseen_items_best_first(after, monkeypatch, capsys):
    after("posttrain")
    history = raw_ids()[:3]
    rows = run(monkeypatch, capsys, "--history", *history, "--top", "5")
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert not {row["raw_id"] for row in rows} & set(history)


def test_everything_may_be_asked_for_with_or_without_the_history(after, monkeypatch, capsys):
    after("posttrain")
    history = raw_ids()[:3]
    assert len(run(monkeypatch, capsys, "--history", *history, "--top", "999")) == 40 - 3
    rows = run(monkeypatch, capsys, "--history", *history, "--top", "999", "--keep-viewed")
    assert {row["raw_id"] for row in rows} == set(raw_ids())


def test_the_ranking_is_the_one_that_evaluation_uses(after, monkeypatch, capsys):
    after("evaluate")
    train, valid, test = (pl.read_parquet(f"artifacts/split/{name}.parquet") for name in ("train", "valid", "test"))
    ids, user = raw_ids(), 5
    history = [ids[item - 1] for item in [*train["items"][user], valid["item"][user]]]
    rows = run(monkeypatch, capsys, "--history", *history, "--top", "999")
    place = next(row["rank"] for row in rows if row["raw_id"] == ids[test["item"][user] - 1])
    assert place == pl.read_parquet("artifacts/ranks/sicsrec.parquet")["rank_filtered"][user]


def test_ids_are_found_by_words(after, monkeypatch, capsys):
    after("posttrain")
    title = pl.read_parquet("artifacts/split/items.parquet")["title_zh"][7]
    rows = run(monkeypatch, capsys, "--titles", title)
    assert raw_ids()[7] in {row["raw_id"] for row in rows}
    assert all(title in row["title"] for row in rows)
    assert len(run(monkeypatch, capsys, "--titles", "")) == 40  # every title has the empty word
    assert [row["raw_id"] for row in run(monkeypatch, capsys, "--titles", "", "--top", "2")] == raw_ids()[:2]


def test_unknown_ids_are_named(after, monkeypatch):
    after("posttrain")
    monkeypatch.setattr(sys, "argv", ["recommend", "--history", raw_ids()[0], "nobody", "v999999"])
    with pytest.raises(InputError, match="has no nobody, v999999: find ids with --titles WORD"):
        recommend.main()


def test_without_a_model_it_says_what_to_run(after, monkeypatch):
    after("posttrain")
    Path("artifacts/sicsrec.safetensors").unlink()
    monkeypatch.setattr(sys, "argv", ["recommend", "--history", raw_ids()[0]])
    with pytest.raises(InputError, match="sicsrec.safetensors is missing: run `dvc repro`"):
        recommend.main()


def call(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["recommend", *arguments])
    recommend.main()


def test_a_file_for_all_users_has_what_each_of_them_gets_alone(after, monkeypatch, capsys):
    after("posttrain")
    call(monkeypatch, "--users", "all", "--top", "5", "--out", "recommendations.parquet")
    assert capsys.readouterr().out == "recommendations.parquet: 400 recommendations for 80 users\n"
    rows = pl.read_parquet("recommendations.parquet")
    assert rows.columns == ["user", "item", "rank", "score", "basis"]
    full, ids = pl.read_parquet("artifacts/split/full.parquet"), raw_ids()
    history = [ids[item - 1] for item in full["items"][7]]
    alone = run(monkeypatch, capsys, "--history", *history, "--top", "5")
    mine = rows.filter(pl.col("user") == full["raw_id"][7])
    assert mine["item"].to_list() == [row["raw_id"] for row in alone]
    assert mine["score"].to_list() == pytest.approx([row["score"] for row in alone], abs=1e-5)


def test_new_clicks_from_a_file_count_for_known_and_new_users(after, monkeypatch):
    after("posttrain")
    first, second = raw_ids()[:2]
    Path("clicks.csv").write_text(f"user,item\nnew,{first}\nnew,{second}\nnobody,\n")
    call(monkeypatch, "--histories", "clicks.csv", "--top", "3", "--out", "out.csv")
    rows = pl.read_csv("out.csv")
    assert rows.group_by("user", "basis", maintain_order=True).len().rows() == [
        ("new", "history", 3),
        ("nobody", "popularity", 3),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--users", "all"], "--out FILE is missing"),
        (["--users", "all", "--out", "a.txt"], "the suffix decides the format"),
        (["--users", "users.csv", "--out", "a.csv"], "full.parquet has no stranger .*--ignore-unknown"),
        (["--histories", "clicks.csv", "--out", "a.csv"], "items.parquet has no x9"),
        (["--users", "all", "--top", "0", "--out", "a.csv"], "--top 0: ask for one item or more"),
        (["--history", "v1", "--picture", "a.png"], "--picture a.png: only --history with --explain has one"),
        (["--history", "v1", "--explain", "--picture", "a.gif"], "--picture a.gif: end the name in .png, .jpg"),
        (["--history", "v1", "--explain", "--picture", "folder.png"], "--picture folder.png: this is a folder"),
        (["--users", "users.csv", "--out", "./users.csv"], "--out users.csv: this is the file that is read"),
        (["--histories", "clicks.csv", "--out", "clicks.csv"], "--out clicks.csv: this is the file that is read"),
        (
            ["--users", "all", "--new-items", "new.csv", "--out", "new.csv"],
            "--out new.csv: this is the file that is read",
        ),
        (["--users", "all", "--out", "artifacts/split/full.parquet"], "it lies in artifacts/, from where files are"),
        (
            ["--history", "v1", "--explain", "--new-items", "folder.png", "--picture", "folder.png/v1.png"],
            "--picture folder.png/v1.png: it lies in folder.png/, from where files are read",
        ),
        (["--histories", "cut.csv.gz", "--out", "a.csv"], "--histories: cut.csv.gz is damaged .*: get it anew"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_anything_is_written(arguments, message, after, monkeypatch):
    after("posttrain")
    Path("folder.png").mkdir()
    Path("cut.csv.gz").write_bytes(gzip.compress(b"user,item\na,v1\n" * 1000)[:-20])
    Path("users.csv").write_text("user\nstranger\n")
    Path("clicks.csv").write_text("user,item\na,x9\n")
    with pytest.raises(InputError, match=message):
        call(monkeypatch, *arguments)
    assert not list(Path().glob("a.*"))
    assert Path("clicks.csv").read_text() == "user,item\na,x9\n"


def test_a_model_of_another_split_is_refused(after, monkeypatch):
    workspace = after("posttrain")
    workspace.set_params(split={"min_interactions": 6})
    workspace.run("split")
    with pytest.raises(InputError, match="do not belong together.*run `dvc repro posttrain`"):
        call(monkeypatch, "--users", "all", "--out", "a.csv")


def test_similar_items_come_with_titles(after, monkeypatch, capsys):
    after("posttrain")
    rows = run(monkeypatch, capsys, "--similar", raw_ids()[0], "--by", "text", "--top", "3")
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert all(row["title"] for row in rows)
    assert raw_ids()[0] not in {row["raw_id"] for row in rows}


def test_an_explanation_adds_columns_and_changes_no_recommendation(after, monkeypatch, capsys):
    after("posttrain")
    history = raw_ids()[:5]
    plain = run(monkeypatch, capsys, "--history", *history)
    explained = run(monkeypatch, capsys, "--history", *history, "--explain")
    assert [{name: row[name] for name in plain[0]} for row in explained] == plain
    for row in explained:
        assert row["id"] + row["content"] + row["both"] + row["rest"] == pytest.approx(row["score"], abs=1e-5)
        assert len(row["leans_on"]) == 3
        assert set(row["leans_on"]) <= set(history)


def test_an_explanation_has_a_header_and_a_picture(by_content, monkeypatch, capsys):
    write_new_items(unseen_items())
    history = ["--history", *raw_ids()[:5], "--new-items", "arrived", "--top", "40"]
    call(monkeypatch, *history, "--explain", "--picture", "why.jpg")
    header, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert header[:4] == ["rank", "raw_id", "title", "score"]
    assert header[-3:] == ["item_id", "item_content", "leans_on"]
    by_id = {row[1]: float(row[header.index("item_id")]) for row in rows}
    never_seen = unseen_items()["raw_id"].to_list()
    without = {raw_id for raw_id, part in by_id.items() if part == 0}
    assert without == by_id.keys() & {*never_seen, *(f"new_{raw_id}" for raw_id in never_seen)}
    with Image.open("why.jpg") as image:
        assert image.format == "JPEG"


def test_the_heading_of_a_picture_of_few_items_is_not_cut(after, monkeypatch):
    after("posttrain")
    call(monkeypatch, "--history", raw_ids()[0], "--top", "1", "--explain", "--picture", "why.png")
    with Image.open("why.png") as image:
        margin = np.asarray(image.convert("L"))[:60, [*range(10), *range(-10, 0)]]
    assert (margin == 255).all()


def test_an_unknown_similar_item_is_named(after, monkeypatch):
    after("posttrain")
    with pytest.raises(InputError, match="--similar: .* has no nobody: find ids with --titles WORD"):
        call(monkeypatch, "--similar", "nobody")


@pytest.fixture(scope="module")
def made_by_content(made, tmp_path_factory) -> Path:
    """A folder with models that rank items by content too, SICSRec and the distilled one; made once."""
    folder = tmp_path_factory.mktemp("by_content") / "workspace"
    shutil.copytree(made("posttrain"), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DVC_ROOT", raising=False)
        workspace = Workspace()
        workspace.set_params(content_weight=0.5, fuse=["sicsrec", "id_encoder"], distill=2)
        workspace.run("posttrain", "fuse", "distill")
    return folder


@pytest.fixture
def by_content(made_by_content, tmp_path, monkeypatch) -> None:
    """Go to a fresh copy of that folder."""
    shutil.copytree(made_by_content, tmp_path / "workspace")
    monkeypatch.chdir(tmp_path / "workspace")
    monkeypatch.delenv("DVC_ROOT", raising=False)


def unseen_items() -> pl.DataFrame:
    items = pl.read_parquet("artifacts/split/items.parquet").filter(pl.col("count") == 0)
    assert items.height
    return items


def write_new_items(twins: pl.DataFrame, *, file: str = "items.csv", covers: bool = True) -> None:
    """A folder `arrived` with items new_ID that have the titles and covers of items ID."""
    folder = Path("arrived/covers")
    folder.mkdir(parents=True)
    with zipfile.ZipFile("artifacts/raw/sample_cover.zip") as archive:
        for name in archive.namelist():
            if covers and Path(name).stem in twins["raw_id"]:
                (folder / f"new_{name}").write_bytes(archive.read(name))
    renamed = twins.select(pl.format("new_{}", "raw_id").alias("item_id"), "title_zh", "title_en")
    renamed.write_csv(folder.parent / file, include_header=file == "items.csv")


@pytest.mark.parametrize(
    ("file", "system"), [("items.csv", "sicsrec"), ("sample_item.csv", "sicsrec"), ("items.csv", "distilled")]
)
def test_a_new_item_is_scored_as_an_unseen_item_with_the_same_content(file, system, by_content, monkeypatch, capsys):
    write_new_items(unseen_items(), file=file)
    history = ["--history", *raw_ids()[:3], "--top", "999", "--system", system]
    rows = run(monkeypatch, capsys, *history, "--new-items", "arrived")
    scores = {row["raw_id"]: row["score"] for row in rows}
    titles = {row["raw_id"]: row["title"] for row in rows}
    assert len(rows) == 40 - 3 + unseen_items().height
    for raw_id in set(unseen_items()["raw_id"]) - set(raw_ids()[:3]):
        assert scores[f"new_{raw_id}"] == pytest.approx(scores[raw_id], abs=1e-6)
        assert titles[f"new_{raw_id}"] == titles[raw_id]


def test_known_items_keep_their_scores_beside_new_ones(by_content, monkeypatch, capsys):
    plain = run(monkeypatch, capsys, "--history", *raw_ids()[:3], "--top", "999")
    write_new_items(unseen_items())
    rows = run(monkeypatch, capsys, "--history", *raw_ids()[:3], "--top", "999", "--new-items", "arrived")
    known = {row["raw_id"]: row["score"] for row in rows if not row["raw_id"].startswith("new_")}
    assert known == pytest.approx({row["raw_id"]: row["score"] for row in plain}, abs=1e-6)


def test_a_file_for_all_users_has_the_new_items_too(by_content, monkeypatch):
    write_new_items(unseen_items())
    call(monkeypatch, "--users", "all", "--top", "999", "--new-items", "arrived", "--out", "out.parquet")
    rows = pl.read_parquet("out.parquet")
    new = rows.filter(pl.col("item").str.starts_with("new_"))
    assert new.group_by("user").len()["len"].to_list() == [unseen_items().height] * 80


def test_a_new_item_is_found_by_its_words_and_by_similarity(by_content, monkeypatch, capsys):
    write_new_items(unseen_items())
    twin, title = unseen_items().select("raw_id", "title_zh").row(0)
    assert {twin, f"new_{twin}"} <= {
        row["raw_id"] for row in run(monkeypatch, capsys, "--titles", title, "--new-items", "arrived")
    }
    for by in ("text", "image", "both"):
        rows = run(monkeypatch, capsys, "--similar", f"new_{twin}", "--by", by, "--new-items", "arrived")
        assert rows[0]["score"] == pytest.approx(1, abs=1e-5)
        assert twin in {row["raw_id"] for row in rows}
    with pytest.raises(InputError, match=f"--by id: new_{twin} is new, it has no ID vector"):
        call(monkeypatch, "--similar", f"new_{twin}", "--by", "id", "--new-items", "arrived")


def test_titles_and_covers_are_encoded_once(by_content, monkeypatch, capsys):
    write_new_items(unseen_items())
    first = run(monkeypatch, capsys, "--history", raw_ids()[0], "--new-items", "arrived")
    assert len(list(Path(".cache/training").glob("new_*.parquet"))) == 2
    encoders = list(Path("artifacts/encoders").rglob("*.safetensors"))
    for weights in encoders:
        weights.unlink()  # whoever loads an encoder now fails
    assert encoders
    assert run(monkeypatch, capsys, "--history", raw_ids()[0], "--new-items", "arrived") == first
    with Path("arrived/items.csv").open("a") as table:
        table.write("new_2,别的标题,another title\n")
    with pytest.raises(InputError, match="cannot be loaded"):
        call(monkeypatch, "--history", raw_ids()[0], "--new-items", "arrived")


def test_new_items_are_encoded_in_the_precision_of_the_params(by_content, monkeypatch, capsys):
    write_new_items(unseen_items())
    monkeypatch.setattr("stages.ISA_LIMIT", "")  # or the limit would stay lifted in later tests
    content = YAML(typ="safe").load(Path("params.yaml"))
    YAML().dump(content | {"precision": "bfloat16"}, Path("params.yaml"))
    new = f"new_{unseen_items()['raw_id'][0]}"
    rows = run(monkeypatch, capsys, "--similar", new, "--by", "text", "--new-items", "arrived")
    assert precision_in_use() == "bfloat16"
    choose_device("cpu")
    assert rows[0]["score"] == pytest.approx(1, abs=1e-2)


def test_vectors_that_a_crash_damaged_are_computed_again(by_content, monkeypatch, capsys):
    write_new_items(unseen_items())
    first = run(monkeypatch, capsys, "--history", raw_ids()[0], "--new-items", "arrived")
    for path in Path(".cache/training").glob("new_*.parquet"):
        path.write_bytes(bytes(path.stat().st_size))
    assert run(monkeypatch, capsys, "--history", raw_ids()[0], "--new-items", "arrived") == first


def test_a_new_item_without_a_cover_gets_the_known_items_mean_and_is_named(by_content, monkeypatch, capsys):
    write_new_items(unseen_items())
    with Path("arrived/items.csv").open("a") as table:
        table.write("bare,没有封面,no cover\n")
    (Path("arrived/covers") / "bare.jpg").write_bytes(b"not a picture")
    monkeypatch.setattr(sys, "argv", ["recommend", "--similar", "bare", "--by", "image", "--new-items", "arrived"])
    recommend.main()
    assert "1 items have no readable cover (bare): they get the mean vector" in capsys.readouterr().err


def test_one_new_item_without_any_image_is_scored_by_its_title(by_content, monkeypatch, capsys):
    Path("arrived").mkdir()
    Path("arrived/items.csv").write_text(f"item_id,title\nbare,{unseen_items()['title_zh'][0]}\n")
    rows = run(monkeypatch, capsys, "--history", raw_ids()[0], "--top", "999", "--new-items", "arrived")
    assert "bare" in {row["raw_id"] for row in rows}
    call(monkeypatch, "--similar", "bare", "--by", "text", "--new-items", "arrived")
    assert "1 items have no readable cover (bare): they get the mean vector" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "has no table of items: add items.csv"),
        ("item_id,title\n", "items.csv has no items"),
        ("item_id,title\n{known},a title\nx1,another\n", r"items.parquet has {known} already \(1 of 2 items\)"),
        ("item_id,title\nx1,\nx2,\n", "no item has a title_zh, and the model reads text: name the column of titles"),
        ("item_id,title\nx1,a title\n", "no item has a readable cover, and the model reads image: name images by"),
        ("item_id,title\nx1,a title\nx1,another\n", "item 'x1' is there twice"),
    ],
)
def test_new_items_that_cannot_be_scored_are_refused(table, message, by_content, monkeypatch):
    Path("arrived").mkdir()
    Image.new("RGB", (8, 8)).save("arrived/x2.png")
    if table is not None:
        Path("arrived/items.csv").write_text(table.format(known=raw_ids()[0]))
    with pytest.raises(InputError, match=message.format(known=raw_ids()[0])):
        call(monkeypatch, "--history", raw_ids()[1], "--new-items", "arrived")


def test_new_items_in_a_history_are_refused(by_content, monkeypatch):
    write_new_items(unseen_items())
    new = f"new_{unseen_items()['raw_id'][0]}"
    with pytest.raises(InputError, match=f"--history: {new} of --new-items: new items can be recommended"):
        call(monkeypatch, "--history", new, "--new-items", "arrived")


def test_a_model_that_ranks_by_ids_alone_cannot_score_new_items(after, monkeypatch):
    after("posttrain")
    write_new_items(pl.read_parquet("artifacts/split/items.parquet").head(1))
    with pytest.raises(InputError, match="--new-items: the model ranks by ID vectors alone.*content_weight=auto"):
        call(monkeypatch, "--history", raw_ids()[0], "--new-items", "arrived")


def test_a_summary_of_another_training_is_refused(by_content, monkeypatch):
    write_new_items(unseen_items())
    summary = Path("artifacts/curves/posttrain/summary.json")
    content = json.loads(summary.read_text())
    content["content_weight"]["chosen"] = 0.25
    summary.write_text(json.dumps(content))
    with pytest.raises(InputError, match="are of different runs: run `dvc repro posttrain`"):
        call(monkeypatch, "--history", raw_ids()[0], "--new-items", "arrived")


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [("language", "zh", "en"), ("encoders.pooling", "auto", "cls"), ("encoders.max_tokens", 64, 8)],
)
def test_params_that_would_encode_new_items_otherwise_than_the_known_ones_are_refused(
    by_content, monkeypatch, key, old, new
):
    write_new_items(unseen_items())
    section, _, name = key.rpartition(".")
    content = YAML(typ="safe").load(Path("params.yaml"))
    (content[section] if section else content)[name] = new
    YAML().dump(content, Path("params.yaml"))
    with pytest.raises(InputError, match=f"{key}={new} in params.yaml, but the encoders were trained with {old}"):
        call(monkeypatch, "--history", raw_ids()[0], "--new-items", "arrived")


def test_a_folder_that_does_not_exist_is_named(after, monkeypatch):
    after("posttrain")
    with pytest.raises(InputError, match="--new-items nowhere: there is no such folder or archive"):
        call(monkeypatch, "--history", raw_ids()[0], "--new-items", "nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--history", "v1", "--out", "a.csv"], "--out belongs to --users and --histories: leave it out"),
        (["--history", "v1", "--by", "text"], "--by belongs to --similar: leave it out"),
        (["--history", "v1", "--ignore-unknown"], "--ignore-unknown belongs to --users and --histories: leave it out"),
        (["--history", "v1", "--without-history", "popular"], "--without-history belongs to --users and --histories"),
        (["--similar", "v1", "--keep-viewed"], "--keep-viewed belongs to --history, --users and --histories: leave"),
        (["--similar", "v1", "--explain"], "--explain belongs to --history: leave it out"),
    ],
)
def test_an_option_of_another_task_is_refused(after, monkeypatch, arguments, message):
    after("split")
    with pytest.raises(InputError, match=message):
        call(monkeypatch, *arguments)


def test_a_search_without_a_hit_says_so(after, monkeypatch, capsys):
    after("split")
    monkeypatch.setattr(sys, "argv", ["recommend", "--titles", "zzzz"])
    recommend.main()
    assert "--titles: no title has zzzz" in capsys.readouterr().err


def test_artifacts_of_another_dataset_than_params_names_are_refused(after, monkeypatch):
    workspace = after("posttrain")
    workspace.set_params(dataset="Other", source="nowhere")
    message = "artifacts/raw is of another dataset than dataset=Other in params.yaml: run `dvc repro`, or set it back"
    with pytest.raises(InputError, match=message):
        call(monkeypatch, "--history", raw_ids()[0])
