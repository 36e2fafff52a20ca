r"""Modes by Levenberg-Marquardt, and Laplace approximations there with the Gauss-Newton matrix: made for networks.

.. math:: A = J'J + \Pi, \qquad \theta \leftarrow \theta + (A + \lambda\,\mathrm{diag} A)^{-1} \nabla \log p(\theta, D)

J as in :mod:`bayesdd.inference.information`, :math:`\Pi` the prior's precision. A is positive definite where the Hessian of a
network is not, and steps by it see the many directions that rows leave to the prior. Several starts advance together.
With fewer roots R than parameters P everything is solved in R dimensions (Woodbury).

Exact for linear models with normal noise of known size. Of networks the draws belong to the *linearised* function
(:func:`bayesdd.networks.functions.linearised`): pushed through the network itself they spread far too widely.

Cost of a step: a Jacobian of all rows and one factorisation, R P min(R, P).

Sources: Marquardt, "An algorithm for least-squares estimation of nonlinear parameters", SIAM 1963; Immer, Korzepa &
Bauer, "Improving predictions of Bayesian neural nets via local linearization", AISTATS 2021.
"""

from __future__ import annotations

from bayesdd.density.density import Density
from bayesdd.inference.draws import Draws
from bayesdd.inference.mode import scattered
from bayesdd.inference.network_modes import STEPS, around, climb


def gauss_newton(density: Density, *, draws: int, chains: int, seed: int, steps: int = STEPS) -> Draws:
    """Draws of Gauss-Newton Laplace approximations, each chain around the mode that a search of its own found.

    Args:
        density: The posterior.
        draws: Draws a chain.
        chains: Number of searches.
        seed: Seed of the starting points and of the draws.
        steps: Most steps of a search.

    Returns:
        Draws without importance weights. Several modes are not weighed against each other: as an ensemble.

    Raises:
        ValueError: Rows are observed by a distribution whose information is not known.
    """
    found = climb(density, scattered(density, chains, seed), steps=steps)
    return around(density, found.points, draws=draws, seed=seed)
