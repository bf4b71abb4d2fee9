"""The part of the model that reads a history, for servers without this code: ONNX and torch.export."""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from stages.models.serving import folded_sicsrec
from stages.models.sicsrec import Sicsrec

ONNX, TORCH = "user_tower.onnx", "user_tower.pt2"


class UserTower(nn.Module):
    """items (B, L) int64, oldest first, padded with 0 at the right → the state after each last item (B, D).

    Low-rank updates and adapters are folded. B is any size, L from 1 to `max_length`; each row has an item.
    """

    def __init__(self, model: Sicsrec) -> None:
        super().__init__()
        self.model = folded_sicsrec(model)
        if model.config.widths:
            self.model.add_module("content", ContentTable(self.model.content.tables))

    def forward(self, items: Tensor) -> Tensor:
        return self.model.hidden(items, last=True)[:, 0]


class ContentTable(nn.Module):
    """`Content` whose tables hold adapted vectors: looked up, without the unique items, whose number varies."""

    def __init__(self, tables: nn.ModuleDict) -> None:
        super().__init__()
        self.tables = tables

    def forward(self, items: Tensor) -> dict[str, Tensor]:
        return {name: table(items) for name, table in self.tables.items()}


def export_user_tower(folder: Path, model: Sicsrec) -> None:
    """Write user_tower.onnx (its weights beside it, in user_tower.onnx.data) and user_tower.pt2."""
    program = exported_program(model)
    content = BytesIO()  # a full disk aborts the process where torch writes the file itself
    torch.export.save(program, content)
    (folder / TORCH).write_bytes(content.getvalue())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            program,
            (),
            folder / ONNX,
            input_names=["items"],
            output_names=["states"],
            external_data=True,
            verbose=False,
        )


def exported_program(model: Sicsrec) -> ExportedProgram:
    """The user tower as a graph of torch operations with a dynamic batch and length."""
    length = model.config.max_length
    dynamic = Dim("length", min=1, max=length) if length > 1 else None  # of one length there is nothing to vary
    shapes = {"items": {0: Dim("batch", min=1), 1: dynamic}}
    example = torch.ones(2, min(2, length), dtype=torch.int64)
    return torch.export.export(UserTower(model), (example,), dynamic_shapes=shapes)


def largest_difference(folder: Path, model: Sicsrec, batches: list[np.ndarray]) -> float:
    """Largest difference of a state as a written file computes it from the model's. batches: of padded histories."""
    program = torch.export.load(folder / TORCH).module()
    session = onnxruntime.InferenceSession(folder / ONNX)
    largest = 0.0
    for batch in batches:
        items = torch.from_numpy(batch)
        expected = model.last_hidden(items)
        with torch.inference_mode():
            found = [program(items), torch.from_numpy(session.run(None, {"items": batch})[0])]
        largest = max(largest, *(float((states - expected).abs().max()) for states in found))
    return largest
