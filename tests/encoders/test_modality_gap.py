import numpy as np
import pytest
import torch

from stages.encoders.modality_gap import modality_gap, projected


def test_the_gap_is_the_distance_between_the_means():
    text, image = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[-1.0, 0.0]])
    assert modality_gap(text, image) == pytest.approx(np.hypot(1.5, 0.5))
    assert modality_gap(text, text.flip(0)) == 0.0


def test_the_projection_of_a_plane_preserves_distances():
    plane = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    turned = plane @ torch.linalg.qr(torch.randn(5, 2, generator=torch.Generator().manual_seed(1))).Q.T
    frame = projected({"text": turned[:4], "image": turned[4:]}, "before")
    assert frame["modality"].to_list() == ["text"] * 4 + ["image"] * 2
    assert set(frame["when"]) == {"before"}
    points = torch.tensor(frame.select("x", "y").to_numpy(), dtype=torch.float32)
    torch.testing.assert_close(torch.cdist(points, points), torch.cdist(plane, plane), atol=1e-4, rtol=1e-4)


def test_differences_between_processors_kernels_are_rounded_away():
    vectors = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))
    noise = 1e-7 * torch.randn(6, 5, generator=torch.Generator().manual_seed(3))
    assert projected({"text": vectors}, "after").equals(projected({"text": vectors + noise}, "after"))
