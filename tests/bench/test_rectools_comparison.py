import numpy as np
import polars as pl

from stages.bench.rectools_comparison import write_interactions
from stages.bench.training import Data
from stages.data.histories import Histories


def test_every_interaction_is_a_row_of_its_part_and_a_user_s_are_oldest_first(tmp_path):
    train = Histories.from_frame(pl.DataFrame({"items": [[3, 1, 2], [5]]}))
    valid = np.array([4, 6])
    data = Data(train, valid, train.extended(valid), np.array([7, 8]), items=8)
    write_interactions(tmp_path / "rows.csv", data)
    assert (tmp_path / "rows.csv").read_text().split() == [
        "user,item,part",
        "0,3,train", "0,1,train", "0,2,train", "1,5,train",
        "0,4,valid", "1,6,valid",
        "0,7,test", "1,8,test",
    ]  # fmt: skip
