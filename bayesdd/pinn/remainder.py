r"""A last correction of the fields at points that no fit has seen, and how far they may still be off.

What corrected networks leave of an equation is larger between the points of the fit than there, and nothing that was
fitted knows. So the fields of every network, unknowns held, get the sum of random features that solves for the
residuals r at new points, linearised, by least squares with the scales :math:`\sigma` of the fit,

.. math:: \hat w = \arg\min_w |(r + J w) / \sigma|^2 + |w|^2 .

A correction e that leaves a share :math:`\rho` of the residuals, of which it was made, is the first term of a geometric
series: what is missing behind it is about

.. math:: (\rho + \rho^2 + \dots)\, e = \frac{\rho}{1 - \rho}\, e .

The share is taken at points that the correction has not seen either, for the equation and every condition, and the
worst of them counts. Where this one leaves most of what it met, features of this kind do not see what is wrong: e is
then all that was corrected since the searches ended. Shares near one have no limit and are a reason to doubt where what
is missing could be seen.

Source: Bank & Weiser, "Some a posteriori error estimators for elliptic partial differential equations", Mathematics of
Computation 1985 (the saturation assumption, here measured instead of assumed).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bayesdd.pinn.features import Features
from bayesdd.pinn.left import of_constants, sizes, zeros
from bayesdd.pinn.residuals import Evaluation, Networks, residuals
from bayesdd.pinn.terms import Term

FEATURES, POINTS, CONDITION = 1500, 4096, 4.0  # of all fields together; of the equation; times a condition's of the fit
BLOCK = 512
MOST = 0.75  # share from which on a limit is no longer believed: what is missing then counts three times the correction
APART = 1000  # between the seeds of the fit and of its last correction
SHARPEST = 1e-3  # of the scales of the fit: far below, differences of large numbers would say how sure fields are
NEGLIGIBLE = 1e-3  # of what constant fields leave: a residual as small moves no field by what intervals show


def polished(surrogate: Any) -> Any:
    """The surrogate after a last correction of its fields, to which unknowns respond as measurements ask."""
    networks, theta, noise = surrogate.networks, surrogate.theta, surrogate.zero_noise
    networks = corrected(networks, theta, noise, surrogate.seed + APART)
    less = left_over(networks, surrogate.zeros(None, 2), theta, noise)
    scales = torch.where(surrogate.zero, less, 1.0) * surrogate.noise
    found = replace(surrogate, networks=networks, noise=scales)
    if found.response is None:
        return found
    return replace(found, theta=theta + found.response.moves(found.remainder.moved(theta)))


def corrected(networks: Networks, theta: Tensor, noise: Tensor, seed: int) -> Networks:
    """The networks with a correction of their fields by random features.

    Args:
        networks: Linear around what searches found.
        theta: Steps and constants, ``(K, P)``.
        noise: Scales of the equation's and conditions' residuals, ``(K, G)``.
        seed: Of the features and of new points.
    """
    generator = torch.Generator().manual_seed(seed)
    count = max(1, FEATURES // len(networks.fields.outputs))
    features = Features.drawn(networks.fields, len(theta), count, generator).to(theta.device)
    terms = [term.to(theta.device) for term in zeros(networks.problem, None, seed, points=POINTS, share=CONDITION)]
    found = [_solved(networks, terms, theta, noise, features, mode) for mode in range(len(theta))]
    return replace(networks, added=replace(features, out=torch.stack(found).reshape(features.out.shape)))


def _solved(
    networks: Networks, terms: Sequence[Term], theta: Tensor, noise: Tensor, features: Features, mode: int
) -> Tensor:
    """The features' weights for one mode ``(M * O,)``, by least squares: squared, a fourth derivative has no digits."""
    assert networks.anchor is not None  # a surrogate's networks have one
    own = replace(networks, anchor=networks.anchor[mode : mode + 1])
    rows, right, scales = [], [], iter(noise[mode])
    for term in terms:
        scale = torch.stack([next(scales) for _ in term.names])[:, None]
        for block in _blocks(term):
            evaluation = Evaluation(own, block, theta[mode : mode + 1].detach().requires_grad_(True), taped=True)
            rows.append((evaluation.of_features(features)[0] / scale[..., None]).flatten(0, 1))
            right.append((-evaluation.residuals().detach()[0] / scale).flatten())
    ridge = torch.eye(rows[0].shape[1]).to(theta)
    right.append(ridge.new_zeros(len(ridge)))
    found: Tensor = torch.linalg.lstsq(torch.cat([*rows, ridge]), torch.cat(right)[:, None], driver="gels").solution[
        :, 0
    ]
    return found


def _blocks(term: Term) -> Iterator[Term]:
    """A term in parts, of which the derivatives of few points are held at once."""
    for at in range(0, term.count, BLOCK):
        yield replace(term, points={name: column[at : at + BLOCK] for name, column in term.points.items()}, late=None)


def left_over(networks: Networks, terms: Sequence[Term], theta: Tensor, noise: Tensor) -> Tensor:
    """What residuals at new points are of their scales ``(K, G)``, at most one: one factor for all, ``(K, 1)``.

    A network that meets equation and conditions far better than its scales say is that much surer of its fields.
    """
    with torch.no_grad():
        off = torch.cat([part / noise[:, at, None] for at, part in enumerate(residuals(networks, terms, theta))], 1)
    return off.square().mean(1, keepdim=True).sqrt().clamp(SHARPEST, 1.0)


class Remainder:
    """How far the corrected fields of a surrogate and its unknowns may still be off.

    Attributes:
        shares: Share of its residuals that the last correction leaves of each equation and condition that matters.
        share: The worst share of the correction behind which something is missing: of the last one, or, where that
            left too much, of all of them together.
        worst: Whose share that is.
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
            return {name: one / other for name, one, other, of in each if other > NEGLIGIBLE * of}

        self.shares, self._bare, self._before = shares(theta), bare, theta
        self.share, self.worst = _worst(self.shares)
        if self.share > MOST:
            (self.share, self.worst), self._before = _worst(shares(start)), start

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
        width = one.networks.fields.dim
        found[:, width:] = steps[:, width:] * one.response.followed
        return found

    def _corrected(self, term: Term, before: Tensor) -> list[Tensor]:
        """By how much corrections since ``before`` have moved every residual of a term, ``(K, N)`` each."""
        one = self._surrogate
        with torch.no_grad():
            after = residuals(one.networks, [term], one.theta)
            bare = residuals(self._bare, [term], before)
        return [left - right for left, right in zip(after, bare, strict=True)]


def _worst(shares: dict[str, float]) -> tuple[float, str]:
    return max(((share, name) for name, share in shares.items()), default=(0.0, ""))


def missing(share: float) -> float:
    """What is missing behind a correction, over the correction."""
    share = min(share, MOST)
    return share / (1 - share)
