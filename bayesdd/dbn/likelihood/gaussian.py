r"""Linear-Gaussian sequences: equations of a slice, and the density of complete rows.

One kind of slice in structural form, its variables u in topological order, b what stands before (static variables and
the slice before, or as many slices as the longest lag):

.. math:: u = B u + A b + c + \varepsilon, \quad \varepsilon \sim N(0, D), \quad B \text{ strictly triangular},

and in reduced form ``u = gain b + shift + root noise`` with ``root = (I - B)^{-1} D^{1/2}``. All functions are of one
draw, batched by ``torch.func.vmap``: nothing branches on a value. ``missing`` adds missing entries and measurement
noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bayesdd.dbn.template.columns import Rows
from bayesdd.dbn.template.structure import Family, Node, Values
from bayesdd.dbn.template.template import Template

LOG_2PI = math.log(2 * math.pi)
WORD = 62  # entries whose pattern one positive 64-bit number holds


class Equations(NamedTuple):
    """Structural form of one kind of slice: B (v, v), A (v, b), c (v,), diagonal of D (v,)."""

    own: Tensor
    before: Tensor
    shift: Tensor
    variance: Tensor

    def log_density(self, before: Tensor, own: Tensor, places: list[int] | None = None) -> Tensor:
        """Log density of slices ``(..., v)`` given what stands before them ``(..., b)``, nats: ``(...)``.

        Of a :meth:`part`, ``places`` are the variables that it is of.
        """
        logs = self.variance.log().sum() + len(self.shift) * LOG_2PI
        seen = own if places is None else own[..., places]
        return -0.5 * (((seen - self.mean(before, own)).square() / self.variance).sum(-1) + logs)

    def mean(self, before: Tensor, own: Tensor) -> Tensor:
        """Means of the variables given their parents, shapes as for :meth:`log_density`."""
        return own @ self.own.mT + before @ self.before.mT + self.shift

    def part(self, places: list[int]) -> Equations:
        """The equations of some of the variables, which may have all among their parents."""
        return Equations(self.own[places], self.before[places], self.shift[places], self.variance[places])

    def reduced(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gain (v, b), shift (v,) and root (v, v) of the reduced form."""
        size, width = self.before.shape
        right = torch.cat([self.before, self.shift[:, None], self.variance.sqrt().diag()], 1)
        left = torch.eye(size, dtype=right.dtype) - self.own
        solved = torch.linalg.solve_triangular(left, right, upper=False, unitriangular=True)
        return solved[:, :width], solved[:, width], solved[:, width + 1 :]


def complete(template: Template, values: Values, x: Tensor, static: Tensor) -> Tensor:
    """Log p(x | static) of complete sequences, no measurement noise: ``(rows, T, V)`` -> ``(rows,)``."""
    x, static = in_order(template, x, static)
    _, *forms = equations(template, values)
    parts = zip(forms, with_before(x, static, len(forms) - 1), strict=False)
    return torch.cat([form.log_density(before, own) for form, (before, own) in parts], 1).sum(1)


def with_before(x: Tensor, static: Tensor, lags: int) -> list[tuple[Tensor, Tensor]]:
    """What stands before slices ``(rows, t, b)`` and these ``(rows, t, V)``, for each of the equations of slices.

    Columns have their parents first. Sequences of few slices have fewer parts than there are :func:`equations`.
    """
    slices = x.shape[1]
    found = [(torch.cat([static, x[:, :t].flatten(1)], 1)[:, None], x[:, t : t + 1]) for t in range(min(lags, slices))]
    count = slices - lags
    if count > 0:
        earlier = [x[:, k : k + count] for k in range(lags)]
        found.append((torch.cat([static[:, None].expand(-1, count, -1), *earlier], 2), x[:, lags:]))
    return found


def entries(template: Template, x: Tensor, static: Tensor) -> Tensor:
    """All entries of every row, static ones first, then slice after slice, parents first: ``(rows, V_s + T V)``."""
    x, static = in_order(template, x, static)
    return torch.cat([static, x.flatten(1)], 1)


