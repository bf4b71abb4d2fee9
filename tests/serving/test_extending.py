"""New items beside known ones: where their vectors start."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from stages.models.serving import folded_sicsrec
from stages.models.sicsrec import Sicsrec
from stages.posttrain import build_model, content_only
from stages.serving.extending import adapted_vectors
from stages.training.checkpoints import save_model
from tests.models.test_sicsrec import CONFIG, ITEMS

FROZEN_CONTENT = ("id_encoder", "content_embedding", "content_encoder")


@pytest.mark.parametrize("changes", [{}, {"use_id": False}, {"frozen": FROZEN_CONTENT}])
def test_a_new_item_with_the_vectors_of_a_known_one_starts_where_that_one_did(changes, tmp_path):
    generator = torch.Generator().manual_seed(0)
    known = {name: 1 + torch.rand(ITEMS, width, generator=generator) for name, width in CONFIG.widths.items()}
    config = replace(CONFIG, **changes)
    model = Sicsrec(config)
    model.load_content_vectors(known)
    if config.needs_content_first:
        model.load_content_side(build_model(content_only(config), known))
    save_model(tmp_path / "sicsrec.safetensors", model, {})
    trained = SimpleNamespace(
        model=folded_sicsrec(model.eval()), source=SimpleNamespace(weights=tmp_path / "sicsrec.safetensors")
    )
    twice = {name: torch.cat([matrix, matrix]) for name, matrix in known.items()}
    for table in adapted_vectors(trained, known, twice).values():
        torch.testing.assert_close(table[1 + ITEMS :], table[1 : 1 + ITEMS])
