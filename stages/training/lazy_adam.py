"""Adam for item tables of which a batch touches few rows: with sampled negatives, `loss.negatives`."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class LazyAdam(torch.optim.Adam):
    """Adam that updates only the touched rows of some tables: those in which the gradient is not zero.

    A row's moments decay when it is touched, not at every step, so that the result differs from Adam's; the bias
    correction counts all steps, as in torch.optim.SparseAdam. A table's gradient may be sparse (nn.Embedding's
    `sparse`): then a step costs as much as the batch has rows, whatever the size of the table.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], tables: Iterable[nn.Parameter], *, lr: float, fused: bool):
        """groups: see torch.optim.Adam. tables: those of the parameters that are updated by touched rows."""
        super().__init__(groups, lr=lr, fused=fused)
        self._tables = set(tables)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nothing here has a closure
        """One update of all parameters from their gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter in self._tables and parameter.grad is not None:
                    self._update_touched_rows(parameter, group)
                    parameter.grad = None  # Adam then passes over it
        super().step(closure)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state; a table's number of steps stays in main memory, where `step` reads it."""
        super().load_state_dict(state_dict)
        for table in self._tables & self.state.keys():
            self.state[table]["step"] = self.state[table]["step"].cpu()

    def _update_touched_rows(self, table: nn.Parameter, group: dict[str, Any]) -> None:
        state, (first, second) = self.state[table], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        state["step"] += 1
        step, tensors = float(state["step"]), (table.data, state["exp_avg"], state["exp_avg_sq"])
        assert table.grad is not None
        if table.grad.is_sparse:
            sparse = table.grad.coalesce()
            touched = (sparse.values() != 0).any(dim=1)
            rows, gradient = sparse.indices()[0][touched], sparse.values()[touched]
            old = tuple(tensor[rows] for tensor in tensors)
        else:
            gradient, old = table.grad, tensors
        values, average, square = old
        average = average.lerp(gradient, 1 - first)
        square = square.lerp(gradient.square(), 1 - second)
        scale = (square / (1 - second**step)).sqrt_().add_(group["eps"])
        values = values.addcdiv(average, scale, value=-group["lr"] / (1 - first**step))
        for tensor, new in zip(tensors, (values, average, square), strict=True):
            if table.grad.is_sparse:
                tensor[rows] = new
            else:
                touched = (gradient != 0).any(dim=1, keepdim=True)  # a mask: to find the rows, a GPU would have to wait
                tensor.copy_(torch.where(touched, new, tensor))


def sparse_tables(modules: Iterable[nn.Module], *, sparse: bool) -> list[nn.Parameter]:
    """The trained weights of every nn.Embedding among `modules`, whose gradients from now on are sparse, or dense."""
    tables = [module for module in modules if isinstance(module, nn.Embedding) and module.weight.requires_grad]
    for table in tables:
        table.sparse = sparse
    return [table.get_parameter("weight") for table in tables]
