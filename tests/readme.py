"""Run every command of README.md in the current folder, a clone after `dvc repro`: `python -m tests.readme`.

Commands are the lines of the indented and of the shell blocks, and the `dvc …` and `python …` between backticks in the
text. Each is run or is in SKIPPED with the reason; one that fails ends the run with exit status 1. Every section starts
from the commit's own results.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from tests.own_data.shop import make_shop, write_csv, write_images

SKIPPED = {  # how a command starts: why it is not run here
    "pip install": ".ci/run does it",
    "pytest": ".ci/run does it",
    "ollama": "needs Ollama and the network",
    "dvc push": "needs a remote",
    "dvc pull": "needs a remote",
    "dvc remote add": "needs a folder that a team shares",
    "dvc exp push": "needs a remote",
    "dvc exp run -S dataset=Bili_": "needs NineRec",
}
SMALL = [  # added to a command's own values, so that a run takes seconds
    "dim=32", "encoders.workers=0", "sft.epochs=1", "pretrain.epochs=1", "posttrain.epochs=1", "evaluate.bootstrap=100",
    "baselines=[]",
]  # fmt: skip
ONLY_SECOND_STEP = ["posttrain.epochs=1", "evaluate.bootstrap=100"]  # of runs on the sample, of which the rest is there
FEWER = {"alpha=0.1,0.2,0.3": "alpha=0.1,0.2", "seed=2024,2025": "seed=2024"}  # two experiments in the queue, not six
INDENTED = re.compile(r"(?:^ {4}\S.*\n)+", re.MULTILINE)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = ("", "bash", "sh", "console")
SPAN = re.compile(r"`((?:dvc|python|pip|pytest|ollama) [^`\n]+)`")
PLACEHOLDER = re.compile(r"\b[A-Z]{4,}\b")
BRANCH = "kept-result"
SECONDS_IN_QUEUE = 300


def commands_of(section: str) -> list[str]:
    """The commands of a section of README.md, in order, each once."""
    found: list[tuple[int, str]] = []
    fences = list(FENCED.finditer(section))
    for block in fences:
        if block[1] in SHELL:
            found += [(block.start(), line) for line in block[2].splitlines()]
    text = FENCED.sub(lambda block: " " * len(block[0]), section)
    for block in INDENTED.finditer(text):
        found += [(block.start(), line) for line in block[0].splitlines()]
    text = INDENTED.sub(lambda block: " " * len(block[0]), text)
    found += [(span.start(), span[1]) for span in SPAN.finditer(text)]
    lines = [line for _, line in sorted(found, key=lambda pair: pair[0])]  # the sort keeps a block's lines in order
    commands = [part.strip() for line in lines for part in _without_comment(line).split("&&")]
    return list(dict.fromkeys(filter(None, commands)))


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s)#\s.*", "", line)


def sections(page: str) -> Iterator[tuple[str, str]]:
    """Title and text of each `## ` section."""
    for section in page.split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        yield title, text


def reason_to_skip(command: str) -> str | None:
    """Why the command is not run here, or None."""
    return next((why for start, why in SKIPPED.items() if command.startswith(start)), None)


def prepared(command: str, values: dict[str, str]) -> str:
    """The command with its placeholders filled in, and small enough for a test.

    values: {placeholder: value}. Raises SystemExit for a placeholder without a value.
    """
    for long, short in FEWER.items():
        command = command.replace(long, short)
    if unknown := set(PLACEHOLDER.findall(command)) - values.keys():
        sys.exit(f"tests/readme.py has no value for {', '.join(unknown)}: {command}")
    command = PLACEHOLDER.sub(lambda found: values[found[0]], command)
    if command.startswith("dvc exp run"):
        sizes = SMALL if "dataset=" in command else ONLY_SECOND_STEP
        command += "".join(f" -S '{size}'" for size in sizes)
        if "columns." in command:
            command += " split"  # tests/own_data takes the same line through the stages after it
    return command


def run(command: str) -> str:
    """Run a command in bash → its output. Raises SystemExit with the end of the output when it fails."""
    begin = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout[-4000:]}\nfailed with status {done.returncode}: {command}")
    print(f"{time.monotonic() - begin:5.0f} s  {command}", flush=True)
    return done.stdout


def wait_for_the_queue() -> None:
    """`dvc queue start` returns at once: wait until every queued experiment has ended. SystemExit if one failed."""
    end = time.monotonic() + SECONDS_IN_QUEUE
    while time.monotonic() < end:
        status = subprocess.run(["dvc", "queue", "status"], capture_output=True, text=True, check=True).stdout
        if "Failed" in status:
            sys.exit(f"an experiment of the queue failed:\n{status}")
        if not re.search(r"\b(Queued|Running)\b", status):
            print(status, flush=True)
            return
        time.sleep(1)
    sys.exit(f"the queue did not end in {SECONDS_IN_QUEUE} s:\n{status}")


def write_clicks(path: Path) -> None:
    """The new clicks that README.md recommends for: two users' histories of the sample's first items."""
    items = pl.read_parquet("artifacts/split/items.parquet")["raw_id"].head(6)
    pl.DataFrame({"user": ["a", "b"] * 3, "item": items, "time": range(6)}).write_csv(path)


def reset() -> None:
    """The commit's own params, metrics and artifacts."""
    subprocess.run(["git", "checkout", "--quiet", "."], check=True)
    subprocess.run(["dvc", "checkout", "--quiet", "--force"], check=True)


