"""Each item's nearest items by the tuned encoders' vectors: with `smoothing` they share in a target's probability.

With `smoothing=0` the file is empty whatever the vectors are, so that another encoder does not train `pretrain` again.
"""

from pathlib import Path

import polars as pl
import torch

from stages.errors import run_stage
from stages.files import read_vectors, write_parquet
from stages.models.nearest import nearest_items, unit_content
from stages.params import load_params
from stages.provenance import check_inputs

EMBEDDINGS = Path("artifacts/embeddings.parquet")
NEIGHBOURS = Path("artifacts/neighbours.parquet")


def main() -> None:
    params = load_params()
    if not params.smoothing:
        write_parquet(NEIGHBOURS, pl.DataFrame(schema={"items": pl.List(pl.Int64), "weights": pl.List(pl.Float32)}))
        return
    inputs = check_inputs(EMBEDDINGS)
    matrices = read_vectors(EMBEDDINGS, [name for name in params.modalities if name != "id"])
    units = unit_content({name: torch.from_numpy(matrix) for name, matrix in matrices.items()})
    every = torch.arange(1, len(units) + 1)
    found = nearest_items(units, of=every, among=every)
    frame = pl.DataFrame({"items": found.items.tolist(), "weights": found.weights.tolist()})
    write_parquet(NEIGHBOURS, frame.with_columns(pl.col("weights").cast(pl.List(pl.Float32))), inputs)


if __name__ == "__main__":
    run_stage(main)
