"""Joint fine-tuning of the text and the image encoder on the judge's pairs (paper section 3.3.2)."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from stages.encoders.cached_trunk import Tuned
from stages.encoders.content_encoder import Catalogue, ContentEncoder, ItemInputs
from stages.encoders.modalities import MODALITIES, TINY, encoding_settings, starting_encoder
from stages.encoders.modality_gap import modality_gap, projected
from stages.encoders.tuning import Alignment, pair_batches, parameter_groups
from stages.errors import InputError, run_stage
from stages.files import atomic, is_main_process, read_parquet, write_json, write_parquet
from stages.parallel.device import choose_device
from stages.params import Params, load_params
from stages.provenance import check_inputs, record_folder
from stages.training.checkpoints import state_path
from stages.training.fit import Plan, fit

PAIRS = Path("artifacts/pairs.parquet")
ITEMS = Path("artifacts/split/items.parquet")
ENCODERS = Path("artifacts/encoders")
CURVES = Path("artifacts/curves/sft")
PROJECTION = CURVES / "projection.parquet"
FEWEST_ITEMS = 3  # a pair, and an item to compare it with


@dataclass(frozen=True)
class EncoderWithInputs:
    """One modality's encoder and what it reads of all items."""

    encoder: ContentEncoder
    inputs: ItemInputs
    fresh: bool  # its weights start from the seed

    def content_id(self) -> str:
        """Hash of weights and inputs: other weights in an encoder's folder, or other covers, have the same name."""
        weights = [module.state_dict() for module in (self.encoder.model, self.encoder.head)]
        digest = hashlib.sha256()
        for tensors in (*weights, self.inputs.values):
            for name, tensor in tensors.items():
                digest.update(name.encode())
                digest.update(tensor.flatten().numpy())
        return digest.hexdigest()


def read_encoders(params: Params, items: pl.DataFrame) -> dict[str, EncoderWithInputs]:
    """Encoder and inputs of each content modality in use. Raises InputError if fewer than two items have any."""
    names = {"text": params.text_encoder, "image": params.image_encoder}
    covers = Path(f"artifacts/raw/{params.dataset}_cover.zip")
    catalogue = Catalogue(items, f"title_{params.language}", covers, params.encoders.workers)
    encoders = {}
    for modality in MODALITIES:
        if modality in params.modalities:
            encoder = starting_encoder(modality, names[modality], catalogue, params.encoders)
            inputs = encoder.read(catalogue)
            if inputs.usable.sum() < 2:  # all items would get its vector
                raise InputError(f"only one item has a readable {modality}: leave {modality} out of modalities")
            encoders[modality] = EncoderWithInputs(encoder, inputs, names[modality] == TINY)
    return encoders


def tune(params: Params, encoders: dict[str, EncoderWithInputs], pairs: torch.Tensor) -> dict[str, Any]:
    """Fine-tune the encoders in place. → losses, and alignment and modality gap before and after."""
    p, device = params.sft, choose_device(params.device, params.precision)
    content_ids = [each.content_id() for each in encoders.values()]
    tasks = p.tasks if len(pairs) else ()
    tuned = {name: Tuned(e.encoder, e.inputs.values, p.train, e.fresh) for name, e in encoders.items()}
    for part in tuned.values():
        part.to(device)
    widths = {name: part.eval()(torch.tensor([1])).shape[1] for name, part in tuned.items()}
    for part in tuned.values():
        if not part.whole and tasks:
            part.cache_trunk(params.encoders.batch_size)
    usable = {name: e.inputs.usable for name, e in encoders.items()}
    model = Alignment(tuned, widths, tasks, params.sft.temperature(params.tau), usable).to(device)
    summary: dict[str, Any] = {"pairs": len(pairs), "alignment": {}, "modality_gap": {}}
    points: list[pl.DataFrame] = []

    def measure(when: str) -> None:
        encoded = model.encode_all(params.encoders.batch_size)
        for name, vectors in encoded.items():
            if not vectors.isfinite().all():
                raise InputError(f"{name}: vectors are not finite {when} fine-tuning: check {name}_encoder")
        summary["alignment"][when] = model.measure(encoded, pairs)
        encoded = {name: vectors[usable[name]] for name, vectors in encoded.items()}
        if len(encoded) == 2:
            summary["modality_gap"][when] = modality_gap(*encoded.values())
        points.append(projected(encoded, when))

    measure("before")
    if not model.tasks:
        if is_main_process():
            shutil.rmtree(CURVES, ignore_errors=True)
        write_parquet(PROJECTION, points[0])
        return summary
    settings = [
        params.text_encoder,
        params.image_encoder,
        params.language,
        params.sft.temperature(params.tau),
        params.seed,
        list(encoders),
        content_ids,
    ]
    outcome = fit(
        model,
        lambda epoch: pair_batches(pairs, p.batch_size, np.random.default_rng([params.seed, epoch])),
        dict,  # no validation: a fixed number of epochs, as in the paper
        Plan(p.epochs, p.epochs, None, p.new_learning_rate, params.seed),
        device,
        CURVES,
        state_path("sft", [settings, p.model_dump(), params.encoders.model_dump()], [PAIRS, ITEMS]),
        parameter_groups(model, learning_rate=p.learning_rate, new_learning_rate=p.new_learning_rate),
    )
    measure("after")
    write_parquet(PROJECTION, pl.concat(points))
    return summary | {"loss": outcome.rows[-1], "epochs": len(outcome.rows)}


def main() -> str:
    params = load_params()
    items = read_parquet(ITEMS)
    inputs = check_inputs(ITEMS, PAIRS)
    pairs = torch.from_numpy(read_parquet(PAIRS).select("target", "similar").to_numpy().astype(np.int64))
    torch.manual_seed(params.seed)
    encoders = read_encoders(params, items)
    if encoders and not len(pairs):
        print(f"{PAIRS} is empty, as no item has a title: the encoders are not fine-tuned")

    if encoders and len(pairs) and len(items) < FEWEST_ITEMS:
        raise InputError(f"{ITEMS} has {len(items)} items, fine-tuning needs three: use more, or modalities=[id]")

    summary: dict[str, Any] = tune(params, encoders, pairs) if encoders else {"pairs": len(pairs)}
    with atomic(ENCODERS) as folder:
        folder.mkdir(parents=True)
        write_json(folder / "modalities.json", {"encoded": list(encoders), "settings": encoding_settings(params)})
        for name, tuned in encoders.items():
            tuned.encoder.save(folder / name)
        record_folder(folder, inputs)
    write_json(CURVES / "summary.json", summary)
    if "loss" not in summary:
        return "the encoders are not fine-tuned"
    return f"{summary['epochs']} epochs on {summary['pairs']:,} pairs, last loss {summary['loss']['loss']:.3f}"


if __name__ == "__main__":
    run_stage(main)
