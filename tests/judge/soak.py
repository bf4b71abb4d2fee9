"""A long run of the pairs stage with a server that fails, killed several times: `python -m tests.judge.soak`."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from ruamel.yaml import YAML

from stages.files import write_parquet
from tests.judge.ollama_server import MODEL

ROOT = Path(__file__).parents[2]
IN_FLIGHT = 16


def write_workspace(folder: Path, histories: int, url: str) -> None:
    """Write params.yaml and a split of random histories, all different."""
    rng = random.Random(1)
    split = folder / "artifacts" / "split"
    split.mkdir(parents=True)
    items = list(range(1, 2001))
    titles = [f"video number {i}" for i in items]
    catalogue = pl.DataFrame({"item": items, "raw_id": [f"v{i}" for i in items], "title_en": titles})
    write_parquet(split / "items.parquet", catalogue, {})
    drawn = [rng.sample(items, rng.randint(3, 8)) for _ in range(histories)]
    write_parquet(split / "train.parquet", pl.DataFrame({"user": range(histories), "items": drawn}), {})
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params |= {"llm": MODEL, "language": "en"}
    params["ollama"] |= {"hosts": [url], "concurrency": IN_FLIGHT, "timeout": 5}
    YAML().dump(params, folder / "params.yaml")


@contextmanager
def server(*options: str) -> Iterator[str]:
    """The stand-in in a process of its own; yields its address."""
    command = [sys.executable, "-m", "tests.judge.ollama_server", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def start_stage(folder: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("DVC_ROOT", None)
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "stages.pairs"], cwd=folder, env=environment, stderr=log)


def answered(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (folder / ".cache" / "answers").glob("*.jsonl"))


def soak(folder: Path, histories: int, faults: float, kills: int) -> dict[str, float]:
    """Run the same histories with faults and kills and without them. Raises AssertionError if the pairs differ."""
    begin = time.monotonic()
    log = folder / "answered.txt"
    rough, calm = folder / "rough", folder / "calm"
    with server("--faults", str(faults), "--log", str(log)) as url:
        write_workspace(rough, histories, url)
        for kill in range(1, kills + 1):
            process = start_stage(rough)
            while process.poll() is None and answered(rough) < histories * kill / (kills + 1):
                time.sleep(0.05)
            process.kill()
            process.wait()
        assert start_stage(rough).wait() == 0, (rough / "log.txt").read_text()[-2000:]
    seconds = time.monotonic() - begin
    with server() as url:
        write_workspace(calm, histories, url)
        assert start_stage(calm).wait() == 0, (calm / "log.txt").read_text()[-2000:]

    same = "artifacts/pairs.parquet"
    assert (rough / same).read_bytes() == (calm / same).read_bytes()
    prompts = pl.read_parquet(rough / "artifacts/answers.parquet")["prompt"]
    assert len(prompts) == histories
    times = Counter(log.read_text().split())
    assert len(times) == prompts.n_unique()
    again = sum(times.values()) - len(times)
    assert again <= kills * IN_FLIGHT, again
    return {"histories": histories, "kills": kills, "answered_again": again, "seconds": round(seconds, 1)}


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        print(json.dumps(soak(folder, histories=20_000, faults=0.02, kills=3)))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
