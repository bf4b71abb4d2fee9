import json
import os
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from stages.errors import InputError
from stages.models.baselines.llmesr import LlmEsrConfig
from stages.models.baselines.missrec import MissRecConfig
from stages.models.systems import SYSTEMS
from stages.params import HEADS, load_params

ROOT = Path(__file__).parent.parent


def changed(tmp_path: Path, **changes) -> Path:
    """A copy of params.yaml with some keys (section__key) set."""
    yaml = YAML()
    content = yaml.load(ROOT / "params.yaml")
    for key, value in changes.items():
        *sections, name = key.split("__")
        target = content
        for section in sections:
            target = target[section]
        target[name] = value
    path = tmp_path / "params.yaml"
    yaml.dump(content, path)
    return path


def test_the_committed_params_are_valid_and_say_what_the_paper_says():
    params = load_params(ROOT / "params.yaml")
    assert (params.tau, params.dim, params.pretrain.dropout, params.pretrain.patience) == (0.05, 256, 0.5, 10)
    assert (params.sequence.layers, params.sequence.heads, params.sequence.max_length) == (2, 2, 50)
    assert params.posttrain.batch_positions == 1024
    assert params.sft.batch_size == 128


def test_a_number_as_dvc_writes_it_is_a_number(tmp_path):
    path = changed(tmp_path)
    path.write_text(path.read_text().replace("lam: 0.0001", "lam: 1e-05"))
    assert load_params(path).lam == 1e-5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"alpha": "abc"}, "alpha"),
        ({"alpha": 1.5}, "alpha"),
        ({"alpha": True}, "alpha: Input should be a valid number (got True)"),
        ({"tau": float("inf")}, "tau: Input should be a finite number (got inf)"),
        ({"content_weight": 1.5}, "content_weight: should be a number from 0 to 1, or auto (got 1.5)"),
        ({"content_weight": "automatic"}, "content_weight: should be a number from 0 to 1, or auto (got 'automatic')"),
        ({"smoothing": 1}, "smoothing"),
        ({"content_weight": "auto", "modalities": ["id"]}, "content_weight=auto needs content"),
        ({"smoothing": 0.1, "modalities": ["id"]}, "smoothing=0.1 needs content: add text or image to modalities"),
        ({"posttrain__content": "shuffled", "modalities": ["id"]}, "posttrain.content=shuffled needs content"),
        ({"posttrain__content": "none"}, "posttrain.content"),
        ({"refit": 3}, "refit"),
        ({"fuse": ["sicsrec"]}, "fuse=['sicsrec'] should name two different systems or more"),
        ({"fuse": ["sicsrec", "sicsrec"]}, "should name two different systems or more"),
        ({"fuse": ["sicsrec", "gru4rec"]}, "fuse: gru4rec is not trained by this run: add it to baselines"),
        (
            {
                "fuse": ["sicsrec", "missrec_v"],
                "baselines": ["missrec_v"],
                "modalities": ["id"],
                "baseline__absent": "skip",
            },
            "fuse: missrec_v reads image, which modalities=['id'] lacks: remove it",
        ),
        ({"distill": 4}, "distill=4: set fuse to the systems whose scores are taught"),
        ({"distill": -1}, "distill"),
        (
            {"distill": 4, "fuse": ["sicsrec", "id_encoder"], "loss__negatives": 512},
            "distill=4 scores all items: set loss.negatives=all",
        ),
        ({"rank": 0}, "rank"),
        ({"alph": 0.3}, "alph"),
        ({"modalities": []}, "modalities"),
        ({"modalities": ["id", "text", "id"]}, "modalities=['id', 'text', 'id'] names id twice"),
        ({"baselines": ["pop", "pop"]}, "baselines=['pop', 'pop'] names pop twice"),
        ({"loss__negatives": 0}, "loss.negatives: should be all, or a whole number from 1 (got 0)"),
        ({"modalities": ["sound"]}, "modalities.0"),
        ({"without": ["everything"]}, "without.0"),
        (
            {"posttrain__content": "random", "smoothing": 0.1},
            "posttrain.content=random is a control without the items' content, which smoothing=0.1 reads",
        ),
        (
            {"baselines": ["pop", "missrec_t"], "dim": 6},
            "dim=6 is not a multiple of the 4 attention heads of missrec_t",
        ),
        ({"sequence__heads": 3}, "dim=256 is not a multiple of sequence.heads=3"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 2**32}, "seed: Input should be less than or equal to 4294967295 (got 4294967296)"),
        ({"device": "tpu"}, "device"),
        ({"sft__train": "some"}, "sft.train"),
        ({"split__min_interactions": 2}, "split.min_interactions"),
        ({"monitor": "mrr"}, "monitor"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_key(tmp_path, changes, said):
    with pytest.raises(InputError) as error:
        load_params(changed(tmp_path, **changes))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "nearest"),
    [
        ({"alhpa": 0.3}, "there is no such key: did you mean alpha?"),
        ({"sft__epoch": 3}, "did you mean sft.epochs?"),
        ({"max_lenght": 20}, "did you mean sequence.max_length?"),
        ({"baselines": ["sasrek"]}, "did you mean sasrec?"),
        ({"fuse": ["sicsrec", "missrec_tid"]}, "did you mean missrec_t_id?"),
        ({"fuse": "sicsrec"}, "fuse: this is a list: write -S 'fuse=[sicsrec]'"),
        ({"frozen": ["id_encodr"]}, "did you mean id_encoder?"),
        ({"monitor": "filtered.ndcg@11"}, "did you mean filtered.ndcg@10?"),
        ({"monitor": "ndgc@5"}, "did you mean ndcg@5?"),
        ({"without": ["lorra"]}, "did you mean lora?"),
        ({"modalities": ["id", "txt"]}, "did you mean text?"),
        ({"sft__tasks": ["t2tt"]}, "did you mean t2t?"),
        ({"language": "eng"}, "did you mean en?"),
        ({"baselines": ["all"]}, "for every system write -S 'baselines=${all_systems}'"),
        ({"modalities": "text"}, "modalities: this is a list: write -S 'modalities=[text]'"),
    ],
)
def test_a_misspelt_name_gets_the_nearest_right_one(tmp_path, changes, nearest):
    with pytest.raises(InputError) as error:
        load_params(changed(tmp_path, **changes))
    assert nearest in str(error.value)


