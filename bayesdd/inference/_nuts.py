"""Pyro's own No-U-Turn sampler on the density: an independent check of the other methods.

Source: Hoffman & Gelman, "The No-U-Turn sampler", JMLR 2014, as implemented in Pyro.
"""

from __future__ import annotations

import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from bayesdd.density.density import Density
from bayesdd.inference.draws import Draws
from bayesdd.inference.mode import scattered
from bayesdd.task.program import float64


def nuts(density: Density, *, draws: int, chains: int, seed: int, warmup: int = 500) -> Draws:
    """Draws, with ``diverging``, by Pyro's NUTS: one chain after the other, each after ``warmup`` iterations."""
    starts = scattered(density, chains, seed)
    values, diverging = [], []
    for chain in range(chains):
        with torch.random.fork_rng(devices=[]), float64():
            torch.manual_seed(seed * 1000 + chain)
            run = MCMC(
                NUTS(potential_fn=lambda site: _potential(density, site["theta"])),
                num_samples=draws,
                warmup_steps=warmup,
                initial_params={"theta": starts[chain]},
                disable_progbar=True,
            )
            run.run()
        values.append(run.get_samples()["theta"].reshape(draws, -1))
        flags = torch.zeros(draws, dtype=torch.bool)
        flags[[int(i) for i in run.diagnostics().get("divergences", {}).get("chain 0", [])]] = True
        diverging.append(flags)
    return Draws(torch.stack(values), None, {"diverging": torch.stack(diverging)})


def _potential(density: Density, theta: Tensor) -> Tensor:
    """Minus the log joint; its gradient is made block by block, so that memory stays bounded on many rows."""
    value, gradient = density.log_joint_gradient(theta.detach()[None])
    return -(value[0] + gradient[0] @ (theta - theta.detach()))
