from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from stages.models.content_scoring import content_scored_vectors, neighbours_of_unseen
from stages.pictures.explanation import draw_explanation
from stages.serving.explaining import explain
from stages.serving.recommendations import Choice, recommend_items
from stages.serving.requests import single
from stages.serving.trained import Trained
from tests.serving.conftest import trained_model

HISTORY = [4, 9, 2, 11, 7, 3, 15, 8]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"widths": {}, "frozen": ()},
        {"use_id": False, "frozen": ()},
        {"without": ("mmsd",)},
        {"without": ("l2norm",)},
        {"without": ("cmse",)},
    ],
)
def test_the_shares_of_the_streams_add_up_to_the_score(changes):
    trained = trained_model(**changes)
    with torch.no_grad():
        trained.model.projection.bias.normal_()
    rows = explain(trained, HISTORY, recommend_items(trained, single(HISTORY), Choice(top=5))).rows
    total = rows.select("id", "content", "both", "rest").fill_null(0).sum_horizontal()
    assert total.to_list() == pytest.approx(rows["score"].to_list(), abs=1e-5)
    config = trained.model.config
    absent = [name for name in ("id", "content", "both") if rows[name].null_count()]
    assert absent == [
        name
        for name, there in (("id", config.id_stream), ("content", config.content_stream), ("both", config.decoder))
        if not there
    ]


def test_the_items_that_count_are_the_ones_that_the_last_position_attends_to():
    trained = trained_model(widths={}, frozen=())
    attention = trained.model.id_encoder.blocks[-1].attention
    with torch.no_grad():  # every position of the last layer asks for the input of item 9's position
        attention.query.weight.zero_()
        attention.key.weight.copy_(torch.eye(len(attention.key.weight)))
        seen = {}
        hook = attention.register_forward_pre_hook(lambda _, inputs: seen.update(memory=inputs[1]))
        trained.model.hidden(torch.tensor([HISTORY[-6:]]))
        hook.remove()
        attention.query.bias.copy_(seen["memory"][0, 3] * 100)
    place = int((seen["memory"][0] @ seen["memory"][0, 3]).argmax())
    rows = explain(trained, HISTORY, recommend_items(trained, single(HISTORY), Choice(top=2))).rows
    assert rows["leans_on"][0][0] == f"v{HISTORY[-6:][place]}"
    assert len(rows["leans_on"][0]) == 3
    assert set(rows["leans_on"][1]) <= {f"v{item}" for item in HISTORY[-6:]}


def test_a_history_of_one_item_leans_on_it(trained):
    rows = explain(trained, [4], recommend_items(trained, single([4]), Choice(top=2))).rows
    assert rows["leans_on"].to_list() == [["v4"], ["v4"]]


def ranked_by_content(*, weight: float, **changes: object) -> Trained:
    """A model that ranks by content too; training never saw item 5."""
    trained = trained_model(**changes)
    seen = torch.arange(1, trained.items.height + 1) != 5
    neighbours = neighbours_of_unseen(trained.model, seen, {})
    matrix = content_scored_vectors(trained.model, seen, neighbours, weight=weight, unseen_scale=1.5)
    trained.model.rank_by(matrix, content_weight=weight)
    counts = pl.when(pl.col("item") == 5).then(0).otherwise("count")
    return Trained(trained.model, matrix, trained.items.with_columns(count=counts))


def test_the_parts_of_the_item_add_up_to_the_score_and_an_unseen_item_has_no_part_by_id():
    trained = ranked_by_content(weight=0.3)
    rows = explain(trained, HISTORY, recommend_items(trained, single(HISTORY), Choice(top=99))).rows
    total = rows.select("item_id", "item_content").sum_horizontal()
    assert total.to_list() == pytest.approx(rows["score"].to_list(), abs=1e-5)
    assert rows.filter(pl.col("item_id") == 0)["item"].to_list() == ["v5"]
    assert (rows["item_content"] != 0).all()


def test_with_a_weight_of_1_all_of_a_score_comes_from_content():
    trained = ranked_by_content(weight=1.0)
    rows = explain(trained, HISTORY, recommend_items(trained, single(HISTORY), Choice(top=9))).rows
    assert rows["item_content"].to_list() == pytest.approx(rows["score"].to_list(), abs=1e-5)
    assert rows["item_id"].to_list() == pytest.approx([0] * 9, abs=1e-6)


@pytest.mark.parametrize(("changes", "absent"), [({"use_id": False, "frozen": ()}, 1), ({}, 0)])
def test_an_item_without_an_id_vector_has_no_part_by_id(changes, absent):
    trained = ranked_by_content(weight=1.0, **changes)
    rows = explain(trained, HISTORY, recommend_items(trained, single(HISTORY), Choice(top=1))).rows
    assert rows["item_id"].null_count() == absent


def test_ranked_by_one_kind_of_vector_an_item_has_no_parts(trained):
    rows = explain(trained, [4], recommend_items(trained, single([4]), Choice(top=2))).rows
    assert rows["item_id"].null_count() == rows["item_content"].null_count() == 2


def test_the_weights_of_the_history_sum_to_1_and_name_the_items_that_the_model_read(trained):
    explanation = explain(trained, HISTORY, recommend_items(trained, single(HISTORY), Choice(top=2)))
    assert explanation.history == HISTORY[-trained.model.config.max_length :]
    assert sum(explanation.weights) == pytest.approx(1)
    best = explanation.history[int(np.argmax(explanation.weights))]
    assert explanation.rows["leans_on"][0][0] == f"v{best}"


@pytest.mark.parametrize("top", [0, 1, 20])
@pytest.mark.parametrize("history", [[4], HISTORY])
def test_the_picture_shows_covers_of_history_and_recommendations(history, top, tmp_path: Path):
    trained = ranked_by_content(weight=0.3)
    explanation = explain(trained, history, recommend_items(trained, single(history), Choice(top=20)))
    explanation = replace(explanation, rows=explanation.rows.head(top))
    asked = []

    def cover_of(raw_id: str) -> Image.Image | None:
        asked.append(raw_id)
        return Image.new("RGB", (40, 30), "red") if len(asked) % 2 else None

    path = tmp_path / "folder" / "why.png"
    draw_explanation(explanation, trained.items, cover_of, "title_zh", path)
    read = [f"v{item}" for item in explanation.history]
    assert asked == read + explanation.rows["item"].head(8).to_list()
    with Image.open(path) as image:
        assert len(image.getcolors(2**20) or []) > 10


def test_without_recommendations_there_is_nothing_to_explain(trained):
    every = trained.items["item"].to_list()
    found = explain(trained, every, recommend_items(trained, single(every), Choice(top=2)))
    assert found.rows.is_empty()
