import pytest

from stages.errors import InputError
from stages.files import write_json
from stages.tables.__main__ import main, parse_conditions, refuse_to_lose_runs

WHERE = {"dataset": "MyShop", "modalities": "[id,text]"}


def table(**seeds: list[int]) -> dict[str, object]:
    rows = {row: {"seeds": found} for row, found in seeds.items()}
    return {"table": "table7", "dataset": "MyShop", "where": WHERE, "rows": rows}


@pytest.mark.parametrize(
    ("now", "lost"),
    [({"a": [1, 2]}, r"1 runs .* \(first: b, seed 1\)"), ({"a": [1], "b": [1]}, r"\(first: a, seed 2\)")],
)
def test_a_table_is_not_replaced_by_one_that_lacks_a_row_or_a_seed(tmp_path, now, lost):
    path = tmp_path / "table.json"
    write_json(path, table(a=[1, 2], b=[1]))
    with pytest.raises(InputError, match=lost):
        refuse_to_lose_runs(table(**now), path)


def test_a_table_may_be_made_again_or_get_more_rows_and_seeds(tmp_path):
    path = tmp_path / "table.json"
    refuse_to_lose_runs(table(a=[1]), path)
    write_json(path, table(a=[1]))
    refuse_to_lose_runs(table(a=[1, 2], b=[1]), path)


def test_a_table_is_not_replaced_by_one_with_other_conditions(tmp_path):
    path = tmp_path / "table.json"
    write_json(path, table(a=[1]))
    with pytest.raises(InputError) as refused:
        refuse_to_lose_runs(table(a=[1]) | {"where": WHERE | {"content_weight": "auto"}}, path)
    assert str(refused.value) == (
        f"{path} was made by `python -m stages.tables table7 dataset=MyShop 'modalities=[id,text]'`: give the same "
        "conditions, or remove the file"
    )


def test_a_table_that_does_not_say_its_conditions_may_be_replaced(tmp_path):
    path = tmp_path / "table.json"
    write_json(path, {"rows": {"a": {"seeds": [1]}}})
    refuse_to_lose_runs(table(a=[1]), path)


def test_values_of_conditions_are_yaml():
    pairs = ["alpha=0.3", "modalities=[id,text]", "columns.user=", "llm=openai:a=b"]
    assert parse_conditions(pairs) == {
        "alpha": 0.3, "modalities": ["id", "text"], "columns.user": None, "llm": "openai:a=b",
    }  # fmt: skip


@pytest.mark.parametrize("pair", ["modalities=[id,text", "alpha=*", "split.valid_from=2024-13-01"])
def test_a_value_that_is_not_yaml_is_named(pair):
    with pytest.raises(InputError) as refused:
        parse_conditions(["dataset=sample", pair])
    assert str(refused.value) == (
        f"{pair}: the value is not YAML: write it as in params.yaml, e.g. modalities=[id,text]"
    )


def test_conditions_may_follow_an_option(monkeypatch):
    monkeypatch.setattr("sys.argv", ["tables", "table7", "--all-commits", "alpha"])
    with pytest.raises(InputError, match="alpha: a condition is written KEY=VALUE"):
        main()
