from stages.judge.journal import Answer, Journal


def answer(key: str) -> Answer:
    return Answer(key, '{"id": 1}\n第一', 40, 5, 0.5, 0.4)


def test_what_was_appended_is_read(tmp_path):
    journal = Journal(tmp_path / "deep" / "journal.jsonl")
    assert journal.read() == {}
    with journal:
        journal.append(answer("a"))
        assert journal.read() == {"a": answer("a")}  # at once, not when it is closed
        journal.append(answer("b"))
    assert journal.read() == {"a": answer("a"), "b": answer("b")}


def test_a_line_that_a_kill_cut_short_is_counted_and_harms_no_other(tmp_path, capsys):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append(answer("a"))
        journal.append(answer("b"))
    path.write_bytes(path.read_bytes()[:-10])
    with Journal(path) as journal:
        journal.append(answer("c"))
    assert Journal(path).read() == {"a": answer("a"), "c": answer("c")}
    assert "1 answers were cut short" in capsys.readouterr().out
