from stages.bench.table4_time import stages_of_table4, training_minutes

ROWS = {"sicsrec": {"epochs": 3.0}, "pop": {"epochs": 0.0}, "sasrec": {"epochs": 4.0}}


def test_sicsrec_is_trained_in_two_steps_the_first_as_long_as_sasrec():
    assert list(stages_of_table4(ROWS)) == [
        ("pretrain", ("pretrain",), 4.0),
        ("sicsrec", ("posttrain",), 3.0),
        ("pop", ("baseline", "pop"), 0.0),
        ("sasrec", ("baseline", "sasrec"), 4.0),
    ]


def test_every_stage_is_timed_and_the_workspace_is_not_changed(after, tmp_path):
    after("download")
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    minutes = training_minutes({"sicsrec": {"epochs": 2}, "sasrec": {"epochs": 2}}, {"modalities": ["id", "text"]})
    assert set(minutes) == {"pretrain", "sicsrec", "sasrec"}
    assert all(0 < value < 10 for value in minutes.values())
    assert {path: path.read_bytes() for path in files} == files