def last_experiment() -> str:
    """The name of the newest experiment of this commit."""
    listed = subprocess.run(["dvc", "exp", "show", "--json"], capture_output=True, text=True, check=True).stdout
    return next(run["name"] for commit in json.loads(listed) for run in commit["experiments"] or [])


def a_word_of_a_title() -> str:
    """A word of the first item's title."""
    language = re.search(r"^language: (\w+)", Path("params.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    assert language is not None
    title: str = pl.read_parquet("artifacts/split/items.parquet")[f"title_{language[1]}"][0]
    return title.split()[0]


def values_of(command: str, sources: Path) -> dict[str, str]:
    """What the placeholders in a command stand for: a source under `sources`, the newest experiment, a word."""
    source = "named" if "columns." in command else "new" if "--new-items" in command else "usual"
    values = {"FOLDER": str(sources / source), "BRANCH": BRANCH}
    if "NAME" in command:
        values["NAME"] = last_experiment()
    if "WORD" in command:
        values["WORD"] = shlex.quote(a_word_of_a_title())
    return values


def write_sources(folder: Path) -> None:
    """Somebody's own data: `usual` column names, `named` as README.md gives them as `columns`, and `new` items."""
    write_csv(make_shop(), folder / "usual")
    write_csv(make_shop(), folder / "named", columns=("buyer", "sku", "ordered_at"))
    write_images(make_shop(), folder / "named")
    write_csv(make_shop(), folder / "new")
    write_images(make_shop(), folder / "new")


def run_section(text: str, sources: Path) -> None:
    """Run or skip each command of a section, then go back to the commit's results."""
    for command in commands_of(text):
        if why := reason_to_skip(command):
            print(f"skipped, {why}: {command}", flush=True)
            continue
        run(prepared(command, values_of(command, sources)))
        if command.startswith("dvc queue start"):
            wait_for_the_queue()
    reset()


def main() -> None:
    os.environ |= {"DVC_NO_ANALYTICS": "1", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    begin, page = time.monotonic(), Path("README.md").read_text(encoding="utf-8")
    if subprocess.run(["git", "show-ref", "--quiet", "refs/heads/main"], check=False).returncode:
        subprocess.run(["git", "branch", "main"], check=True)  # which README.md compares with
    with tempfile.TemporaryDirectory() as folder:
        write_sources(Path(folder))
        write_clicks(Path("clicks.csv"))
        for title, text in sections(page):
            print(f"== {title}", flush=True)
            run_section(text, Path(folder))
    print(f"every command of README.md works: {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
