import polars as pl

from stages.bench.recbole_comparison import write_atomic_files
from stages.data.histories import Histories


def test_every_prefix_is_a_row_with_its_last_items(tmp_path):
    train = Histories.from_frame(pl.DataFrame({"items": [[1, 2, 3, 4], [5]]}))
    write_atomic_files(tmp_path / "set", train, valid=[6, 7], test=[8, 9], length=2)
    rows = {
        name: (tmp_path / "set" / f"set.{name}.inter").read_text().splitlines() for name in ("train", "valid", "test")
    }
    assert rows["train"] == [
        "user_id:token\titem_id_list:token_seq\titem_id:token",
        "0\t1\t2",
        "0\t1 2\t3",
        "0\t2 3\t4",
    ]
    assert rows["valid"][1:] == ["0\t3 4\t6", "1\t5\t7"]
    assert rows["test"][1:] == ["0\t4 6\t8", "1\t5 7\t9"]
