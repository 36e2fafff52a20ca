"""Simulated sources of a merge: a random template, sequences from it, what each source hides, and how noisy it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bayesdd import dbn
from bayesdd.dbn import Template
from bayesdd.dbn.likelihood.gaussian import equations
from bayesdd.dbn.likelihood.source import Source

TEST_ROWS = 2000
LARGEST = 0.9  # spectral radius of a step: sequences stay bounded
FIRST, LATER = 1.0, 0.25  # residual variances of the first slice and of later ones


@dataclass(frozen=True, eq=False)
class Problem:
    """One simulated merge.

    Attributes:
        template: The true template, without noise.
        truth: Its parameters.
        clean: All sources' sequences as they are ``(rows, T, V)``, source after source.
        seen: The same as the sources have them: noisy, NaN where hidden.
        sizes: Rows of each source.
        noise: Standard deviation of the noise.
        test: Clean sequences to judge by.
    """

    template: Template
    truth: dict[str, Tensor]
    clean: Tensor
    seen: Tensor
    sizes: tuple[int, ...]
    noise: float
    test: Tensor

    @property
    def slices(self) -> int:
        """Slices T."""
        return self.clean.shape[1]

    @property
    def sources(self) -> list[Source]:
        """The sources as the merge takes them."""
        return [Source({"x": part}, noise=self.noise) for part in self.seen.split(self.sizes)]


def gaussian(
    *,
    seed: int,
    slices: int,
    rows: int = 100,
    sources: int = 4,
    hidden: int = 2,
    noise: float = 0.3,
    variables: int = 6,
    first: bool = False,
) -> Problem:
    """A linear-Gaussian merge; every variable depends on itself, another of the slice before, and perhaps a third.

    Variables of the first slice are independent, as nothing has gone before.

    Args:
        seed: Seed of network, sequences and what is hidden.
        slices: Slices T.
        rows: Sequences of each source.
        sources: Number K of sources.
        hidden: Variables that each source hides.
        noise: Standard deviation of the noise on every entry.
        variables: Number V of variables.
        first: Whether the first slice has the edges of later ones instead.
    """
    rng = np.random.default_rng([seed, variables])
    names = tuple(f"v{i}" for i in range(variables))
    order = [names[i] for i in rng.permutation(variables)]
    intra, inter = [], []
    for place, child in enumerate(order):
        inter += [(child, child), (str(rng.choice([name for name in names if name != child])), child)]
        if place and rng.random() < 0.7:
            intra.append((str(rng.choice(order[:place])), child))
    template = Template(names, intra=tuple(intra), inter=tuple(inter), initial=None if first else ())
    truth = {}
    for site, shape in template.sites.items():
        if not shape:
            truth[site] = torch.tensor(FIRST if "_initial" in site else LATER, dtype=torch.float64)
            continue
        size = rng.uniform(0.3, 0.8, shape) * rng.choice([-1, 1], shape)
        size[0] = 0.0  # variables are standardised: intercepts are small, and estimated all the same
        truth[site] = torch.as_tensor(size)
    truth = _bounded(template, truth)
    rows_all = rows * sources
    drawn = dbn.simulate(template, truth, rows_all + TEST_ROWS, slices, seed=seed)["x"]
    clean, test = drawn[:rows_all], drawn[rows_all:]
    generator = torch.Generator().manual_seed(seed + 1)
    seen = clean + noise * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    for part, lost in zip(seen.split(rows), hides(rng, sources, variables, hidden), strict=True):
        part[:, :, lost] = torch.nan
    return Problem(template, truth, clean, seen, (rows,) * sources, noise, test)


def categorical(
    *,
    seed: int,
    slices: int,
    rows: int = 300,
    sources: int = 3,
    hidden: int = 3,
    variables: int = 10,
    states: int = 3,
) -> Problem:
    """A categorical merge in which every family is seen whole by some source; no noise.

    Args:
        seed: Seed of network, sequences and what is hidden.
        slices: Slices T.
        rows: Sequences of each source.
        sources: Number K of sources.
        hidden: Variables that each source hides.
        variables: Number V of variables.
        states: States of each.
    """
    rng = np.random.default_rng([seed, variables, states])
    names = tuple(f"v{i}" for i in range(variables))
    order = [names[i] for i in rng.permutation(variables)]
    intra, inter = [], []
    for place, child in enumerate(order):
        inter.append((child, child))
        if place and rng.random() < 0.5:
            intra.append((str(rng.choice(order[:place])), child))
        else:
            inter.append((str(rng.choice([name for name in names if name != child])), child))
    template = Template(names, intra=tuple(intra), inter=tuple(inter), states=dict.fromkeys(names, states))
    truth = {site: torch.as_tensor(rng.dirichlet(np.full(s[-1], 0.5), s[:-1])) for site, s in template.sites.items()}
    drawn = dbn.simulate(template, truth, rows * sources + TEST_ROWS, slices, seed=seed)["x"]
    clean, test = drawn[: rows * sources], drawn[rows * sources :]
    seen = clean.double().clone()
    for part, lost in zip(seen.split(rows), _whole_families(template, rng, sources, hidden), strict=True):
        part[:, :, lost] = torch.nan
    return Problem(template, truth, clean, seen, (rows,) * sources, 0.0, test)


def hides(rng: np.random.Generator, sources: int, variables: int, hidden: int) -> list[list[int]]:
    """Places of the variables that each source hides: dealt evenly, so that every variable is seen by some source."""
    for _ in range(1000):
        need = sources * hidden
        deck = np.concatenate([rng.permutation(variables) for _ in range(-(-need // variables))])[:need]
        dealt = [sorted(map(int, part)) for part in deck.reshape(sources, hidden)]
        lost_by_all = set.intersection(*(set(part) for part in dealt))
        if not lost_by_all and all(len(set(part)) == hidden for part in dealt):
            return dealt
    raise ValueError(
        f"{sources} sources that hide {hidden} of {variables} variables leave none that all see: hide less."
    )


def _bounded(template: Template, truth: dict[str, Tensor]) -> dict[str, Tensor]:
    """Shrinks the coefficients over time until a step's spectral radius is at most ``LARGEST``."""
    while True:
        gain, _, _ = equations(template, truth)[2].reduced()
        if float(torch.linalg.eigvals(gain).abs().max()) <= LARGEST:
            return truth
        for family in template.structure.transition:
            within = [1.0] + [0.9 if lag else 1.0 for _, lag in family.parents]
            truth = truth | {family.site: truth[family.site] * torch.tensor(within, dtype=torch.float64)}


def _whole_families(template: Template, rng: np.random.Generator, sources: int, hidden: int) -> list[list[int]]:
    """Places of the variables that each source hides, such that some source sees every family whole."""
    families = [{family.variable, *(name for name, _ in family.parents)} for family in template.structure.transition]
    for _ in range(10_000):
        dealt = [rng.choice(len(template.variables), hidden, replace=False) for _ in range(sources)]
        sees = [{name for i, name in enumerate(template.variables) if i not in lost} for lost in dealt]
        if all(any(family <= one for one in sees) for family in families):
            return [sorted(map(int, lost)) for lost in dealt]
    raise ValueError(
        f"no way found for {sources} sources to hide {hidden} variables each and see every family: hide less."
    )
