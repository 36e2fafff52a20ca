r"""Marginal posterior density of a linear-Gaussian template given several sources, from their sufficient statistics.

Every true entry is integrated out by a Kalman filter over the slices, which takes the entries seen one by one: at a
draw, state :math:`(m, P)` and an entry i with noise r,

.. math:: s = P_{ii} + r, \quad g = P_{\cdot i} / s, \quad m \leftarrow m + g (y - m_i), \quad
          P \leftarrow P - g P_{i \cdot}, \quad \log p \leftarrow \log p - \tfrac12 (\log 2\pi s + (y - m_i)^2 / s).

The covariances are those of a pattern, whatever its number N of rows; of the rows only the k <= r + 1 of their root are
filtered (``patterns``), each with an intercept of its own, and the logarithms count N times: exact. Patterns and draws
are the last axes of all arrays, so that an entry costs a few operations on long vectors. Cost: O(T V (V + V_s + k)^2)
numbers a pattern and draw. Draws are points of unconstrained space: coefficients, logarithms of variances and of noise
scales. Source: Durbin & Koopman, "Time Series Analysis by State Space Methods", 2012, section 6.4 (entry by entry).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bayesdd.dbn.inference.patterns import Patterns
from bayesdd.dbn.likelihood.gaussian import LOG_2PI, equations
from bayesdd.dbn.template.structure import Values
from bayesdd.dbn.template.template import Template

NUMBERS = 2**24  # that a chunk of draws may keep for its gradient: 128 MB
OF_STATE = 4  # arrays of the size of the state that each entry leaves for the gradient
FEW_DRAWS = 2**17  # numbers of the states that a chunk of draws without gradient has: they stay in the cache


@dataclass(frozen=True, eq=False)
class _Block:
    """Patterns that are filtered together, of n entries.

    ``seen`` ``(n, p, 1)`` is 1 where an entry is seen, ``y`` ``(n, k, p, 1)`` the root's entries, 0 elsewhere, ``one``
    ``(k, p, 1)`` its first column, ``count`` ``(p, 1)``, ``source`` ``(p,)``; ``some`` are the entries that any sees.
    """

    seen: Tensor
    some: frozenset[int]
    y: Tensor
    one: Tensor
    count: Tensor
    source: Tensor


class _Form(NamedTuple):
    """Where the numbers of one kind of slice stand in (0, point): own, before, shift and log variances."""

    own: Tensor
    before: Tensor
    shift: Tensor
    variance: Tensor


@dataclass(frozen=True, eq=False)
class Marginal:
    """The log posterior density, up to a constant, at points of unconstrained space.

    Args:
        templates: The template with the noise of every source.
        patterns: The sources' patterns.
        slices: Number T of slices.
    """

    templates: Sequence[Template]
    patterns: Sequence[Patterns]
    slices: int

    @functools.cached_property
    def sites(self) -> dict[str, tuple[int, ...]]:
        """Site -> shape, of all sources: the order of a point's numbers."""
        return {site: shape for template in self.templates for site, shape in template.sites.items()}

    @functools.cached_property
    def places(self) -> dict[str, slice]:
        """Site -> its numbers in a point."""
        found, used = {}, 0
        for site, shape in self.sites.items():
            found[site] = slice(used, used + math.prod(shape))
            used += math.prod(shape)
        return found

    @property
    def dim(self) -> int:
        """Length P of a point."""
        return sum(math.prod(shape) for shape in self.sites.values())

    def values(self, points: Tensor) -> Values:
        """Sites in the model's own units ``(S, *shape)``."""
        return {s: points[:, at] if self.sites[s] else points[:, at.start].exp() for s, at in self.places.items()}

    def points(self, values: Values) -> Tensor:
        """The inverse of :meth:`values`."""
        return torch.cat([values[s] if shape else values[s].log()[:, None] for s, shape in self.sites.items()], 1)

    def log_joint(self, points: Tensor) -> Tensor:
        """At points ``(S, P)``: ``(S,)``, NaN where a covariance is not positive."""
        step = max(1, FEW_DRAWS // self._state)
        with torch.no_grad():
            return torch.cat([self._log_joint(some) for some in points.split(step)])

    def log_joint_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Log density ``(S,)`` and its gradient ``(S, P)``."""
        step, found = max(1, NUMBERS // (OF_STATE * self.numbers)), []
        for some in points.split(step):
            here = some.detach().requires_grad_()
            with torch.enable_grad():
                value = self._log_joint(here)
                (slope,) = torch.autograd.grad(value.sum(), here)
            found.append((value.detach(), slope))
        values, slopes = zip(*found, strict=True)
        return torch.cat(values), torch.cat(slopes)

    @property
    def device(self) -> torch.device:
        """Where points live."""
        return torch.device("cpu")

    @property
    def numbers(self) -> int:
        """Numbers that the filter handles for one draw: what a log density costs."""
        return self._entries * self._state

    @property
    def _entries(self) -> int:
        return len(self.templates[0].static) + self.slices * len(self.templates[0].variables)

    @functools.cached_property
    def _state(self) -> int:
        """Numbers of the states of all patterns, one draw."""
        template = self.templates[0]
        size = len(template.static) + template.structure.lags * len(template.variables)
        return sum(block.y.shape[2] * size * (size + block.y.shape[1]) for block in self._blocks)

    @functools.cached_property
    def _blocks(self) -> list[_Block]:
        """Rows alone with their pattern in one block, the roots of all others in another."""
        alone = [some for some in self.patterns if some.root.shape[1] == 1]
        shared = [some for some in self.patterns if some.root.shape[1] > 1]
        return [_block(some, self._entries) for some in (alone, shared) if some]

    @functools.cached_property
    def _forms(self) -> list[_Form]:
        numbered = {
            site: torch.arange(at.start + 1, at.stop + 1).reshape(self.sites[site]).double()
            for site, at in self.places.items()
        }
        forms = equations(self.templates[0], numbered)
        return [_Form(*(part.long() for part in form)) for form in forms]

    def _log_joint(self, points: Tensor) -> Tensor:
        padded = torch.cat([points.new_zeros(len(points), 1), points], 1)
        slices = [_reduced(form, padded) for form in self._forms]
        noise = torch.stack([self._noise(template, points) for template in self.templates])
        total = self._log_prior(points)
        for block in self._blocks:
            total = total + self._filtered(block, slices, noise[block.source].permute(2, 0, 1))
        return total

    def _noise(self, template: Template, points: Tensor) -> Tensor:
        """Variances ``(S, V_s + V)``, parents first."""
        names = template.structure.static_order + template.structure.order
        known = torch.tensor([template.noise_of(name) ** 2 for name in names], dtype=points.dtype)
        sites = [template.noise_site_of(name) for name in names]
        columns = [
            (2 * points[:, self.places[site].start]).exp() if site else own.expand(len(points))
            for site, own in zip(sites, known, strict=True)
        ]
        return torch.stack(columns, 1)

    def _log_prior(self, points: Tensor) -> Tensor:
        template = self.templates[0]
        total = points.new_zeros(len(points))
        logs = points[:, [self.places[f"{family.site}_variance"].start for family in template.structure.families]]
        total = total - (template.variance_shape * logs + template.variance_scale * (-logs).exp()).sum(1)
        for f, family in enumerate(template.structure.families):
            slopes = points[:, self.places[family.site]]
            square = slopes.square().sum(1) * (-logs[:, f]).exp() / template.coefficient_scale**2
            total = total - 0.5 * (square + slopes.shape[1] * logs[:, f])
        for site, noise_scale in {site: one.noise_scale for one in self.templates for site in one.noise_sites}.items():
            log_scale = points[:, self.places[site].start]
            total = total + log_scale - 0.5 * (2 * log_scale).exp() / noise_scale**2
        return total

    def _filtered(self, block: _Block, slices: list[tuple[Tensor, Tensor, Tensor]], noise: Tensor) -> Tensor:
        """Log-likelihood of a block ``(S,)``; ``noise`` ``(V_s + V, p, S)``."""
        fixed = len(self.templates[0].static)
        size = noise.shape[0] - fixed
        count, lags = len(block.count), len(slices) - 2
        _, shift, spread = slices[0]
        mean = shift.mT[:, None, None] * block.one
        covariance = spread.permute(1, 2, 0)[:, :, None].expand(-1, -1, count, -1)
        mean, covariance, total = _seen_one_by_one(block, range(fixed), 0, mean, covariance, noise)
        for t in range(self.slices):
            entries = range(fixed + t * size, fixed + (t + 1) * size)
            if entries.start > max(block.some):
                break  # later slices tell nothing
            done = size if t >= lags else 0  # variables of the earliest slice, which no later one depends on
            mean, covariance = _moved(block, *slices[1 + min(t, lags)], mean, covariance, fixed, done)
            at = len(mean) - size
            mean, covariance, added = _seen_one_by_one(block, entries, at, mean, covariance, noise[fixed:])
            total = total + added
        return total.sum(0)


def _block(patterns: Sequence[Patterns], entries: int) -> _Block:
    p, k = sum(len(some.count) for some in patterns), max(some.root.shape[1] for some in patterns)
    seen = torch.zeros(p, entries, dtype=torch.float64)
    y, one = torch.zeros(p, entries, k, dtype=torch.float64), torch.zeros(p, k, dtype=torch.float64)
    used = 0
    for some in patterns:
        mine = torch.arange(used, used + len(some.count))
        used += len(mine)
        seen[mine[:, None], some.at] = 1.0
        rows = some.root.shape[1]
        y[mine[:, None], some.at, :rows] = some.root[:, :, 1:].mT
        one[mine, :rows] = some.root[:, :, 0]
    count, source = (torch.cat([getattr(some, name) for some in patterns]) for name in ("count", "source"))
    return _Block(
        seen.mT[..., None].contiguous(),
        frozenset(seen.any(0).nonzero()[:, 0].tolist()),
        y.permute(1, 2, 0)[..., None].contiguous(),
        one.mT[..., None].contiguous(),
        count[:, None],
        source,
    )


def _reduced(form: _Form, padded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gain ``(S, v, b)``, shift ``(S, v)`` and covariance ``(S, v, v)`` of one kind of slice."""
    size, width = form.before.shape
    deviation = (0.5 * padded[:, form.variance]).exp()
    right = torch.cat([padded[:, form.before], padded[:, form.shift][..., None], torch.diag_embed(deviation)], 2)
    left = torch.eye(size, dtype=padded.dtype) - padded[:, form.own]
    solved = torch.linalg.solve_triangular(left, right, upper=False, unitriangular=True)
    root = solved[:, :, width + 1 :]
    return solved[:, :, :width], solved[:, :, width], root @ root.mT


def _moved(
    block: _Block,
    gain: Tensor,
    shift: Tensor,
    spread: Tensor,
    mean: Tensor,
    covariance: Tensor,
    fixed: int,
    done: int,
) -> tuple[Tensor, Tensor]:
    """Mean ``(d, k, p, S)`` and covariance ``(d, d, p, S)`` of the state and the next slice.

    Of the state the variables after the ``fixed`` ones that are ``done`` with are left out.
    """
    own_mean = _product(gain, mean) + shift.mT[:, None, None] * block.one
    across = _product(gain, covariance)  # of the next slice with the state before
    own = _product(gain, across.transpose(0, 1)) + spread.permute(1, 2, 0)[:, :, None]
    if len(mean) == done:
        return own_mean, own
    across = _without(across, fixed, done, 1)
    upper = torch.cat([_without(_without(covariance, fixed, done, 0), fixed, done, 1), across.transpose(0, 1)], 1)
    return torch.cat([_without(mean, fixed, done, 0), own_mean]), torch.cat([upper, torch.cat([across, own], 1)])


def _without(array: Tensor, first: int, count: int, dim: int) -> Tensor:
    """An array without ``count`` places from ``first`` on of an axis."""
    rest = array.shape[dim] - first - count
    start = array.narrow(dim, 0, first)
    return torch.cat([start, array.narrow(dim, first + count, rest)], dim) if rest else start


def _product(gain: Tensor, arrays: Tensor) -> Tensor:
    """Gain ``(S, v, b)`` times arrays ``(b, j, p, S)``: ``(v, j, p, S)``."""
    b, j, p, draws = arrays.shape
    if draws == 1:
        return (gain[0] @ arrays.reshape(b, j * p)).reshape(gain.shape[1], j, p, 1)
    found = gain @ arrays.permute(3, 0, 1, 2).reshape(draws, b, j * p)
    return found.reshape(draws, gain.shape[1], j, p).permute(1, 2, 3, 0).contiguous()


def _seen_one_by_one(
    block: _Block, entries: range, first: int, mean: Tensor, covariance: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The state given entries of a slice, which stand at ``first`` and on, and their log density ``(p, S)``.

    ``noise`` are the variances of their noise.
    """
    total = mean.new_zeros(mean.shape[2:])
    for v, entry in enumerate(entries):
        seen, i = block.seen[entry], first + v
        if entry not in block.some:
            continue
        variance = covariance[i, i] + noise[v]
        gain = covariance[:, i] * (seen / variance)
        error = block.y[entry] - mean[i]
        logs = block.count * (variance.log() + LOG_2PI)
        total = total - 0.5 * seen * (logs + error.square().sum(0) / variance)
        mean = torch.addcmul(mean, gain[:, None], error)
        covariance = torch.addcmul(covariance, gain[:, None], covariance[i], value=-1)
    return mean, covariance, total
