from dataclasses import replace

import pytest
import torch

from stages.models.baselines.folded_missrec import folded_missrec
from stages.models.baselines.missrec import MissRec, MissRecConfig
from stages.models.serving import folded_sicsrec
from tests.models.test_sicsrec import CONFIG, HISTORIES, ITEMS, build


@pytest.mark.parametrize("changes", [{}, {"use_id": False}, {"without": ("l2norm",)}, {"without": ("lora",)}])
def test_a_folded_sicsrec_has_the_same_scores(changes):
    model = build(replace(CONFIG, **changes)).eval()
    with torch.no_grad():  # low-rank updates start at zero, where folding them would not show
        for name, parameter in model.named_parameters():
            if name.endswith(".b"):
                parameter.normal_()
    folded = folded_sicsrec(model)
    torch.testing.assert_close(folded.last_hidden(HISTORIES), model.last_hidden(HISTORIES))
    torch.testing.assert_close(folded.item_matrix(), model.item_matrix())
    assert not [name for name in folded.state_dict() if "parametrizations" in name or "adapters" in name]


def test_a_folded_sicsrec_ranks_by_the_vectors_that_were_given():
    model = build().eval()
    model.rank_by(torch.randn(ITEMS, CONFIG.dim), content_weight=0.2)
    folded = folded_sicsrec(model)
    assert torch.equal(folded.item_matrix(), model.item_matrix())
    assert folded.config.content_weight == 0.2


@pytest.mark.parametrize("widths", [{"text": 6}, {"text": 6, "image": 4}])
def test_a_folded_missrec_has_the_same_scores(widths):
    torch.manual_seed(0)
    model = MissRec(
        MissRecConfig(items=20, dim=16, dropout=0.5, max_length=10, widths=widths, use_id=True),
        {name: torch.randn(20, w) for name, w in widths.items()},
    )
    model.start_epoch(0)
    model.eval()
    folded = folded_missrec(model)
    torch.testing.assert_close(folded.last_hidden(HISTORIES), model.last_hidden(HISTORIES))
    torch.testing.assert_close(folded.item_matrix(), model.item_matrix())
