r"""How far corrected fields may still be off, by what the correction has left of the residuals.

A correction e that leaves a share :math:`\rho` of the residuals, of which it was made, is the first term of a geometric
series: what is missing behind it is about

.. math:: (\rho + \rho^2 + \dots)\, e = \frac{\rho}{1 - \rho}\, e .

The share is taken at points that no fit has seen, for the equation and every condition, and the worst of them counts:
nothing says how much of e each of them has made. Shares near one have no such limit and are a reason to doubt.

Source: Bank & Weiser, "Some a posteriori error estimators for elliptic partial differential equations", Mathematics of
Computation 1985 (the saturation assumption, here measured instead of assumed).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bayesdd.pinn.residuals import Networks, Term, residuals

MOST = 0.75  # share from which on a limit is no longer believed: what is missing then counts three times the correction
NEGLIGIBLE = 1e-3  # of what constant fields leave: a residual as small moves no field by what intervals show
DRAWS = 8  # of the prior, in place of constant fields where those leave nothing


def shares(networks: Networks, plain: Networks, terms: Sequence[Term], theta: Tensor) -> dict[str, float]:
    """Share of its residuals that the correction leaves of the equations and conditions that matter.

    Args:
        networks: Linear around what searches found, ``anchor`` with their constants.
        plain: Networks of any width that are not linear; with weights of zero their fields are constant.
        terms: The equation and conditions at new points.
        theta: Steps and constants, ``(K, P)``.
    """
    assert networks.anchor is not None  # a correction's networks have one
    constants = len(networks.problem.names.unknown)
    start = torch.zeros_like(theta)
    start[:, networks.dim - constants :] = networks.anchor[:, networks.dim - constants :]
    flat = theta.new_zeros(1, plain.dim)
    drawn = torch.randn(DRAWS, plain.dim, generator=torch.Generator().manual_seed(0)).to(flat)
    with torch.no_grad():
        sizes = [
            [float(part.square().mean().sqrt()) for part in residuals(of, terms, at)]
            for of, at in ((networks, theta), (networks, start), (plain, flat), (plain, drawn))
        ]
    names = [name for term in terms for name in term.names]
    return {
        name: after / before
        for name, after, before, constant, prior in zip(names, *sizes, strict=True)
        if before > NEGLIGIBLE * (constant or prior)
    }


def missing(share: float) -> float:
    """What is missing behind a correction, over the correction."""
    share = min(share, MOST)
    return share / (1 - share)
