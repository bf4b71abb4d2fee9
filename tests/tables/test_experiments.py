import pytest

from stages.errors import InputError
from stages.tables.definitions import TABLES
from stages.tables.experiments import Experiment, chosen, flat

BASE = {"dataset": "sample", "seed": 1, "alpha": 0.2, "without": [], "text_encoder": "google-bert/bert-base-chinese"}


def experiment(name: str, **changes: object) -> Experiment:
    return Experiment(name, BASE | changes, None)


def names(found: dict[str, list[Experiment]]) -> dict[str, list[str]]:
    return {row: [experiment.name for experiment in group] for row, group in found.items() if group}


def test_sections_become_dotted_keys():
    assert flat({"alpha": 0.2, "sft": {"tasks": ["t2t"], "epochs": 3}}) == {
        "alpha": 0.2,
        "sft.tasks": ["t2t"],
        "sft.epochs": 3,
    }


def test_each_row_gets_the_experiments_that_were_run_with_its_params():
    given = [experiment("base"), experiment("again", seed=2), experiment("less", without=["mmsd"])]
    found = names(chosen(given, TABLES["table7"].rows, {}))
    assert found == {"SICSRec": ["base", "again"], "without MMSD": ["less"]}


def test_the_order_of_a_list_does_not_matter_and_a_string_is_a_pattern():
    given = experiment("one", without=["b", "a"])
    assert given.matches({"without": ["a", "b"]})
    assert not given.matches({"without": ["a"]})
    assert given.matches({"text_encoder": "*bert-base*"})
    assert not given.matches({"text_encoder": "*roberta*"})
    assert not given.matches({"rank": 4})


def test_what_no_row_varies_has_to_agree():
    given = [experiment("base"), experiment("other", alpha=0.3), experiment("less", without=["mmsd"])]
    with pytest.raises(InputError, match=r"(less|base) and other differ in alpha \(0.2, 0.3\): say which you mean"):
        chosen(given, TABLES["table7"].rows, {})
    assert names(chosen(given, TABLES["table7"].rows, {"alpha": 0.2})) == {
        "SICSRec": ["base"],
        "without MMSD": ["less"],
    }


def test_the_seed_and_the_machine_may_differ():
    given = [experiment("base", device="cpu"), experiment("other", seed=3, device="cuda")]
    assert names(chosen(given, TABLES["table7"].rows, {})) == {"SICSRec": ["base", "other"]}
