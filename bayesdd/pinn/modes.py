r"""Modes of a problem's networks by Gauss-Newton steps, with every noise scale found by its evidence.

With :math:`r_g` the residuals of group g (measurements of a field, an equation, a condition) at its N_g rows, the mode
minimises

.. math:: \tfrac12 |\theta|^2 + \tfrac12 \sum_g |r_g(\theta)|^2 / \sigma_g^2

by Levenberg-Marquardt steps; every few of them each scale moves towards where the evidence is largest,

.. math:: \sigma_g^2 = \frac{|r_g|^2 + f_g^2}{N_g - \gamma_g + 1}, \qquad
          \gamma_g = \mathrm{tr}\, J_g A^{-1} J_g^\top / \sigma_g^2, \qquad A = I + \sum_g J_g^\top J_g / \sigma_g^2,

:math:`\gamma_g` the number of parameters that the group determines and :math:`f_g` a floor that counts as one more row.
Scales only fall: a scale that may grow grows where a random network meets its group badly, and the group is lost. What
is known to be zero, the equation and conditions, falls with one common scale, in units of what draws of the prior leave
of each: with scales of their own those that are met well would be met better and better, at the cost of the others. It
is followed at a third of that scale, so that a search goes on as long as the residuals follow.

Where the solution evolves in time from initial conditions, the equation is first asked for at early times alone, and
then step by step at later ones: otherwise searches end in solutions of the equation that left the initial values.

What a network of its size leaves of the equation is smooth: it biases the solution and the constants alike at all
points, and no posterior of the same network knows. So the networks that were kept are widened, without change of the
functions, and made linear (neural tangent features around them): one more Gauss-Newton solution for the field and the
constants that the residuals ask for, at a tenth of the scales that the narrow networks' residuals left; what is left
then gives them one common factor. Where the equation is linear it is solved at once. What a search says of constants
and unknown functions is bent by what its network leaves of the equation: there measurements inform them once more, by
themselves (:mod:`bayesdd.pinn.response`).

Wide networks are those of 16 units that were searched, widened by more (:mod:`bayesdd.pinn.wide`).

There is no learning rate. With R rows and P weights a step costs R P min(R, P): networks of 1e5 weights are solved for
in the rows' dimension.

Sources: MacKay, "Bayesian interpolation", Neural Computation 1992 (evidence); Marquardt, SIAM 1963; Wang, Sankaran &
Perdikaris, "Respecting causality is all you need for training physics-informed neural networks", CMAME 2024; Stetter,
"The defect correction principle and discretization methods", Numerische Mathematik 1978; Immer, Korzepa & Bauer,
"Improving predictions of Bayesian neural nets via local linearization", AISTATS 2021.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.networks.students import GaussNewton
from bayesdd.numerics.levenberg_marquardt import Quadratic, State, damped_steps
from bayesdd.pinn.residuals import Networks, linearised, residuals
from bayesdd.pinn.response import informed, unheld
from bayesdd.pinn.terms import Term
from bayesdd.pinn.wide import sharpened

MEASURED, ZERO = 0.1, 0.2  # first scales, of what draws of the prior leave of a group
GATE = 0.3  # nats that a step may still promise where the common scale falls: sharper, unknown constants hardly move
CONDITION = 0.3  # of the common scale: conditions have fewer rows than the equation
FLOOR = 1e-7  # least scale, of the same: below it float64 no longer resolves the smallest eigenvalues of A
SHARP = 0.3  # of the scale of evidence, at which residuals that are to be zero are followed
CORRECTED = 0.1  # of the scales of the narrow network, at which the wider one is: its errors are half of those at one
FASTEST = 3.0  # by which a scale falls at once: wider steps lose the mode that is followed
FEATURES = 5  # steps of the last layers alone: else a fourth derivative is first got rid of, with all that bends
EVERY = 5  # steps between updates of the scales
STAGES, RAMP = 16, 15.0  # of the march through time; later rows are exp(15 x) times wider a share x behind
SETTLED, CONVERGED, PATIENCE = 0.02, 0.1, 4  # relative change of scales and nats to gain, so often, that end a search
DAMPING, LEAST_DAMPING, MOST_DAMPING = 1.0, 1e-8, 1e12
DOWN, UP, FAILED = 0.33, 2.0, 4.0
WIDER = 32  # units a layer more where residuals are corrected: 48 instead of 16 leave a tenth of a beam's equation
CORRECTIONS = 3  # steps of it: one solves a linear equation, each further one squares what a nonlinear one has left
NARROW, SEARCHES = 16, 4  # units a layer of what is searched for wide networks, from twice that width on; how many
BYTES = 8


@dataclass(frozen=True, eq=False)
class Modes:
    """Where S searches ended.

    Attributes:
        theta: Shape ``(S, P)``.
        noise: Noise scales of the G groups by their evidence, in their own units, ``(S, G)``.
        unit: What draws of the prior leave of each group, ``(G,)``.
        steps: Steps that were taken.
    """

    theta: Tensor
    noise: Tensor
    unit: Tensor
    steps: int


def search(
    networks: Networks,
    terms: Sequence[Term],
    start: Tensor,
    known: Tensor,
    steps: int,
    say: Callable[[str], None] = lambda _: None,
) -> Modes:
    """Follows S searches from ``start`` ``(S, P)``.

    Args:
        networks: The networks.
        terms: All rows.
        start: Starting points.
        known: Known noise scales of the groups, NaN of those to be found, ``(G,)``.
        steps: Most steps.
        say: Where progress goes.
    """
    rows = torch.tensor([term.count for term in terms for _ in term.names])
    late = torch.cat([_late(term, start) for term in terms for _ in term.names])
    zero = torch.tensor([term.observed is None for term in terms for _ in term.names], device=start.device)
    share = torch.tensor([CONDITION if term.condition else 1.0 for term in terms for _ in term.names]).to(start)
    with torch.no_grad():
        left = [part.square().mean(1).sqrt().median() for part in residuals(networks, terms, start)]
    unit = share * torch.stack(left).clamp_min(1e-12)
    noise = torch.where(known.isnan(), torch.where(zero, ZERO, MEASURED) * unit, known).expand(len(start), -1)
    evident, theta, damping, calm, taken = noise, start, start.new_full((len(start),), DAMPING), 0, 0
    while taken < steps and calm < PATIENCE:
        horizon = (taken // EVERY + 1) / STAGES if bool(late.any()) else 1.0
        scale = _by_row(noise, rows) * (RAMP * (late - horizon).clamp_min(0)).exp()
        free = networks.linear(theta) if taken < FEATURES else torch.ones_like(theta[0])
        state, done = _followed(networks, terms, theta, scale, damping, free, min(EVERY, steps - taken))
        theta, damping, taken = state.point, state.damping, taken + done
        if horizon < 1:
            continue
        off, free = _left(state.values, scale, rows)
        evident = torch.where(known.isnan(), ((off + (FLOOR * unit) ** 2) / (free + 1)).sqrt(), known)
        common = ((off / unit**2 * zero).sum(1) / (free * zero).sum(1)).sqrt().clamp_min(FLOOR)
        wanted = torch.where(zero, SHARP * common[:, None] * unit, evident)
        ready = (state.left < GATE)[:, None] | ~zero
        moved = wanted.clamp(noise / FASTEST, torch.where(zero, noise, FASTEST * noise))
        moved = torch.where(ready, moved, noise)
        settled = ((moved / noise).log().abs() < SETTLED).all(1) & (state.left < CONVERGED)
        calm, noise = calm + 1 if bool(settled.all()) else 0, moved
        say(f"step {taken} of {steps}: noise {', '.join(f'{float(scale):.2g}' for scale in evident[0])}")
    return Modes(theta, evident, unit, taken)


def growth(hidden: Sequence[int]) -> int:
    """Units by which every layer of networks of these widths is wider than what is searched."""
    return min(hidden) - NARROW if min(hidden) > 2 * NARROW else 0


def corrected(
    networks: Networks, terms: Sequence[Term], found: Modes, known: Tensor, generator: torch.Generator, more: int = 0
) -> tuple[Networks, Tensor, Tensor]:
    """Wider networks, linear around those that were found; their steps and constants ``(S, P)``; scales ``(S, G)``.

    First where all residuals are least, then where measurements alone inform the unknowns
    (:mod:`bayesdd.pinn.response`); ``known`` are known scales of the groups, NaN of those to be found, ``(G,)``. Where
    so many ``more`` units a layer were asked for than were searched, scales are those of the wider networks, found
    with the unknowns as measurements inform them.
    """
    wider, constants = networks.widened(found.theta, more + WIDER, generator), len(networks.problem.names.unknown)
    theta, floor = found.theta, FLOOR * found.unit
    start = theta.new_zeros(len(theta), wider.dim)
    start[:, wider.dim - constants :] = theta[:, networks.dim - constants :]
    if more:
        theta, noise = informed(wider, terms, start, found.noise, known, floor)
        theta, noise = sharpened(wider, terms, theta, noise, known, floor)
        return wider, *informed(wider, terms, theta, noise, known, floor)
    rows = torch.tensor([term.count for term in terms for _ in term.names])
    zero = torch.tensor([term.observed is None for term in terms for _ in term.names], device=start.device)
    damping, theta, noise = start.new_full((len(start),), LEAST_DAMPING), start, found.noise
    if networks.dim > networks.fields.dim:
        state, _ = _followed(wider, terms, theta, _by_row(noise, rows), damping, torch.ones_like(theta[0]), CORRECTIONS)
        theta, noise = informed(wider, terms, state.point, noise, known, floor)
    sharp, free = _by_row(torch.where(zero, CORRECTED * noise, noise), rows), unheld(wider, terms, theta, noise)
    state, _ = _followed(wider, terms, theta, sharp, damping, free, CORRECTIONS)
    off, free = _left(state.values, sharp, rows)
    less = ((off / noise**2 * zero).sum(1) / (free * zero).sum(1)).sqrt().clamp_max(1.0)[:, None]
    noise = torch.where(zero, torch.maximum(less * noise, floor), noise)
    return wider, *informed(wider, terms, state.point, noise, known, floor)


def whitened(networks: Networks, terms: Sequence[Term], theta: Tensor, noise: Tensor) -> Tensor:
    """Jacobian of all rows over their scales, ``(S, R, P)``."""
    _, slopes = linearised(networks, terms, theta)
    return torch.cat([part / noise[:, at, None, None] for at, part in enumerate(slopes)], 1)


def memory(rows: int, searches: int, dim: int) -> int:
    """Bytes that a step takes: the Jacobian of all rows five times over, and the matrix that is solved."""
    return BYTES * searches * (5 * rows * dim + 3 * min(rows, dim) ** 2)


def _late(term: Term, like: Tensor) -> Tensor:
    return like.new_zeros(term.count) if term.late is None else term.late


def _by_row(noise: Tensor, rows: Tensor) -> Tensor:
    return noise.repeat_interleave(rows.to(noise.device), 1)


def _followed(
    networks: Networks, terms: Sequence[Term], theta: Tensor, scale: Tensor, damping: Tensor, free: Tensor, steps: int
) -> tuple[State, int]:
    """Levenberg-Marquardt steps of what is free, scales held: where they end, and how many were taken."""

    def function(at: Tensor) -> tuple[Tensor, ...]:
        values, slopes = linearised(networks, terms, at)
        white = torch.cat(values, 1) / scale
        cost = 0.5 * (white.square().sum(1) + at.square().sum(1))
        jacobian = free * torch.cat(slopes, 1) / scale[..., None]
        gradient = (white[:, None] @ jacobian)[:, 0] + free * at
        return torch.where(gradient.isfinite().all(1), cost, torch.inf), gradient, jacobian, white

    def quadratic(at: Tensor, values: Sequence[Tensor]) -> Quadratic:
        _, gradient, jacobian, white = values

        def step(damp: Tensor) -> Tensor:
            ridge = torch.ones_like(at) * (1 + damp)[:, None]
            return -GaussNewton(jacobian, torch.ones_like(white[0]), ridge).solve(gradient)

        def square(steps: Tensor) -> Tensor:
            return (jacobian @ steps[..., None])[..., 0].square().sum(1) + steps.square().sum(1)

        return Quadratic(gradient, step, square)

    def renewed(damp: Tensor, better: Tensor, share: Tensor) -> Tensor:
        taken = torch.where(share > 0.7, DOWN, torch.where(share > 0.3, 1.0, UP))
        return (damp * torch.where(better, taken, FAILED)).clamp(LEAST_DAMPING, MOST_DAMPING)

    with torch.no_grad():
        begun = damped_steps(function, quadratic, theta, damping, renewed)
        for done, state in enumerate(itertools.islice(begun, steps + 1)):  # noqa: B007 the last one counts
            pass
    return state, done


def _left(values: Sequence[Tensor], scale: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of squares of every group, and its rows less the parameters that it determines: ``(S, G)`` each."""
    _, _, jacobian, white = values
    model = GaussNewton(jacobian, torch.ones_like(white[0]), torch.ones_like(jacobian[:, 0]))
    free = 1 - model.variance(jacobian).clamp(0, 1)
    squares = (white * scale).square()
    parts = ([part.sum(1) for part in some.split(rows.tolist(), 1)] for some in (squares, free))
    left, unused = (torch.stack(some, 1) for some in parts)
    return left, unused
