from tests.mutation import diff, mutants

SOURCE = """Batches = dict[int, str]

@torch.no_grad()
def last(model: Model, items: Items) -> Tensor:
    model.eval()
    return model(items)[-1]
"""


def changed_lines(source: str) -> set[str]:
    """The lines that are in a mutant and not in the source."""
    return {line for code in mutants(source) for line in code.splitlines() if line not in source.splitlines()}


def test_the_body_of_a_decorated_function_is_changed():
    assert "    return model(items)[+1]" in changed_lines(SOURCE)


def test_a_call_without_a_result_is_left_out():
    assert "    pass" in changed_lines(SOURCE)


def test_decorators_annotations_and_type_aliases_stay():
    assert all(line.startswith("    ") for line in changed_lines(SOURCE))


def test_a_mutant_is_shown_as_its_changed_lines():
    code = SOURCE.replace("model.eval()", "pass")
    assert diff(SOURCE, code, "a.py").splitlines() == ["a.py:5", "-    model.eval()", "+    pass"]
