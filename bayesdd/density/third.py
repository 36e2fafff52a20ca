"""Third derivatives of the log-likelihood of all rows at a point, and the cubic that they make."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from bayesdd.density.density import Density

STEP = 0.05  # posterior sds between Hessians: their fifth differences are then below 1e-5 of the third derivative


def third_derivatives(density: Density, point: Tensor, axes: Tensor) -> Tensor:
    """Third derivatives of the log-likelihood at a point ``(P,)``, nats, ``(P, P, P)``.

    Differences, of fourth order, of exact Hessians along the axes: one pass over the rows, wherever they live.

    Args:
        density: Rows.
        point: Where.
        axes: The posterior's axes in their lengths, as columns ``(P, P)``, such as the factor of a Laplace fit.

    Returns:
        Not finite where a Hessian near the point is not.
    """
    dim = len(point)
    steps = torch.cat([size * STEP * axes.T for size in (1, -1, 2, -2)])
    curved = density.likelihood_derivatives(point + steps)[2].reshape(4, dim, dim, dim)
    along = (8 * (curved[0] - curved[1]) - (curved[2] - curved[3])) / (12 * STEP)
    # In the axes' own units, where all entries are of one size; differences depend on the order of differentiation.
    third = torch.einsum("jab,ak,bl->jkl", along, axes, axes)
    even = torch.stack([third.permute(order) for order in itertools.permutations(range(3))]).mean(0)
    back = torch.linalg.inv(axes)
    found: Tensor = torch.einsum("jkl,ja,kb,lc->abc", even, back, back, back)
    return found


def to_third_order(gradient: Tensor, hessian: Tensor, third: Tensor, steps: Tensor) -> Tensor:
    """What a cubic changes over steps ``(S, P)`` from its point, nats, ``(S,)``."""
    square = 0.5 * (steps @ hessian * steps).sum(1)
    bent = torch.einsum("abc,sa->sbc", third, steps)
    return steps @ gradient + square + torch.einsum("sbc,sb,sc->s", bent, steps, steps) / 6
