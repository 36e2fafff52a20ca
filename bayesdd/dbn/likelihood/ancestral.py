"""Ancestral sampling of template networks: static values, then slice after slice, parents first.

Without a generator random numbers come from torch's global state, as ``torch.func.vmap`` and Pyro need.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.dbn.likelihood.categorical import cell, tables
from bayesdd.dbn.likelihood.gaussian import equations, noise_variance, ordered, positions
from bayesdd.dbn.likelihood.missing import condition
from bayesdd.dbn.likelihood.mixed import drawn
from bayesdd.dbn.template.ending import cut
from bayesdd.dbn.template.structure import Family, Node, Values
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal


def gaussian_static(template: Template, values: Values, rows: int, generator: torch.Generator | None = None) -> Tensor:
    """Static values as measured, ``(rows, V_s)``."""
    sites = template.structure.static_order
    true = _static_draws(template, values, rows, generator)
    spread = noise_variance(template, values)[: len(sites)].sqrt()
    noisy = true + spread * torch.randn(true.shape, generator=generator, dtype=true.dtype)
    return noisy[:, [sites.index(name) for name in template.static]]


def gaussian_sequences(
    template: Template, values: Values, static: Tensor, slices: int, generator: torch.Generator | None = None
) -> Tensor:
    """Sequences as measured, ``(rows, T, V)``, given static values as measured (NaN: unknown)."""
    count, order = len(template.static), template.structure.order
    spread = noise_variance(template, values).sqrt()
    static = ordered(static, positions(template)[1])
    true = _static_draws(template, values, len(static), generator)
    error = spread[:count] * torch.randn(true.shape, generator=generator, dtype=true.dtype)
    # A joint draw of truth and measurement, moved to the measurement that was made (Matheron's rule).
    (_, _, root), *forms = [form.reduced() for form in equations(template, values)]
    true, _, _ = condition(true, root @ root.mT, static - error, spread.square(), 0)
    course, found, lags = [true], [], len(forms) - 1
    for t in range(slices):
        gain, shift, root = forms[min(t, lags)]
        noise = torch.randn(len(true), 2, len(order), generator=generator, dtype=true.dtype)
        before = torch.cat([true, *course[max(1, 1 + t - lags) :]], 1)
        course.append(before @ gain.mT + shift + noise[:, 0] @ root.mT)
        found.append(course[-1] + spread[count:] * noise[:, 1])
    return torch.stack(found, 1)[..., [order.index(name) for name in template.variables]]


def categorical_static(
    template: Template, values: Values, rows: int, generator: torch.Generator | None = None
) -> Tensor:
    """Static states ``(rows, V_s)``."""
    known: dict[Node, Tensor] = {}
    draw = _drawer(template, values, generator)
    for family in template.structure.static:
        known[family.variable, 0] = draw(family, known, rows)
    none = torch.zeros(rows, 0, dtype=torch.int64)
    return torch.stack([known[name, 0] for name in template.static], 1) if known else none


def categorical_sequences(
    template: Template, values: Values, static: Tensor, slices: int, generator: torch.Generator | None = None
) -> Tensor:
    """Sequences ``(rows, T, V)`` given complete static states ``(rows, V_s)``.

    Raises:
        Refusal: Static states are given as floating numbers, of which some may be missing.
    """
    if template.static and static.is_floating_point():
        raise Refusal("dbn: sequences are simulated for complete static states only: give static= as integers.")
    draw, found = _drawer(template, values, generator), []
    fixed: dict[Node, Tensor] = {(name, 0): static[:, i] for i, name in enumerate(template.static)}
    known = dict(fixed)
    for t in range(slices):
        for family in template.structure.at(t):
            known[family.variable, 0] = draw(family, known, len(static))
        found.append(torch.stack([known[name, 0] for name in template.variables], 1))
        known = fixed | _a_slice_on(template, known)
    return cut(template, torch.stack(found, 1))


def mixed_static(template: Template, values: Values, rows: int, generator: torch.Generator | None = None) -> Tensor:
    """Static values as measured ``(rows, V_s)``, states as numbers."""
    known: dict[Node, Tensor] = {}
    for family in template.structure.static:
        known[family.variable, 0] = drawn(template, values, family, known, rows, generator)
    measured = [_measured(template, name, known[name, 0], generator) for name in template.static]
    return torch.stack(measured, 1) if measured else torch.zeros(rows, 0, dtype=torch.float64)


def mixed_sequences(
    template: Template, values: Values, static: Tensor, slices: int, generator: torch.Generator | None = None
) -> Tensor:
    """Sequences as measured ``(rows, T, V)`` given complete static values ``(rows, V_s)``, states as numbers.

    Raises:
        Refusal: A static value is missing, or measured with noise.
    """
    if bool(static.isnan().any()) or any(template.noise_of(name) for name in template.static):
        raise Refusal("dbn: mixed sequences are simulated for complete static values without noise only.")
    fixed: dict[Node, Tensor] = {(name, 0): static[:, i].double() for i, name in enumerate(template.static)}
    known, found = dict(fixed), []
    for t in range(slices):
        for family in template.structure.at(t):
            known[family.variable, 0] = drawn(template, values, family, known, len(static), generator)
        found.append(
            torch.stack([_measured(template, name, known[name, 0], generator) for name in template.variables], 1)
        )
        known = fixed | _a_slice_on(template, known)
    return cut(template, torch.stack(found, 1))


def _a_slice_on(template: Template, known: dict[Node, Tensor]) -> dict[Node, Tensor]:
    """Known values ``(rows,)`` as the next slice names them: lags grow by one, those beyond the longest are dropped."""
    own = ((node, value) for node, value in known.items() if node[0] in template.variables)
    return {(name, lag + 1): value for (name, lag), value in own if lag < template.structure.lags}


def _measured(template: Template, name: str, true: Tensor, generator: torch.Generator | None) -> Tensor:
    spread = template.noise_of(name)
    return true + spread * torch.randn(true.shape, generator=generator, dtype=true.dtype) if spread else true


def _drawer(
    template: Template, values: Values, generator: torch.Generator | None
) -> Callable[[Family, dict[Node, Tensor], int], Tensor]:
    """A function that draws states of one variable given its parents', by the Gumbel trick, which vmap takes."""
    log = tables(template, values)

    def draw(family: Family, known: dict[Node, Tensor], rows: int) -> Tensor:
        every = torch.arange(template.states[family.variable])
        own = (family.variable, 0)
        index = cell(template, family, lambda node: every if node == own else known[node][:, None])
        uniform = torch.rand(rows, len(every), generator=generator, dtype=log.dtype)
        return (log[index] - (-uniform.log()).log()).argmax(1)

    return draw


def _static_draws(template: Template, values: Values, rows: int, generator: torch.Generator | None) -> Tensor:
    _, shift, root = equations(template, values)[0].reduced()
    return shift + torch.randn(rows, len(shift), generator=generator, dtype=shift.dtype) @ root.mT
