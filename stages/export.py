"""Write the trained model for other programs: `python -m stages.export FOLDER`.

The folder's own README.md says what is in it, with the code that serves it.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
import torch

from stages.data.histories import Histories, padded_histories
from stages.errors import InputError, run_stage
from stages.files import atomic
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.params import load_params
from stages.serving.index import INDEX, build_index, recall
from stages.serving.requests import all_users
from stages.serving.trained import MODELS, load_trained, refuse_other_dataset
from stages.serving.user_tower import export_user_tower, largest_difference
from stages.serving.writing import check_place
from stages.training.checkpoints import load_model

PAGE = Path(__file__).parent / "serving" / "exported.md"
USERS = 1024  # whose states and recommendations are compared
BATCH = 128
TOLERANCE = 1e-4
GOOD_RECALL = 0.95


def write_items(folder: Path, items: pl.DataFrame, vectors: np.ndarray) -> None:
    """Write items.parquet, item_vectors.npy and item_vectors.parquet. vectors: (N, D)."""
    items.drop("item", "cover").write_parquet(folder / "items.parquet")
    np.save(folder / "item_vectors.npy", vectors)
    width = pl.Array(pl.Float32, vectors.shape[1])
    items.select("raw_id", vector=pl.Series(vectors, dtype=width)).write_parquet(folder / "item_vectors.parquet")


def user_batches(histories: Histories, length: int) -> list[np.ndarray]:
    """Padded histories of the first USERS users."""
    users = np.arange(min(USERS, len(histories.lengths)))
    return [padded_histories(histories, part, length) for part in np.split(users, range(BATCH, len(users), BATCH))]


def refuse_existing(folder: Path) -> None:
    """Raise InputError when there is anything of this name, even a link to nothing."""
    if folder.exists() or folder.is_symlink():
        raise InputError(f"{folder} exists: name a new folder, or remove it")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.export", description=__doc__)
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument(
        "--model", choices=MODELS, default="sicsrec", help="distilled: SICSRec taught by the sum of `fuse`"
    )
    arguments = parser.parse_args()
    folder, source = arguments.folder, MODELS[arguments.model]
    refuse_existing(folder)
    check_place(str(folder), folder)
    refuse_other_dataset(load_params().dataset)
    trained, histories = load_trained("cpu", source), all_users().histories
    model = load_model(source.weights, Sicsrec, SicsrecConfig)  # not folded: what the files are compared with
    vectors, batches = trained.matrix.numpy(), user_batches(histories, model.config.max_length)
    with atomic(folder) as temporary:
        temporary.mkdir()
        write_items(temporary, trained.items, vectors)
        export_user_tower(temporary, model)
        build_index(temporary / INDEX, vectors)
        page = PAGE.read_text(encoding="utf-8").format(dim=vectors.shape[1], length=model.config.max_length)
        (temporary / "README.md").write_text(page, encoding="utf-8")
        difference = largest_difference(temporary, model, batches)
        if not difference < TOLERANCE:
            raise RuntimeError(f"the exported user tower computes other states, by up to {difference:.1e}")
        states = np.concatenate([model.last_hidden(torch.from_numpy(batch)).numpy() for batch in batches])
        top = min(100, len(vectors))
        found = recall(temporary / INDEX, vectors, states, top=top)
        refuse_existing(folder)  # that was made meanwhile
    print(f"{folder}: {len(vectors):,} items; states of {len(states):,} users differ by {difference:.1e} at most")
    advice = "" if found > GOOD_RECALL else ": too low to use, score all items instead"
    print(f"{INDEX}: recall@{top} {found:.4f} against exact scores{advice}")


if __name__ == "__main__":
    run_stage(main, options=True)
