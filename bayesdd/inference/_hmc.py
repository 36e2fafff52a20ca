r"""Hamiltonian Monte Carlo with many vectorised chains.

All chains move together: one batched gradient serves every chain's leapfrog step. Coordinates are whitened by the
Laplace covariance (or, where there is none, by the chains' own pooled covariance), so that a trajectory of length about
:math:`\pi/2` gives nearly independent draws; its length is jittered to avoid resonances. The step size is adapted
by dual averaging on the harmonic mean of the chains' acceptance probabilities. Where several modes were found, every
transition is followed by a proposal from the mixture of their Student-t's, which takes chains from one to another.

Sources: Hoffman & Gelman, "The No-U-Turn sampler", JMLR 2014 (dual averaging); Hoffman, Radul & Sountsov, "An adaptive
MCMC scheme for setting trajectory lengths in HMC", AISTATS 2021 (cross-chain adaptation).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayesdd.density.density import Density
from bayesdd.inference.draws import Draws, collected
from bayesdd.inference.leapfrog import MAX_STEPS, Chains
from bayesdd.inference.mode import fits, scattered
from bayesdd.numerics.gaussian import Gaussian

NEGLIGIBLE = 1e4  # times the mass of a mode: chains do not jump to it
SHRINK = 1 / 8  # of the step, in every third warm-up transition: on a steep slope a chain may reject every full step


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
    generator, modes = torch.Generator().manual_seed(seed), list[Gaussian]()
    if gaussian is None and start is None and whiten:
        modes = fits(density, seed=seed)
        if modes:
            gaussian, start = modes[0], _spread(modes, chains, generator)
    if warmup is None:
        warmup = 150 if gaussian is not None else 800
    if start is None:
        start = scattered(density, chains, seed) if gaussian is None else gaussian.draw(chains, generator)
    state = Chains(density, generator, gaussian, start, whiten=whiten, max_steps=max_steps)
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
    heavy = [mode for mode in modes if mode.log_mass > modes[0].log_mass - math.log(NEGLIGIBLE)]

    def transition() -> dict[str, Tensor]:
        record = state.step()
        if len(heavy) > 1:
            state.jump(heavy)
        return record

    return collected(transition, lambda: state.position, draws, thin)


def _spread(modes: list[Gaussian], chains: int, generator: torch.Generator) -> Tensor:
    """Starting points in proportion to the modes' masses (largest remainders), since chains seldom change modes."""
    share = torch.softmax(torch.tensor([mode.log_mass for mode in modes], dtype=torch.float64), 0) * chains
    counts = share.floor().long()
    rest = torch.argsort(share.floor() - share, stable=True)[: chains - int(counts.sum())]
    counts[rest] += 1
    return torch.cat([mode.draw(int(count), generator) for mode, count in zip(modes, counts, strict=True)])
