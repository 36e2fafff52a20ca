r"""Fisher information of rows: how sharply each row's observations depend on the latents.

For an observation with distribution :math:`p(y \mid \eta(\theta))` the information is :math:`J' J`, with J the
Jacobian of a vector of its parameters, each in units in which it has unit information (a *root*): for a normal
observation the mean in standard deviations, and :math:`\sqrt 2 \log \sigma`. It is positive semidefinite for every
model, needs first derivatives only, and is the Gauss-Newton matrix of the log-likelihood; it equals minus its
Hessian where the fit is exact, in expectation over the outcomes, and for linear models with a canonical link.

Source: Amari, "Natural gradient works efficiently in learning", Neural Computation 1998; Martens, "New insights and
perspectives on the natural gradient method", JMLR 2020 (its identity with Gauss-Newton).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.func import jacrev

from bayesdd.data.columns import Columns
from bayesdd.density.density import Density
from bayesdd.density.passes import Part
from bayesdd.inference.observed_rows import row_jacobian
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.engine import Engine
from bayesdd.task.program import Message, base

CELLS = 2**22  # numbers of one block of Jacobians: 32 MiB


class Information:
    """Jacobians of the roots of all rows of a density.

    Raises:
        ValueError: At the first call: a row's observation has a distribution without a root.
    """

    def __init__(self, density: Density) -> None:
        self.density = density
        self._engines = [Engine(_jacobian(part), part.task.backend) for part in density.parts]

    def blocks(self, draws: Tensor) -> Iterator[Tensor]:
        """Jacobians of blocks of rows, weights included: each ``(S, roots of the block, P)``."""
        count, dim = draws.shape
        for part, engine in zip(self.density.parts, self._engines, strict=True):
            rows = part.rows.size
            size = min(part.rows.most, max(1, CELLS // (count * dim)))
            for at, piece in zip(range(0, rows, size), part.rows.blocks(0, rows, size, pin=False), strict=True):
                columns, weight = part.split(piece, at)
                block = {name: column.to(self.density.device) for name, column in columns.items()}
                found = engine(draws[:, part.index].detach(), block)
                if weight is not None:
                    found = found * weight.to(found.device).sqrt()[:, None, None]
                placed = found.new_zeros(count, found.shape[1] * found.shape[2], dim)
                placed[:, :, part.index] = found.flatten(1, 2)
                yield placed


def _jacobian(part: Part) -> Callable[[Tensor, Columns], Tensor]:
    """One draw's Jacobians row by row, ``(rows, roots, P of the task)``."""

    def read(seen: list[Message], row: Columns) -> tuple[Tensor, Tensor]:
        roots = torch.cat([_scaled_root(msg).flatten() for msg in seen])
        return roots, roots

    by_row = row_jacobian(part.task, read, jacrev)
    return lambda flat, rows: by_row(flat, rows)[0]


def _scaled_root(msg: Message) -> Tensor:
    """The root of a site, times the square roots of its scale and masks."""
    root = _root(msg)
    for factor in (msg["scale"], msg["mask"], getattr(msg["fn"], "_mask", None)):
        if factor is not None:
            root = root * torch.as_tensor(factor).to(root).sqrt()
    return root


def _root(msg: Message) -> Tensor:
    """Parameters in units of their information here; the units are constants. Roots lie along the first axis."""
    fn: Any = base(msg["fn"])
    root: Tensor | None = None
    if isinstance(fn, dist.Normal):
        root = torch.stack(torch.broadcast_tensors(fn.loc / fn.scale.detach(), math.sqrt(2) * fn.scale.log()))
    elif isinstance(fn, dist.Bernoulli):
        share = fn.probs.detach()
        root = (fn.logits * (share * (1 - share)).sqrt())[None]
    elif isinstance(fn, dist.Poisson):
        root = (fn.rate.log() * fn.rate.detach().sqrt())[None]
    elif isinstance(fn, dist.Categorical):
        share = fn.probs.detach()
        centred = fn.logits - (share * fn.logits).sum(-1, keepdim=True)
        root = (centred * share.sqrt()).movedim(-1, 0)
    if root is not None:
        return root
    raise Refusal(
        f"gauss_newton knows Normal, Bernoulli, Poisson and Categorical observations, but site {msg['name']!r} has "
        f"{type(fn).__name__}: use bayesdd.inference.laplace, which takes exact Hessians."
    )
