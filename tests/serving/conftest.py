"""A small model, untrained, with the items that it knows."""

from dataclasses import replace

import polars as pl
import pytest
import torch

from stages.models.sicsrec import Sicsrec
from stages.serving.trained import Trained
from tests.models.test_sicsrec import CONFIG, build


def trained_model(**changes: object) -> Trained:
    """Items v1 … vN, the higher the number the less popular. changes: of the model's configuration."""
    model: Sicsrec = build(replace(CONFIG, **changes)).eval()
    numbers = range(1, CONFIG.items + 1)
    items = pl.DataFrame(
        {
            "item": pl.Series(numbers, dtype=pl.Int32),
            "raw_id": [f"v{n}" for n in numbers],
            "title_zh": [f"标题{n}" for n in numbers],
            "title_en": [f"title {n}" for n in numbers],
            "cover": [True] * CONFIG.items,
            "count": pl.Series([100 - n for n in numbers], dtype=pl.Int32),
        }
    )
    with torch.no_grad():
        return Trained(model, model.item_matrix(), items)


@pytest.fixture
def trained() -> Trained:
    return trained_model()
