r"""Laplace approximation with importance correction.

.. math:: q = N(\hat\theta, C), \quad C = (-\nabla^2 \log p(\hat\theta, D))^{-1}

Exact for Gaussian posteriors. Cost: a few gradient passes for the mode (L-BFGS, then damped Newton) and one Hessian.
The importance weights are ``log p(theta, D) - log q(theta)``.

Source: Tierney & Kadane, "Accurate approximations for posterior moments and marginal densities", JASA 1986.
"""

from __future__ import annotations

import torch

from bayesdd.density.density import Density
from bayesdd.inference.draws import Draws
from bayesdd.inference.mode import fit
from bayesdd.numerics.refusal import Refusal


def laplace(density: Density, *, draws: int, chains: int, seed: int) -> Draws:
    """Draws from the Laplace approximation with importance weights.

    Draws carry a ``log_weight``, and all are independent: chains are groups of them.

    Raises:
        ValueError: There is no interior mode with positive-definite curvature.
    """
    gaussian = fit(density, seed=seed)
    if gaussian is None:
        raise Refusal(
            "laplace: the posterior has no interior mode with positive-definite curvature; use bayesdd.inference.hmc."
        )
    generator = torch.Generator().manual_seed(seed)
    values = gaussian.draw(draws * chains, generator)
    log_weight = density.log_joint(values) - gaussian.log_prob(values)
    return Draws(values.reshape(chains, draws, -1), log_weight.reshape(chains, draws))
