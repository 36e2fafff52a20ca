r"""Laplace approximations with the Gauss-Newton matrix, around modes by Levenberg-Marquardt: made for networks.

.. math:: q = N(\hat\theta, A^{-1}), \qquad A = J'J + \Pi

at the modes of :mod:`bayesdd.inference.network_modes`. With fewer roots R than latents P everything is solved in R
dimensions (Woodbury's identity).

Exact for linear models with normal noise of known size. For networks the draws belong to the *linearised* function
(:func:`bayesdd.networks.functions.linearised`); put into the network itself they spread far too widely.

Cost: that of the searches, and one factorisation a mode.

Source: Immer, Korzepa & Bauer, "Improving predictions of Bayesian neural nets via local linearization", AISTATS 2021.
"""

from __future__ import annotations

from bayesdd.density.density import Density
from bayesdd.inference.draws import Draws
from bayesdd.inference.mode import scattered
from bayesdd.inference.network_modes import STEPS, around, climb


def gauss_newton(density: Density, *, draws: int, chains: int, seed: int, steps: int = STEPS) -> Draws:
    """Draws of Gauss-Newton Laplace approximations, each chain around the mode that a search of its own found.

    A search takes at most ``steps`` steps. Draws have no importance weights: all modes count alike, as in an ensemble.

    Raises:
        ValueError: Rows are observed by a distribution whose information is not known.
    """
    found = climb(density, scattered(density, chains, seed), steps=steps)
    return around(density, found.points, draws=draws, seed=seed)
