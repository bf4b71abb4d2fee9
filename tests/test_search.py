import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages import search
from stages.errors import InputError
from stages.models.systems import SYSTEMS, Scheme
from stages.params import load_params
from stages.training.overrides import STAGE_PARAMS, current_values, space_of, with_overrides
from stages.training.search_space import SPACES
from tests.clone import ROOT

COMMAND = [sys.executable, "-m", "stages.search"]


def searched(system: str, trials: int) -> dict:
    """`python -m stages.search SYSTEM --trials N` in this process. → what it wrote."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["search", system, "--trials", str(trials)])
        search.main()
    return json.loads(Path(f"metrics/search/{system}_sample.json").read_text())


def with_sections(found: dict, **sections: dict) -> dict:
    """The found params as `set_params` takes them, beside other values of their sections."""
    for key, value in found.items():
        section, _, name = key.rpartition(".")
        sections |= {section: sections.get(section, {}) | {name: value}} if section else {name: value}
    return sections


@pytest.mark.parametrize(("system", "stage"), [("id_encoder", "pretrain"), ("sicsrec", "posttrain")])
def test_the_first_trial_is_what_the_stages_trained_with_the_current_params(after, system, stage):
    after("posttrain")
    trial = searched(system, 1)["trials"][0]
    assert trial["params"] == current_values(system, load_params())
    summary = json.loads(Path(f"artifacts/curves/{stage}/summary.json").read_text())
    assert (trial["value"], trial["epochs"]) == (summary["ndcg@10"], summary["epochs"])


def test_a_trial_of_a_baseline_is_what_its_stage_trains_with_the_trial_s_params(after, capsys):
    workspace = after("embed")
    workspace.set_params(baseline={"epochs": 2, "batch_positions": 256}, baselines=["pop", "itemknn"])
    found = searched("sasrec", 3)
    assert found["value"] == max(trial["value"] for trial in found["trials"])
    assert found["best"] in [trial["params"] for trial in found["trials"] if trial["value"] == found["value"]]
    command = capsys.readouterr().out.splitlines()[-1]
    options = [f"{key}={value}" for key, value in found["best"].items()] + ["'baselines=[pop,itemknn,sasrec]'"]
    assert sorted(command.removeprefix("dvc exp run -S ").split(" -S ")) == sorted(options)

    trial = found["trials"][-1]["params"]
    assert trial != found["trials"][0]["params"]
    workspace.set_params(**with_sections(trial, baseline={"epochs": 2, "batch_positions": 256}))
    workspace.run_baseline("sasrec")
    assert json.loads(Path("artifacts/ranks/sasrec.json").read_text())["ndcg@10"] == found["trials"][-1]["value"]


def test_the_stages_train_what_the_best_trial_of_sicsrec_found(after):
    workspace = after("embed")
    found = searched("sicsrec", 3)
    assert found["best"]["sft.tau"] == 0.05  # the item vectors stay those that the trials read
    workspace.set_params(**with_sections(found["best"]))
    shutil.rmtree("artifacts/encoders")
    workspace.run("sft", "embed", "pretrain", "posttrain")
    assert json.loads(Path("artifacts/curves/posttrain/summary.json").read_text())["ndcg@10"] == found["value"]


@pytest.mark.parametrize("system", ["sicsrec", "id_encoder", "unisrec_t_id"])
def test_the_test_items_are_not_read(after, system):
    after("embed")
    for name in ("test", "full"):
        Path(f"artifacts/split/{name}.parquet").unlink()
    assert len(searched(system, 2)["trials"]) == 2


def test_an_interrupted_search_goes_on_to_the_trials_of_one_that_was_not(after):
    workspace = after("split")
    workspace.set_params(pretrain={"epochs": 20, "patience": 20})
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*COMMAND, "id_encoder", "--trials", "99"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    for _ in range(6):
        assert process.stdout.readline().startswith("trial ")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == "interrupted: the same command goes on from here\n"
    assert process.returncode == 130
    finished = len(searched("id_encoder", 1)["trials"])
    assert 6 <= finished < 99
    continued = searched("id_encoder", finished + 2)
    assert len(continued["trials"]) == finished + 2

    Path(".cache/search/id_encoder_sample.log").unlink()
    assert searched("id_encoder", finished + 2) == continued


def test_a_trial_of_sicsrec_that_was_interrupted_in_step_two_continues_without_step_one(after):
    after("embed")
    params, folder = load_params(), Path("curves")
    train, data = search.trainer("sicsrec", params, folder)
    whole = train(params, lambda epoch, value: False)

    def interrupt(epoch: int, value: float) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(params, interrupt)
    shutil.rmtree(folder)
    assert train(params, lambda epoch, value: False) == whole
    assert [path.name for path in folder.iterdir()] == ["posttrain"]
    assert not list(Path(".cache/training").iterdir())


def test_a_search_with_other_params_starts_anew_and_the_first_one_is_still_there(after):
    workspace, path = after("split"), Path("metrics/search/id_encoder_sample.json")
    first = searched("id_encoder", 2)
    workspace.set_params(monitor="filtered.hit@10")
    with pytest.raises(InputError) as refused:
        searched("id_encoder", 1)
    assert str(refused.value) == (f"{path} has 2 trials of another search (monitor=ndcg@10): move it away or remove it")
    assert json.loads(path.read_text()) == first

    path.unlink()
    other = searched("id_encoder", 1)
    assert other["monitor"] == "filtered.hit@10" and len(other["trials"]) == 1
    workspace.set_params(alpha=0.9, device="cpu")  # the ID encoder reads no alpha
    assert searched("id_encoder", 2) == first


def test_a_result_without_an_id_is_replaced_only_by_as_many_trials(after):
    after("split")
    path, first = Path("metrics/search/id_encoder_sample.json"), searched("id_encoder", 2)
    path.write_text(json.dumps({key: value for key, value in first.items() if key != "id"}))
    with pytest.raises(InputError, match="has 2 trials of another search"):
        searched("id_encoder", 1)
    assert searched("id_encoder", 2) == first


def test_current_params_that_were_found_before_are_not_tried_again(after):
    workspace = after("split")
    workspace.set_params(dim=64)
    first = searched("id_encoder", 2)
    found = first["trials"][1]["params"]
    workspace.set_params(**with_sections(found, pretrain={"epochs": 2, "batch_positions": 256}))
    continued = searched("id_encoder", 3)
    assert continued["trials"][:2] == first["trials"]
    assert continued["trials"][2]["params"] not in [trial["params"] for trial in first["trials"]]


def test_a_trial_below_the_median_is_pruned_and_never_the_best(after, monkeypatch):
    workspace = after("split")
    workspace.set_params(dim=64, pretrain={"epochs": 6, "batch_positions": 256})
    monkeypatch.setattr(search, "UNPRUNED_TRIALS", 1)
    monkeypatch.setattr(search, "UNPRUNED_EPOCHS", 2)
    found = searched("id_encoder", 8)
    states = {trial["state"] for trial in found["trials"]}
    assert states == {"complete", "pruned"}
    assert all(2 <= trial["epochs"] < 6 for trial in found["trials"] if trial["state"] == "pruned")
    assert found["value"] == max(trial["value"] for trial in found["trials"] if trial["state"] == "complete")


def test_a_trial_is_judged_with_the_content_weight_that_is_chosen_after_training(after):
    workspace = after("pretrain")
    workspace.set_params(content_weight="auto", monitor="filtered.ndcg@10")
    workspace.run("pretrain", "posttrain")
    summary = json.loads(Path("artifacts/curves/posttrain/summary.json").read_text())
    assert searched("sicsrec", 1)["value"] == summary["content_weight"]["validation"]


def test_a_loss_that_is_not_finite_ends_the_trial_and_not_the_search(after):
    workspace = after("split")
    workspace.set_params(dim=64, pretrain={"epochs": 2, "batch_positions": 256, "learning_rate": 1e38})
    with pytest.raises(InputError, match="no trial of id_encoder had a finite loss: lower the learning rates"):
        searched("id_encoder", 1)


def test_widths_are_multiples_of_the_heads(after):
    workspace = after("split")
    workspace.set_params(dim=48, sequence={"heads": 3})
    dim = next(dimension for dimension in space_of("id_encoder", load_params()) if dimension.keys == ("dim",))
    assert dim.values == (48,)


def test_every_trained_system_has_a_space(after):
    after("split")
    trained = {name for name, system in SYSTEMS.items() if system.scheme is not Scheme.COUNTED}
    assert SPACES.keys() == {"sicsrec", "id_encoder"} | trained
    params = load_params()
    for system in SPACES:
        same = with_overrides(params, current_values(system, params))
        assert with_overrides(same, {"baseline.dropout": None}) == params


def test_an_empty_dropout_is_the_system_s_own_and_another_one_is_trained_with(after):
    workspace = after("embed")
    few = {"epochs": 1, "batch_positions": 256}
    workspace.set_params(baseline=few)
    assert {name: current_values(name, load_params())["baseline.dropout"] for name in ("gru4rec", "missrec_t")} == {
        "gru4rec": 0.3, "missrec_t": 0.5,
    }  # fmt: skip
    workspace.run_baseline("gru4rec")
    own = Path("artifacts/baselines/gru4rec.safetensors").read_bytes()
    for dropout, same in ((0.3, True), (0.1, False)):
        workspace.set_params(baseline=few | {"dropout": dropout})
        workspace.run_baseline("gru4rec")
        assert (Path("artifacts/baselines/gru4rec.safetensors").read_bytes() == own) == same


@pytest.mark.parametrize("stage", STAGE_PARAMS)
def test_what_makes_a_search_another_one_are_the_params_of_its_stages(stage):
    declared = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]
    assert {*STAGE_PARAMS[stage], "device"} == set(declared.get("do", declared)["params"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sasrek", "--trials", "3"], "error: sasrek: there is no such system; there are sicsrec, id_encoder, gru4rec"),
        (["pop", "--trials", "3"], "error: pop: nothing of it is trained; there are sicsrec"),
        (["sasrec", "--trials", "0"], "error: --trials 0: 1 or more"),
        (["sasrec", "--trials", "3"], "error: artifacts/embeddings_baselines.parquet is missing: run `dvc repro`"),
        (["sicsrec", "--trials", "3"], "error: artifacts/embeddings.parquet is missing: run `dvc repro`"),
    ],
)
def test_what_the_user_can_mend_is_one_line(after, arguments, line):
    after("split")
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 1
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1


def test_a_system_that_reads_an_absent_modality_is_refused(after):
    workspace = after("embed")
    workspace.set_params(modalities=["id", "text"])
    with pytest.raises(InputError, match="missrec_tv_id reads image, which modalities="):
        searched("missrec_tv_id", 1)


def test_two_searches_of_one_system_at_once_are_refused(after):
    after("split")
    with (
        search.search_lock(search.cache_folder("search") / "id_encoder_sample.lock"),
        pytest.raises(InputError, match="another process has .*id_encoder_sample.lock"),
    ):
        searched("id_encoder", 1)


def test_optuna_is_imported_by_a_search_alone():
    code = "import sys, stages.search; sys.exit('optuna' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
