import subprocess
import sys

import polars as pl
import pytest

from stages.serving.printing import show

ROWS = pl.DataFrame({"rank": [1, 2], "raw_id": ["v1", "v2"], "score": [0.5, None], "leans_on": [["v3", "v4"], []]})


def test_a_row_is_a_line_of_tab_separated_cells(capsys):
    show(ROWS, as_json=False)
    assert capsys.readouterr().out == "1\tv1\t0.5000\tv3 v4\n2\tv2\t\t\n"


def test_the_header_names_the_columns(capsys):
    show(ROWS, as_json=False, header=True)
    assert capsys.readouterr().out.startswith("rank\traw_id\tscore\tleans_on\n1\t")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_reader_may_stop_early(as_json):
    code = (
        "import polars as pl; from stages.serving.printing import show; "
        f"show(pl.select(pl.int_range(10**6)), as_json={as_json})"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()  # as `head -1` does
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, b"")
