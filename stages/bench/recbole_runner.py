"""Script that runs in RecBole's environment: times one epoch and one full ranking of its SASRec, prints JSON."""

import json
import sys
import time

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings.pop("threads"))
    score_epochs = settings.pop("score_epochs")
    config = Config(model="SASRec", dataset=settings.pop("dataset"), config_dict=settings)
    init_seed(config["seed"], reproducibility=True)
    train, valid, test = data_preparation(config, create_dataset(config))
    model = get_model("SASRec")(config, train.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
    begin = time.perf_counter()
    trainer.fit(train, None, verbose=False, saved=False, show_progress=False)
    trained = time.perf_counter()
    trainer.evaluate(test, load_best_model=False)
    result = {"epoch": trained - begin, "evaluate": time.perf_counter() - trained}
    if score_epochs:
        config["epochs"], config["eval_step"] = score_epochs, 1
        trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, get_model("SASRec")(config, train.dataset))
        epochs = []  # (score, seconds since the start) after each
        begin = time.perf_counter()
        trainer.fit(
            train, valid, verbose=False, saved=False, show_progress=False,
            callback_fn=lambda _, score: epochs.append((score, time.perf_counter() - begin)),
        )  # fmt: skip
        result["score"], result["score_seconds"] = max(epochs, key=lambda epoch: epoch[0])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
