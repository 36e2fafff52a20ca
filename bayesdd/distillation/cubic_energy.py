r"""The log-ratio's cubic part in closed form, for rows that the model sees through one linear predictor each.

In latents z whitened by the full posterior's Laplace covariance, a log-ratio with derivatives g, H and T at the mode
has under N(0, I) half the variance

.. math:: \tfrac12 |g + \tfrac12 \mathrm{tr}\,T|^2 + \tfrac14 |H|^2 + \tfrac1{12} |T|^2 .

All derivatives of a row of a generalised linear predictor lie along one direction u, so that those of M rows take M
numbers each, and :math:`|T|^2` is made of third powers of the directions' products: no particles, whose noise rows with
more unknowns than particles would be fitted to.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bayesdd.density.density import derivatives
from bayesdd.density.third import third_derivatives
from bayesdd.distillation.problem import Problem
from bayesdd.numerics.optimise import lbfgs
from bayesdd.target.second_order import SecondOrder
from bayesdd.target.target import Target

MOST_LATENTS, MOST_ROWS = 64, 512  # third derivatives of all rows, and all pairs of synthetic rows, are held at once
ITERATIONS = 1500  # of L-BFGS
STEP = 0.1  # posterior sds between the values that a row's derivatives are differences of
LOOKED_AT, ALONG = 8, 1e-6  # rows whose Hessians are looked at; share of them that may lie across the direction


class Along(NamedTuple):
    """Derivatives of each row's log-likelihood along its direction, nats, and the whitened direction.

    Attributes:
        unit: Directions, ``(M, P)``.
        first: ``(M,)``, and likewise
        second: the second and
        third: third derivatives.
    """

    unit: Tensor
    first: Tensor
    second: Tensor
    third: Tensor


def closest_cubic(target: Target, second: SecondOrder, problem: Problem, vector: Tensor) -> Tensor | None:
    """Rows and weights with the least energy up to third order, from a vector; None where it cannot be had.

    Args:
        target: The full posterior.
        second: Its derivatives to second order.
        problem: Of these rows.
        vector: Where to begin.
    """
    dim = len(second.gradient)
    possible = dim <= MOST_LATENTS and problem.coordinates.size <= MOST_ROWS and not len(target.nuisance)
    if not possible or problem.student.backend == "loop" or not _along_one_direction(second, problem, vector):
        return None
    gaussian, index = second.gaussian, target.index
    axes = torch.zeros_like(gaussian.factor).index_copy(0, index, gaussian.factor)
    third = third_derivatives(target.joint, target.joint_order(gaussian.mean[None])[0], axes)
    third = torch.einsum("abc,ai,bj,ck->ijk", third, axes, axes, axes)
    if not bool(torch.isfinite(third).all()):
        return None
    gradient = gaussian.factor.T @ second.gradient
    hessian = gaussian.factor.T @ second.hessian @ gaussian.factor

    def energy(at: Tensor) -> Tensor:
        found, weight = _along(second, problem, at)
        bent = weight * found.third
        lines = gradient - (weight * found.first) @ found.unit
        squares = hessian - (found.unit.T * (weight * found.second)) @ found.unit
        tilt = lines + 0.5 * (torch.einsum("abb->a", third) - bent @ found.unit)
        met = torch.einsum("abc,ma,mb,mc->m", third, found.unit, found.unit, found.unit)
        cubes = (third**2).sum() - 2 * bent @ met + bent @ (found.unit @ found.unit.T) ** 3 @ bent
        return 0.5 * (tilt**2).sum() + 0.25 * (squares**2).sum() + cubes / 12

    return lbfgs(energy, vector, ITERATIONS)[0]


def _along(second: SecondOrder, problem: Problem, vector: Tensor) -> tuple[Along, Tensor]:
    """Derivatives of the rows at a vector and their weights ``(M,)``; differentiable in the vector."""
    rows, weight = problem.hard(vector)
    count, mean, factor = len(weight), second.gaussian.mean, second.gaussian.factor
    copies = mean.detach().expand(count, -1).clone().requires_grad_(True)
    own = problem.student.log_likelihood(rows, copies).diagonal()
    (slope,) = torch.autograd.grad(own.sum(), copies, create_graph=True)
    white = slope @ factor
    unit = white / white.norm(dim=1, keepdim=True).clamp_min(1e-300)
    places = STEP * torch.arange(-3, 4, dtype=torch.float64, device=mean.device)
    draws = (mean + places[:, None, None] * (unit @ factor.T)).reshape(-1, len(mean))
    value = problem.student.log_likelihood(rows, draws).reshape(len(places), count, count)
    value = value.diagonal(dim1=1, dim2=2)  # (7, M): each row along its own direction
    # Central differences of sixth, sixth and fourth order.
    first = value.new_tensor([-1.0, 9.0, -45.0, 0.0, 45.0, -9.0, 1.0]) / (60 * STEP)
    curve = value.new_tensor([2.0, -27.0, 270.0, -490.0, 270.0, -27.0, 2.0]) / (180 * STEP**2)
    bend = value.new_tensor([1.0, -8.0, 13.0, 0.0, -13.0, 8.0, -1.0]) / (8 * STEP**3)
    return Along(unit, first @ value, curve @ value, bend @ value), weight


def _along_one_direction(second: SecondOrder, problem: Problem, vector: Tensor) -> bool:
    """Whether some rows' Hessians are of rank one, along their gradients: a generalised linear predictor."""
    with torch.enable_grad():
        found, _ = _along(second, problem, vector)
    rows, weight = problem.hard(vector)
    factor, mean = second.gaussian.factor, second.gaussian.mean
    directions = torch.arange(len(mean), device=mean.device)
    for at in range(min(LOOKED_AT, len(weight))):
        one = {name: column[at : at + 1].detach() for name, column in rows.items()}
        hessian = derivatives(problem.student, one, torch.ones_like(weight[:1]), mean, directions)[2]
        white, unit = factor.T @ hessian @ factor, found.unit[at].detach()
        across = white - found.second[at].detach() * torch.outer(unit, unit)
        if not float(across.norm()) <= ALONG * float(white.norm()):
            return False
    return True
