r"""Probabilities of states with linear-Gaussian parents: the signs of utilities, whatever is missing of the parents.

A state c of such a variable is a series of signs: with utilities :math:`u_k \sim N(\beta_{k0} + \beta_k' pa, 1)` it is
the number of those above 0 before the first below (``Template.probits``). Given the seen entries y of a row, and the
states of all others, its utilities are jointly normal, so that

.. math:: P(c \mid y) = P(s_1 u_1 > 0, \dots, s_n u_n > 0), \qquad u \mid y \sim N(m, S),

a product of normal distribution functions where all parents were seen. Else the orthant is summed by the GHK simulator,
one utility after the other given those before, at 64 fixed quasi-random points: exact for one utility, for more
within half a percent of the probability.

Sources: Albert & Chib, "Sequential ordinal modeling with applications to survival data", Biometrics 2001;
Hajivassiliou, McFadden & Ruud, "Simulation of multivariate normal rectangle probabilities", J. Econometrics 1996.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.dbn.likelihood.gaussian import LOG_2PI, entries, equations, in_order, with_before
from bayesdd.dbn.likelihood.missing import cholesky, noise_of_entries, unrolled
from bayesdd.dbn.template.columns import Rows
from bayesdd.dbn.template.mixture import Mixture
from bayesdd.dbn.template.structure import Values

POINTS = 64  # quasi-random points of an orthant
FAR = -30.0  # below which the distribution function nears the least number there is: its series ends after two terms

Steps = Callable[[Values, Rows, Rows], Tensor]  # values of one draw, numbers, signs -> log probability (rows,), nats


def signs(mixture: Mixture, states: Rows, live: Rows) -> Rows:
    """Signs of all utilities ``(rows, T, n)`` and ``(rows, n_s)``: 1, -1, or 0 where nothing is known of one.

    Args:
        mixture: The template's parts.
        states: States of the discrete part, none missing.
        live: 1 for entries that count, else 0.
    """

    def of(names: tuple[str, ...], column: Tensor, counted: Tensor) -> Tensor:
        found = [
            ((column[..., i] > k).double() - (column[..., i] == k).double()) * counted[..., i]
            for i, name in enumerate(names)
            for k in range(len(mixture.utilities.get(name, ())))
        ]
        return torch.stack(found, -1) if found else column[..., :0].double()

    discrete = mixture.discrete
    return of(discrete.variables, states[0], live[0]), of(discrete.static, states[1], live[1])


def means(mixture: Mixture, values: Values, numbers: Rows) -> Rows:
    """Means of all utilities of rows whose parents are known, shapes as for :func:`signs`."""
    part = mixture.augmented
    z, z_static = in_order(part, *with_utilities(mixture, numbers, 0.0))
    of_static, *forms = equations(part, mixture.values(values, part))
    moving, fixed = _places(mixture)
    parts = zip(forms, with_before(z, z_static, len(forms) - 1), strict=False)
    static = of_static.part(fixed).mean(z.new_zeros(len(z), 0), z_static)
    return torch.cat([form.part(moving).mean(before, own) for form, (before, own) in parts], 1), static


def with_utilities(mixture: Mixture, numbers: Rows, value: float | Rows) -> Rows:
    """Columns of the augmented part: numbers, then utilities."""

    def joined(column: Tensor, count: int, own: float | Tensor) -> Tensor:
        filled = own if isinstance(own, Tensor) else column.new_full((*column.shape[:-1], count), own)
        return torch.cat([column, filled], -1)

    part, plain = mixture.augmented, mixture.continuous
    own = value if isinstance(value, tuple) else (value, value)
    return (
        joined(numbers[0], len(part.variables) - len(plain.variables), own[0]),
        joined(numbers[1], len(part.static) - len(plain.static), own[1]),
    )


def steps_of(mixture: Mixture, numbers: Rows, known: Rows) -> tuple[Steps, Tensor]:
    """The probability of signs of rows like these, of the patterns of missing numbers that these have.

    Also which of these rows lack a parent of a utility that counts, ``(rows,)``; without any such row each state costs
    one normal distribution function.
    """
    missing = _lacking(mixture, numbers, known)
    if not bool(missing.any()):
        return functools.partial(direct, mixture), missing
    flat = entries(mixture.augmented, *with_utilities(mixture, numbers, torch.nan))
    sign = _flat_signs(mixture, numbers, known)
    used = (sign != 0).any(0).nonzero()[:, 0]
    is_utility = entries(mixture.augmented, *with_utilities(mixture, _zeros(numbers), 1.0))[0] > 0
    others = (~is_utility).nonzero()[:, 0]
    patterns = torch.unique(~flat[:, others].isnan(), dim=0)
    even = torch.quasirandom.SobolEngine(len(used), scramble=True, seed=0).draw(POINTS, dtype=torch.float64)
    return _Orthants(mixture, used, others, patterns, even.clamp_min(1e-9), numbers[0].shape[1]), missing


def direct(mixture: Mixture, values: Values, numbers: Rows, known: Rows) -> Tensor:
    """Log probability of signs whose parents are all known, nats ``(rows,)``."""
    filled = numbers[0].nan_to_num(), numbers[1].nan_to_num()
    moving, fixed = (
        torch.where(sign == 0, 0.0, log_ndtr(sign * mean))
        for sign, mean in zip(known, means(mixture, values, filled), strict=True)
    )
    return moving.sum((1, 2)) + fixed.sum(1)


@dataclass(frozen=True, eq=False)
class _Orthants:
    """Log probability of signs of rows of given patterns of missing numbers, NaN of other rows.

    Attributes:
        mixture: The template's parts.
        used: Places of the utilities that count, among the entries of the augmented part ``(n,)``.
        others: Places of its numbers and indicators ``(m,)``.
        patterns: Which of these are seen ``(P, m)``.
        even: Points of the unit cube ``(points, n)``.
        slices: Number T of slices.
    """

    mixture: Mixture
    used: Tensor
    others: Tensor
    patterns: Tensor
    even: Tensor
    slices: int

    def __call__(self, values: Values, numbers: Rows, known: Rows) -> Tensor:
        """Of one draw, nats ``(rows,)``."""
        part = self.mixture.augmented
        every = self.mixture.values(values, part)
        mean, factor = unrolled(part, every, self.slices)
        noise = noise_of_entries(part, every, self.slices)[self.others]
        there, own = factor[self.others], factor[self.used]
        pairs = self.patterns[:, :, None] & self.patterns[:, None, :]
        spread = torch.where(pairs, there @ there.mT + noise.diag(), torch.eye(len(self.others), dtype=factor.dtype))
        cross = (there @ own.mT) * self.patterns[:, :, None]
        gain = torch.cholesky_solve(cross, cholesky(spread))  # (P, m, n)
        root = cholesky(own @ own.mT - cross.mT @ gain)
        flat = entries(part, *with_utilities(self.mixture, numbers, 0.0))[:, self.others]
        same = (~flat.isnan()[:, None] == self.patterns).all(2)
        which = same.to(torch.int8).argmax(1)
        error = torch.where(flat.isnan(), 0.0, flat - mean[self.others])
        centre = mean[self.used] + torch.einsum("rm,rmn->rn", error, gain[which])
        sign = _flat_signs(self.mixture, numbers, known)[:, self.used]
        return torch.where(same.any(1), orthant(centre, root[which], sign, self.even), torch.nan)


def orthant(mean: Tensor, root: Tensor, sign: Tensor, even: Tensor) -> Tensor:
    """Log probability of the signs of normal vectors, nats ``(rows,)``; a sign of 0 is either.

    Args:
        mean: ``(rows, n)``.
        root: Lower factors of the covariances ``(rows, n, n)``.
        sign: 1, -1 or 0 ``(rows, n)``.
        even: Points of the unit cube ``(points, n)``.
    """
    total, noises = mean.new_zeros(len(mean), len(even)), list[Tensor]()
    for i in range(mean.shape[1]):
        centre = mean[:, i, None]
        if noises:
            centre = centre + (root[:, i, :i, None] * torch.stack(noises, 1)).sum(1)
        own = sign[:, i, None]
        # The part of a standard normal below `end` is kept; its lower tail has all its digits.
        share = torch.where(own == 0, 0.0, log_ndtr(own * centre / root[:, i, i, None]))
        total = total + share
        below = torch.special.ndtri((share.exp() * even[:, i]).clamp_min(1e-300))
        noises.append(torch.where(own == 0, 1.0, -own) * below)
    return total.logsumexp(1) - math.log(len(even))


def truncated(mean: Tensor, sign: Tensor, generator: torch.Generator) -> Tensor:
    """Draws of normals of variance 1 that have given signs, 0 for either."""
    uniform = torch.rand(mean.shape, generator=generator, dtype=mean.dtype).clamp_min(1e-16)
    share = torch.where(sign == 0, 0.0, log_ndtr(sign * mean))
    below: Tensor = torch.special.ndtri((share.exp() * uniform).clamp_min(1e-300))
    return mean + torch.where(sign == 0, 1.0, -sign) * below


def log_ndtr(x: Tensor) -> Tensor:
    """Log of the standard normal distribution function: ``torch.special.log_ndtr`` has no rule for vmap."""
    far = x < FAR
    tail = torch.where(far, x, FAR)
    near: Tensor = (0.5 * torch.erfc(-math.sqrt(0.5) * torch.where(far, 0.0, x))).log()  # ndtr is 0 below -8
    return torch.where(far, -0.5 * tail.square() - (-tail).log() - 0.5 * LOG_2PI + (-1 / tail.square()).log1p(), near)


def _lacking(mixture: Mixture, numbers: Rows, known: Rows) -> Tensor:
    """Rows that lack a parent of a utility that counts, or have it with noise."""
    part = mixture.augmented
    lost = with_utilities(mixture, (numbers[0].isnan().double(), numbers[1].isnan().double()), known)
    columns = dict(zip(part.variables + part.static, (*lost[0].unbind(2), *lost[1][:, None].unbind(2)), strict=True))
    every = {one for some in mixture.utilities.values() for one in some}
    found = torch.zeros(len(numbers[0]), dtype=torch.bool)
    for families, slices in part.structure.ranges(numbers[0].shape[1]):
        for family in (family for family in families if family.variable in every):
            own = columns[family.variable][:, slices.start : slices.stop] != 0
            for name, lag in family.parents:
                column = columns[name]
                column = column if name in part.static else column[:, slices.start - lag : slices.stop - lag]
                open_ = (column > 0) | (part.noise_of(name) > 0)
                found |= (own & open_).any(1)
    return found


def _flat_signs(mixture: Mixture, numbers: Rows, known: Rows) -> Tensor:
    """Signs as entries of the augmented part, 0 elsewhere ``(rows, entries)``."""
    return entries(mixture.augmented, *with_utilities(mixture, _zeros(numbers), known))


def _zeros(numbers: Rows) -> Rows:
    return torch.zeros_like(numbers[0]), torch.zeros_like(numbers[1])


def _places(mixture: Mixture) -> tuple[list[int], list[int]]:
    """Places of the utilities among the variables of a slice and the static ones, parents first."""
    structure, template = mixture.augmented.structure, mixture.template
    moving, fixed = (
        [one for name in names for one in mixture.utilities.get(name, ())]
        for names in (template.variables, template.static)
    )
    return [structure.order.index(one) for one in moving], [structure.static_order.index(one) for one in fixed]
