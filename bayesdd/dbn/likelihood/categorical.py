r"""Categorical sequences: densities with missing entries, and the cells of a row.

All tables of a draw stand in one flat vector; a family's cell is its offset plus the mixed-radix number of its parents'
states and its own. A complete row's log-likelihood is then one gather and one sum, counts are one ``bincount``. Each
density is of one draw, batched by ``torch.func.vmap``, and gives log p(x | static), nats:

* ``complete``: integer states, none missing.
* ``forward``: the forward algorithm over all J joint states of a slice (J_s of the static variables), where floating
  states are seen, NaN or not: O(T J_s J^2) a row, whatever is missing. Small templates only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bayesdd.dbn.template.columns import groups
from bayesdd.dbn.template.structure import Family, Node, Of, Values
from bayesdd.dbn.template.template import Template

JOINT_STATES = 256  # joint states summed over at once: 2^8, 3^5; their transitions are a matrix of 65,536 numbers


def complete(template: Template, values: Values, x: Tensor, static: Tensor) -> Tensor:
    """Log p(x | static) of complete sequences: ``(rows, T, V)`` and ``(rows, V_s)`` integers -> ``(rows,)``."""
    return tables(template, values)[cells(template, x, static)[1]].sum(1)


def static_complete(template: Template, values: Values, static: Tensor) -> Tensor:
    """Log p(static) of complete static values: ``(rows, V_s)`` integers -> ``(rows,)``."""
    none = static.new_zeros(len(static), 1, len(template.variables))
    return tables(template, values)[cells(template, none, static)[0]].sum(1)


def forward(template: Template, values: Values, x: Tensor, static: Tensor) -> Tensor:
    """Log p(x | static) of sequences with any missing entries (NaN): ``(rows, T, V)`` -> ``(rows,)``."""
    log = tables(template, values)
    fixed, moving = joint_states(template, template.static), joint_states(template, template.variables)
    here, there = len(fixed), len(moving)
    start_cells = cells(template, *_crossed(moving, fixed))[1]
    first = log[start_cells].sum(1).reshape(here, there).exp()
    pairs = torch.stack([moving.repeat_interleave(there, 0), moving.repeat(there, 1)], 1)
    step_cells = cells(template, *_crossed(pairs, fixed))[1][:, len(template.variables) :]
    step = log[step_cells].sum(1).reshape(here, there, there).exp()
    agree = (x[:, :, None].isnan() | (x[:, :, None] == moving)).all(3).to(log.dtype)
    weight, _ = _static_weight(template, log, static, fixed)
    state, total = weight[:, :, None] * first, log.new_zeros(len(x))
    for t in range(x.shape[1]):
        state = (state if t == 0 else torch.einsum("rsi,sij->rsj", state, step)) * agree[:, t, None]
        mass = state.sum((1, 2), keepdim=True)
        state, total = state / mass, total + mass[:, 0, 0].log()
    return total


def static_forward(template: Template, values: Values, static: Tensor) -> Tensor:
    """Log p(static) of static values with any missing entries (NaN): ``(rows, V_s)`` -> ``(rows,)``."""
    fixed = joint_states(template, template.static)
    return _static_weight(template, tables(template, values), static, fixed)[1]


def tables(template: Template, values: Values) -> Tensor:
    """Log probabilities of all families side by side, shape ``(cells,)``."""
    return torch.cat([values[family.site].flatten() for family in template.structure.families]).log()


def by_site(template: Template, flat: Tensor) -> Values:
    """Numbers of all cells, side by side ``(..., cells)``, as tables: latent site -> ``(..., *shape)``."""
    parts = flat.split([math.prod(shape) for shape in template.sites.values()], -1)
    shaped = zip(template.sites.items(), parts, strict=True)
    return {site: part.reshape(*flat.shape[:-1], *shape) for (site, shape), part in shaped}


def cells(template: Template, x: Tensor, static: Tensor) -> tuple[Tensor, Tensor]:
    """Cells of :func:`tables` that complete rows fall into: static ``(rows, V_s)`` and slices ``(rows, T V)``."""
    found = [[cell(template, family, of) for family in families] for families, of in groups(template, x, static)]
    none = static.new_zeros(len(static), 0, dtype=torch.int64)
    return torch.cat([none, *found[0]], 1), torch.cat([none, *(one for some in found[1:] for one in some)], 1)


def expected_counts(template: Template, x: Tensor, static: Tensor, weight: Tensor) -> Tensor:
    """Counts of all cells, side by side, that weighted rows of soft categories have on average; differentiable.

    Rows are probabilities ``(rows, T, V, K)`` and ``(rows, V_s, K)``. Entries are independent: a family's cell is
    counted by the product of its members' probabilities.
    """
    members = memberships(template, x, static)
    return torch.cat([torch.einsum("m,mti,mtj->ij", weight, joint, own).flatten() for joint, own in members])


def expected(template: Template, values: Values, x: Tensor, static: Tensor) -> Tensor:
    """Mean log-likelihood of soft rows ``(rows, T, V, K)`` over their independent categories: ``(rows,)``."""
    families = template.structure.families
    logs = [values[family.site].reshape(-1, template.states[family.variable]).log() for family in families]
    members = memberships(template, x, static)
    parts = [torch.einsum("mti,mtj,ij->m", joint, own, log) for (joint, own), log in zip(members, logs, strict=True)]
    return torch.stack(parts).sum(0)


def memberships(template: Template, x: Tensor, static: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For every family, probabilities of its parents' joint states and its own, ``(rows, slices, states)`` each."""
    found = []
    for families, slices in template.structure.ranges(x.shape[1]):

        def of(node: Node, slices: range = slices) -> Tensor:
            name, lag = node
            states = template.states[name]
            if name in template.static:
                return static[:, None, template.static.index(name), :states].expand(-1, len(slices), -1)
            return x[:, slices.start - lag : slices.stop - lag, template.variables.index(name), :states]

        for family in families:
            joint = x.new_ones(len(x), len(slices), 1)
            for node in family.parents:
                joint = (joint[..., :, None] * of(node)[..., None, :]).flatten(2)
            found.append((joint, of((family.variable, 0))))
    return found


