"""The covers of all items as one tensor, decoded by worker processes."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stages.encoders.content_encoder import Catalogue, ItemInputs
from stages.encoders.covers import CoverArchive
from stages.errors import InputError
from stages.files import is_main_process

BATCH = 16  # covers that a worker sends at once
NAMED = 5  # items whose ids are printed

Transform = Callable[[Image.Image], Tensor]  # RGB image → (3, height, width), as an encoder reads it


class CoverDataset(Dataset[np.ndarray | None]):
    """Pixels of covers; None for one that is missing or cannot be read.

    Arrays, not tensors: workers send tensors through /dev/shm, which has 64 MB in a container.
    """

    def __init__(self, archive: CoverArchive, raw_ids: list[str], transform: Transform) -> None:
        self.archive, self.raw_ids, self.transform = archive, raw_ids, transform

    def __len__(self) -> int:
        return len(self.raw_ids)

    def __getitem__(self, index: int) -> np.ndarray | None:
        image = self.archive.get(self.raw_ids[index])
        return None if image is None else self.transform(image).numpy()


def decode_covers(catalogue: Catalogue, transform: Transform) -> ItemInputs:
    """Pixels of all items' covers, zeros where there is none; only the readable ones are usable.

    Raises InputError when the archive is missing or holds no readable cover.
    """
    if not catalogue.covers.is_file():
        dataset = catalogue.covers.name.removesuffix("_cover.zip")
        raise InputError(f"{dataset} has no covers ({catalogue.covers} is missing): run with -S 'modalities=[id,text]'")
    archive, raw_ids = CoverArchive(catalogue.covers), catalogue.items["raw_id"].to_list()
    pixels = torch.zeros(len(raw_ids), *transform(Image.new("RGB", (8, 8))).shape)
    usable = torch.zeros(len(raw_ids), dtype=torch.bool)
    covers = CoverDataset(archive, raw_ids, transform)
    loader = DataLoader(covers, batch_size=BATCH, num_workers=catalogue.workers, collate_fn=list)
    for index, cover in enumerate(cover for batch in loader for cover in batch):
        if cover is not None:
            pixels[index], usable[index] = torch.from_numpy(cover), True
    missing = [raw_id for raw_id in raw_ids if raw_id not in archive]
    unreadable = [
        raw_id for raw_id, good in zip(raw_ids, usable.tolist(), strict=True) if not good and raw_id in archive
    ]
    if not usable.any():
        raise InputError(
            f"{catalogue.covers} holds no readable cover of these items (missing: {_counted(missing)}; unreadable: "
            f"{_counted(unreadable)}): run with -S 'modalities=[id,text]'"
        )
    if (missing or unreadable) and is_main_process():
        print(
            f"covers: missing {_counted(missing)}; unreadable {_counted(unreadable)}; these get the others' mean vector"
        )
    return ItemInputs(
        {"pixels": pixels}, usable, {"missing_covers": len(missing), "unreadable_covers": len(unreadable)}
    )


def _counted(raw_ids: list[str]) -> str:
    """How many, and the ids of the first few."""
    more = ", …" if len(raw_ids) > NAMED else ""
    return f"{len(raw_ids)} ({', '.join(raw_ids[:NAMED])}{more})" if raw_ids else "0"
