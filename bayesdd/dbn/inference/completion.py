r"""Second moments of all true entries of rows given what is seen of them: drawn, or expected.

In the order of time the precision of a row's true entries z is block tridiagonal: residuals :math:`J z - c` of variance
D for each kind of slice, of precision W between what is true and what is seen,

.. math:: P = J' D^{-1} J + W = L L', \qquad E[z \mid y] = P^{-1} (J' D^{-1} c + W y), \qquad
          z = E[z \mid y] + L'^{-1} \varepsilon.

Slices are eliminated one after the other, then the static variables, which border on all of them. Entries that are seen
without noise stand with a unit precision of their own. No row is completed: N rows of one pattern have conditional
means D B, where D = (1, y) = QR, and independent errors; their moments are those of the k rows R B + Q'E, and of the
errors orthogonal to D, a Wishart matrix of N - k degrees of freedom (Bartlett's factor), N times the identity in
expectation. Slices after the last that a row has an entry of do not count. Cost: O(T V^2 (V + k)) a pattern and chain.

Drawn rows may lie on the other side of their conditional mean from those of the sweep before: of these,
:math:`z_-`, :math:`m - \alpha (z_- - m) + \sqrt{1 - \alpha^2} L'^{-1} \varepsilon` is as good a draw, and sweeps cross
slow directions instead of wandering along them.

Sources: Rue & Held, "Gaussian Markov Random Fields", 2005, section 2.4 (banded factors, conditional draws); Adler,
"Over-relaxation method for the Monte Carlo evaluation of the partition function", Physical Review D 1981.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from bayesdd.dbn.inference.patterns import Dense
from bayesdd.dbn.likelihood.gaussian import Equations

RELAXED = 0.3  # more would make coefficients faster and residual variances slower, which hang on the rows' squares


class Moments(NamedTuple):
    """What is known of some patterns' true entries.

    Attributes:
        gram: Second moments of (1, static, slice before, slice) of each kind of slice ``(C, 3, d, d)``.
        square: Squared errors of the entries seen ``(C, p, n)``.
        rows: The first k rows of true entries, of which the next sweep's are drawn on the other side ``(C, p, n, k)``.
    """

    gram: Tensor
    square: Tensor
    rows: Tensor


def completed(
    forms: Sequence[Equations],
    some: Dense,
    noise: Tensor,
    slices: int,
    generator: torch.Generator | None,
    before: Tensor | None = None,
) -> Moments:
    """Moments of patterns at the equations of C chains, which are batched ``(C, ...)``; expected without generator.

    Variances of the noise are those of each pattern's entries ``(C, p, n)``; ``before`` are the last sweep's rows.
    """
    fixed, size = forms[0].shift.shape[-1], forms[1].shift.shape[-1]
    chains, (_, k, n) = len(noise), some.y.shape
    exact = some.seen & (noise == 0).any(0)
    system = _System([_quadratic(form) for form in forms], some, exact, fixed, size, slices)
    weight = torch.where(some.seen & ~exact, 1 / noise, 0.0)
    linear = weight[..., None] * some.y.mT + system.shifts()
    if exact.any():
        linear = torch.where(exact[..., None], some.y.mT, linear - system.times(some.y.mT * exact[..., None]))
    errors = _errors(some.count, chains, k, n, generator).mT * ~exact[..., None]
    if before is None:
        z = system.solved(weight, linear, errors)
    else:
        errors[..., :k] *= math.sqrt(1 - RELAXED**2)
        z = system.solved(weight, (1 + RELAXED) * linear, errors) - RELAXED * pad(before, (0, errors.shape[3] - k))
    one = pad(some.one, (0, z.shape[3] - k)).expand(chains, -1, -1)[:, :, None]
    off = pad(some.y.mT, (0, z.shape[3] - k)) - z
    return Moments(system.moments(one, z), torch.where(some.seen, off.square().sum(3), 0.0), z[..., :k])


class _Quadratic(NamedTuple):
    """Precision ``(C, b + v, b + v)`` and linear term ``(C, b + v)`` of a slice and what stands before it."""

    precision: Tensor
    linear: Tensor


def _quadratic(form: Equations) -> _Quadratic:
    left = torch.cat([-form.before, torch.eye(form.own.shape[-1], dtype=form.own.dtype) - form.own], -1)
    scaled = left / form.variance[..., None]
    return _Quadratic(scaled.mT @ left, (scaled.mT @ form.shift[..., None])[..., 0])


class _System:
    """The precision of all entries of some patterns; arrays of entries are ``(C, p, n, rows)``, static ones first."""

    def __init__(
        self, kinds: Sequence[_Quadratic], some: Dense, exact: Tensor, fixed: int, size: int, slices: int
    ) -> None:
        self.static, self.first, self.later = kinds
        self.some, self.fixed, self.size, self.slices = some, fixed, size, slices
        seen = some.seen[:, fixed:].unflatten(1, (slices, size)).any(2).double()
        self.live = seen.flip(1).cummax(1).values.flip(1)[:, :, None, None]  # of slices up to the last with an entry
        self.last = int(self.live.amax((0, 2, 3)).sum())
        self.free = (~exact).double()

    def at(self, t: int) -> slice:
        """Entries of a slice."""
        return slice(self.fixed + t * self.size, self.fixed + (t + 1) * self.size)

    def shifts(self) -> Tensor:
        """J' D^-1 c, times the first columns of the roots."""
        found = self.static.linear.new_zeros(len(self.static.linear), *self.some.seen.shape)
        found[..., : self.fixed] = self.static.linear[:, None]
        for t in range(self.last):
            linear = (self.later if t else self.first).linear[:, None] * self.live[:, t, 0]
            found[..., : self.fixed] += linear[..., : self.fixed]
            start = self.at(t - 1).start if t else self.at(0).start
            found[..., start : self.at(t).stop] += linear[..., self.fixed :]
        return found[..., None] * self.some.one[:, None]

    def times(self, values: Tensor) -> Tensor:
        """J' D^-1 J times values ``(p, n, rows)``."""
        found = values.new_zeros(len(self.static.linear), *values.shape)
        fixed = values[:, : self.fixed]
        found[:, :, : self.fixed] = self.static.precision[:, None] @ fixed
        for t in range(self.last):
            start = self.at(t - 1).start if t else self.at(0).start
            here = torch.cat([fixed, values[:, start : self.at(t).stop]], 1) * self.live[:, t]
            product = (self.later if t else self.first).precision[:, None] @ here
            found[:, :, : self.fixed] += product[:, :, : self.fixed]
            found[:, :, start : self.at(t).stop] += product[:, :, self.fixed :]
        return found

    def solved(self, weight: Tensor, linear: Tensor, errors: Tensor) -> Tensor:
        """P^-1 linear + L'^-1 errors, where P has the noise's precision ``weight`` ``(C, p, n)`` besides."""
        fixed, size, before = self.fixed, self.size, slice(self.fixed, self.fixed + self.size)
        identity = torch.eye(size, dtype=linear.dtype)
        corner = self._masked(self.static.precision[:, None], slice(0, fixed), slice(0, fixed), weight)
        end = linear[:, :, :fixed]
        carried: tuple[Tensor, Tensor, Tensor] | None = None
        eliminated = []
        for t in range(self.last):
            at, live = self.at(t), self.live[:, t]
            now = (self.later if t else self.first).precision[:, None]
            own, side = now[..., -size:, -size:] * live + identity * (1 - live), now[..., -size:, :fixed] * live
            corner = corner + now[..., :fixed, :fixed] * live * self._both(slice(0, fixed), slice(0, fixed))
            columns = []
            if t + 1 < self.last:
                follows, after = self.live[:, t + 1], self.later.precision[:, None]
                own = own + after[..., before, before] * follows
                side = side + after[..., before, :fixed] * follows
                columns = [after[..., before, -size:] * follows * self._both(at, self.at(t + 1))]
            own = self._masked(own, at, at, weight)
            side, right = side * self._both(at, slice(0, fixed)), linear[:, :, at]
            if carried is not None:
                own, side, right = own - carried[0], side - carried[1], right - carried[2]
            root, _ = torch.linalg.cholesky_ex(own)
            wide = torch.cat([*columns, side.expand(*right.shape[:2], -1, -1), right], 3)
            white = torch.linalg.solve_triangular(root, wide, upper=False)
            next_, side, right = white.split([len(columns) * size, fixed, right.shape[3]], 3)
            carried = (next_.mT @ next_, next_.mT @ side, next_.mT @ right) if columns else None
            corner, end = corner - side.mT @ side, end - side.mT @ right
            eliminated.append((root, next_, side, right))
        return self._back(corner, end, eliminated, errors)

    def _back(
        self, corner: Tensor, end: Tensor, eliminated: list[tuple[Tensor, Tensor, Tensor, Tensor]], errors: Tensor
    ) -> Tensor:
        """Values of all entries, the static ones first, then the last slice and those before it."""
        found = torch.zeros_like(errors)
        more = (0, errors.shape[3] - end.shape[3])
        if self.fixed:
            root, _ = torch.linalg.cholesky_ex(corner)
            white = pad(torch.linalg.solve_triangular(root, end, upper=False), more) + errors[:, :, : self.fixed]
            found[:, :, : self.fixed] = torch.linalg.solve_triangular(root.mT, white, upper=True)
        after = None
        for t in range(self.last - 1, -1, -1):
            root, next_, side, right = eliminated[t]
            white = pad(right, more) + errors[:, :, self.at(t)] - side @ found[:, :, : self.fixed]
            if after is not None:
                white = white - next_ @ after
            after = torch.linalg.solve_triangular(root.mT, white, upper=True)
            found[:, :, self.at(t)] = after
        return found

    def moments(self, one: Tensor, z: Tensor) -> Tensor:
        """Moments of each kind of slice, summed over patterns, of rows (one, z): ``(C, 3, d, d)``."""
        size, head = self.size, 1 + self.fixed  # places of (1, static), of the slice before, of the slice
        static = torch.cat([one, z[:, :, : self.fixed]], 2)
        gram = z.new_zeros(len(z), 3, head + 2 * size, head + 2 * size)
        gram[:, 0, :head, :head] = (static @ static.mT).sum(1)
        own = torch.tensor([*range(head), *range(head + size, head + 2 * size)])
        for t in range(self.last):
            now, kind = torch.cat([static, z[:, :, self.at(t)]], 2), min(t, 1) + 1
            products = now @ now.mT
            gram[:, kind, own[:, None], own] += (products * self.live[:, t]).sum(1)
            if t + 1 < self.last:  # the slice is what stands before the next
                follows = self.live[:, t + 1]
                across = ((z[:, :, self.at(t)] @ z[:, :, self.at(t + 1)].mT) * follows).sum(1)
                before = (products[..., head:] * follows).sum(1)
                gram[:, 2, :head, head : head + size] += before[:, :head]
                gram[:, 2, head : head + size, :head] += before[:, :head].mT
                gram[:, 2, head : head + size, head : head + size] += before[:, head:]
                gram[:, 2, head : head + size, head + size :] += across
                gram[:, 2, head + size :, head : head + size] += across.mT
        return gram

    def _masked(self, block: Tensor, rows: slice, columns: slice, weight: Tensor) -> Tensor:
        """A block on the diagonal: entries without noise stand alone, the others have the noise's precision."""
        return block * self._both(rows, columns) + torch.diag_embed(weight[..., rows] + 1 - self.free[:, rows])

    def _both(self, rows: slice, columns: slice) -> Tensor:
        return self.free[:, rows, None] * self.free[:, None, columns]


