"""Files of ranks: where one system ranks each user's test item, in both protocols. Without rows: it was not run."""

from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int

from stages.files import write_parquet
from stages.provenance import Ids

PROTOCOLS = {"kept": "rank", "filtered": "rank_filtered"}  # viewed items kept (the paper's) or filtered out: the column


def write_ranks(
    path: Path, users: pl.Series, kept: Int[np.ndarray, " users"], filtered: Int[np.ndarray, " users"], inputs: Ids
) -> None:
    """Write each user's ranks, 1 = best. users: of test.parquet, in its order; inputs: of `check_inputs`."""
    columns = zip(PROTOCOLS.values(), (kept, filtered), strict=True)
    write_parquet(path, pl.DataFrame({"user": users, **dict(columns)}), inputs)


def write_no_ranks(path: Path, inputs: Ids | None = None) -> None:
    """Write the file of a system that was not run: the columns without rows."""
    write_parquet(path, pl.DataFrame(schema=dict.fromkeys(("user", *PROTOCOLS.values()), pl.Int64)), inputs)
