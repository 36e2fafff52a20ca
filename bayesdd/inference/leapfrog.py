"""Leapfrog transitions of many Hamiltonian Monte Carlo chains at once, in whitened coordinates.

Source: Neal, "MCMC using Hamiltonian dynamics", Handbook of Markov Chain Monte Carlo 2011.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from bayesdd.inference.dual_averaging import DualAveraging
from bayesdd.numerics.gaussian import Gaussian, log_mixture, shares

TARGET_ACCEPT, LONGEST_STEP = 0.8, 1.5
MAX_STEPS = 64
DIVERGENCE = 1000.0  # energy error, nats


class Differentiable(Protocol):
    """What transitions need of a density."""

    @property
    def dim(self) -> int:
        """Length P of a point."""

    @property
    def device(self) -> torch.device:
        """Where points live."""

    def log_joint_gradient(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Value ``(S,)`` and gradient ``(S, P)`` at points ``(S, P)``."""


class Chains:
    """Chains that move together: their positions, the whitening and the step size.

    Args:
        density: The posterior.
        generator: Source of all random numbers.
        gaussian: A fit to whiten by, if there is one; its mean takes the place of starts without a finite density.
        start: Starting points ``(chains, P)``.
        whiten: False: coordinates in the units they have.
        max_steps: Most leapfrog steps of a transition.
        size: First step size.

    Attributes:
        position: Shape ``(chains, P)``.
        log_joint: Log density there, nats, ``(chains,)``.
        gradient: Its gradient, ``(chains, P)``.
        steps: The step size under adaptation.
        accepted: Mean acceptance probability of the latest transition.
    """

    def __init__(
        self,
        density: Differentiable,
        generator: torch.Generator,
        gaussian: Gaussian | None,
        start: Tensor,
        *,
        whiten: bool,
        max_steps: int,
        size: float | None = None,
    ) -> None:
        self.density, self.generator = density, generator
        if gaussian is not None:
            self.factor = gaussian.factor
        else:
            ones = torch.ones(density.dim, dtype=torch.float64, device=density.device)
            self.factor = ones.diag() if whiten else ones
        self.position, self.max_steps = start, max_steps
        self.log_joint, self.gradient = density.log_joint_gradient(start)
        bad = ~(torch.isfinite(self.log_joint) & torch.isfinite(self.gradient).all(1))
        if bool(bad.any()) and gaussian is not None:
            self.position = torch.where(bad[:, None], gaussian.mean, start)
            self.log_joint, self.gradient = density.log_joint_gradient(self.position)
        self._restart(0.5 * density.dim**-0.25 if size is None else size)

    def _restart(self, step_size: float) -> None:
        self.steps = DualAveraging(
            step_size, target=TARGET_ACCEPT, longest=LONGEST_STEP, drawn_to=10 * step_size, shrinkage=0.05
        )

    def _noise(self, *shape: int, uniform: bool = False) -> Tensor:
        make = torch.rand if uniform else torch.randn
        return make(*shape, generator=self.generator, dtype=torch.float64).to(self.density.device)

    def step(self, shrink: float = 1.0) -> dict[str, Tensor]:
        """One HMC transition of every chain; ``shrink`` shortens its steps, and so the trajectory."""
        chains, dim = self.position.shape
        length = math.pi * (0.3 + 0.4 * float(torch.rand((), generator=self.generator)))
        steps = min(self.max_steps, max(1, round(length / self.steps.size)))
        size = shrink * self.steps.size
        momentum = self._noise(chains, dim)
        energy = 0.5 * (momentum**2).sum(1) - self.log_joint
        position, gradient, log_joint = self.position, self.gradient, self.log_joint
        # Half a kick, then drifts and kicks, the last one half: one call each, since calls are what a step costs.
        momentum = _moved(momentum, gradient, self.factor, 0.5 * size)
        for left in reversed(range(steps)):
            position = _moved(position, momentum, self.factor.t(), size)
            log_joint, gradient = self.density.log_joint_gradient(position)
            momentum = _moved(momentum, gradient, self.factor, size if left else 0.5 * size)
        error = 0.5 * (momentum**2).sum(1) - log_joint - energy
        error = torch.where(torch.isfinite(error) & torch.isfinite(gradient).all(1), error, torch.inf)
        accept = torch.exp(-error).clamp_max(1.0)
        taken = self._noise(chains, uniform=True) < accept
        self.position = torch.where(taken[:, None], position, self.position)
        self.gradient = torch.where(taken[:, None], gradient, self.gradient)
        self.log_joint = torch.where(taken, log_joint, self.log_joint)
        self.accepted = float(accept.mean())
        return {
            "diverging": error > DIVERGENCE,
            "acceptance_rate": accept,
            "energy": energy,
            "lp": self.log_joint,
            "n_steps": torch.full_like(taken, steps, dtype=torch.int64),
            "step_size": torch.full_like(accept, size),
        }

    def jump(self, modes: Sequence[Gaussian]) -> None:
        """A Metropolis-Hastings step of every chain with proposals from the modes, whatever the chain's own place."""
        count = len(self.position)
        picked = torch.multinomial(shares(modes), count, replacement=True, generator=self.generator)
        drawn = torch.stack([mode.draw_student(count, self.generator) for mode in modes])
        proposed = drawn[picked, torch.arange(count)]
        log_joint, gradient = self.density.log_joint_gradient(proposed)
        there, here = log_mixture(modes, proposed), log_mixture(modes, self.position)
        log_ratio = log_joint - there - self.log_joint + here
        good = torch.isfinite(log_joint) & torch.isfinite(gradient).all(1)
        taken = good & (self._noise(count, uniform=True).log() < log_ratio)
        self.position = torch.where(taken[:, None], proposed, self.position)
        self.gradient = torch.where(taken[:, None], gradient, self.gradient)
        self.log_joint = torch.where(taken, log_joint, self.log_joint)

    def whiten(self, seen: Tensor) -> None:
        """Renews the whitening from the chains' own draws ``(draws, P)``, shrunk where they are few.

        Their covariance is estimated in coordinates as they are whitened now, and shrunk towards no correlation there:
        whatever is almost collinear in the model's own coordinates (a slope on years, and its constant) stays resolved.
        """
        count, dim = seen.shape
        if self.factor.dim() == 1:
            return
        white = torch.linalg.solve_triangular(self.factor, (seen - seen.mean(0)).T, upper=False)
        covariance = torch.cov(white).reshape(dim, dim)
        shrink = dim / (dim + count / 4)
        spread = covariance.diagonal().clamp_min(1e-20)
        rest = (spread if dim > count else (1 + spread) / 2).diag()
        self.factor = self.factor @ torch.linalg.cholesky((1 - shrink) * covariance + shrink * rest)
        self._restart(self.steps.size)


def _moved(points: Tensor, along: Tensor, factor: Tensor, size: float) -> Tensor:
    """``points + size * along @ factor``; a vector stands for a diagonal factor."""
    if factor.dim() == 1:
        return torch.addcmul(points, along, factor, value=size)
    return torch.addmm(points, along, factor, alpha=size)
