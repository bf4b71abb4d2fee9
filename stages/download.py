"""Stage `download`: NineRec's files for one dataset, or the built-in sample in the same layout."""

from pathlib import Path

from stages.data.columns import Wanted
from stages.data.covers import cover_names
from stages.data.sample import write_sample
from stages.errors import run_stage
from stages.files import atomic, write_json
from stages.params import load_params

RAW = Path("artifacts/raw")
METRICS = Path("metrics/download.json")


def main() -> str:
    """Write artifacts/raw and metrics/download.json; when something fails, artifacts/raw stays as it was."""
    params = load_params()
    with atomic(RAW) as folder:
        folder.mkdir()
        if params.dataset == "sample":
            d = params.download
            write_sample(folder, users=d.sample_users, items=d.sample_items, topics=d.sample_topics, seed=params.seed)
        else:
            from stages.data.fetch import fetch  # gdown, requests and tables take half a second

            wanted = Wanted(**params.columns.model_dump())
            fetch(params.dataset, params.source, params.download.sha256, wanted, folder)
    files = sorted(RAW.iterdir())
    covers, size = len(cover_names(RAW / f"{params.dataset}_cover.zip")), sum(file.stat().st_size for file in files)
    write_json(METRICS, {"dataset": params.dataset, "files": len(files), "covers": covers, "bytes": size})
    return f"{params.dataset}: {len(files)} files, {size / 1e6:,.1f} MB, {covers:,} covers"


if __name__ == "__main__":
    run_stage(main)
