r"""Exact log-likelihood of categorical sequences with missing entries, whatever the number of variables.

Each sequence sums over the joint states of *its own* missing entries, slice by slice:

.. math:: \alpha_t(j) = \sum_i \alpha_{t-1}(i)\, p(x_t = j \mid x_{t-1} = i, s),

i and j running over the states of the entries missing in a slice, s over those of the missing static variables. A
missing entry without a seen descendant sums to one and drops out: sequences of unequal length, padded by NaN, cost what
their own slices cost. Cost: O(T V J_s J^2) a sequence and draw, J the most joint states of a slice; sequences with
equal J go together. Exact; memory is bounded by ``CELLS``.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from bayesdd.dbn.likelihood.categorical import JOINT_STATES, cell
from bayesdd.dbn.template.columns import by_name
from bayesdd.dbn.template.structure import Node
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal

CELLS = 2**21  # draws x sequences x transitions held at once: 16 MB


def log_likelihood(template: Template, log: Tensor, x: Tensor, static: Tensor) -> Tensor:
    """Log p(x, static) of the entries that are seen, nats: log tables ``(S, cells)`` -> ``(S, rows)``.

    Raises:
        Refusal: A sequence has more than 256 joint states of missing entries in a slice.
    """
    live, live_static = needed(template, x, static)
    free, free_static = live & x.isnan(), live_static & static.isnan()
    slices = _count(free, _states(template, template.variables))
    joint = slices.amax(1)
    joint_static = _count(free_static, _states(template, template.static))
    worst = int((joint * joint_static).argmax())
    if (most := int(joint[worst] * joint_static[worst])) > JOINT_STATES:
        raise Refusal(
            f"dbn: sequence {worst} has {most:,} joint states of missing entries in slice {int(slices[worst].argmax())}"
            f", and the exact sum takes at most {JOINT_STATES}: use gibbs(), which has no such limit, or drop it."
        )
    found = log.new_empty(len(log), len(x))
    sizes, group = torch.unique(torch.stack([joint_static, joint], 1).long(), dim=0, return_inverse=True)
    for at, (count_static, count) in enumerate(sizes.tolist()):
        cost = count_static * count**2
        for draws in torch.arange(len(log)).split(max(1, CELLS // cost)):
            for rows in (group == at).nonzero()[:, 0].split(max(1, CELLS // (cost * len(draws)))):
                block = x[rows], static[rows], live[rows], live_static[rows]
                found[draws[:, None], rows] = _summed(template, log[draws], *block, count, count_static)
    return found


def needed(template: Template, x: Tensor, static: Tensor) -> tuple[Tensor, Tensor]:
    """Entries that are seen or have a seen descendant: ``(rows, T, V)`` and ``(rows, V_s)``."""
    live, live_static = ~x.isnan(), ~static.isnan()
    named = by_name(template, live, live_static)
    for (child, t), family in reversed(template.structure.entries(x.shape[1])):
        for parent, lag in family.parents:
            named[parent][:, -1 if parent in template.static else t - lag] |= named[child][:, t]
    return live, live_static


def _summed(
    template: Template, log: Tensor, x: Tensor, static: Tensor, live: Tensor, live_static: Tensor, J: int, J_s: int
) -> Tensor:
    """Log-likelihood ``(S, rows)`` at log tables ``(S, cells)`` of sequences with at most J joint states a slice.

    J_s are those of the static variables. Axes: draws, rows, static states, states of the slice before, of the slice.
    """
    structure, counts = template.structure, by_name(template, live, live_static)
    states, valid = _configurations(x, live, _states(template, template.variables), J)
    moving = dict(zip(template.variables, states.unbind(3), strict=True))
    states, valid_static = _configurations(static, live_static, _states(template, template.static), J_s)
    fixed = dict(zip(template.static, states.unbind(2), strict=True))

    def of(node: Node, t: int) -> Tensor:
        name, lag = node
        if name in fixed:
            return fixed[name][:, :, None, None]
        return moving[name][:, t - 1, None, :, None] if lag else moving[name][:, t, None, None, :]

    total = torch.where(valid_static, 0.0, -torch.inf).to(log.dtype)
    for family in structure.static:
        part = log[:, cell(template, family, lambda node: fixed[node[0]])]
        total = total + torch.where(counts[family.variable], part, 0.0)
    alpha = total.expand(len(log), *total.shape[-2:])[..., None]
    for t in range(x.shape[1]):
        step = torch.where(valid[:, t], 0.0, -torch.inf).to(log.dtype)[:, None, None, :]
        for family in structure.at(t):
            part = log[:, cell(template, family, functools.partial(of, t=t))]
            step = step + torch.where(counts[family.variable][:, t, None, None, None], part, 0.0)
        alpha = (alpha[..., None] + step).logsumexp(-2)
    return alpha.logsumexp((-2, -1))


def _states(template: Template, names: tuple[str, ...]) -> Tensor:
    return torch.tensor([template.states[name] for name in names], dtype=torch.int64)


def _count(free: Tensor, states: Tensor) -> Tensor:
    # In floating point: 3^41 has no 64-bit integer.
    return torch.where(free, states, 1).double().prod(-1)


def _configurations(values: Tensor, live: Tensor, states: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """All joint states of what is missing, ``(..., most, V)``, and which of them count, ``(..., most)``."""
    seen = ~values.isnan()
    sizes = torch.where(live & ~seen, states, 1)
    every = torch.arange(most)
    strides = torch.cat([sizes.new_ones(*sizes.shape[:-1], 1), sizes.cumprod(-1)], -1)
    digits = every[:, None] // strides[..., None, :-1] % sizes[..., None, :]
    known = torch.where(seen, values, 0).long()[..., None, :]
    return torch.where(seen[..., None, :], known, digits), every < strides[..., -1:]
