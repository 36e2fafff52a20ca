"""Batching a model over draws: one function of one draw becomes one function of S draws.

Three backends, tried in this order and chosen once per task:

* ``graph``: ``torch.func.vmap``, recorded by ``make_fx`` per shape. Pyro's handlers then run only while recording
  (500 chains with gradient: 35 ms before, 1 ms after). Recording raises on ``.item()``, data-dependent shapes and the like.
* ``vmap``: the same without recording.
* ``loop``: one run a draw, for models that vmap refuses (OrderedLogistic, Multinomial).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx

from bayesdd.pyro_model import Columns, running

Single = Callable[[Tensor, Columns], Tensor]
Batched = Callable[[Tensor, Columns], Tensor]
GRAPHS_KEPT = 64
UNKNOWN_BYTES = 512.0


class Engine:
    """One function ``single(flat (P,), columns) -> tensor`` evaluated at many draws ``(S, P)``."""

    def __init__(self, single: Single, backend: str) -> None:
        self.single, self.backend = single, backend
        self._graphs: dict[Any, Batched] = {}

    def __call__(self, draws: Tensor, columns: Columns) -> Tensor:
        """Stacks ``single`` over draws: shape ``(S, ...)``; differentiable in draws and in floating columns."""
        # Inside torch.func transforms make_fx would record the wrapped tensors as constants: derivatives silently zero.
        if self.backend == "graph" and torch._C._functorch.peek_interpreter_stack() is None:
            return self._graph(draws, columns)(draws, columns)
        with running():
            if self.backend != "loop":
                return vmap(self.single, in_dims=(0, None))(draws, columns)
            return torch.stack([self.single(draw, columns) for draw in draws])

    def _graph(self, draws: Tensor, columns: Columns) -> Batched:
        key = (draws.shape, draws.device, *((name, c.shape, c.dtype) for name, c in columns.items()))
        if key not in self._graphs:
            if len(self._graphs) >= GRAPHS_KEPT:
                self._graphs.pop(next(iter(self._graphs)))
            with running():
                plain = {name: column.detach() for name, column in columns.items()}
                recorded = make_fx(vmap(self.single, in_dims=(0, None)))(draws.detach(), plain)
            recorded.graph.eliminate_dead_code()
            recorded.recompile()
            self._graphs[key] = recorded
        return self._graphs[key]

    def bytes_per_cell(self, draws: Tensor, columns: Columns) -> float:
        """Bytes of all intermediate tensors, divided by draws x rows; a guess where the graph cannot be recorded."""
        if self.backend != "graph":
            return UNKNOWN_BYTES
        graph: Any = self._graph(draws, columns)
        sizes = [node.meta["val"] for node in graph.graph.nodes if isinstance(node.meta.get("val"), Tensor)]
        rows = len(next(iter(columns.values())))
        return max(8.0, sum(value.numel() * value.element_size() for value in sizes) / (len(draws) * rows))


def choose_backend(single: Single, draws: Tensor, columns: Columns) -> tuple[str, str]:
    """The fastest backend that agrees with running the model draw by draw, in value and gradient.

    Args:
        single: The function of one draw.
        draws: A few unconstrained draws, shape ``(S, P)``.
        columns: A few rows.

    Returns:
        The backend and, if it is not ``graph``, the reason why the faster ones were not taken.
    """
    reference = _value_and_gradient(Engine(single, "loop"), draws, columns)
    reason = ""
    for backend in ("graph", "vmap"):
        try:
            got = _value_and_gradient(Engine(single, backend), draws, columns)
        except Exception as error:  # noqa: BLE001 - any refusal of vmap or make_fx, of whatever type, means: next backend
            reason = str(error).strip().split("\n")[0]
            continue
        if all(torch.allclose(a, b, rtol=1e-8, atol=1e-8, equal_nan=True) for a, b in zip(got, reference, strict=True)):
            return backend, reason
        reason = f"{backend} disagrees with running the model draw by draw"
    return "loop", reason


def _value_and_gradient(engine: Engine, draws: Tensor, columns: Columns) -> tuple[Tensor, Tensor]:
    draws = draws.detach().clone().requires_grad_(True)
    value = engine(draws, columns)
    if not value.requires_grad:
        return value, torch.zeros_like(draws)
    (gradient,) = torch.autograd.grad(value.sum(), draws, allow_unused=True)
    return value.detach(), torch.zeros_like(draws) if gradient is None else gradient
