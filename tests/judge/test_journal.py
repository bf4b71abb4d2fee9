import json

from stages.judge.journal import Answer, Journal


def answer(key: str) -> Answer:
    return Answer(key, '{"id": 1}\n第一', 40, 5, 0.5, 0.4)


def test_answers_are_on_disk_as_soon_as_they_are_appended(tmp_path):
    journal = Journal(tmp_path / "not" / "there" / "journal.jsonl")
    assert journal.read() == {}
    with journal:
        journal.append(answer("a"))
        assert journal.read() == {"a": answer("a")}
        journal.append(answer("b"))
    assert journal.read() == {"a": answer("a"), "b": answer("b")}
    assert journal.file.closed


def test_an_answer_is_one_line_of_readable_json(tmp_path):
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append(answer("a"))
    [line] = (tmp_path / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    assert "第一" in line
    assert json.loads(line) == {
        "key": "a", "text": '{"id": 1}\n第一', "tokens_in": 40, "tokens_out": 5, "seconds": 0.5, "eval_seconds": 0.4,
        "done": True, "too_long": False,
    }  # fmt: skip


def test_an_answer_of_an_earlier_version_is_read(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"key": "a", "text": "x", "tokens_in": 4, "tokens_out": 5, "seconds": 0.5, "eval_seconds": 0.4}\n')
    assert Journal(path).read() == {"a": Answer("a", "x", 4, 5, 0.5, 0.4, done=True, too_long=False)}


def test_the_last_of_several_answers_with_one_key_counts(tmp_path):
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append(answer("a"))
        journal.append(Answer("a", "later", 1, 2, 3.0, 4.0))
    assert journal.read()["a"].text == "later"


def test_lines_that_an_interruption_cut_short_are_counted_and_do_not_spoil_the_next(tmp_path, capsys):
    path = tmp_path / "journal.jsonl"
    for key in ("a", "b", "c"):
        with Journal(path) as journal:
            journal.append(answer(key))
            journal.append(answer(f"{key} cut"))
        path.write_bytes(path.read_bytes()[:-10])
    assert Journal(path).read().keys() == {"a", "b", "c"}
    assert capsys.readouterr().out == (f"{path}: 3 answers were cut short by an interruption and are asked again\n")


def test_a_journal_of_several_runs_is_read_whole_and_in_silence(tmp_path, capsys):
    for key in ("a", "b"):
        with Journal(tmp_path / "journal.jsonl") as journal:
            journal.append(answer(key))
    assert journal.read().keys() == {"a", "b"}
    assert capsys.readouterr().out == ""
