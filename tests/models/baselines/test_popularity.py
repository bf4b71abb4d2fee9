import numpy as np
import torch

from stages.models.baselines.popularity import Popularity, PopularityConfig


def test_every_user_s_scores_are_the_items_counts():
    model = Popularity(PopularityConfig(items=4))
    model.count(np.array([1, 3, 3, 4, 3]))
    scores = model.last_hidden(torch.tensor([[2, 1], [4, 0]])) @ model.item_matrix().T
    assert scores.tolist() == [[1, 0, 3, 1], [1, 0, 3, 1]]
