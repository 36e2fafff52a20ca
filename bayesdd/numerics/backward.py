"""Vector-Jacobian products without the second that ``torch.autograd.grad`` takes to import sympy on its first one.

It compares the shapes of outputs and cotangents by symbolic algebra. Here they are the caller's care; the products are
computed by the same engine, digit for digit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._vmap_internals import _vmap


def products(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], along: Sequence[Tensor], *, create_graph: bool = False
) -> tuple[Tensor | None, ...]:
    """Derivatives of ``sum(outputs * along)`` in the inputs, None where there is no path; the graph is kept.

    Args:
        outputs: Tensors that require a gradient.
        inputs: What they are differentiated in.
        along: Cotangents, each of its output's shape and dtype.
        create_graph: Whether the products can be differentiated in turn.
    """
    engine = torch.autograd.Variable._execution_engine
    found = engine.run_backward(
        tuple(outputs), tuple(along), True, create_graph, tuple(inputs), allow_unreachable=True, accumulate_grad=False
    )
    return tuple(found)


def jacobian(output: Tensor, variable: Tensor, along: Tensor) -> Tensor:
    """Rows ``along`` ``(B, K)`` times the Jacobian of ``(K,)`` in ``(n,)``: ``(B, n)``; the graph is kept."""
    found: Tensor = _vmap(lambda one: products([output], [variable], [one])[0], 0, 0)(along)
    return found
