"""What distillation needs of the full posterior, computed once per target: a Gaussian, fixed particles, the floor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.density import derivatives
from bayesdd.inference.hmc import hmc
from bayesdd.matching import SecondOrder
from bayesdd.pareto import khat
from bayesdd.target import Target, moment_matched

PARTICLES, HELD_OUT = 4000, 1000
ROWS_FOR_RANK = 8
KHAT_USABLE, SHARE_USABLE = 0.7, 0.1
NEGLIGIBLE = 1e-3  # nats: a direction that data inform by less than this counts as not informed


@dataclass(frozen=True, eq=False)
class Cloud:
    """Particles with the full log-likelihood at them.

    Attributes:
        draws: Unconstrained, in the student's coordinates, ``(S, P)``.
        log_likelihood: l_D, nats, ``(S,)``.
        log_weight: Normalised log weights, ``(S,)``.
    """

    draws: Tensor
    log_likelihood: Tensor
    log_weight: Tensor


@dataclass(frozen=True, eq=False)
class Reference:
    """The full posterior as distillation sees it."""

    target: Target
    second_order: SecondOrder
    cloud: Cloud
    held_out: Cloud
    row_rank: int
    information: Tensor

    def floor(self, size: int) -> float:
        """Lower bound on the KL of any M rows, nats: directions that their Hessians cannot reach stay at the prior."""
        unmatched = len(self.information) - size * self.row_rank
        return float(self.information[: max(0, unmatched)].sum())

    def smallest_size(self, tolerance: float) -> int:
        """The smallest M whose floor is below a tolerance."""
        size = 1
        while self.floor(size) > tolerance:
            size += 1
        return size


def build(target: Target, seed: int) -> Reference:
    """Laplace fit of the full posterior and importance-weighted particles from it; HMC where there is no fit.

    Raises:
        ValueError: Neither a Laplace fit nor HMC on the full data gives finite draws.
    """
    generator = torch.Generator().manual_seed(seed)
    gaussian = target.gaussian()
    if gaussian is None:
        draws = hmc(target.joint, draws=100, chains=32, seed=seed)
        flat = draws.flat[:, target.index]
        if not bool(torch.isfinite(flat).all()) or float(flat.std(0).min()) == 0:
            raise ValueError(
                "the full posterior has no Laplace fit and HMC on the full data did not move: "
                "check the priors and scales of the model."
            )
        gaussian = moment_matched(flat)
        order = torch.randperm(len(flat), generator=generator)
        held_out, particles = flat[order[:HELD_OUT]], flat[order[HELD_OUT:]]
        clouds = [_uniform(target, particles), _uniform(target, held_out)]
    else:
        clouds = [
            weighted_cloud(target, gaussian.draw(count // target.thrift, generator), gaussian.log_prob)
            for count in (PARTICLES, HELD_OUT)
        ]
    second = SecondOrder.of(gaussian, target)
    return Reference(target, second, clouds[0], clouds[1], _row_rank(target, gaussian.mean), _information(second))


def _uniform(target: Target, draws: Tensor) -> Cloud:
    even = torch.full(
        (len(draws),), -float(torch.tensor(float(len(draws))).log()), dtype=draws.dtype, device=draws.device
    )
    return Cloud(draws, target.log_likelihood(draws), even)


def weighted_cloud(target: Target, draws: Tensor, log_prob: object) -> Cloud:
    """Particles of an approximation, importance-weighted to the full posterior where that is possible at all."""
    cloud = _uniform(target, draws)
    log_weight = cloud.log_likelihood + target.prior.log_prior(draws) - log_prob(draws)  # type: ignore[operator]
    log_weight = torch.where(torch.isfinite(log_weight), log_weight, -torch.inf)
    log_weight = log_weight - log_weight.logsumexp(0)
    share = float(1 / (log_weight.exp() ** 2).sum()) / len(draws)
    if khat(log_weight)[0] < KHAT_USABLE and share > SHARE_USABLE:
        return Cloud(cloud.draws, cloud.log_likelihood, log_weight)
    # Too far from Gaussian to weight: particles still say where to look, and the on-policy rounds correct.
    finite = torch.isfinite(cloud.log_likelihood)
    return Cloud(draws[finite], cloud.log_likelihood[finite], cloud.log_weight[finite])


def _row_rank(target: Target, mean: Tensor) -> int:
    """Rank of one row's Hessian: the largest over a few rows of the student."""
    student = target.student
    directions = torch.arange(len(mean), device=mean.device)
    rank = 1
    for row in range(0, student.size, max(1, student.size // ROWS_FOR_RANK)):
        one = {name: column[row : row + 1].to(mean.device) for name, column in student.data.items()}
        hessian = derivatives(student, one, None, mean, directions)[2]
        if bool(torch.isfinite(hessian).all()):
            rank = max(rank, int(torch.linalg.matrix_rank(hessian, rtol=1e-8)))
    return rank


def _information(second: SecondOrder) -> Tensor:
    """(lambda - 1 - log lambda) / 2 of the prior-whitened posterior precision, ascending, nats."""
    precision = torch.cholesky_inverse(second.gaussian.factor)
    values, vectors = torch.linalg.eigh(-second.prior_hessian)
    # A prior may be flat or convex somewhere; a millionth of the posterior's precision stands in there.
    floor = 1e-6 * float(precision.diagonal().max())
    root = vectors / values.clamp_min(floor).sqrt()
    ratio = torch.linalg.eigvalsh(root.T @ precision @ root).clamp_min(1.0)
    information = 0.5 * (ratio - 1 - ratio.log())
    return torch.where(information < NEGLIGIBLE, 0.0, information).sort().values