def test_monitor_may_be_every_metric_of_evaluate_json_in_both_protocols(tmp_path):
    committed = json.loads((ROOT / "metrics/evaluate.json").read_text())
    names = [key for key, value in committed.items() if isinstance(value, float)]
    assert names
    for name in (*names, *(f"filtered.{name}" for name in names)):
        assert load_params(changed(tmp_path, monitor=name)).monitor == name


def test_all_systems_are_those_of_the_registry_and_dvc_copies_them_into_baselines(tmp_path):
    path = changed(tmp_path)
    apply_overrides(path, ["baselines=${all_systems}"])  # what `dvc exp run -S` does
    params = load_params(path)
    assert params.baselines == params.all_systems == tuple(SYSTEMS)


def test_a_listed_system_whose_modality_is_absent_is_refused_unless_it_may_be_skipped(tmp_path):
    only_text = {"modalities": ["id", "text"], "baselines": ["pop", "missrec_tv_id"]}
    with pytest.raises(InputError) as error:
        load_params(changed(tmp_path, **only_text))
    assert str(error.value).endswith(
        "params.yaml: baselines: missrec_tv_id reads image, which modalities=['id', 'text'] lacks: remove it, or set "
        "baseline.absent=skip"
    )
    assert load_params(changed(tmp_path, **only_text, baseline__absent="skip")).baselines == ("pop", "missrec_tv_id")
    assert load_params(changed(tmp_path, modalities=["id"], baselines=list(SYSTEMS))).baselines == tuple(SYSTEMS)


@pytest.mark.parametrize(
    ("precision", "set_here", "limit"),
    [("auto", True, "AVX2"), ("float32", True, "AVX2"), ("bfloat16", True, "DEFAULT"), ("bfloat16", False, "AVX2")],
)
def test_bfloat16_lifts_the_limit_of_kernels_unless_the_user_set_it(tmp_path, monkeypatch, precision, set_here, limit):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setattr("stages.ISA_LIMIT", "ONEDNN_MAX_CPU_ISA" if set_here else "")
    load_params(changed(tmp_path, precision=precision))
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == limit


def test_a_missing_key_is_named(tmp_path):
    path = changed(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("alpha:")))
    with pytest.raises(InputError, match=r"the key alpha is missing: add it as in the params.yaml of this version"):
        load_params(path)


def test_a_missing_file_and_a_broken_one_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="missing"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1")
    with pytest.raises(InputError, match="not YAML"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("")
    with pytest.raises(InputError, match="has no keys: `git checkout .*` brings back the one of this version"):
        load_params(tmp_path / "params.yaml")


def test_the_heads_of_other_systems_are_those_of_their_code():
    assert {"missrec": MissRecConfig.heads, "llmesr": LlmEsrConfig.cross_heads} == HEADS
