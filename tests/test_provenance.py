import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from ruamel.yaml import YAML
from safetensors.numpy import save_file

from stages.errors import InputError
from stages.files import write_parquet
from stages.imports import ROOT
from stages.provenance import MADE_BY, MODEL_KEY, check_inputs, frame_id, record_folder, recorded, stage_of

SPLIT, PAIRS, VECTORS = (
    Path("artifacts/split/items.parquet"),
    Path("artifacts/pairs.parquet"),
    Path("artifacts/x.parquet"),
)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def frame(*values: int) -> pl.DataFrame:
    return pl.DataFrame({"a": values})


def test_equal_frames_have_one_id_whatever_their_chunks():
    chunked = pl.concat([frame(1), frame(2)], rechunk=False)
    assert chunked.n_chunks() == 2
    assert frame_id(chunked) == frame_id(frame(1, 2))
    assert len({frame_id(f) for f in (frame(1, 2), frame(2, 1), frame(1), frame(1, 2).rename({"a": "b"}))}) == 4


def test_a_file_carries_its_own_id_and_those_of_all_that_it_goes_back_to():
    write_parquet(SPLIT, frame(1), {"artifacts/split": "s"})
    write_parquet(PAIRS, frame(2), check_inputs(SPLIT))
    own_id, inputs = recorded(PAIRS)
    assert own_id == frame_id(frame(2))
    assert inputs == {"artifacts/split": "s", SPLIT.as_posix(): frame_id(frame(1))}


def test_files_of_different_versions_of_one_input_are_refused_with_the_stage_to_run():
    write_parquet(SPLIT, frame(1), {"artifacts/split": "before"})
    write_parquet(PAIRS, frame(2), check_inputs(SPLIT))
    write_parquet(SPLIT, frame(3), {"artifacts/split": "after"})
    with pytest.raises(InputError, match="pairs.parquet and .*items.parquet do not belong together.*dvc repro pairs"):
        check_inputs(SPLIT, PAIRS)


def test_a_mixture_is_refused_when_only_an_input_of_an_input_differs():
    write_parquet(SPLIT, frame(1), {"artifacts/split": "s"})
    write_parquet(PAIRS, frame(2), check_inputs(SPLIT))
    write_parquet(VECTORS, frame(4), check_inputs(PAIRS))
    write_parquet(PAIRS, frame(3), check_inputs(SPLIT))
    with pytest.raises(InputError, match="different versions of artifacts/pairs.parquet"):
        check_inputs(PAIRS, VECTORS)


def test_a_file_without_a_record_is_refused():
    write_parquet(PAIRS, frame(1))
    with pytest.raises(InputError, match="does not say what it was made from: run `dvc repro pairs`"):
        check_inputs(PAIRS)


@pytest.mark.parametrize("left", [0, 20, -10])
def test_a_file_that_was_cut_short_is_one_line_with_the_stage_that_makes_it_again(left):
    write_parquet(PAIRS, frame(1), {"artifacts/split": "s"})
    encoder = Path("artifacts/id_encoder.safetensors")
    save_file({"weight": np.ones(9)}, encoder, {MODEL_KEY: json.dumps({"provenance": '{"id": "i", "inputs": {}}'})})
    assert recorded(encoder) == ("i", {})
    for path, stage in ((PAIRS, "pairs"), (encoder, "pretrain")):
        path.write_bytes(path.read_bytes()[:left])
        with pytest.raises(InputError, match=f"{path} is damaged .*: run `dvc repro {stage}`") as caught:
            check_inputs(path)
        assert "\n" not in str(caught.value)


def test_a_folder_with_a_damaged_record_is_one_line():
    folder = Path("artifacts/encoders")
    folder.mkdir(parents=True)
    record_folder(folder, {"artifacts/split": "s"})
    record = folder / "provenance.json"
    record.write_text(record.read_text()[:10])
    with pytest.raises(InputError, match="artifacts/encoders is damaged .*: run `dvc repro sft`"):
        check_inputs(folder)


def test_the_stage_of_ranks_is_named_with_its_system():
    assert stage_of(Path("artifacts/ranks/gru4rec.parquet")) == "baseline@gru4rec"
    assert stage_of(Path("artifacts/ranks/gru4rec_refit.parquet")) == "refit_baseline@gru4rec"
    assert stage_of(Path("artifacts/ranks/sicsrec_refit.parquet")) == "refit"


def test_the_stages_named_are_those_that_write_the_paths():
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    for start, stage in MADE_BY.items():
        outs = stages[stage].get("do", stages[stage])["outs"]
        assert any(str(out).startswith(start) for out in outs), start
