r"""Posterior of a categorical template's tables from incomplete sequences, by data augmentation.

A sweep draws every missing entry given all others, then every table given the completed sequences:

.. math:: x_{tv} \sim p(x_{tv} \mid \text{parents}) \prod_{\text{children}} p(\text{child} \mid x_{tv}, \dots), \qquad
          \theta \mid x \sim \mathrm{Dirichlet}(\alpha + \text{counts}).

One variable's entries of every other slice, or that lie more than the longest lag apart, have no edge and no child in
common, so they are drawn together, over all sequences. Entries without a seen descendant are never drawn. Exact in the
limit of many sweeps; the draws are a Markov chain. Source: Tanner & Wong, "The calculation of posterior distributions
by data augmentation", JASA 1987.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayesdd.dbn.inference._conjugate import probabilities
from bayesdd.dbn.likelihood.categorical import by_site, cell
from bayesdd.dbn.likelihood.messages import needed
from bayesdd.dbn.template.columns import by_name, columns
from bayesdd.dbn.template.structure import Family, Node
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.exclusive import exclusive
from bayesdd.numerics.refusal import Refusal


@exclusive
def gibbs(template: Template, data: Any, *, draws: int = 1000, burn: int = 200, seed: int = 0) -> dict[str, Tensor]:
    """Draws of every table, a Markov chain: site -> ``(draws, *shape)``.

    Args:
        template: A categorical template.
        data: Columns as for :func:`bayesdd.dbn.task`.
        draws: Sweeps that are kept.
        burn: Sweeps before them.
        seed: Seed.

    Raises:
        Refusal: The columns do not fit, or the template is linear-Gaussian.
    """
    if not template.states or template.mixed:
        raise Refusal("gibbs draws tables of categorical variables: use task() and bayesdd.sample.")
    generator = torch.Generator().manual_seed(seed)
    chain = _Chain.of(template, *columns(template, data), generator)
    kept = torch.empty(draws, sum(map(math.prod, template.sites.values())), dtype=torch.float64)
    for sweep in range(burn + draws):
        tables = chain.tables(generator)
        chain.impute(tables.log(), generator)
        if sweep >= burn:
            kept[sweep - burn] = tables
    return by_site(template, kept)


@dataclass(frozen=True, eq=False)
class _Factor:
    """A family at n pairs of a row and a slice (0 for a static child), as it bears on the entries that are being drawn.

    ``flips`` is the one of its variables that is being drawn, if any; ``entry`` are the entries that the pairs bear on.
    """

    family: Family
    flips: Node | None
    row: Tensor
    slice: Tensor
    entry: Tensor


@dataclass(frozen=True, eq=False)
class _Block:
    """Entries of one variable that are drawn together: rows and slices ``(m,)``."""

    variable: str
    row: Tensor
    slice: Tensor
    factors: list[_Factor]


@dataclass(frozen=True, eq=False)
class _Chain:
    """The completed sequences, changed in place by every sweep."""

    template: Template
    values: dict[str, Tensor]  # variable -> (rows, T), static ones (rows, 1)
    blocks: list[_Block]
    every: list[_Factor]  # one a family: wherever its child is needed

    @classmethod
    def of(cls, template: Template, x: Tensor, static: Tensor, generator: torch.Generator) -> _Chain:
        lives = by_name(template, *needed(template, x, static))
        values, blocks = {}, []
        for name, column in by_name(template, x, static).items():
            free = lives[name] & column.isnan()
            guess = torch.randint(template.states[name], column.shape, generator=generator)
            values[name] = torch.where(column.isnan(), guess, column.nan_to_num().long())
            row, at = free.nonzero(as_tuple=True)
            apart = 1 + template.structure.lags
            for place in range(apart):
                mine = at % apart == place
                if bool(mine.any()):
                    factors = _bearing(template, name, row[mine], at[mine], lives)
                    blocks.append(_Block(name, row[mine], at[mine], factors))
        return cls(template, values, blocks, _everywhere(template, lives))

    def tables(self, generator: torch.Generator) -> Tensor:
        """A draw of all tables given the completed sequences, side by side."""
        found = []
        for factor in self.every:
            shape = self.template.sites[factor.family.site]
            index = self._cell(factor) - self.template.offsets[factor.family.site]
            counts = torch.bincount(index, minlength=math.prod(shape)).double() + self.template.pseudo_count
            found.append(probabilities(counts.reshape(shape), generator).flatten())
        return torch.cat(found)

    def impute(self, log: Tensor, generator: torch.Generator) -> None:
        """Draws every missing entry in turn."""
        for block in self.blocks:
            count = self.template.states[block.variable]
            score = torch.zeros(len(block.row), count, dtype=log.dtype)
            for factor in block.factors:
                every = self._cell(factor, torch.arange(count)).expand(len(factor.entry), -1)
                score.index_add_(0, factor.entry, log[every])
            uniform = torch.rand(score.shape, generator=generator, dtype=score.dtype)
            self.values[block.variable][block.row, block.slice] = (score - (-uniform.log()).log()).argmax(1)

    def _cell(self, factor: _Factor, flipped: Tensor | None = None) -> Tensor:
        def of(node: Node) -> Tensor:
            if node == factor.flips and flipped is not None:
                return flipped
            name, lag = node
            at = factor.slice - lag if name in self.template.variables else 0
            found = self.values[name][factor.row, at]
            return found if flipped is None else found[:, None]

        return cell(self.template, factor.family, of)


def _everywhere(template: Template, lives: dict[str, Tensor]) -> list[_Factor]:
    found = []
    for families, slices in template.structure.ranges(lives[template.variables[0]].shape[1]):
        for family in families:
            row, at = lives[family.variable][:, slices.start : slices.stop].nonzero(as_tuple=True)
            found.append(_Factor(family, None, row, at + slices.start, torch.arange(len(row))))
    return found


def _bearing(template: Template, name: str, row: Tensor, at: Tensor, lives: dict[str, Tensor]) -> list[_Factor]:
    """The factors in which a variable's entries stand: its own family and its children's, where these are needed."""
    found = []
    for families, slices in template.structure.ranges(lives[template.variables[0]].shape[1]):
        for family in families:
            for node in ((family.variable, 0), *family.parents):
                if node[0] != name:
                    continue
                entry = torch.arange(len(row))
                if name in template.static:
                    entry, child = (
                        entry.repeat_interleave(len(slices)),
                        torch.tensor(slices, dtype=torch.int64).repeat(len(row)),
                    )
                else:
                    child = at + node[1]
                inside = (child >= slices.start) & (child < slices.stop)
                entry, child = entry[inside], child[inside]
                needed_here = lives[family.variable][row[entry], child]
                entry, child = entry[needed_here], child[needed_here]
                if len(entry):
                    found.append(_Factor(family, node, row[entry], child, entry))
    return found
