r"""Hamiltonian Monte Carlo with many vectorised chains.

All chains move together: one batched gradient serves every chain's leapfrog step. Coordinates are whitened by the
Laplace covariance (or, where there is none, by the chains' own pooled covariance), so that a trajectory of length about
:math:`\pi/2` gives nearly independent draws; its length is jittered to avoid resonances. The step size is adapted
by dual averaging on the harmonic mean of the chains' acceptance probabilities.

Sources: Hoffman & Gelman, "The No-U-Turn sampler", JMLR 2014 (dual averaging); Hoffman, Radul & Sountsov, "An adaptive
MCMC scheme for setting trajectory lengths in HMC", AISTATS 2021 (cross-chain adaptation).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayesdd.density.density import Density
from bayesdd.inference.draws import Draws, collected
from bayesdd.inference.dual_averaging import DualAveraging
from bayesdd.inference.mode import fits, scattered
from bayesdd.numerics.gaussian import Gaussian

TARGET_ACCEPT, LONGEST_STEP = 0.8, 1.5
MAX_STEPS = 64
SHRINK = 1 / 8  # of the step, in every third warm-up transition: on a steep slope a chain may reject every full step
DIVERGENCE = 1000.0  # energy error, nats


def hmc(
    density: Density,
    *,
    draws: int,
    chains: int,
    seed: int,
    warmup: int | None = None,
    gaussian: Gaussian | None = None,
    start: Tensor | None = None,
    whiten: bool = True,
    thin: int = 1,
    max_steps: int = MAX_STEPS,
) -> Draws:
    """Draws from the posterior by HMC.

    Args:
        density: The posterior.
        draws: Kept draws a chain.
        chains: Number of chains, all advanced together.
        seed: Seed.
        warmup: Warm-up iterations; default 150 with a Laplace fit, 800 without.
        gaussian: A Laplace fit to whiten by and to start from, if one is at hand.
        start: Starting points ``(chains, P)``, default from the Laplace fit or scattered.
        whiten: False leaves coordinates in the units they have and looks for no Laplace fit: for networks, whose
            weights are in units of their prior, since a dense scaling of thousands of weights costs more than the
            gradient. Start networks at modes (``network_modes.climb``); where their rows are few and normally observed,
            :func:`bayesdd.inference.constrained` takes steps a hundred times longer.
        thin: Transitions for every kept draw.
        max_steps: Most leapfrog steps of a transition.

    Returns:
        Draws with ``diverging``, ``acceptance_rate``, ``energy``, ``lp``, ``n_steps`` and ``step_size``.
    """
    generator = torch.Generator().manual_seed(seed)
    if gaussian is None and start is None and whiten:
        modes = fits(density, seed=seed)
        if modes:
            gaussian, start = modes[0], _spread(modes, chains, generator)
    if warmup is None:
        warmup = 150 if gaussian is not None else 800
    state = _State(density, generator, gaussian, chains, seed, start, whiten=whiten, max_steps=max_steps)
    # The whitening is renewed after growing windows; then the step size has the rest to settle.
    shares = (0.08, 0.2, 0.4, 0.75) if gaussian is None else (0.65,)
    boundaries = {int(share * warmup) for share in shares}
    seen: list[Tensor] = []
    for iteration in range(warmup):
        short = iteration % 3 == 2
        state.step(shrink=SHRINK if short else 1.0)
        if not short:
            state.steps.update(state.accepted)
        seen.append(state.position)
        if iteration in boundaries:
            state.whiten(torch.cat(seen))
            seen = []
    state.steps.end()
    return collected(state.step, lambda: state.position, draws, thin)


def _spread(modes: list[Gaussian], chains: int, generator: torch.Generator) -> Tensor:
    """Starting points in proportion to the modes' masses (largest remainders), since chains seldom change modes."""
    share = torch.softmax(torch.tensor([mode.log_mass for mode in modes], dtype=torch.float64), 0) * chains
    counts = share.floor().long()
    rest = torch.argsort(share.floor() - share, stable=True)[: chains - int(counts.sum())]
    counts[rest] += 1
    return torch.cat([mode.draw(int(count), generator) for mode, count in zip(modes, counts, strict=True)])


class _State:
    """Positions of all chains in whitened coordinates, and the adaptation."""

    def __init__(
        self,
        density: Density,
        generator: torch.Generator,
        gaussian: Gaussian | None,
        chains: int,
        seed: int,
        start: Tensor | None,
        *,
        whiten: bool,
        max_steps: int,
    ) -> None:
        self.density, self.generator = density, generator
        if gaussian is not None:
            self.factor = gaussian.factor
        else:
            ones = torch.ones(density.dim, dtype=torch.float64, device=density.device)
            self.factor = ones.diag() if whiten else ones
        if start is None:
            start = scattered(density, chains, seed) if gaussian is None else gaussian.draw(chains, generator)
        self.position, self.max_steps = start, max_steps
        self.log_joint, self.gradient = density.log_joint_gradient(start)
        bad = ~(torch.isfinite(self.log_joint) & torch.isfinite(self.gradient).all(1))
        if bool(bad.any()) and gaussian is not None:
            self.position = torch.where(bad[:, None], gaussian.mean, start)
            self.log_joint, self.gradient = density.log_joint_gradient(self.position)
        self._restart(0.5 * density.dim**-0.25)

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

    def whiten(self, seen: Tensor) -> None:
        """Renews the whitening from the chains' own draws, shrunk to their variances where draws are few."""
        count, dim = seen.shape
        if self.factor.dim() == 1:
            return
        covariance = torch.cov(seen.T).reshape(dim, dim)
        shrink = dim / (dim + count / 4)
        spread = covariance.diagonal().clamp_min(1e-20)
        old = self.factor @ self.factor.T
        rest = spread.diag() if dim > count else (old + spread.diag()) / 2
        covariance = (1 - shrink) * covariance + shrink * rest
        self.factor = torch.linalg.cholesky(covariance)
        self._restart(self.steps.size)


def _moved(points: Tensor, along: Tensor, factor: Tensor, size: float) -> Tensor:
    """``points + size * along @ factor``; a vector stands for a diagonal factor."""
    if factor.dim() == 1:
        return torch.addcmul(points, along, factor, value=size)
    return torch.addmm(points, along, factor, alpha=size)
