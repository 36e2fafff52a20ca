"""Hessians of the log-likelihood at one point: the model's own operations run once, not once a direction.

Reverse mode over reverse mode, batched over the directions and recorded (``bayesdd.engine``). Double backward over P
copies of the point, which any backend can do, evaluates the model P times: logistic regression, a million rows, P = 10,
0.9 s so and 0.25 s recorded.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad_and_value, jacrev

from bayesdd.engine import UNRECORDED, Engine, Single
from bayesdd.pyro_model import Columns

Expansion = tuple[Tensor, Tensor, Tensor]  # value, gradient (P,) and Hessian (P, P) at one point


class HessianEngine:
    """Value, gradient and Hessian of one scalar function of one draw; None where they cannot be batched.

    Args:
        single: The function ``(flat (P,), columns)``.
        backend: The task's; only ``graph`` is batched.
    """

    def __init__(self, single: Single, backend: str) -> None:
        def joined(flat: Tensor, columns: Columns) -> Tensor:
            def slope(point: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
                gradient, value = grad_and_value(single)(point, columns)
                return gradient, (gradient, value)

            hessian, (gradient, value) = jacrev(slope, has_aux=True)(flat)
            return torch.cat([hessian.flatten(), gradient, value[None]])

        self._engine = Engine(joined, "graph", UNRECORDED) if backend == "graph" else None

    def __call__(self, point: Tensor, columns: Columns) -> Expansion | None:
        """Value, gradient ``(P,)`` and Hessian ``(P, P)`` at a point ``(P,)``, detached."""
        if self._engine is None:
            return None
        try:
            with torch.no_grad():
                found = self._engine(point[None], columns)[0]
        except Exception:  # a refusal of the transforms, of whatever type: the caller's own way from now on
            self._engine = None
            return None
        dim = len(point)
        return found[-1], found[dim * dim : -1], found[: dim * dim].reshape(dim, dim)
