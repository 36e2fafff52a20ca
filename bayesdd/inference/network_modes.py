r"""Modes of networks: several searches at once by Levenberg-Marquardt on the Gauss-Newton matrix.

.. math:: A = J'J + \Pi, \qquad \theta \leftarrow \theta + (A + \lambda\,\mathrm{diag} A)^{-1} \nabla \log p(\theta, D)

J as in :mod:`bayesdd.inference.information`, :math:`\Pi` the prior's precision. A is positive definite where the
Hessian of a network is not, and it shows how flat the many directions are that the rows leave to the prior.

Cost of a step: a gradient, a Jacobian of all rows and one factorisation, R P min(R, P) for R roots and P latents.

Source: Marquardt, "An algorithm for least-squares estimation of nonlinear parameters", SIAM 1963; Martens, "New
insights and perspectives on the natural gradient method", JMLR 2020.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.density.density import Density
from bayesdd.inference.curvature import Curvature
from bayesdd.inference.draws import Draws
from bayesdd.inference.information import Information
from bayesdd.inference.mode import prior_draws
from bayesdd.numerics.levenberg_marquardt import Quadratic, damped_steps
from bayesdd.numerics.refusal import Refusal

STEPS = 300
CONVERGED = 1e-8  # nats that the next step promises, for each unit of 1 + |value| / 1e6
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-10, 1e10


@dataclass(frozen=True, eq=False)
class Modes:
    """Where several searches ended, the best first.

    Attributes:
        points: Shape ``(S, P)``.
        log_joint: Log joint density there, nats, ``(S,)``.
        left: What the quadratic model promises at one more step, nats, ``(S,)``: small at a mode.
    """

    points: Tensor
    log_joint: Tensor
    left: Tensor


def around(density: Density, modes: Tensor, *, draws: int, seed: int) -> Draws:
    """Draws ``(chains, draws, P)`` of the Gauss-Newton Laplace approximations at modes ``(chains, P)``."""
    generator = torch.Generator().manual_seed(seed)
    curvature = Curvature(density, Information(density), modes, torch.ones_like(modes[0]))
    return Draws(modes[:, None] + curvature.draw(draws, generator))


def randomised(density: Density, count: int, seed: int, *, steps: int = STEPS) -> Modes:
    """Sample, then optimise: searches from prior draws, each with the prior centred at its own draw.

    Directions about which the rows say nothing thereby keep the spread of the prior. Modes have no spread: a network's
    mode lies far from where its posterior has its mass, and HMC needs long to get there. For linear models the ends are
    posterior draws, except that they lack the noise of the outcomes.

    Source: Oliver, He & Reynolds, "Conditioning permeability fields to pressure data", ECMOR 1996; Matthews, Hron,
    Turner & Ghahramani, "Sample-then-optimize posterior sampling for Bayesian linear models", 2017.
    """
    points = prior_draws(density, count, seed)
    at = points.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(density.log_prior(at).sum(), at)
    return climb(density, points, steps=steps, tilt=-slope)


def climb(
    density: Density,
    starts: Tensor,
    *,
    steps: int = STEPS,
    hold: Sequence[str] = (),
    tilt: Tensor | None = None,
) -> Modes:
    """Levenberg-Marquardt from several starts ``(S, P)`` at once; ends where it stops, converged or not.

    Args:
        density: The posterior.
        starts: Unconstrained starting points, ``(S, P)``.
        steps: Most steps.
        hold: Sites that stay where they start: noise scales of several terms, since a free scale grows where a random
            network fits its term badly, and that term is then lost.
        tilt: Linear terms ``tilt @ point``, nats, one for each start, ``(S, P)``: they count in the search and are left
            out of the log joint that is returned.

    Raises:
        ValueError: ``hold`` names a site that the density does not have.
    """
    moving, information = _moving(density, hold), Information(density)

    def function(points: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the log joint and its gradient."""
        value, gradient = density.log_joint_gradient(points)
        if tilt is not None:
            value, gradient = value + (tilt * points).sum(1), gradient + tilt
        good = torch.isfinite(value) & torch.isfinite(gradient).all(1)
        return torch.where(good, -value, torch.inf), -gradient

    def quadratic(points: Tensor, values: Sequence[Tensor]) -> Quadratic:
        curvature, gradient = Curvature(density, information, points, moving), values[1]

        def step(damping: Tensor) -> Tensor:
            whole = curvature.solve(-gradient * moving, damping)
            return torch.minimum(torch.maximum(whole, -curvature.longest), curvature.longest)

        return Quadratic(gradient, step, curvature.square)

    def renewed(damping: Tensor, better: Tensor, share: Tensor) -> Tensor:
        changed = torch.where(share > 0.7, damping / 4, torch.where(share > 0.2, damping, damping * 5))
        return changed.clamp(LEAST_DAMPING, 10 * MOST_DAMPING)

    begun = damped_steps(function, quadratic, starts, starts.new_full((len(starts),), FIRST_DAMPING), renewed)
    for state in itertools.islice(begun, steps + 1):
        point, value, left = state.point, -state.values[0], state.left
        small = 2 * left < CONVERGED * (1 + value.abs() / 1e6)
        if bool((small | (state.damping > MOST_DAMPING)).all()):
            break
    value = value if tilt is None else value - (tilt * point).sum(1)
    order = value.argsort(descending=True)
    return Modes(point[order], value[order], left[order])


def _moving(density: Density, names: Sequence[str]) -> Tensor:
    """One where a coordinate may move, zero where it is held, ``(P,)``."""
    free = torch.ones(density.dim, dtype=torch.float64, device=density.device)
    for name in names:
        if name not in density.starts:
            raise Refusal(f"climb(hold=...) names site {name!r}, but the sites are {sorted(density.starts)}.")
        start, _, width = density.starts[name]
        free[start : start + width] = 0.0
    return free
