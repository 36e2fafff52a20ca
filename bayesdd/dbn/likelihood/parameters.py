"""What a template says at given values of its parameters: rows simulated, rows scored, values unconstrained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to

from bayesdd.dbn.likelihood.densities import densities_of
from bayesdd.dbn.template.columns import as_columns, columns, many_draws, one_draw
from bayesdd.dbn.template.template import Template


def simulate(template: Template, parameters: Mapping[str, Any], rows: int, slices: int, seed: int) -> dict[str, Tensor]:
    """Simulated columns: ``x`` (rows, slices, V) and, with static variables, ``static`` (rows, V_s).

    Args:
        template: The template.
        parameters: Latent site -> value of one draw, in the model's own units.
        rows: Number of rows.
        slices: Number T of slices.
        seed: Seed.
    """
    return as_columns(template, simulated(template, one_draw(template, parameters), rows, slices, seed))


def simulated(
    template: Template, values: Mapping[str, Tensor], rows: int, slices: int, seed: int
) -> tuple[Tensor, Tensor]:
    """As :func:`simulate`, of checked values: sequences, and static values, which may have no columns."""
    kind, generator = densities_of(template), torch.Generator().manual_seed(seed)
    static = kind.draw_static(template, values, rows, generator)
    return kind.draw_sequences(template, values, static, slices, generator), static


def log_likelihood(template: Template, parameters: Mapping[str, Any], data: Any) -> Tensor:
    """Exact log-likelihood of rows with any missing entries, nats: ``(S, rows)``.

    Args:
        template: The template.
        parameters: Latent site -> values ``(S, *shape)`` in the model's own units.
        data: Columns as for :func:`bayesdd.dbn.task`.

    Raises:
        ValueError: A categorical sequence has more than 256 joint states of missing entries in a slice.
    """
    values = many_draws(template, parameters)
    return densities_of(template).log_likelihood(template, values, *columns(template, data))


def unconstrain(template: Template, parameters: Mapping[str, Any]) -> Tensor:
    """Values ``(S, *shape)`` of all sites as the task's flat unconstrained draws ``(S, P)``."""
    values = many_draws(template, parameters)
    free = [biject_to(template.kind.space(shape)).inv(values[site]) for site, shape in template.sites.items()]
    return torch.cat([value.reshape(len(value), -1) for value in free], 1)
