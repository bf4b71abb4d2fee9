"""Files of ranks."""

import numpy as np
import polars as pl

from stages.rank_files import write_no_ranks, write_ranks


def test_ranks_are_beside_their_users_in_both_protocols(tmp_path):
    write_ranks(tmp_path / "a.parquet", pl.Series([7, 5]), np.array([3, 1]), np.array([2, 1]), {})
    expected = pl.DataFrame({"user": [7, 5], "rank": [3, 1], "rank_filtered": [2, 1]})
    assert pl.read_parquet(tmp_path / "a.parquet").equals(expected)


def test_a_system_that_was_not_run_has_the_columns_without_rows(tmp_path):
    write_no_ranks(tmp_path / "a.parquet")
    frame = pl.read_parquet(tmp_path / "a.parquet")
    assert (frame.columns, frame.height) == (["user", "rank", "rank_filtered"], 0)
