"""Posteriors that have no maximum that float64 can hold: said before a long search for one."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdd.density.density import Density
from bayesdd.inference.mode import climb
from bayesdd.numerics.refusal import Refusal

PROBES = (2.0, 4.0, 8.0)  # unconstrained units along each coordinate: a scale shrinks to a three-thousandth
RISES = 20.0  # nats that the log-likelihood gains by the last probe, where a climb should have ended at a maximum
COARSE = 1e12  # nats beyond which float64 rounds log-likelihoods to more than 1e-4 nats


def refuse_unbounded(joint: Density, start: Tensor) -> None:
    """Refuses a posterior without a Gaussian fit whose log-likelihood rises without end, or is too large for float64.

    Rows that are all equal, or fitted exactly, give any density to a free scale that shrinks. The log joint of a
    hierarchical model rises too, by its prior: that is no fault.

    Args:
        joint: The posterior.
        start: A starting point ``(P,)``.

    Raises:
        Refusal: Names the site, or the size of the log-likelihood.
    """
    point = climb(joint, start)
    dim = len(point)
    steps = torch.eye(dim, dtype=point.dtype, device=point.device)
    probes = torch.cat([sign * size * steps for sign in (-1.0, 1.0) for size in PROBES])
    value = joint.sweep(torch.cat([point[None], point + probes]))
    here, there = float(value[0]), value[1:].reshape(2, len(PROBES), dim)
    name = joint.parts[0].task.name
    rising = (there[:, 0] > here + 1) & (there[:, 1] > there[:, 0] + 1) & (there[:, 2] > there[:, 1] + 1)
    gained = torch.where(rising, there[:, 2] - here, 0.0).amax(0)
    if float(gained.max()) > RISES:
        site = joint.site_of(int(gained.argmax()))
        raise Refusal(
            f"the log-likelihood of {name} has no maximum: it rises by {float(gained.max()):,.0f} nats and more as "
            f"site {site!r} goes to its boundary: are rows all equal, or fitted exactly? Give {site!r} a prior that "
            "keeps away from there (LogNormal), or the rows their measurement error"
        )
    if not abs(here) < COARSE:
        raise Refusal(
            f"the log-likelihood of {name} is {here:.2g} nats at its maximum, where float64 cannot tell nats apart: "
            "bring the columns to a common scale (standardise them)"
        )
