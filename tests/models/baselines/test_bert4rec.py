import torch
import torch.nn.functional as F

from stages.models.baselines.bert4rec import Bert4Rec, Bert4RecConfig


def small_model(**changes) -> Bert4Rec:
    torch.manual_seed(0)
    sizes = {"dropout": 0.2, "items": 20, "dim": 8, "layers": 2, "heads": 2, "max_length": 6}
    return Bert4Rec(Bert4RecConfig(**sizes | changes)).eval()


def test_every_row_has_a_masked_item_and_padding_is_never_masked():
    model = small_model()
    items = torch.randint(1, 21, (500, 6)) * (torch.arange(6) < torch.randint(1, 7, (500, 1)))
    masked = model.choose_masked(items)
    assert masked.any(dim=1).all()
    assert not (masked & (items == 0)).any()


def test_the_shares_of_masked_items_are_those_of_the_configuration():
    model = small_model(mask_share=0.3, last_share=0.4)
    items = torch.ones(20_000, 6, dtype=torch.long)
    masked = model.choose_masked(items)
    only_last = masked[:, -1] & (masked.sum(dim=1) == 1)
    none, last_by_chance = 0.7**6, 0.7**5 * 0.3  # of the rows whose items are drawn one by one
    assert abs(only_last.float().mean().item() - (0.4 + 0.6 * (none + last_by_chance))) < 0.02
    assert abs(masked[:, 0].float().mean().item() - 0.6 * 0.3) < 0.02


def test_the_loss_is_cross_entropy_at_the_masked_positions_of_the_whole_history():
    model = small_model(last_share=1.0)  # the last item, which is the target, is masked
    items, targets = torch.tensor([[3, 1, 7, 0]]), torch.tensor([[1, 7, 5, 0]])
    scores = model.hidden(torch.tensor([[3, 1, 7, model.mask]]))[0, 3] @ model.item_matrix().T
    torch.testing.assert_close(model.loss(items, targets)["loss"], -F.log_softmax(scores, dim=0)[4])


def test_the_last_state_is_at_a_mask_after_the_history_whatever_the_padding():
    model = small_model()
    expected = model.hidden(torch.tensor([[3, 1, model.mask]]))[:, 2]
    torch.testing.assert_close(model.last_hidden(torch.tensor([[3, 1]])), expected)
    torch.testing.assert_close(model.last_hidden(torch.tensor([[3, 1, 0, 0]])), expected)


def test_the_state_at_a_mask_depends_on_later_items():
    model = small_model()
    a, b = (model.hidden(torch.tensor([[3, model.mask, last]]))[0, 1] for last in (5, 9))
    assert not torch.allclose(a, b)
