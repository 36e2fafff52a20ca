r"""Mixed sequences: the exact density of rows in which states and numbers may be missing.

Given all states c a row's numbers z are jointly Gaussian (``bayesdd.dbn.template.mixture``), so that

.. math:: p(c, z) = \sum_{c\ \text{missing}} p(c) \int p(z \mid c)\, dz_{\text{missing}},

a sum over the joint states of the missing categorical entries that have a seen descendant, of Gaussian densities with
missing entries. States with linear-Gaussian parents are a factor :math:`P(c \mid z, c')` more
(``probit``). Cost: that of the linear-Gaussian density for each joint state of each row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bayesdd.dbn.likelihood import categorical, messages, probit
from bayesdd.dbn.likelihood.gaussian import LOG_2PI
from bayesdd.dbn.template.columns import Rows, groups
from bayesdd.dbn.template.mixture import Mixture
from bayesdd.dbn.template.structure import Entry, Family, Node, Values
from bayesdd.dbn.template.template import Template

Gaussian = Callable[[Values, Tensor, Tensor], Tensor]  # log density of rows of the continuous part, static ones too


def hidden_entries(template: Template, x: Tensor, static: Tensor) -> list[tuple[Tensor, tuple[Entry, ...]]]:
    """Rows ``(m,)`` of every pattern of categorical entries that must be summed over, and these entries."""
    live, live_static = messages.needed(template, x, static)
    places: list[Entry] = [(name, -1) for name in template.static if name in template.states]
    places += [(name, t) for t in range(x.shape[1]) for name in template.variables if name in template.states]
    open_x, open_static = live & x.isnan(), live_static & static.isnan()
    flags = torch.zeros(len(x), len(places), dtype=torch.bool)
    for i, (name, t) in enumerate(places):
        at = open_static[:, template.static.index(name)] if t < 0 else open_x[:, t, template.variables.index(name)]
        flags[:, i] = at
    kinds, which = torch.unique(flags, dim=0, return_inverse=True)
    return [
        ((which == k).nonzero()[:, 0], tuple(places[i] for i in kind.nonzero()[:, 0].tolist()))
        for k, kind in enumerate(kinds)
    ]


def joint_states(template: Template, entries: tuple[Entry, ...]) -> int:
    """Number of joint states of some entries."""
    return math.prod(template.states[name] for name, _ in entries)


def filled(template: Template, x: Tensor, static: Tensor, entries: tuple[Entry, ...]) -> tuple[Rows, Tensor]:
    """Rows once for every joint state of some entries; states that a row does not need are 0.

    Returns:
        Sequences ``(J rows, T, V)`` and static values, joint states slowest; and which of them agree with what was
        seen ``(J, rows)``.
    """
    count, rows = joint_states(template, entries), len(x)
    live, live_static = messages.needed(template, x, static)
    states, fixed = x.double().repeat(count, 1, 1), static.double().repeat(count, 1)
    agree, stride = torch.ones(count, rows, dtype=torch.bool), 1
    for name, t in entries:
        number = torch.arange(count) // stride % template.states[name]
        stride *= template.states[name]
        mine = number.repeat_interleave(rows).double()
        column = fixed[:, template.static.index(name)] if t < 0 else states[:, t, template.variables.index(name)]
        need = live_static[:, template.static.index(name)] if t < 0 else live[:, t, template.variables.index(name)]
        agree &= torch.where(column.isnan(), need.repeat(count) | (mine == 0), column == mine).reshape(count, rows)
        value = torch.where(column.isnan(), mine, column)
        if t < 0:
            fixed[:, template.static.index(name)] = value
        else:
            states[:, t, template.variables.index(name)] = value
    for names, every in ((template.variables, states), (template.static, fixed)):
        categories = torch.tensor([name in template.states for name in names], dtype=torch.bool)
        every.copy_(torch.where(categories & every.isnan(), 0.0, every))
    return (states, fixed), agree


class Completed(NamedTuple):
    """Rows once for every joint state of what is missing of their states, joint states slowest.

    Attributes:
        states: Of the discrete part, as integers.
        live: 1 for its entries that are seen or have a seen descendant, else 0.
        numbers: Of the continuous part, NaN where missing.
        agree: Which of the joint states agree with what was seen ``(J, rows)``.
    """

    states: Rows
    live: Rows
    numbers: Rows
    agree: Tensor


def completed(mixture: Mixture, x: Tensor, static: Tensor, entries: tuple[Entry, ...]) -> Completed:
    """Rows of which no other categorical entries than ``entries`` may be missing and needed."""
    live = messages.needed(mixture.template, x, static)
    whole, agree = filled(mixture.template, x, static, entries)
    (c, c_static), numbers = mixture.split(*whole)
    (own, own_static), _ = mixture.split(live[0].double(), live[1].double())
    every = len(agree)
    return Completed(
        (c.long(), c_static.long()), (own.repeat(every, 1, 1), own_static.repeat(every, 1)), numbers, agree
    )


def scored(
    mixture: Mixture,
    values: Values,
    x: Tensor,
    static: Tensor,
    *,
    entries: tuple[Entry, ...],
    gaussian: Gaussian,
    steps: probit.Steps | None,
) -> Tensor:
    """Log p(row) of one draw, nats ``(rows,)``; no other categorical entries than ``entries`` may be missing.

    ``steps`` scores the signs of the utilities, where there are any.
    """
    states, live, numbers, agree = completed(mixture, x, static, entries)
    score = gaussian(mixture.values(values), *numbers) - _of_indicators(mixture, *numbers)
    score = score + of_tables(mixture, values, states, live)
    if steps is not None:
        score = score + steps(values, numbers, probit.signs(mixture, states, live))
    return torch.where(agree, score.reshape(agree.shape), -torch.inf).logsumexp(0)


def of_tables(mixture: Mixture, values: Values, states: Rows, live: Rows) -> Tensor:
    """Log probability of states with categorical parents only, entries that are not live left out: ``(rows,)``."""
    discrete = mixture.discrete
    log, total = categorical.tables(discrete, mixture.tables(values)), torch.zeros(len(states[0]), dtype=torch.float64)
    for (families, of), (_, counts) in zip(groups(discrete, *states), groups(discrete, *live), strict=True):
        for family in families:
            part = log[categorical.cell(discrete, family, of)]
            total = total + (part * counts((family.variable, 0))).sum(1)
    return total


def _of_indicators(mixture: Mixture, z: Tensor, z_static: Tensor) -> Tensor:
    """Log density N(0, 1) of the indicators of a row: ``(rows,)``."""
    moving = [i for i, name in enumerate(mixture.continuous.variables) if not mixture.own(name)]
    fixed = [i for i, name in enumerate(mixture.continuous.static) if not mixture.own(name)]
    square = z[..., moving].square().sum((1, 2)) + z_static[:, fixed].square().sum(1)
    return -0.5 * (square + LOG_2PI * (len(moving) * z.shape[1] + len(fixed)))


def drawn(
    template: Template,
    values: Values,
    family: Family,
    known: dict[Node, Tensor],
    rows: int,
    generator: torch.Generator | None,
) -> Tensor:
    """A draw of one variable given its parents ``(rows,)``, states as numbers."""
    probit_ = family.variable in template.probits
    if family.variable in template.states and not probit_:
        table = values[family.site]
        index = tuple(known[node].long() for node in family.parents)
        log = table[index].log() if index else table.log().expand(rows, -1)
        uniform = torch.rand(rows, template.states[family.variable], generator=generator, dtype=log.dtype)
        return (log - (-uniform.log()).log()).argmax(1).double()
    terms = [torch.ones(rows, dtype=torch.float64)]
    for node in family.parents:
        states = template.states.get(node[0])
        terms += [known[node]] if states is None else [(known[node] == k).double() for k in range(1, states)]
    mean = torch.stack(terms, 1) @ values[family.site].mT if probit_ else torch.stack(terms, 1) @ values[family.site]
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
    if probit_:
        return (mean + noise > 0).double().cumprod(1).sum(1)
    return mean + values[f"{family.site}_variance"].sqrt() * noise
