import pytest
import torch

from stages.serving.explaining import explain
from stages.serving.recommendations import Choice, recommend_items
from stages.serving.requests import single
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
    rows = explain(trained, HISTORY, recommend_items(trained, single(HISTORY), Choice(top=5)))
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
    rows = explain(trained, HISTORY, recommend_items(trained, single(HISTORY), Choice(top=2)))
    assert rows["leans_on"][0][0] == f"v{HISTORY[-6:][place]}"
    assert len(rows["leans_on"][0]) == 3
    assert set(rows["leans_on"][1]) <= {f"v{item}" for item in HISTORY[-6:]}


def test_a_history_of_one_item_leans_on_it(trained):
    rows = explain(trained, [4], recommend_items(trained, single([4]), Choice(top=2)))
    assert rows["leans_on"].to_list() == [["v4"], ["v4"]]
