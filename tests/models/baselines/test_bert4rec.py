import torch
import torch.nn.functional as F

from stages.models.baselines.bert4rec import Bert4Rec, Bert4RecConfig


def small_model(**changes) -> Bert4Rec:
    torch.manual_seed(0)
    sizes = {"items": 20, "dim": 8, "layers": 2, "heads": 2, "max_length": 6}
    return Bert4Rec(Bert4RecConfig(**sizes | changes)).eval()


def test_every_row_hides_something_and_only_real_items():
    model = small_model()
    items = torch.randint(1, 21, (500, 6)) * (torch.arange(6) < torch.randint(1, 7, (500, 1)))
    masked = model.choose_masked(items)
    assert masked.any(dim=1).all()
    assert not (masked & (items == 0)).any()


def test_the_shares_of_hidden_items_are_those_of_the_configuration():
    model = small_model(mask_share=0.3, last_share=0.4)
    items = torch.ones(20_000, 6, dtype=torch.long)
    masked = model.choose_masked(items)
    alone = masked[:, -1] & (masked.sum(dim=1) == 1)
    nothing, last_only = 0.7**6, 0.7**5 * 0.3  # of the rows drawn item by item
    assert abs(alone.float().mean().item() - (0.4 + 0.6 * (nothing + last_only))) < 0.02
    assert abs(masked[:, 0].float().mean().item() - 0.6 * 0.3) < 0.02


def test_the_loss_is_cross_entropy_at_the_hidden_places_of_the_whole_history():
    model = small_model(last_share=1.0)  # the last item is hidden: the target itself
    items, targets = torch.tensor([[3, 1, 7, 0]]), torch.tensor([[1, 7, 5, 0]])
    scores = model.hidden(torch.tensor([[3, 1, 7, model.mask]]))[0, 3] @ model.item_matrix().T
    torch.testing.assert_close(model.loss(items, targets)["loss"], -F.log_softmax(scores, dim=0)[4])


def test_asking_puts_a_mask_behind_the_history_and_padding_changes_nothing():
    model = small_model()
    expected = model.hidden(torch.tensor([[3, 1, model.mask]]))[:, 2]
    torch.testing.assert_close(model.last_hidden(torch.tensor([[3, 1]])), expected)
    torch.testing.assert_close(model.last_hidden(torch.tensor([[3, 1, 0, 0]])), expected)


def test_a_mask_sees_what_follows_it():
    model = small_model()
    a, b = (model.hidden(torch.tensor([[3, model.mask, last]]))[0, 1] for last in (5, 9))
    assert not torch.allclose(a, b)
