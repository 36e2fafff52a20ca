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

from bayesdd.dbn.likelihood.categorical import JOINT_STATES, cell, offsets
from bayesdd.dbn.template.structure import Node
from bayesdd.dbn.template.template import Template

CELLS = 2**21  # draws x sequences x transitions held at once: 16 MB


def log_likelihood(template: Template, log: Tensor, x: Tensor, static: Tensor) -> Tensor:
    """Log p(x, static) of the entries that are seen, nats.

    Args:
        template: The template.
        log: Log tables side by side (``categorical.tables``), shape ``(S, cells)``.
        x: States, NaN where missing, shape ``(rows, T, V)``.
        static: Static states, NaN where missing, shape ``(rows, V_s)``.

    Returns:
        Shape ``(S, rows)``.

    Raises:
        ValueError: A sequence has more than 256 joint states of missing entries in a slice.
    """
    live, live_static = needed(template, x, static)
    free, free_static = live & x.isnan(), live_static & static.isnan()
    slices = _count(free, _states(template, template.variables))
    joint = slices.amax(1)
    joint_static = _count(free_static, _states(template, template.static))
    worst = int((joint * joint_static).argmax())
    if (most := int(joint[worst] * joint_static[worst])) > JOINT_STATES:
        raise ValueError(
            f"dbn: sequence {worst} has {most:,} joint states of missing entries in slice {int(slices[worst].argmax())}"
            f", and the exact sum takes at most {JOINT_STATES}: use gibbs(), which has no such limit, or drop it."
        )
    found = log.new_empty(len(log), len(x))
    sizes, group = torch.unique(torch.stack([joint_static, joint], 1).long(), dim=0, return_inverse=True)
    for at, (count_static, count) in enumerate(sizes.tolist()):
        cost = count_static * count**2
        for draws in torch.arange(len(log)).split(max(1, CELLS // cost)):
            for rows in (group == at).nonzero()[:, 0].split(max(1, CELLS // (cost * len(draws)))):
                block = _Block(template, x[rows], static[rows], live[rows], live_static[rows], count, count_static)
                found[draws[:, None], rows] = block.sum(log[draws])
    return found


def needed(template: Template, x: Tensor, static: Tensor) -> tuple[Tensor, Tensor]:
    """Entries that are seen or have a seen descendant: ``(rows, T, V)`` and ``(rows, V_s)``."""
    column = {name: i for i, name in enumerate(template.variables)}
    fixed = {name: i for i, name in enumerate(template.static)}
    live, live_static = ~x.isnan(), ~static.isnan()
    structure = template.structure
    for t in reversed(range(x.shape[1])):
        for family in reversed(structure.transition if t else structure.initial):
            mine = live[:, t, column[family.variable]]
            for name, lag in family.parents:
                parent = live_static[:, fixed[name]] if name in fixed else live[:, t - lag, column[name]]
                parent |= mine
    for family in reversed(structure.static):
        for name, _ in family.parents:
            live_static[:, fixed[name]] |= live_static[:, fixed[family.variable]]
    return live, live_static


class _Block:
    """Sequences whose missing entries have at most J joint states a slice, and J_s of the static variables.

    Axes: (draws,) rows, static states, states of the slice before, states of the slice.
    """

    def __init__(
        self, template: Template, x: Tensor, static: Tensor, live: Tensor, live_static: Tensor, J: int, J_s: int
    ) -> None:
        self.template, self.start = template, offsets(template)
        self.live = dict(zip(template.variables, live.unbind(2), strict=True))
        self.live_static = dict(zip(template.static, live_static.unbind(1), strict=True))
        states, valid = _configurations(x, live, _states(template, template.variables), J)
        self.states, self.valid = dict(zip(template.variables, states.unbind(3), strict=True)), valid
        states, valid = _configurations(static, live_static, _states(template, template.static), J_s)
        self.fixed, self.valid_static = dict(zip(template.static, states.unbind(2), strict=True)), valid

    def sum(self, log: Tensor) -> Tensor:
        """Log-likelihood at log tables ``(S, cells)``: ``(S, rows)``."""
        structure = self.template.structure
        total = torch.where(self.valid_static, 0.0, -torch.inf).to(log.dtype)
        for family in structure.static:
            part = log[:, cell(self.template, self.start, family, lambda node: self.fixed[node[0]])]
            total = total + torch.where(self.live_static[family.variable][:, None], part, 0.0)
        alpha = total.expand(len(log), *total.shape[-2:])[..., None]
        for t in range(self.valid.shape[1]):
            step = torch.where(self.valid[:, t], 0.0, -torch.inf).to(log.dtype)[:, None, None, :]
            for family in structure.transition if t else structure.initial:
                part = log[:, cell(self.template, self.start, family, functools.partial(self._of, t=t))]
                step = step + torch.where(self.live[family.variable][:, t, None, None, None], part, 0.0)
            alpha = (alpha[..., None] + step).logsumexp(-2)
        return alpha.logsumexp((-2, -1))

    def _of(self, node: Node, t: int) -> Tensor:
        name, lag = node
        if name in self.fixed:
            return self.fixed[name][:, :, None, None]
        return self.states[name][:, t - 1, None, :, None] if lag else self.states[name][:, t, None, None, :]


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