def as_rows(template: Template, flat: Tensor, slices: int) -> Rows:
    """The inverse of :func:`entries`: sequences and static values, in the template's own order."""
    count = len(template.static)
    return own_order(template, flat[:, count:].unflatten(1, (slices, -1)), flat[:, :count])


def grouped(seen: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Rows ``(m,)`` of every pattern of entries seen ``(rows, n)``, and the places of these entries ``(r,)``."""
    # Patterns become numbers: to sort those of 300,000 rows takes a tenth of the time of sorting the rows.
    which = seen.new_zeros(len(seen), dtype=torch.int64)
    for part in seen.split(WORD, 1):
        word = part.long() @ 2 ** torch.arange(part.shape[1])
        _, word = torch.unique(word, return_inverse=True)
        _, which = torch.unique(which * (1 + word.max()) + word, return_inverse=True)
    order = which.argsort(stable=True)
    rows = order.split(torch.bincount(which).tolist())
    return [(mine, seen[mine[0]].nonzero()[:, 0]) for mine in rows]


def equations(template: Template, values: Values) -> list[Equations]:
    """Structural forms of the static variables, the first slice, ..., and of slices from number L, the longest lag, on.

    Before a slice stand the static variables and as many slices as there are, at most L, the earliest first.
    """
    structure = template.structure
    before: list[Node] = [(name, 0) for name in structure.static_order]
    found = [_equations(values, structure.static, [])]
    for t in range(structure.lags + 1):
        found.append(_equations(values, structure.at(t), before))
        place = len(structure.static)
        before[place:place] = [(name, t + 1) for name in structure.order]
    return found


def _equations(values: Values, families: Sequence[Family], before: list[Node]) -> Equations:
    columns = before + [(family.variable, 0) for family in families]
    example = next(iter(values.values()))
    # One gather puts the coefficients where they belong; the zero at its end stands where there is no edge.
    numbers = torch.cat([*(values[family.site] for family in families), example.new_zeros(1)])
    index, at = [[-1] * (1 + len(columns)) for _ in families], 0
    for row, family in zip(index, families, strict=True):
        for place in (0, *(1 + columns.index(parent) for parent in family.parents)):
            row[place], at = at, at + 1
    dense = numbers[torch.tensor(index, dtype=torch.int64).reshape(len(families), 1 + len(columns))]
    variances = [values[f"{family.site}_variance"] for family in families]
    variance = torch.stack(variances) if variances else example.new_zeros(0)
    return Equations(dense[:, 1 + len(before) :], dense[:, 1 : 1 + len(before)], dense[:, 0], variance)


def noise_variance(template: Template, values: Values) -> Tensor:
    """Variance of the measurement noise of every variable, static ones first, parents first: ``(..., V_s + V)``."""
    names = template.structure.static_order + template.structure.order
    known = torch.tensor([template.noise_of(name) ** 2 for name in names], dtype=next(iter(values.values())).dtype)
    if not template.noise_sites:
        return known
    example = values[template.noise_sites[0]]
    sites = [template.noise_site_of(name) for name in names]
    every = [
        values[site].square() if site else own.expand(example.shape) for site, own in zip(sites, known, strict=True)
    ]
    return torch.stack(every, -1)


def in_order(template: Template, x: Tensor, static: Tensor) -> Rows:
    """Both columns with parents first."""
    dynamic, fixed = positions(template)
    return ordered(x, dynamic), ordered(static, fixed)


def own_order(template: Template, x: Tensor, static: Tensor) -> Rows:
    """The inverse of :func:`in_order`."""
    moved, fixed = (torch.argsort(torch.tensor(places, dtype=torch.int64)) for places in positions(template))
    return x[..., moved], static[..., fixed]


def ordered(values: Tensor, positions: list[int]) -> Tensor:
    """Some columns of the last axis."""
    return values if positions == list(range(values.shape[-1])) else values[..., positions]


def positions(template: Template) -> tuple[list[int], list[int]]:
    """Columns of x and of the static values, parents first."""
    structure = template.structure
    dynamic = [template.variables.index(name) for name in structure.order]
    return dynamic, [template.static.index(name) for name in structure.static_order]
