r"""Hamiltonian Monte Carlo on the manifold where latents and noise explain the rows exactly.

What is sampled: :mod:`bayesdd.inference.manifold`. A step is a kick by the force of the potential's second part, the
exact flow of :math:`|q|^2/2 + |p|^2/2`, which is a rotation with multipliers that end it on the manifold,

.. math:: q' = q \cos h + (p + J(q)' \lambda) \sin h, \qquad c(q') = 0,

found by Broyden's method from the factor of J J' at q, and a second kick. If the reversed step does not lead back to q,
the whole trajectory is refused. The step size is limited by how fast J turns, not by how small the noise is.

Cost: a step costs about six times one of :func:`bayesdd.inference.hmc`, compiled half of that; for a network of 2,701
weights on 18 rows of noise 0.01 it may be a hundred times longer. What bounds its length there are the energy and the
way back alike: 0.015 radians, whatever the noise turns at, and without the force trajectories err by more than a nat.
Where plain chains move well, compiled ones, such as BlackJAX's HMC, make eight times as many effective draws a second
(``studies.bpinn_samplers``, the nonlinear problem); where they hardly move they do not agree in the same time.

Sources: Au, Graham & Thiery, "Manifold lifting", JRSS B 2023; Zappa, Holmes-Cerfon & Goodman, "Monte Carlo on
manifolds: sampling densities and integrating functions", CPAM 2018; Lelievre, Rousset & Stoltz, "Hybrid Monte Carlo
methods for sampling probability measures on submanifolds", Numerische Mathematik 2019 (the check of the way back);
Broyden, "A class of methods for solving nonlinear simultaneous equations", Mathematics of Computation 1965.
"""

from __future__ import annotations

import math
from dataclasses import fields

import torch
from torch import Tensor

from bayesdd.density.density import Density
from bayesdd.inference.draws import Draws, collected
from bayesdd.inference.dual_averaging import DualAveraging
from bayesdd.inference.manifold import Lifted, Place
from bayesdd.inference.network_modes import randomised

TARGET_ACCEPT = 0.75
MAX_STEPS = 50
FIRST_STEP, LONGEST_STEP = 0.02, 1.0
ITERATIONS = 20  # of Broyden's method; most steps that converge need ten
CLOSE = 1e-5  # constraints at the end of a step, in units of the rows' noise: errors of 1e-5 nats
# The reversed step is solved until it is clear where it leads: other solutions are about a step's length away.
CLOSE_BACK, BACK = 1e-2, 1e-2
DIVERGENCE = 1000.0  # energy error, nats


def constrained(
    density: Density,
    *,
    draws: int,
    chains: int,
    seed: int,
    warmup: int = 150,
    start: Tensor | None = None,
    thin: int = 1,
    length: float = 0.5 * math.pi,
    max_steps: int = MAX_STEPS,
    compiled: bool = False,
) -> Draws:
    """Draws from the posterior of normally observed rows, few of them, by constrained HMC.

    Args:
        density: The posterior; every row of it is one number with a normal distribution.
        draws: Kept draws a chain.
        chains: Number of chains, all advanced together.
        seed: Seed.
        warmup: Warm-up transitions, in which the step size is adapted.
        start: Unconstrained starting points ``(chains, P)``; default: the ends of ``network_modes.randomised``. Starts
            far from the data, where the noise is many standard deviations, take long.
        thin: Transitions for every kept draw.
        length: Mean length of a trajectory, in radians: after pi/2 a normal coordinate is independent of its start.
        max_steps: Most steps of a trajectory, on average.
        compiled: Whether to turn the rows' functions into machine code by ``torch.compile``, which needs a C++ compiler
            and up to a minute: steps of small networks then take a third of the time, and draws are the same.

    Returns:
        Draws with ``diverging``, ``acceptance_rate``, ``energy``, ``n_steps``, ``step_size`` and
        ``stuck``: trajectories refused because a step did not converge, or could not be reversed.

    Raises:
        ValueError: Rows that are not normally observed; ``compiled`` without a compiler.
    """
    generator = torch.Generator().manual_seed(seed)
    if start is None:
        start = randomised(density, chains, seed).points
    state = _State(Lifted(density, start, compiled=compiled), start, generator, length, max_steps)
    for _ in range(warmup):
        state.step()
        state.steps.update(state.accepted)
    state.steps.end()
    return collected(state.step, lambda: state.lifted.points(state.place.q), draws, thin)


