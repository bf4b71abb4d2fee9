"""Each item's nearest items by the tuned encoders' vectors: with `smoothing` they share in a target's probability.

With `smoothing=0` the file is empty whatever the vectors are, so that another encoder does not train `pretrain` again.
"""

from pathlib import Path

import polars as pl

from stages.errors import run_stage
from stages.files import read_vectors, write_parquet
from stages.params import load_params
from stages.provenance import check_inputs

EMBEDDINGS = Path("artifacts/embeddings.parquet")
NEIGHBOURS = Path("artifacts/neighbours.parquet")
SCHEMA = {"items": pl.List(pl.Int64), "weights": pl.List(pl.Float32)}


def find_neighbours(content: list[str]) -> pl.DataFrame:
    """The nearest items of each item and their weights. content: the modalities with vectors.

    An item of which no vector says anything has none that is nearest: it is its own neighbour, and so not smoothed.
    """
    # imported here: a run without smoothing is two seconds shorter without torch
    import torch

    from stages.models.nearest import nearest_items, unit_content

    units = unit_content({name: torch.from_numpy(matrix) for name, matrix in read_vectors(EMBEDDINGS, content).items()})
    every = torch.arange(1, len(units) + 1)
    found = nearest_items(units, of=every, among=every)
    items = torch.where((units == 0).all(dim=1, keepdim=True), every[:, None], found.items)
    return pl.DataFrame({"items": items.tolist(), "weights": found.weights.tolist()}, schema=SCHEMA)


def main() -> str:
    params = load_params()
    if not params.smoothing:
        write_parquet(NEIGHBOURS, pl.DataFrame(schema=SCHEMA))
        return "none, as smoothing=0"
    content = [name for name in params.modalities if name != "id"]
    frame = find_neighbours(content)
    write_parquet(NEIGHBOURS, frame, check_inputs(EMBEDDINGS))
    return f"the {len(frame['items'][0])} nearest of each of {len(frame):,} items"


if __name__ == "__main__":
    run_stage(main)
