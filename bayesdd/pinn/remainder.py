r"""How far corrected fields may still be off, by what the last correction has left.

A correction e that leaves a share :math:`\rho` of the residuals, of which it was made, is the first term of a geometric
series: what is missing behind it is about

.. math:: (\rho + \rho^2 + \dots)\, e = \frac{\rho}{1 - \rho}\, e .

The share is taken at points that the correction (:mod:`bayesdd.pinn.polish`) has not seen, for the equation and every
condition, and the worst of them counts. Where the last correction leaves most of what it met, features of its kind do
not see what is wrong: e is then all that was corrected since the searches ended. Shares near one have no limit and are
a reason to doubt.

Source: Bank & Weiser, "Some a posteriori error estimators for elliptic partial differential equations", Mathematics of
Computation 1985 (the saturation assumption, here measured instead of assumed).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bayesdd.pinn.left import of_constants, sizes
from bayesdd.pinn.residuals import Networks, residuals
from bayesdd.pinn.terms import Term

MOST = 0.75  # share from which on a limit is no longer believed: what is missing then counts three times the correction
SHARPEST = 1e-3  # of the scales of the fit: far below, differences of large numbers would say how sure fields are
NEGLIGIBLE = 1e-3  # of what constant fields leave: a residual as small moves no field by what intervals show


def over_scales(networks: Networks, terms: Sequence[Term], theta: Tensor, noise: Tensor) -> list[Tensor]:
    """Residuals of every group ``(K, N)`` over the group's scale, of ``(K, G)``."""
    with torch.no_grad():
        return [part / noise[:, at, None] for at, part in enumerate(residuals(networks, terms, theta))]


def mean_size(values: Tensor) -> Tensor:
    """Root mean square of every row ``(K, N)``: shape ``(K, 1)``."""
    return values.square().mean(1, keepdim=True).sqrt()


class Remainder:
    """How far the corrected fields of a surrogate and its unknowns may still be off.

    Attributes:
        shares: Share of its residuals that the last correction leaves of each equation and condition that matters.
        left: The same of the correction behind which something is missing: of the last one, or, where that left too
            much, of all of them together.
        share: The worst of those.
        surer: What residuals at new points are of the scales of the fit, at most one, ``(K, 1)``: networks that meet
            equation and conditions far better than those say are that much surer of their fields.
    """

    def __init__(self, surrogate: Any) -> None:
        self._surrogate, networks, theta = surrogate, surrogate.networks, surrogate.theta
        terms, bare, start = surrogate.zeros(None, 2), replace(networks, added=None), theta.clone()
        start[:, : networks.fields.dim] = 0.0
        constant = of_constants(surrogate.plain, terms, theta)
        names = [name for term in terms for name in term.names]
        after = sizes(networks, terms, theta)

        def shares(at: Tensor) -> dict[str, float]:
            each = zip(names, after, sizes(bare, terms, at), constant, strict=True)
            # What is not finite at a new point has not been corrected, and matters.
            return {
                name: one / other if math.isfinite(one + other) else 1.0
                for name, one, other, of in each
                if not other <= NEGLIGIBLE * of
            }

        off = mean_size(torch.cat(over_scales(networks, terms, theta, surrogate.zero_noise), 1))
        self.surer = torch.where(off.isfinite(), off, 1.0).clamp(SHARPEST, 1.0)
        self.shares, self._bare, self._before = shares(theta), bare, theta
        self.left = self.shares
        if max(self.left.values(), default=0.0) > MOST:
            self.left, self._before = shares(start), start
        self.share = max(self.left.values(), default=0.0)

    def of(self, term: Term, slopes: Sequence[Tensor]) -> list[Tensor]:
        """What fields or functions of a term may still lack, ``(N,)`` each, with their slopes ``(K, N, P)``."""
        return [
            missing(self.share) * part.mean(0) + self.of_unknowns(slope)
            for part, slope in zip(self._corrected(term, self._before), slopes, strict=True)
        ]

    def of_unknowns(self, slopes: Tensor) -> Tensor:
        """What unknowns may still lack, and by that anything of these slopes ``(K, N, P)``: ``(N,)``."""
        return missing(self.share) * (slopes @ self._steps[..., None])[..., 0].mean(0)

    @cached_property
    def _steps(self) -> Tensor:
        return self.moved(self._before)

    def moved(self, before: Tensor) -> Tensor:
        """What unknowns make of all corrections since ``before``, on the side of measurements: steps ``(K, P)``."""
        one, found = self._surrogate, torch.zeros_like(self._surrogate.theta)
        if one.response is None:
            return found
        parts = [part for term in one.terms for part in self._corrected(term, before)]
        off = torch.cat([part / one.noise[:, at, None] for at, part in enumerate(parts)], 1) * ~one.response.zero
        steps = -one.curvature.solve((off[:, None] @ one.response.rows(one.white()))[:, 0])
        width, anchor = one.networks.fields.dim, one.networks.anchor
        constants = slice(one.networks.dim - len(one.problem.names.unknown), None)
        solved = one.theta.clone()  # unknowns that fields do not follow were corrected with them
        solved[:, constants] -= anchor[:, constants]
        found[:, width:] = torch.where(one.response.followed, steps[:, width:], solved[:, width:])
        return found

    def _corrected(self, term: Term, before: Tensor) -> list[Tensor]:
        """By how much corrections since ``before`` have moved every residual of a term, ``(K, N)`` each."""
        one = self._surrogate
        with torch.no_grad():
            after = residuals(one.networks, [term], one.theta)
            bare = residuals(self._bare, [term], before)
        return [left - right for left, right in zip(after, bare, strict=True)]


def missing(share: float) -> float:
    """What is missing behind a correction, over the correction."""
    share = min(share, MOST)
    return share / (1 - share)
