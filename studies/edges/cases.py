"""Simulated networks whose edges are asked for, and how the edges of a network stand in a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bayesdd import dbn
from bayesdd.dbn import Template
from bayesdd.dbn.learning.families import Edge
from studies.dbn_merge.cases import LARGEST, Problem, gaussian

WITHIN, LAGS = "within", "lags"  # networks with edges within a slice, and from slice to slice only


@dataclass(frozen=True)
class Settings:
    """Sizes.

    Attributes:
        sources: Sources.
        rows: Sequences of each.
        slices: Slices of each sequence.
        hidden: Variables that each source lacks.
        noise: Standard deviation of the noise on every entry.
        draws: Sweeps of each chain of ``dbn.edges``.
        burn: Sweeps of its burn-in.
    """

    sources: int = 3
    rows: int = 50
    slices: int = 5
    hidden: int = 1
    noise: float = 0.3
    draws: int = 200
    burn: int = 210


def simulated(network: str, variables: int, seed: int, settings: Settings, *, rows: int | None = None) -> Problem:
    """Sources that see different variables of a random network.

    Args:
        network: ``within`` or ``lags``.
        variables: Number of variables.
        seed: Seed of network, sequences and what is hidden.
        settings: Sizes.
        rows: Sequences of each source, if not those of the settings.
    """
    s = settings
    sizes: dict[str, Any] = {"rows": rows or s.rows, "slices": s.slices, "sources": s.sources, "hidden": s.hidden}
    found = gaussian(seed=seed, variables=variables, noise=s.noise, **sizes)
    if network == WITHIN:
        return found
    template = replace(found.template, intra=())
    truth = dict(found.truth)
    for family in found.template.structure.transition:
        kept = [0, *(k for k, (_, lag) in enumerate(family.parents, start=1) if lag)]
        truth[family.site] = found.truth[family.site][kept]
    radius = float(torch.linalg.eigvals(_gain(template, truth)).abs().max())
    for family in template.structure.transition if radius > LARGEST else ():
        truth[family.site] = truth[family.site] * LARGEST / radius
    clean = dbn.simulate(template, truth, len(found.clean), s.slices, seed=seed)["x"]
    generator = torch.Generator().manual_seed(seed + 1)
    seen = clean + s.noise * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    return replace(found, template=template, truth=truth, clean=clean, seen=seen.where(~found.seen.isnan(), torch.nan))


def frame(template: Template) -> Template:
    """What is known of a network: its names, and that variables of the first slice are independent."""
    return Template(template.variables, initial=())


def true_edges(template: Template) -> NDArray[np.float64]:
    """The edges of a network as a table ``(2 V, V)``, as :func:`table_of`."""
    pairs = [*template.intra, *((f"{parent}_before", child) for parent, child, *_ in template.inter)]
    return table_of(dict.fromkeys(pairs, 1.0), template.variables)


def table_of(probability: Mapping[Edge, float], names: tuple[str, ...]) -> NDArray[np.float64]:
    """Probabilities ``(2 V, V)`` of edges: parents of the slice, then of the slice before; NaN where none can be."""
    parents = [*names, *(f"{name}_before" for name in names)]
    found = np.array([[float(probability.get((parent, child), 0.0)) for child in names] for parent in parents])
    found[: len(names)][np.eye(len(names), dtype=bool)] = np.nan
    return found


def _gain(template: Template, truth: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Coefficients of a slice on the slice before, without edges within a slice."""
    names, gain = template.variables, torch.zeros(2 * [len(template.variables)], dtype=torch.float64)
    for family in template.structure.transition:
        for (parent, _), value in zip(family.parents, truth[family.site][1:], strict=True):
            gain[names.index(family.variable), names.index(parent)] = value
    return gain
