r"""Nearly independent draws of a density that is nearly normal: modes, their normals, and importance weights.

From the ends of expectation maximisation Newton's method climbs to the modes; the proposal is the mixture of the
Student-t's of their Laplace fits, drawn in pairs on either side of a mode and scaled to the fit's own covariance, which
leaves means and deviations only the error of the weights. Draws are then resampled by their weights, batch by batch, so
that R-hat of the batches says whether few draws carry all weight. Pareto k-hat and the effective sample size say
whether the proposal serves. Exact in the limit of many draws.

Sources: Geweke, "Bayesian inference in econometric models using Monte Carlo integration", Econometrica 1989
(proposals at a mode, pairs); Kitagawa, "Monte Carlo filter and smoother", JCGS 1996 (systematic resampling).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bayesdd.dbn.inference.marginal import Marginal
from bayesdd.numerics.gaussian import Gaussian, log_mixture, shares
from bayesdd.numerics.pareto import khat

FIRST_STEP, STEP = 1e-4, 1e-3  # of a difference of gradients: of a parameter, and of its deviation once that is known
NEWTON = 30  # most steps
NEAR = 1.0  # nats that a step may still gain, below which the Hessian is not taken anew
AT_MODE = 1e-5  # nats that a step may still gain at a mode
LENGTHS = (1.0, 0.5, 0.25, 0.0625, 0.004)  # of a step, tried together
FLAT = 1e-4  # least curvature that a step assumes, in units of the parameters' own
MASS = 12.0  # nats of log mass below the heaviest mode from which on a mode does not matter
PAIRS_A_DIMENSION = 10  # pairs a dimension from which on their covariance may be made that of the fit


class Weighted(NamedTuple):
    """Equally weighted draws, batch after batch.

    Attributes:
        points: ``(batches, draws, P)``.
        ess: Effective number of independent draws.
        khat: Pareto k-hat of the weights.
    """

    points: Tensor
    ess: float
    khat: float


def modes(marginal: Marginal, starts: Tensor, wider: float = 1.0) -> list[Gaussian]:
    """Laplace fits of the modes that Newton's method reaches from starts ``(K, P)``; none where there is no maximum.

    Starts are modes of part of the rows, whose posterior's covariance is ``wider`` times that of all rows.
    """
    found: list[Gaussian] = []
    climbed: list[Tensor] = []
    for start in starts[marginal.log_joint(starts).argsort(descending=True)]:
        if any(float(fit.distance(start, one)) < wider * len(start) for fit, one in zip(found, climbed, strict=True)):
            continue  # on the same hill
        mode = _climbed(marginal, start)
        if mode is not None and all(float(one.distance(mode.mean)) > 0.01 for one in found):
            found.append(mode)
            climbed.append(start)
    most = max((mode.log_mass for mode in found), default=0.0)
    return [mode for mode in found if mode.log_mass > most - MASS]


def weighted(
    marginal: Marginal,
    parts: Sequence[Gaussian],
    *,
    proposals: int,
    draws: int,
    batches: int,
    generator: torch.Generator,
) -> Weighted:
    """Draws by importance resampling of proposals from Laplace fits; both are rounded up to batches of equal length."""
    each = 2 * math.ceil(proposals / batches / 2)
    points = _pairs(parts, batches * each // 2, generator)
    log_weight = marginal.log_joint(points) - log_mixture(parts, points)
    log_weight = torch.where(log_weight.isnan(), -math.inf, log_weight)
    share = torch.softmax(log_weight, 0)
    resampled = [
        some[_systematic(torch.softmax(logs, 0), math.ceil(draws / batches), generator)]
        for some, logs in zip(points.split(each), log_weight.split(each), strict=True)
    ]
    return Weighted(torch.stack(resampled), float(1 / share.square().sum()), khat(log_weight)[0])


def _climbed(marginal: Marginal, point: Tensor) -> Gaussian | None:
    """The Laplace fit of the maximum where Newton's method ends, if it ends at one."""
    hessian, fresh = _hessian(marginal, point, FIRST_STEP * point.abs().clamp_min(0.1)), True
    for _ in range(NEWTON):
        unit = hessian.diagonal().abs().clamp_min(1e-300).sqrt()
        curvature, axes = torch.linalg.eigh(-hessian / unit / unit[:, None])
        height, slope = (part[0] for part in marginal.log_joint_gradient(point[None]))
        step = (axes @ ((axes.mT @ (slope / unit)) / curvature.abs().clamp_min(FLAT))) / unit
        gain = 0.5 * float(slope @ step)
        if gain < AT_MODE and fresh:
            if float(curvature.min()) <= 0:
                return None
            root = torch.linalg.cholesky(-hessian)
            return Gaussian(point, torch.linalg.cholesky(torch.cholesky_inverse(root)), float(height))
        if gain >= AT_MODE:
            tried = point + torch.tensor(LENGTHS, dtype=point.dtype)[:, None] * step
            heights = marginal.log_joint(tried).nan_to_num(nan=-math.inf)
            if float(heights.max()) <= float(height) and fresh:
                return None
            point = tried[heights.argmax()] if float(heights.max()) > float(height) else point
        fresh = gain > NEAR or gain < AT_MODE or float(heights.max()) <= float(height)
        if fresh:
            hessian = _hessian(marginal, point, STEP / unit)
    return None


def _hessian(marginal: Marginal, point: Tensor, steps: Tensor) -> Tensor:
    """Second derivatives ``(P, P)`` by differences of the gradient."""
    slopes = marginal.log_joint_gradient(torch.cat([point[None], point + steps.diag()]))[1]
    found = (slopes[1:] - slopes[0]) / steps[:, None]
    return 0.5 * (found + found.mT)


def _pairs(parts: Sequence[Gaussian], count: int, generator: torch.Generator) -> Tensor:
    """Pairs on either side of a mode from the mixture of Student-t's ``(2 count, P)``; the mates stand together."""
    counts = (shares(parts) * count).floor().long()
    counts[int(counts.argmax())] += count - int(counts.sum())
    found = []
    for part, pairs in zip(parts, counts.tolist(), strict=True):
        dim = len(part.mean)
        noise = torch.randn(pairs, dim, generator=generator, dtype=torch.float64)
        if pairs >= PAIRS_A_DIMENSION * dim:
            root = torch.linalg.cholesky(noise.mT @ noise / pairs)
            noise = torch.linalg.solve_triangular(root, noise.mT, upper=False).mT
        away = part.student(noise, generator)
        found.append(torch.stack([part.mean + away, part.mean - away], 1))
    return torch.cat(found)[torch.randperm(count, generator=generator)].flatten(0, 1)


def _systematic(share: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Places of shares ``(n,)``, ``count`` in all, each by its share up to one, in random order."""
    ticks = (torch.arange(count) + torch.rand(1, generator=generator, dtype=share.dtype)) / count
    places = torch.searchsorted(share.cumsum(0), ticks).clamp_max(len(share) - 1)
    return places[torch.randperm(count, generator=generator)]
