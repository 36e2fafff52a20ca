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

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bayesdd.networks.students import GaussNewton
from bayesdd.pinn.left import of_constants, sizes
from bayesdd.pinn.residuals import Networks
from bayesdd.pinn.response import Response
from bayesdd.pinn.terms import Term

MOST = 0.75  # share from which on a limit is no longer believed: what is missing then counts three times the correction
NEGLIGIBLE = 1e-3  # of what constant fields leave: a residual as small moves no field by what intervals show


def shares(networks: Networks, plain: Networks, terms: Sequence[Term], theta: Tensor) -> dict[str, float]:
    """Share of its residuals that the fields' correction leaves of the equations and conditions that matter.

    Args:
        networks: Linear around what searches found.
        plain: Networks of any width that are not linear; with weights of zero their fields are constant.
        terms: The equation and conditions at new points.
        theta: Steps and constants, ``(K, P)``. What there was to correct is what fields without steps leave at these
            unknowns.
    """
    start = theta.clone()
    start[:, : networks.fields.dim] = 0.0
    after, before = sizes(networks, terms, theta), sizes(networks, terms, start)
    names = [name for term in terms for name in term.names]
    return {
        name: one / other
        for name, one, other, constant in zip(names, after, before, of_constants(plain, terms, theta), strict=True)
        if other > NEGLIGIBLE * constant
    }


def missing(share: float) -> float:
    """What is missing behind a correction, over the correction."""
    share = min(share, MOST)
    return share / (1 - share)


def lack(
    networks: Networks, theta: Tensor, answer: Response | None, curvature: GaussNewton, white: Callable[[], Tensor]
) -> Tensor:
    """The correction of fields, and what unknowns would make of as much on the side of measurements ``(K, P)``.

    Args:
        networks: Networks that are linear around what searches found.
        theta: Modes ``(K, P)``.
        answer: How fields answer unknowns; None where nothing is unknown.
        curvature: Of the modes, in the coordinates of ``answer``.
        white: Makes the slopes of all rows over their scales ``(K, N, P)``; called where something is unknown.
    """
    assert networks.anchor is not None  # a surrogate's networks have one
    width, found = networks.fields.dim, theta.clone()
    unknown = slice(networks.dim - len(networks.problem.names.unknown), None)
    found[:, unknown] -= networks.anchor[:, unknown]
    if answer is not None:
        slopes = white()
        off = (slopes[..., :width] @ found[:, :width, None])[..., 0] * ~answer.zero
        moved = -curvature.solve((off[:, None] @ answer.rows(slopes))[:, 0])
        found[:, width:] = torch.where(answer.followed, moved[:, width:], found[:, width:])
    return found
