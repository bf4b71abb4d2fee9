import pytest
import torch
from torch import nn

from stages.training.lazy_adam import LazyAdam, sparse_tables

BATCHES = [[1, 2, 2], [2, 5], [1, 2, 3, 4, 5, 0], [3]]  # rows of the table that each step reads


def new_table(*, sparse: bool) -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(6, 4, sparse=sparse)


def train(table: nn.Embedding, optimizer: torch.optim.Optimizer, batches: list[list[int]] = BATCHES) -> torch.Tensor:
    for rows in batches:
        optimizer.zero_grad()
        (table(torch.tensor(rows)) - 1).square().sum().backward()
        optimizer.step()
    return table.weight.detach()


def lazy(table: nn.Embedding) -> LazyAdam:
    return LazyAdam([{"params": [table.weight]}], [table.weight], lr=0.1, fused=True)


def by_a_plain_loop() -> torch.Tensor:
    """The table after the same steps, each row by itself."""
    weight = new_table(sparse=False).weight.detach().double()
    average, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for step, rows in enumerate(BATCHES, 1):
        for row in set(rows):
            gradient = rows.count(row) * 2 * (weight[row] - 1)
            average[row] = 0.9 * average[row] + 0.1 * gradient
            square[row] = 0.999 * square[row] + 0.001 * gradient**2
            spread = (square[row] / (1 - 0.999**step)).sqrt() + 1e-8
            weight[row] -= 0.1 * average[row] / (1 - 0.9**step) / spread
    return weight.float()


@pytest.mark.parametrize("sparse", [True, False])
def test_touched_rows_are_updated_as_by_a_plain_loop(sparse):
    table = new_table(sparse=sparse)
    torch.testing.assert_close(train(table, lazy(table)), by_a_plain_loop())


def test_where_every_step_touches_all_rows_it_is_adam():
    table, same = new_table(sparse=True), new_table(sparse=False)
    batches = [[0, 1, 2, 3, 4, 5]] * 3
    expected = train(same, torch.optim.Adam(same.parameters(), lr=0.1), batches)
    torch.testing.assert_close(train(table, lazy(table), batches), expected)


def test_untouched_rows_and_their_moments_stay_to_the_bit():
    table = new_table(sparse=True)
    optimizer = lazy(table)
    train(table, optimizer)
    weight, moments = table.weight.detach().clone(), optimizer.state[table.weight]["exp_avg"].clone()
    train(table, optimizer, [[4]])
    others = [0, 1, 2, 3, 5]
    assert torch.equal(table.weight[others], weight[others])
    assert torch.equal(optimizer.state[table.weight]["exp_avg"][others], moments[others])
    assert not torch.equal(table.weight[4], weight[4])


@pytest.mark.parametrize("sparse", [True, False])
def test_a_row_that_was_read_but_has_no_gradient_stays(sparse):
    table = new_table(sparse=sparse)
    optimizer = lazy(table)
    train(table, optimizer)
    before = table.weight.detach().clone()
    optimizer.zero_grad()
    (table(torch.tensor([1, 2])) * torch.tensor([[0.0], [1.0]])).sum().backward()
    optimizer.step()
    assert (table.weight != before).any(dim=1).tolist() == [False, False, True, False, False, False]


def test_parameters_that_are_no_such_table_are_updated_by_adam():
    layer, same = nn.Linear(2, 2), nn.Linear(2, 2)
    same.load_state_dict(layer.state_dict())
    for part, optimizer in (
        (layer, LazyAdam([{"params": list(layer.parameters())}], [], lr=0.1, fused=True)),
        (same, torch.optim.Adam(same.parameters(), lr=0.1, fused=True)),
    ):
        part(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert torch.equal(layer.weight, same.weight)


def test_training_continues_from_a_saved_state_to_the_same_bits():
    table, again = new_table(sparse=True), new_table(sparse=True)
    whole = train(table, lazy(table), BATCHES)
    first = lazy(again)
    train(again, first, BATCHES[:2])
    second = lazy(again)
    second.load_state_dict(first.state_dict())
    assert torch.equal(train(again, second, BATCHES[2:]), whole)


def test_only_trained_tables_get_sparse_gradients():
    module = nn.ModuleDict({"trained": nn.Embedding(3, 2), "frozen": nn.Embedding(3, 2), "other": nn.Linear(2, 2)})
    module["frozen"].requires_grad_(False)
    assert [id(table) for table in sparse_tables(module.modules(), sparse=True)] == [id(module["trained"].weight)]
    module["trained"](torch.tensor([1])).sum().backward()
    assert module["trained"].weight.grad.is_sparse
    sparse_tables(module.modules(), sparse=False)
    module["trained"].weight.grad = None
    module["trained"](torch.tensor([1])).sum().backward()
    assert not module["trained"].weight.grad.is_sparse