def cell(template: Template, family: Family, of: Of) -> Tensor:
    """Cell of a family given the states of its variables; they broadcast."""
    index: Tensor | int = 0
    for node in family.parents:
        index = index * template.states[node[0]] + of(node)
    size: int = template.states[family.variable]
    return (index * size + template.offsets[family.site]) + of((family.variable, 0))


def joint_states(template: Template, names: Sequence[str]) -> Tensor:
    """All joint states of some variables, shape ``(J, len(names))``; one empty one of none."""
    if not names:
        return torch.zeros(1, 0, dtype=torch.int64)
    return torch.cartesian_prod(*(torch.arange(template.states[name]) for name in names)).reshape(-1, len(names))


def _static_weight(template: Template, log: Tensor, static: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
    """Probability of each joint static state given those seen ``(rows, J_s)``, and log p(static) ``(rows,)``."""
    none = torch.zeros(len(fixed), 1, len(template.variables), dtype=torch.int64)
    prior = log[cells(template, none, fixed)[0]].sum(1).exp()
    agree = (static[:, None].isnan() | (static[:, None] == fixed)).all(2).to(log.dtype)
    weight = prior * agree
    mass = weight.sum(1, keepdim=True)
    return weight / mass, mass[:, 0].log()


def _crossed(moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
    """Every static state with every stretch of slices ``(J, V)`` or ``(J, t, V)``, static states slowest."""
    moving = moving[:, None] if moving.dim() == 2 else moving
    return moving.repeat(len(fixed), 1, 1), fixed.repeat_interleave(len(moving), 0)
