r"""Half-variance over particles as a sum of squares: one residual a particle, or one a polynomial of degree three.

With particles of normalised weights p, mean and sums over them,

.. math:: \tfrac12 \mathrm{Var}[\Delta] = \sum_s r_s^2, \qquad r_s = \sqrt{p_s / 2}\, (\Delta_s - \bar\Delta).

Levenberg-Marquardt on these residuals ends far below L-BFGS on their sum: ds1, M = 20, 60 steps of 45 ms reach a
held-out 0.0013 nats, 1,500 iterations of 5.5 ms reach 0.0019.

*Third order.* In latents whitened by the full posterior's Laplace covariance let Q be an orthonormal basis of all
polynomials of degree one to three at the particles, without the constant: P + P (P + 1) / 2 + P (P + 1) (P + 2) / 6
of them, K3 in all. Q'r = 0 means that the log-ratio agrees to third order, and leaves a KL of order 1 / N^2 nats. Where
the rows have more unknowns than that, Gauss-Newton from real rows finds such rows; from rows that match second order it
stalls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bayesdd.distillation.problem import Problem
from bayesdd.numerics.gaussian import Gaussian
from bayesdd.numerics.levenberg_marquardt import least_squares
from bayesdd.target.particles import Particles

ROOM, AMPLE = 1.15, 1.3  # unknowns a polynomial from which third order is found, and from which it is found easily
MOST_POLYNOMIALS = 2000  # their products at the particles would take too long beyond
LEAST_PARTICLES, PER_POLYNOMIAL = 1000, 2.0  # particles that carry the polynomials: 4,000 took three times as long
LEAST_SHARE = 1.5  # of particles a polynomial; with fewer the basis is nearly all of them
GAUSS_NEWTON, LONGEST = 20, 2.0  # steps, and the most that one may move any unknown: farther, models overflow
LONGEST_LATER = 3.0  # the same for Levenberg-Marquardt, which begins close by
SLOW = 0.99  # steps of it in a row that leave more than this share are not worth their time
MOST_UNKNOWNS = 2500  # beyond, the normal equations of one step take seconds


def polynomials(dim: int) -> int:
    """Number K3 of polynomials of degree one to three in ``dim`` latents."""
    return dim + dim * (dim + 1) // 2 + dim * (dim + 1) * (dim + 2) // 6


def size_with_room(problem: Problem, dim: int, particles: int) -> int | None:
    """The number of rows that have room for third order, if rows like a problem's can have it."""
    count = polynomials(dim)
    if problem.equal_weights or count > MOST_POLYNOMIALS or LEAST_SHARE * count > particles:
        return None
    return math.ceil(AMPLE * count * problem.coordinates.size / problem.moving)


def has_room(problem: Problem, dim: int, particles: int) -> bool:
    """Whether the rows have unknowns enough for third order, and the particles suffice."""
    count = polynomials(dim)
    fits = ROOM * count <= problem.moving and LEAST_SHARE * count <= particles
    return fits and count <= MOST_POLYNOMIALS and not problem.equal_weights


def particles_needed(dim: int) -> int:
    """Number of particles that carry the polynomials."""
    return max(LEAST_PARTICLES, math.ceil(PER_POLYNOMIAL * polynomials(dim)))


def third_order(problem: Problem, gaussian: Gaussian, particles: Particles, enough: float) -> Tensor:
    """Rows whose log-ratio has no polynomial part of degree three or less at the particles, from the problem's start.

    Args:
        problem: At real rows.
        gaussian: Laplace fit of the full posterior, whose coordinates the polynomials are of.
        particles: Weighted draws near it.
        enough: Nats of its polynomial part at which the search ends.
    """
    ratios = LogRatios(problem, [particles])
    basis = _basis(gaussian.whitened(ratios.draws), ratios.weights[0])

    def jacobian(vector: Tensor) -> tuple[Tensor, Tensor] | None:
        found = ratios.jacobian(vector)
        return None if found is None else (basis.T @ found[0], basis.T @ found[1])

    vector, _ = least_squares(
        lambda v: basis.T @ ratios.residuals(v),
        problem.start,
        GAUSS_NEWTON,
        enough=enough,
        longest=LONGEST,
        jacobian=jacobian,
    )
    return vector


def levenberg_marquardt(
    problem: Problem, vector: Tensor, particle_sets: Sequence[Particles], steps: int, enough: float
) -> Tensor:
    """The mean half-variance over sets of particles, minimised from a vector."""
    ratios = LogRatios(problem, particle_sets)
    found, _ = least_squares(
        ratios.residuals,
        vector,
        steps,
        enough=enough,
        longest=LONGEST_LATER,
        slopes=False,
        jacobian=ratios.jacobian,
        slow=SLOW,
    )
    return found


class LogRatios:
    """Centred log-ratios at sets of particles, whose sum of squares is their mean half-variance, nats.

    Args:
        problem: Whose rows.
        particle_sets: Each counts alike, whatever its number of particles.
    """

    def __init__(self, problem: Problem, particle_sets: Sequence[Particles]) -> None:
        self.problem = problem
        kept = [torch.isfinite(some.log_likelihood) for some in particle_sets]
        pairs = list(zip(particle_sets, kept, strict=True))
        self.draws = torch.cat([some.draws[here] for some, here in pairs])
        self.full = torch.cat([some.log_likelihood[here] for some, here in pairs])
        self.sizes = [int(here.sum()) for here in kept]
        self.weights = [torch.softmax(some.log_weight[here], 0) for some, here in pairs]

    def residuals(self, vector: Tensor) -> Tensor:
        """Residuals ``(S,)`` at a vector."""
        with torch.no_grad():
            return self._centred(self.full - self.problem.log_likelihood(vector, self.draws))

    def jacobian(self, vector: Tensor) -> tuple[Tensor, Tensor] | None:
        """Residuals and their Jacobian ``(S, n)``; None where they are not finite."""
        value, slopes = self.problem.jacobian(vector, self.draws)
        residuals, jacobian = self._centred(self.full - value), self._centred(slopes.neg_())
        # A sum is finite only where all its terms are, and takes a fraction of the time of looking at each.
        return (residuals, jacobian) if bool(torch.isfinite(residuals.sum() + jacobian.sum())) else None

    def _centred(self, values: Tensor) -> Tensor:
        """Each set's values about their weighted mean, times the root of weight over twice the number of sets."""
        for weight, some in zip(self.weights, values.split(self.sizes), strict=True):
            root = (weight / (2 * len(self.sizes))).sqrt()
            some.sub_(weight @ some).mul_(root if some.dim() == 1 else root[:, None])
        return values


def _basis(white: Tensor, weight: Tensor) -> Tensor:
    """Orthonormal polynomials of degree one to three in whitened draws ``(S, P)``, without the constant: ``(S, K3)``.

    Orthogonal to the roots of the weights, in which residuals are given.
    """
    dim = white.shape[1]
    pairs = torch.tril_indices(dim, dim, device=white.device)
    square = white[:, pairs[0]] * white[:, pairs[1]]
    cube = [white[:, i : i + 1] * square[:, : (i + 1) * (i + 2) // 2] for i in range(dim)]
    terms = torch.cat([white, square, *cube], 1)
    basis: Tensor = torch.linalg.qr((terms - weight @ terms) * weight.sqrt()[:, None])[0]
    return basis
