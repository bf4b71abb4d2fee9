import pytest
import torch

from stages.bench.__main__ import RESULT, main
from stages.errors import InputError
from stages.files import read_json


@pytest.fixture
def bench(monkeypatch):
    """bench(*arguments): `python -m stages.bench` in this process."""
    threads = torch.get_num_threads()

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["bench", *arguments])
        main()

    yield run
    torch.set_num_threads(threads)


def test_a_part_is_measured_alone_and_other_results_remain_in_the_file(after, bench, tmp_path, capsys):
    after("embed")
    bench("--only", "steps")
    steps = read_json(RESULT)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    bench("--only", "split")
    assert read_json(RESULT) == steps | {"split_seconds": read_json(RESULT)["split_seconds"]}
    assert {"posttrain_vs_pretrain", "posttrain_flops_vs_pretrain", "matmul_share", "dataset", "machine"} <= set(steps)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == files  # artifacts/ is not changed
    assert "split_seconds" in capsys.readouterr().out


def test_a_part_that_cannot_be_measured_is_reported_and_has_no_result(after, bench, monkeypatch, capsys):
    after("split")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    bench("--only", "recbole", "rectools", "encoders")
    said = capsys.readouterr().out
    for peer in ("RecBole", "RecTools"):
        assert f"{peer}: not measured, pip could not install it: ERROR: No matching distribution" in said
    assert "sft and embed: not measured, no part of a tiny encoder is frozen" in said
    assert set(read_json(RESULT)) == {"dataset", "machine"}


def test_artifacts_of_another_dataset_are_refused(after, bench):
    after("split").set_params(dataset="Bili_Food")
    with pytest.raises(InputError, match="does not hold Bili_Food"):
        bench("--only", "split")
