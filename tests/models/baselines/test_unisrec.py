import pytest
import torch
import torch.nn.functional as F

from stages.models.baselines.unisrec import UniSRec, UniSRecConfig, WhiteningMixture

TEXT = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))


def small_model(use_id: bool = False) -> UniSRec:
    torch.manual_seed(0)
    return UniSRec(
        UniSRecConfig(items=20, dim=8, dropout=0.5, layers=2, heads=2, max_length=5, width=6, use_id=use_id), TEXT
    ).eval()


def filled_mixture() -> WhiteningMixture:
    torch.manual_seed(0)
    mixture = WhiteningMixture(width=6, dim=8, experts=3, rate=0.2)
    for parameter in mixture.parameters():
        torch.nn.init.normal_(parameter)
    return mixture


def test_the_adaptor_is_the_gated_sum_of_whitening_experts():
    mixture = filled_mixture().eval()
    for x, y in zip(TEXT, mixture(TEXT), strict=True):
        gates = torch.softmax(x @ mixture.gate, dim=0)
        experts = [(x - mixture.shift[g]) @ mixture.whiten[g] for g in range(3)]
        torch.testing.assert_close(y, sum(g * e for g, e in zip(gates, experts, strict=True)), atol=1e-4, rtol=1e-4)


def test_gates_sum_to_one_and_are_noisy_only_in_training():
    mixture = filled_mixture()
    assert not torch.equal(mixture.gates(TEXT), mixture.gates(TEXT))
    torch.testing.assert_close(mixture.gates(TEXT).sum(dim=1), torch.ones(20))
    mixture.eval()
    assert torch.equal(mixture.gates(TEXT), mixture.gates(TEXT))


@pytest.mark.parametrize("use_id", [False, True])
def test_the_loss_is_cross_entropy_of_cosines_over_the_temperature(use_id):
    model = small_model(use_id)
    state = model.hidden(torch.tensor([[3, 1]]))[0, 1]
    vectors = model.adaptor(TEXT) + (model.item_embedding.weight[1:] if use_id else 0)
    scores = F.cosine_similarity(state[None], vectors) / 0.07
    loss = model.loss(torch.tensor([[3, 1]]), torch.tensor([[0, 7]]))["loss"]
    torch.testing.assert_close(loss, -F.log_softmax(scores, dim=0)[6])


def test_the_text_vectors_are_not_trained():
    model = small_model()
    assert "text" not in dict(model.named_parameters())
    assert torch.equal(model.text[1:], TEXT)
