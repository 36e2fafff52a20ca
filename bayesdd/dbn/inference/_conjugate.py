r"""Posterior of a template's parameters given complete, weighted rows, in closed form.

Families are independent given complete rows. Linear-Gaussian, design Z with a first column of 1, outcomes y, weights
:math:`W`:

.. math::
    \sigma^2 \sim \mathrm{IG}(a_n, b_n), \quad \beta \mid \sigma^2 \sim N(m_n, \sigma^2 \Lambda_n^{-1}), \quad
    \Lambda_n = \Lambda_0 + Z'WZ, \quad m_n = \Lambda_n^{-1} Z'Wy, \\
    a_n = a_0 + \tfrac12 \mathrm{tr} W, \quad
    b_n = b_0 + \tfrac12 \{ (y - Z m_n)'W(y - Z m_n) + m_n'\Lambda_0 m_n \};

categorical: Dirichlet(pseudo-count + weighted counts) for each joint state of the parents; mixed: the one or the other.
A row of weight k counts as k rows, so that these are also the posteriors of distilled rows. Cost: one pass over the
rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayesdd.dbn.likelihood.categorical import by_site, cells, expected_counts
from bayesdd.dbn.template.columns import columns, groups, soft_columns, whole
from bayesdd.dbn.template.mixture import Mixture
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal


@dataclass(frozen=True, eq=False)
class NormalInverseGamma:
    """Of a family's coefficients (k,), intercept first, and variance.

    ``mean`` ``(k,)`` and ``precision`` ``(k, k)``, in units of the variance, are those of the coefficients; ``shape``
    and ``scale`` those of the variance's inverse gamma.
    """

    mean: Tensor
    precision: Tensor
    shape: Tensor
    scale: Tensor

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Coefficients ``(count, k)`` and variances ``(count,)``."""
        variance = self.scale / torch._standard_gamma(self.shape.expand(count), generator=generator)
        noise = torch.randn(count, len(self.mean), generator=generator, dtype=self.mean.dtype)
        root = torch.linalg.cholesky(self.precision).mT
        spread = torch.linalg.solve_triangular(root, noise.mT, upper=True).mT
        return self.mean + variance.sqrt()[:, None] * spread, variance


@dataclass(frozen=True, eq=False)
class Dirichlet:
    """Of a family's table: concentrations, shape (states of its parents..., its own)."""

    concentration: Tensor

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Tables ``(count, *shape)``."""
        return probabilities(self.concentration.expand(count, *self.concentration.shape).contiguous(), generator)


def probabilities(concentration: Tensor, generator: torch.Generator) -> Tensor:
    """One draw from each Dirichlet of concentrations ``(..., states)``."""
    gamma = torch._standard_gamma(concentration, generator=generator).clamp_min(1e-300)
    return gamma / gamma.sum(-1, keepdim=True)


@dataclass(frozen=True, eq=False)
class Posterior:
    """Independent posteriors of all families, site -> its posterior."""

    families: dict[str, NormalInverseGamma | Dirichlet]

    def draw(self, count: int, seed: int) -> dict[str, Tensor]:
        """Independent draws of the latent sites in the model's own units: site -> ``(count, *shape)``."""
        generator, found = torch.Generator().manual_seed(seed), {}
        for site, family in self.families.items():
            if isinstance(family, Dirichlet):
                found[site] = family.draw(count, generator)
            else:
                found[site], found[f"{site}_variance"] = family.draw(count, generator)
        return found


def conjugate(template: Template, data: Any, weight: Any = None) -> Posterior:
    """Exact posterior given complete weighted rows, without measurement noise.

    Args:
        template: The template.
        data: Columns as for :func:`bayesdd.dbn.task`, or probabilities ``(rows, T, V, K)`` and ``(rows, V_s, K)`` of
            soft categories.
        weight: Weights of the rows ``(rows,)``; one each if left out.

    Raises:
        Refusal: The columns do not fit, entries are missing, or the template is noisy.
    """
    x, static = soft_columns(template, data) or columns(template, data)
    if template.probits:
        raise Refusal(
            f"conjugate() is a closed form, and {template.probits[0]!r} with its linear-Gaussian parents has none: use "
            "pooled(template, [Source(rows)]), or task() and bayesdd.sample."
        )
    if template.noisy or not whole(x, static):
        raise Refusal(
            "conjugate() is a closed form for complete rows without measurement noise: use task() and bayesdd.sample, "
            "or gibbs() for categorical rows with missing entries."
        )
    ones = torch.ones(len(x), dtype=torch.float64)
    every = ones if weight is None else ones * torch.as_tensor(weight)
    if template.mixed:
        mixture = Mixture.of(template)
        (c, c_static), numbers = mixture.split(x, static)
        found = _dirichlet(mixture.discrete, c.long(), c_static.long(), every).families
        found |= _normal(mixture.continuous, *numbers, every).families
        return Posterior({family.site: found[family.site] for family in template.structure.families})
    return (_dirichlet if template.states else _normal)(template, x, static, every)


def _dirichlet(template: Template, x: Tensor, static: Tensor, weight: Tensor) -> Posterior:
    if x.dim() == 4:
        counts = expected_counts(template, x, static, weight)
    else:
        index, size = torch.cat(cells(template, x, static), 1), sum(map(math.prod, template.sites.values()))
        counts = torch.bincount(index.flatten(), weight.repeat_interleave(index.shape[1]), minlength=size)
    tables = by_site(template, counts + template.pseudo_count)
    return Posterior({site: Dirichlet(table) for site, table in tables.items()})


def _normal(template: Template, x: Tensor, static: Tensor, weight: Tensor) -> Posterior:
    found: dict[str, NormalInverseGamma | Dirichlet] = {}
    for families, of in groups(template, x, static):
        for family in families:
            y = of((family.variable, 0))
            parents = [of(node).expand_as(y) for node in family.parents]
            design = torch.stack([torch.ones_like(y), *parents], 2).flatten(0, 1)
            found[family.site] = _fitted(template, design, y.flatten(), weight.repeat_interleave(y.shape[1]))
    return Posterior(found)


def _fitted(template: Template, design: Tensor, y: Tensor, weight: Tensor) -> NormalInverseGamma:
    before = torch.eye(design.shape[1], dtype=y.dtype) / template.coefficient_scale**2
    precision = before + design.mT @ (weight[:, None] * design)
    mean = torch.cholesky_solve((design.mT @ (weight * y))[:, None], torch.linalg.cholesky(precision))[:, 0]
    # A sum of squares, not a difference of two: no digits are lost where the fit is close.
    left = (weight * (y - design @ mean).square()).sum() + mean @ before @ mean
    shape = template.variance_shape + weight.sum() / 2
    return NormalInverseGamma(mean, precision, shape, template.variance_scale + left / 2)
