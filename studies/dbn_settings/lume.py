r"""LUME-DBN: missing values and parameters drawn in turn, value by value, in NumPy.

A row's values x (T V of them, slice after slice) satisfy A x = c + e, e ~ N(0, W^-1), whence

.. math:: p(x \mid \theta) \propto \exp(-\tfrac12 x'\Lambda x + h'x), \qquad \Lambda = A'WA, \quad h = A'Wc,

and each missing value given all others is :math:`N((h_i - \sum_{j \ne i} \Lambda_{ij} x_j) / \Lambda_{ii},
1 / \Lambda_{ii})`. A sweep draws these forward over time, then every family's variance and coefficients from their
normal-inverse-gamma given the completed rows. Chains are drawn side by side.

The paper draws edges too, and has neither edges within a slice nor measurement noise. Here the edges are given and may
be within a slice, priors are the template's, and with ``noise`` the true values of measured entries are missing too, of
which the measurement is one more normal factor.

Source: Pirola, Stella & Grzegorczyk, "LUME-DBN: Full Bayesian learning of DBNs from incomplete data in intensive care",
arXiv 2511.04333, 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bayesdd.dbn import Template
from bayesdd.dbn.template.structure import Values
from studies.dbn_merge.cases import Problem

CHAINS, BURN = 4, 200

Array = NDArray[np.float64]


class Part(NamedTuple):
    """A family unrolled: places in a row of its child ``(n,)`` and of its parents, one array ``(n,)`` each."""

    site: str
    child: NDArray[np.int64]
    parents: list[NDArray[np.int64]]


def draws(problem: Problem, *, count: int, seed: int, noise: float = 0.0, burn: int = BURN) -> Values:
    """Draws of the parameters, site -> ``(CHAINS, count / CHAINS, *shape)``.

    Args:
        problem: The sources; of it the template and what is seen are used.
        count: Draws of all chains together.
        seed: Seed.
        noise: Standard deviation of the noise; 0 takes measured values as true, as the paper does.
        burn: Sweeps of each chain before the first draw.
    """
    rng = np.random.default_rng(seed)
    seen = problem.seen.flatten(1).numpy().T  # (T V, rows)
    parts = unrolled(problem.template, problem.slices)
    gone = np.isnan(seen)
    moves = [(i, np.flatnonzero(gone[i] | (noise > 0))) for i in range(len(seen))]
    measured = np.zeros_like(seen) if noise == 0 else np.where(gone, 0.0, 1 / noise**2)
    near = neighbours(parts, len(seen))
    x = np.where(gone, rng.normal(size=(CHAINS, *seen.shape)), np.nan_to_num(seen))
    found: dict[str, list[Array]] = {}
    for sweep in range(burn + count // CHAINS):
        values = {part.site: _regression(problem.template, x, part, rng) for part in parts}
        precision, shift = joint(parts, values, len(seen))
        for i, rows in moves:
            others = near[i]
            mean = shift[:, i, None] - np.einsum("cj,cjn->cn", precision[:, i, others], x[:, others[:, None], rows])
            mean += measured[i, rows] * np.nan_to_num(seen[i, rows])
            total = precision[:, i, i, None] + measured[i, rows]
            x[:, i, rows] = mean / total + rng.normal(size=mean.shape) / np.sqrt(total)
        for site, (coefficients, variance) in values.items() if sweep >= burn else ():
            found.setdefault(site, []).append(coefficients)
            found.setdefault(f"{site}_variance", []).append(variance)
    return {site: torch.as_tensor(np.stack(some, 1)) for site, some in found.items()}


def unrolled(template: Template, slices: int) -> list[Part]:
    """Families of a row of so many slices, without static variables."""
    place, size = {name: k for k, name in enumerate(template.variables)}, len(template.variables)
    parts = []
    for families, times in template.structure.ranges(slices):
        t = size * np.array(times, dtype=np.int64)
        for family in families:
            parents = [t - size * lag + place[name] for name, lag in family.parents]
            parts.append(Part(family.site, t + place[family.variable], parents))
    return [part for part in parts if len(part.child)]


def joint(parts: Sequence[Part], values: Any, size: int) -> tuple[Array, Array]:
    """Precision ``(chains, T V, T V)`` and shift ``(chains, T V)`` of a row given coefficients and variances."""
    chains = len(next(iter(values.values()))[1])
    rest, shift, weight = np.tile(np.eye(size), (chains, 1, 1)), np.zeros((chains, size)), np.zeros((chains, size))
    for site, child, parents in parts:
        coefficients, variance = values[site]
        shift[:, child], weight[:, child] = coefficients[:, :1], 1 / variance[:, None]
        for k, parent in enumerate(parents, start=1):
            rest[:, child, parent] -= coefficients[:, k, None]
    weighted = rest * weight[:, :, None]
    return rest.transpose(0, 2, 1) @ weighted, np.einsum("cij,ci->cj", weighted, shift)


def neighbours(parts: Sequence[Part], size: int) -> list[NDArray[np.int64]]:
    """Places of parents, children and children's other parents of each place."""
    joined = np.zeros((size, size))
    for _, child, parents in parts:
        family = np.stack([child, *parents])
        for one in family:
            joined[one, family] = 1
    np.fill_diagonal(joined, 0)
    return [np.flatnonzero(row) for row in joined]


def _regression(template: Template, x: Array, part: Part, rng: np.random.Generator) -> tuple[Array, Array]:
    """A draw of coefficients ``(chains, k)`` and variances ``(chains,)`` given completed rows."""
    columns = [x[:, place].reshape(len(x), -1) for place in (*part.parents, part.child)]
    z = np.stack([np.ones_like(columns[0]), *columns], 1)
    gram = z @ z.transpose(0, 2, 1)
    precision = gram[:, :-1, :-1] + np.eye(z.shape[1] - 1) / template.coefficient_scale**2
    mean = np.linalg.solve(precision, gram[:, :-1, -1:])[..., 0]
    left = gram[:, -1, -1] - (mean * gram[:, :-1, -1]).sum(1)
    scale = template.variance_scale + left / 2
    variance = scale / rng.gamma(template.variance_shape + z.shape[2] / 2, size=len(x))
    root = np.linalg.cholesky(precision).transpose(0, 2, 1)
    spread = np.linalg.solve(root, rng.normal(size=(*mean.shape, 1)))[..., 0]
    return mean + np.sqrt(variance)[:, None] * spread, variance
