"""Script that runs in RecTools' environment: trains its SASRec on all positions at once, prints JSON.

Settings: the model's own, and `interactions` (CSV: user, item, part), `threads`, `epochs`, `patience`. With a patience
of 0 the epochs are timed and nothing is ranked; otherwise training stops when the validation ndcg@10 has not risen for
so many epochs, and the test ndcg@10 of the best epoch is printed too.
"""

import json
import statistics
import sys
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet

TOP = 10


class EpochTimer(Callback):
    """Seconds of each training epoch, without start-up and preparation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.begin = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begin = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds.append(time.perf_counter() - self.begin)


def new_trainer() -> Trainer:
    """A trainer that writes nothing."""
    return Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[EpochTimer()],
    )  # fmt: skip


def as_dataset(rows: pd.DataFrame) -> Dataset:
    """Interactions in the order of the file. rows: user, item."""
    times = pd.to_datetime(np.arange(len(rows)), unit="s")
    columns = {Columns.User: rows["user"], Columns.Item: rows["item"], Columns.Weight: 1.0, Columns.Datetime: times}
    return Dataset.construct(pd.DataFrame(columns))


def ndcg(model: SASRecModel, histories: Dataset, targets: pd.DataFrame, filter_viewed: bool) -> float:
    """Mean ndcg@10 over all users of a full ranking; a target that is unknown to the model counts 0."""
    top = model.recommend(
        users=targets["user"].to_numpy(), dataset=histories, k=TOP, filter_viewed=filter_viewed,
        on_unsupported_targets="ignore",
    )  # fmt: skip
    hits = top.merge(targets, left_on=[Columns.User, Columns.Item], right_on=["user", "item"])
    return float((1 / np.log2(hits[Columns.Rank] + 1)).sum() / len(targets))


def main() -> None:
    settings: dict[str, Any] = json.loads(sys.argv[1])
    torch.set_num_threads(settings.pop("threads"))
    epochs, patience = settings.pop("epochs"), settings.pop("patience")
    rows = pd.read_csv(settings.pop("interactions"))
    seed_everything(settings.pop("seed"))
    train, known = as_dataset(rows[rows["part"] == "train"]), as_dataset(rows[rows["part"] != "test"])
    valid, test = (rows.loc[rows["part"] == part, ["user", "item"]] for part in ("valid", "test"))
    model = SASRecModel(
        **settings, loss="softmax", item_net_block_types=(IdEmbeddingsItemNet,), get_trainer_func=new_trainer
    )
    result: dict[str, float] = {}
    best, best_epoch = -1.0, 0
    for epoch in range(1, epochs + 1):
        model.fit_partial(train, min_epochs=1, max_epochs=1)
        if not patience:
            continue
        if (score := ndcg(model, train, valid, filter_viewed=False)) > best:
            best, best_epoch = score, epoch
            result = {f"ndcg10{name}": ndcg(model, known, test, bool(name)) for name in ("", "_filtered")}
        if epoch - best_epoch >= patience:
            break
    assert model.fit_trainer is not None
    timer = next(callback for callback in model.fit_trainer.callbacks if isinstance(callback, EpochTimer))
    print(json.dumps(result | {"epoch": statistics.median(timer.seconds), "epochs": len(timer.seconds)}))


if __name__ == "__main__":
    main()