def _errors(count: Tensor, chains: int, k: int, width: int, generator: torch.Generator | None) -> Tensor:
    """Standard normal rows ``(C, p, k + m, width)`` with the second moments of as many as count ``(p,)``.

    The first k are independent of each other; the m others are a factor of a Wishart matrix of count - k degrees of
    freedom, or the rows themselves where these are fewer than its width. Without generator second moments are the
    expected ones, count times the identity, and the first k rows 0.
    """
    if generator is None:
        return pad(count.sqrt()[:, None, None] * torch.eye(width, dtype=count.dtype), (0, 0, k, 0)).expand(
            chains, -1, -1, -1
        )
    freedom = count - k
    m = int(min(float(freedom.max()), width))
    found = torch.randn(chains, len(count), k + m, width, generator=generator, dtype=torch.float64)
    if m == 0:
        return found
    many = freedom >= width
    order = torch.arange(m)
    shape = ((freedom[:, None] - order) / 2).clamp_min(0.5).expand(chains, -1, -1)
    chi = (2 * torch._standard_gamma(shape.contiguous(), generator=generator)).sqrt()
    triangle = found[:, :, k:].triu(1)
    triangle[:, :, order, order] = chi
    rows = found[:, :, k:] * (order[:, None] < freedom[:, None, None])
    found[:, :, k:] = torch.where(many[:, None, None], triangle, rows)
    return found
