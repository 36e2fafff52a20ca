"""What linear-Gaussian, categorical and mixed variables have for sites, axes and columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from bayesdd.data.values import Label
from bayesdd.dbn.template.structure import Family
from bayesdd.numerics.refusal import Refusal

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LinearGaussian:
    """Regressions: coefficients, intercept first, and a residual variance."""

    def sites(self, family: Family) -> dict[str, Shape]:
        """Latent site -> shape: the variance, then the coefficients."""
        return {f"{family.site}_variance": (), family.site: (1 + len(family.parents),)}

    def axes(self, family: Family) -> dict[str, tuple[Any, ...]]:
        """Axes of the coefficients -> their labels, the terms of the regression."""
        return {f"{family.site}_term": ("intercept", *family.terms)}

    def space(self, variable: str, shape: Shape) -> Any:
        """The constraint of a site of this shape: coefficients are real, variances and noise scales positive."""
        return constraints.real if shape else constraints.positive

    def entries(self, names: tuple[str, ...]) -> Any:
        """The constraint of the entries of a column: any real number."""
        return constraints.real

    def column(self, values: Tensor, names: tuple[str, ...]) -> Tensor:
        """A column as the densities take it, NaN where missing: floating numbers."""
        return values.double()


@dataclass(frozen=True)
class Categorical:
    """Tables of probabilities.

    Args:
        states: Variable -> number of states.
        labels: Variable -> labels of its states, where they have any.
    """

    states: Mapping[str, int]
    labels: Mapping[str, tuple[Label, ...]] = field(default_factory=dict)

    def sites(self, family: Family) -> dict[str, Shape]:
        """Latent site -> shape: a table of the parents' states, then its own."""
        names = [*(name for name, _ in family.parents), family.variable]
        return {family.site: tuple(self.states[name] for name in names)}

    def axes(self, family: Family) -> dict[str, tuple[Any, ...]]:
        """Axes of the table -> their labels: those of the parents' states and of its own, or their numbers."""
        names = [*(f"{term}_parent" for term in family.terms), f"{family.variable}_state"]
        of = [*(name for name, _ in family.parents), family.variable]
        every = [self.labels.get(name) or tuple(range(self.states[name])) for name in of]
        return dict(zip(names, every, strict=True))

    def space(self, variable: str, shape: Shape) -> Any:
        """The constraint of a table: probabilities of the states of the last axis."""
        return constraints.simplex

    def entries(self, names: tuple[str, ...]) -> Any:
        """The constraint of the entries of a column, whose last axis holds these variables: their states 0, 1, ..."""
        return constraints.integer_interval(0, self._last(names))

    def column(self, values: Tensor, names: tuple[str, ...]) -> Tensor:
        """A column as the densities take it: integers where no entry is missing, else floating, NaN where missing.

        Raises:
            Refusal: An entry is none of its variable's states.
        """
        known = ~values.isnan()
        whole = values == values.floor() if values.is_floating_point() else known
        bad = known & ((values < 0) | (values > self._last(names)) | ~whole)
        if bool(bad.any()):
            where = bad.nonzero()[0].tolist()
            name = names[where[-1]]
            raise Refusal(
                f"Template: variable {name!r} has the states 0 to {self.states[name] - 1}, but row {where[0]} holds "
                f"{values[tuple(where)].item():g}: recode it, declare its labels in states=, or write NaN where it is "
                "missing."
            )
        return values.long() if bool(known.all()) else values.double()

    def _last(self, names: tuple[str, ...]) -> Tensor:
        return torch.tensor([self.states[name] - 1 for name in names])


@dataclass(frozen=True)
class Mixed:
    """Linear-Gaussian and categorical variables, either with the other among their parents.

    Args:
        discrete: What the categorical variables are.
        probits: Those of them with a linear-Gaussian parent: a probit for each state that one can go on from.
        continuous: What the others are.
    """

    discrete: Categorical
    probits: tuple[str, ...] = ()
    continuous: LinearGaussian = LinearGaussian()

    def sites(self, family: Family) -> dict[str, Shape]:
        """Latent site -> shape; a categorical parent of K states has K - 1 coefficients."""
        if family.variable in self.probits:
            return {family.site: (self.discrete.states[family.variable] - 1, 1 + len(self._widened(family).parents))}
        return self.discrete.sites(family) if self._discrete(family) else self.continuous.sites(self._widened(family))

    def axes(self, family: Family) -> dict[str, tuple[Any, ...]]:
        """Axes -> their labels."""
        if (name := family.variable) in self.probits:
            steps = tuple(
                f">{label}" for label in (self.discrete.labels.get(name) or range(self.discrete.states[name]))
            )
            return {f"{name}_step": steps[:-1]} | self.continuous.axes(self._widened(family))
        return self.discrete.axes(family) if self._discrete(family) else self.continuous.axes(self._widened(family))

    def space(self, variable: str, shape: Shape) -> Any:
        """The constraint of a variable's site."""
        discrete = variable in self.discrete.states and variable not in self.probits
        return (self.discrete if discrete and shape else self.continuous).space(variable, shape)

    def entries(self, names: tuple[str, ...]) -> Any:
        """The constraint of the entries of a column: real numbers, of which some are states."""
        return constraints.real

    def column(self, values: Tensor, names: tuple[str, ...]) -> Tensor:
        """A column as the densities take it: floating numbers, NaN where missing, states 0, 1, ... among them."""
        found = values.double()
        for place, name in enumerate(names):
            if name in self.discrete.states:
                self.discrete.column(found[..., place : place + 1], (name,))
        return found

    def _discrete(self, family: Family) -> bool:
        return family.variable in self.discrete.states

    def _widened(self, family: Family) -> Family:
        """The family with indicators in place of categorical parents."""
        states = self.discrete.states
        parents = [
            (one, lag)
            for name, lag in family.parents
            for one in (indicators(name, states[name], self.discrete.labels) if name in states else (name,))
        ]
        return Family(family.variable, family.site, tuple(parents))


def indicators(name: str, states: int, labels: Mapping[str, tuple[Label, ...]]) -> tuple[str, ...]:
    """Names of the indicators of all states but the first: ``sex=m``, or ``sex=1`` without labels."""
    return tuple(f"{name}={label}" for label in (labels.get(name) or range(states))[1:])


Kind = LinearGaussian | Categorical | Mixed
