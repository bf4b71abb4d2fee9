import torch
import torch.nn.functional as F

from stages.models.baselines.gru4rec import Gru4Rec, Gru4RecConfig


def small_model() -> Gru4Rec:
    torch.manual_seed(0)
    return Gru4Rec(Gru4RecConfig(items=20, dim=8, dropout=0.3)).eval()


def test_states_are_those_of_the_gate_equations_written_out():
    model, items = small_model(), [3, 1, 7]
    w_input, w_state = model.gru.weight_ih_l0, model.gru.weight_hh_l0
    state = torch.zeros(8)
    for item in items:
        x = model.item_embedding.weight[item]
        from_input, from_state = (w_input @ x).chunk(3), (w_state @ state).chunk(3)
        reset = torch.sigmoid(from_input[0] + from_state[0])
        update = torch.sigmoid(from_input[1] + from_state[1])
        new = torch.tanh(from_input[2] + reset * from_state[2])
        state = (1 - update) * new + update * state
    torch.testing.assert_close(model.last_hidden(torch.tensor([[*items, 0]]))[0], model.output(state))


def test_the_loss_is_cross_entropy_over_all_items():
    model = small_model()
    loss = model.loss(torch.tensor([[3, 1]]), torch.tensor([[0, 7]]))["loss"]
    scores = model.item_matrix() @ model.hidden(torch.tensor([[3, 1]]))[0, 1]
    torch.testing.assert_close(loss, -F.log_softmax(scores, dim=0)[6])
