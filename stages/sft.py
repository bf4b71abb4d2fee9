"""Joint fine-tuning of the text and the image encoder on the judge's pairs (paper section 3.3.2)."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from stages.encoders import image, text
from stages.encoders.cached_trunk import Tuned
from stages.encoders.modality_gap import modality_gap, projected
from stages.encoders.tuning import Alignment, pair_batches, parameter_groups
from stages.errors import InputError, run_stage
from stages.files import atomic, is_main_process, read_parquet, write_json, write_parquet
from stages.parallel.device import choose_device
from stages.params import Params, load_params
from stages.training.checkpoints import state_path
from stages.training.fit import Plan, fit

PAIRS = Path("artifacts/pairs.parquet")
ITEMS = Path("artifacts/split/items.parquet")
ENCODERS = Path("artifacts/encoders")
CURVES = Path("artifacts/curves/sft")
PROJECTION = CURVES / "projection.parquet"

EncoderInputs = tuple[text.TextEncoder | image.ImageEncoder, dict[str, torch.Tensor], bool]


def text_inputs(params: Params, items: pl.DataFrame) -> EncoderInputs:
    """The text encoder, its inputs of all items, and whether it starts from seed."""
    titles, e = items[f"title_{params.language}"].to_list(), params.encoders
    encoder = text.starting_text_encoder(params.text_encoder, titles, e.pooling, e.max_tokens)
    return encoder, encoder.prepare(titles), params.text_encoder == text.TINY


def image_inputs(params: Params, items: pl.DataFrame) -> tuple[EncoderInputs, torch.Tensor]:
    """The same for the image encoder, and which items have a readable cover."""
    e = params.encoders
    encoder = image.starting_image_encoder(params.image_encoder, e.image_feature)
    archive = Path(f"artifacts/raw/{params.dataset}_cover.zip")
    covers = image.decode_covers(archive, items["raw_id"].to_list(), items["cover"].to_list(), encoder, e.workers)
    return (encoder, {"pixels": covers.pixels}, params.image_encoder == image.TINY), covers.readable


def tune(
    params: Params, sources: dict[str, EncoderInputs], usable: torch.Tensor, pairs: torch.Tensor
) -> dict[str, Any]:
    """Fine-tune the encoders in place; what became of it."""
    p, device = params.sft, choose_device(params.device)
    tuned = {name: Tuned(encoder, inputs, p.train, fresh) for name, (encoder, inputs, fresh) in sources.items()}
    for part in tuned.values():
        part.to(device)
    widths = {name: part.eval()(torch.tensor([1])).shape[1] for name, part in tuned.items()}
    for part in tuned.values():
        if not part.whole and p.tasks:
            part.cache_trunk(params.encoders.batch_size)
    model = Alignment(tuned, widths, p.tasks, params.tau, usable).to(device)
    summary: dict[str, Any] = {"pairs": len(pairs), "alignment": {}, "modality_gap": {}}
    points: list[pl.DataFrame] = []

    def look(when: str) -> None:
        everything = model.everything(params.encoders.batch_size)
        summary["alignment"][when] = model.measure(everything, pairs)
        if "image" in everything:
            everything["image"] = everything["image"][usable]
        if len(everything) == 2:
            summary["modality_gap"][when] = modality_gap(*everything.values())
        points.append(projected(everything, when))

    look("before")
    if not model.tasks:
        if is_main_process():
            shutil.rmtree(CURVES, ignore_errors=True)
        write_parquet(PROJECTION, points[0])
        return summary
    settings = [params.text_encoder, params.image_encoder, params.language, params.tau, params.seed, list(sources)]
    outcome = fit(
        model,
        lambda epoch: pair_batches(pairs, p.batch_size, np.random.default_rng([params.seed, epoch])),
        dict,  # nothing to validate: a fixed number of epochs, as in the paper
        Plan(p.epochs, p.epochs, None, p.new_learning_rate, params.seed),
        device,
        CURVES,
        state_path("sft", [settings, p.model_dump(), params.encoders.model_dump()], [PAIRS, ITEMS]),
        parameter_groups(model, p.learning_rate, p.new_learning_rate),
    )
    look("after")
    write_parquet(PROJECTION, pl.concat(points))
    return summary | {"loss": outcome.rows[-1], "epochs": len(outcome.rows)}


def main() -> None:
    params = load_params()
    items = read_parquet(ITEMS)
    pairs = torch.from_numpy(read_parquet(PAIRS).select("target", "similar").to_numpy().astype(np.int64))
    torch.manual_seed(params.seed)
    sources: dict[str, EncoderInputs] = {}
    usable = torch.zeros(len(items), dtype=torch.bool)
    if "text" in params.modalities:
        sources["text"] = text_inputs(params, items)
    if "image" in params.modalities:
        sources["image"], usable = image_inputs(params, items)
    if sources and not len(pairs):
        raise InputError(f"{PAIRS} is empty: there is nothing to fine-tune on")

    summary: dict[str, Any] = {"pairs": len(pairs)}
    if sources:
        summary = tune(params, sources, usable, pairs)
    with atomic(ENCODERS) as folder:
        folder.mkdir(parents=True)
        write_json(folder / "modalities.json", {"encoded": list(sources)})
        for name, (encoder, _, _) in sources.items():
            encoder.save(folder / name)
    write_json(CURVES / "summary.json", summary)


if __name__ == "__main__":
    run_stage(main)
