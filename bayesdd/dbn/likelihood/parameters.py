"""What a template says at given values of its parameters: rows simulated, rows scored, values unconstrained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to

from bayesdd.dbn.likelihood.densities import at_draws, densities_of
from bayesdd.dbn.template.columns import Rows, as_columns, columns, many_draws
from bayesdd.dbn.template.structure import Values
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
    one = {site: torch.as_tensor(value)[None] for site, value in parameters.items()}
    return as_columns(template, simulated(template, many_draws(template, one), rows, slices, seed))


def simulated(template: Template, draws: Values, rows: int, slices: int, seed: int) -> Rows:
    """As :func:`simulate`, at the mean of draws ``(S, *shape)``; static values have no columns if there are none."""
    values = {site: draws[site].mean(0) for site in template.sites}
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
    return at_draws(template, many_draws(template, parameters), *columns(template, data))


def unconstrain(template: Template, parameters: Mapping[str, Any]) -> Tensor:
    """Values ``(S, *shape)`` of all sites as the task's flat unconstrained draws ``(S, P)``."""
    return flattened(template, many_draws(template, parameters))


def flattened(template: Template, draws: Values) -> Tensor:
    """Draws ``(S, *shape)`` of any sites, unconstrained and side by side: ``(S, P)``."""
    free = [biject_to(template.space(site, value.shape[1:])).inv(value) for site, value in draws.items()]
    return torch.cat([value.reshape(len(value), -1) for value in free], 1)
