r"""All families of a linear-Gaussian template at once: their regressions, from one matrix of second moments.

A complete row is, slice by slice, a vector v = (1, static, slices before, slice), of as many slices before as the
longest lag. With the Gram matrix :math:`C = \sum_i w_i v_i v_i'` of each stretch of slices (``Structure.stretches``:
static values, the first slice, later slices), the design's products of every family are blocks of C, so that the
conjugate posteriors of all families (``conjugate``) are one batched Cholesky factor. Families have unequal numbers of
parents; the smaller ones are padded by coefficients that stay at 0. Everything is differentiable and batched over
leading axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bayesdd.dbn.template.structure import Node
from bayesdd.dbn.template.template import Template


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the families' variables stand in v; F families, k coefficients at most.

    Attributes:
        template: The template.
        kind: Stretch of slices ``(F,)``: 0 static values, 1 first slice, 2 later slices, more with longer lags.
        child: Place of the child ``(F,)``.
        design: Places of the intercept and the parents ``(F, k)``.
        real: Which of them are no padding ``(F, k)``.
    """

    template: Template
    kind: Tensor
    child: Tensor
    design: Tensor
    real: Tensor

    @classmethod
    def of(cls, template: Template) -> Layout:
        """The layout of a template; columns of v are parents first, as in ``gaussian.in_order``."""
        structure, places = template.structure, places_of(template)
        kinds = [kind for kind, stretch in enumerate(structure.stretches) for _ in stretch.families]
        families = structure.families
        widest = 1 + max(len(family.parents) for family in families)
        design = [[0, *(places[node] for node in family.parents)] for family in families]
        real = torch.tensor([[i < len(row) for i in range(widest)] for row in design])
        padded = torch.tensor([row + [0] * (widest - len(row)) for row in design])
        child = torch.tensor([places[family.variable, 0] for family in families])
        return cls(template, torch.tensor(kinds), child, padded, real)

    @property
    def width(self) -> int:
        """Length of v."""
        return 1 + len(self.template.static) + (1 + self.lags) * len(self.template.variables)

    @property
    def lags(self) -> int:
        """Longest lag."""
        return self.template.structure.lags

    @property
    def kinds(self) -> int:
        """Number of stretches, each with second moments of its own."""
        return len(self.template.structure.stretches)

    def grams(self, x: Tensor, static: Tensor, weight: Tensor, live: Tensor | None = None) -> Tensor:
        """Weighted second moments of each stretch of slices, ``(..., kinds, d, d)``.

        Sequences ``(..., rows, T, V)`` and static values ``(..., rows, V_s)`` have their parents first. ``live``
        ``(rows, T)`` is 1 for slices that count and 0 for others; by default all count.
        """
        rows, slices, _ = x.shape[-3:]
        by_slice = weight[:, None].expand(rows, slices)
        by_slice = by_slice if live is None else by_slice * live
        known = torch.cat([x.new_ones(*x.shape[:-2], 1), static], -1)
        none = x.new_zeros(*x.shape[:-2], self.width - known.shape[-1])
        found = [(torch.cat([known, none], -1), weight)]
        for stretch in self.template.structure.stretches[1:]:
            at = stretch.slices(slices)
            # Slices before the first are zeros; no family of the stretch has a parent there.
            earlier = [
                torch.nn.functional.pad(x, (0, 0, lag, 0))[..., at.start : at.stop, :]
                for lag in range(self.lags, 0, -1)
            ]
            before = known[..., None, :].expand(*x.shape[:-2], len(at), -1)
            every = torch.cat([before, *earlier, x[..., at.start : at.stop, :]], -1).flatten(-3, -2)
            found.append((every, by_slice[:, at.start : at.stop].flatten()))
        return torch.stack([(v * w[:, None]).mT @ v for v, w in found], -3)

    def blocks(self, gram: Tensor) -> Blocks:
        """Products of every family's design and outcome; padding is 0."""
        both = self.real[:, :, None] & self.real[:, None, :]
        inner = gram[..., self.kind[:, None, None], self.design[:, :, None], self.design[:, None, :]]
        cross = gram[..., self.kind[:, None], self.design, self.child[:, None]]
        square = gram[..., self.kind, self.child, self.child]
        return Blocks(
            torch.where(both, inner, 0.0), torch.where(self.real, cross, 0.0), square, gram[..., self.kind, 0, 0]
        )

    def fitted(self, gram: Tensor) -> Regressions:
        """Normal-inverse-gamma posteriors of all families."""
        template, blocks = self.template, self.blocks(gram)
        before = torch.eye(self.design.shape[1], dtype=gram.dtype) / template.coefficient_scale**2
        precision = before + blocks.inner
        root, _ = torch.linalg.cholesky_ex(precision)
        mean = torch.cholesky_solve(blocks.cross[..., None], root)[..., 0]
        scale = template.variance_scale + (blocks.square - (mean * blocks.cross).sum(-1)) / 2
        return Regressions(mean, root, template.variance_shape + blocks.total / 2, scale)

    def values(self, slopes: Tensor, variance: Tensor) -> dict[str, Tensor]:
        """Coefficients ``(..., F, k)`` and variances ``(..., F)`` as latent sites, in the template's order."""
        found = {}
        for f, family in enumerate(self.template.structure.families):
            found[f"{family.site}_variance"] = variance[..., f]
            found[family.site] = slopes[..., f, : 1 + len(family.parents)]
        return found

    def stacked(self, values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The inverse of :meth:`values`: coefficients ``(..., F, k)``, padded by 0, and variances ``(..., F)``."""
        families = self.template.structure.families
        variance = torch.stack([values[f"{family.site}_variance"] for family in families], -1)
        slopes = variance.new_zeros(*variance.shape, self.design.shape[1])
        for f, family in enumerate(families):
            slopes[..., f, : 1 + len(family.parents)] = values[family.site]
        return slopes, variance


def places_of(template: Template) -> dict[Node, int]:
    """Node -> its place in v; the constant's is 0."""
    structure = template.structure
    order: list[Node] = [(name, 0) for name in structure.static_order]
    order += [(name, lag) for lag in range(structure.lags, -1, -1) for name in structure.order]
    return {node: 1 + i for i, node in enumerate(order)}


class Blocks(NamedTuple):
    """Z'WZ ``(..., F, k, k)``, Z'Wy ``(..., F, k)``, y'Wy and the sum of the weights ``(..., F)`` of every family."""

    inner: Tensor
    cross: Tensor
    square: Tensor
    total: Tensor


class Regressions(NamedTuple):
    """Normal-inverse-gamma posteriors: mean ``(..., F, k)``, root of the precision, shape and scale ``(..., F)``."""

    mean: Tensor
    root: Tensor
    shape: Tensor
    scale: Tensor

    def draw(self, real: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Coefficients ``(..., F, k)``, padding 0, and variances ``(..., F)``."""
        variance = self.scale / torch._standard_gamma(self.shape, generator=generator)
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)[..., None]
        spread = torch.linalg.solve_triangular(self.root.mT, noise, upper=True)[..., 0]
        return torch.where(real, self.mean + variance.sqrt()[..., None] * spread, 0.0), variance
