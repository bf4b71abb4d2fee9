"""In a process of its own: the shape checks of the tests would make the exported sizes constant."""

import subprocess
import sys
from pathlib import Path

CONFIGURATIONS = """
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from stages.serving.user_tower import export_user_tower, exported_program, largest_difference
from tests.models.test_sicsrec import CONFIG, build

def histories(rows, length):
    items = np.random.default_rng(0).integers(1, CONFIG.items + 1, (rows, length))
    return np.where(np.arange(length) < np.random.default_rng(1).integers(1, length + 1, (rows, 1)), items, 0)

SHAPES = ((1, 1), (1, CONFIG.max_length), (5, 3), (64, CONFIG.max_length - 1))
BATCHES = [histories(*shape) for shape in SHAPES]
for changes in ({}, {"use_id": False}, {"widths": {}}, {"without": ("l2norm",)}, {"without": ("mmsd",)}):
    model = build(replace(CONFIG, frozen=("id_encoder",) if changes == {} else (), **changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.3)
    program = exported_program(model).module()
    for batch in map(torch.from_numpy, BATCHES):
        torch.testing.assert_close(program(batch), model.last_hidden(batch), atol=1e-5, rtol=1e-5)
shortest = build(replace(CONFIG, max_length=1)).eval()
one = torch.from_numpy(histories(3, 1))
torch.testing.assert_close(exported_program(shortest).module()(one), shortest.last_hidden(one), atol=1e-5, rtol=1e-5)
folder = Path(tempfile.mkdtemp())
model = build(CONFIG).eval()
export_user_tower(folder, model)
assert largest_difference(folder, model, BATCHES) < 1e-5
with torch.no_grad():
    model.projection.weight.mul_(-1)
assert largest_difference(folder, model, BATCHES) > 0.1
"""


def test_the_exported_states_are_the_model_s_for_any_batch_and_length_with_any_parts():
    run = subprocess.run(
        [sys.executable, "-c", CONFIGURATIONS], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
