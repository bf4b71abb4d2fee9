import pytest
import torch

from stages.bench import profile
from stages.bench.profile import KINDS, PRODUCTS, REST, kind_of, measure, profiled, table
from stages.params import load_params


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("aten::addmm", PRODUCTS),
        ("aten::add_", "element by element"),
        ("aten::native_layer_norm_backward", "sums and norms"),
        ("aten::_index_put_impl_", "lookups"),
        ("Optimizer.step#Adam.step", "optimizer"),
        ("aten::view", REST),
    ],
)
def test_operations_are_sorted_by_kind(operation, kind):
    assert kind_of(operation) == kind


def test_the_shares_of_a_call_add_up_to_its_time():
    left, right = torch.randn(300, 300), torch.randn(300, 300)
    part = profiled(lambda: [left @ right for _ in range(20)], rate=1e9)
    assert sum(part["share"].values()) == pytest.approx(1)
    assert part["share"][PRODUCTS] > 0.5
    assert part["matmul_share"] * part["seconds"] == pytest.approx(20 * 2 * 300**3 / 1e9)
    assert part["matmul_share"] == pytest.approx(part["matmul_share_of_products"] * part["share"][PRODUCTS])


def test_every_part_is_measured(after, monkeypatch):
    after("embed")
    monkeypatch.setattr(profile, "BATCHES", 2)
    result = measure(load_params(), large_items=30)
    assert set(result["parts"]) == {"pretrain", "posttrain", "ranking", "training, large catalogue"}
    for part in result["parts"].values():
        assert part["share"][PRODUCTS] > 0
        assert part["share"]["lookups"] > 0
    lines = table(result["parts"]).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [*KINDS, REST, "rate of the products"]