class _State:
    """Where all chains are, and the adaptation."""

    def __init__(
        self, lifted: Lifted, start: Tensor, generator: torch.Generator, length: float, max_steps: int
    ) -> None:
        self.lifted, self.generator, self.length, self.max_steps = lifted, generator, length, max_steps
        self.place = lifted.place(lifted.lift(start))
        self.steps = DualAveraging(
            FIRST_STEP, target=TARGET_ACCEPT, longest=LONGEST_STEP, drawn_to=FIRST_STEP, shrinkage=0.1
        )

    def step(self) -> dict[str, Tensor]:
        """One transition of every chain."""
        before, size = self.place, self.steps.size
        jitter = 0.5 + float(torch.rand((), generator=self.generator))  # against resonances, of the noise too
        steps = max(1, round(jitter * min(self.max_steps, self.length / size)))
        noise = torch.randn(before.q.shape, generator=self.generator, dtype=torch.float64)
        momentum = before.tangent(noise.to(before.q.device))
        energy = _energy(self.lifted, before, momentum)
        place, alive = before, torch.isfinite(energy)
        for _ in range(steps):
            place, momentum, arrived = leap(self.lifted, place, momentum, size, alive)
            alive = alive & arrived
            if not bool(alive.any()):
                break
        error = torch.nan_to_num(_energy(self.lifted, place, momentum) - energy, nan=torch.inf)
        accept = torch.where(alive, torch.exp(-error).clamp_max(1.0), 0.0)
        uniform = torch.rand(len(accept), generator=self.generator, dtype=torch.float64).to(accept.device)
        self.place = _chosen(uniform < accept, place, before)
        self.accepted = float(accept.mean())
        return {
            "diverging": alive & (error > DIVERGENCE),
            "acceptance_rate": accept,
            "energy": energy,
            "n_steps": torch.full_like(alive, steps, dtype=torch.int64),
            "step_size": torch.full_like(accept, size),
            "stuck": ~alive,
        }


def leap(lifted: Lifted, place: Place, momentum: Tensor, size: float, alive: Tensor) -> tuple[Place, Tensor, Tensor]:
    """One step of h = ``size`` radians of all chains; those that are not alive, ``(S,)``, stay where they are.

    Returns:
        Where they then are, their momenta, and which of them arrived by a step that can be reversed.
    """
    turned = lifted.rate * size
    cos, sin = turned.cos(), turned.sin() / lifted.rate
    kicked = place.tangent(momentum - 0.5 * size * place.force)
    target, arrived = projected(lifted, place, cos * place.q + sin * kicked, sin / size, alive, CLOSE)
    target = torch.where(arrived[:, None], target, place.q)
    there = lifted.place(target)
    arrived = arrived & torch.isfinite(there.extra) & torch.isfinite(there.force).all(1)
    # The momentum at the end of the rotation by h that leads from q to q': the multipliers are part of it.
    moved = there.tangent((cos * target - place.q) / sin)
    back, returned = projected(lifted, there, cos * target - sin * moved, sin / size, arrived, CLOSE_BACK)
    keep = arrived & returned & ((back - place.q).norm(dim=1) < BACK)
    moved = there.tangent(moved - 0.5 * size * there.force)
    return there, torch.where(keep[:, None], moved, momentum), keep


def projected(
    lifted: Lifted, place: Place, q: Tensor, share: Tensor, alive: Tensor, close: float
) -> tuple[Tensor, Tensor]:
    """Moves points along ``share * J'`` of a place until the constraints hold: where to, and who arrived.

    Broyden's updates of the inverse of J(q) J' are kept as vectors, so that an iteration costs one evaluation of c.
    """
    value = lifted.constraints(q)
    left = place.solve(value)
    changes: list[Tensor] = []
    steps: list[Tensor] = []
    for _ in range(ITERATIONS):
        miss = value.abs().amax(1)
        alive = alive & torch.isfinite(miss)
        moving = (alive & (miss > close))[:, None]
        if not bool(moving.any()):
            break
        step = torch.where(moving, -left, 0.0)
        q = q + share * place.normal(step)
        value = lifted.constraints(q)
        left = place.solve(value)
        for change, before in zip(changes, steps, strict=True):
            left = left + change * (before * left).sum(1, keepdim=True)
        along = (step * (step + left)).sum(1, keepdim=True)
        changes.append(torch.nan_to_num(-left / along, 0.0, 0.0, 0.0))
        steps.append(step)
        left = left + changes[-1] * (step * left).sum(1, keepdim=True)
    return q, alive & (value.abs().amax(1) <= close)


def _energy(lifted: Lifted, place: Place, momentum: Tensor) -> Tensor:
    return 0.5 * ((lifted.rate * place.q) ** 2).sum(1) + 0.5 * (momentum**2).sum(1) + place.extra


def _chosen(taken: Tensor, new: Place, old: Place) -> Place:
    def chosen(name: str) -> Tensor:
        one, other = getattr(new, name), getattr(old, name)
        return torch.where(taken.reshape(-1, *[1] * (one.dim() - 1)), one, other)

    return Place(*(chosen(field.name) for field in fields(Place)))
