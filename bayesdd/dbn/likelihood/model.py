"""The Pyro model of a template and its task: priors of the families, then static values and sequence of each row."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from bayesdd.dbn.likelihood.categorical import expected
from bayesdd.dbn.likelihood.densities import Likelihood, densities_of
from bayesdd.dbn.template.columns import as_columns, columns
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal
from bayesdd.task import Task, kinds


def task(template: Template, data: Any) -> Task:
    """The task of given rows, with the cheapest exact likelihood for their patterns of missing entries.

    Rows of other patterns, except complete ones, may score NaN: make a task of them too, or take
    ``Task(bayesdd.dbn.likelihood.model_of(template), data)``, whose likelihood takes any pattern.

    Args:
        template: The template.
        data: Columns ``x`` (rows, T, V) and, with static variables, ``static`` (rows, V_s); NaN where missing.

    Raises:
        Refusal: The columns do not fit, or categorical entries are missing and a slice has more than 256 joint
            states.
    """
    x, static = columns(template, data)
    likelihood = densities_of(template).chosen(template, x, static)
    bound = functools.partial(model, template=template, likelihood=likelihood, slices=x.shape[1])
    rows = as_columns(template, (x, static))
    # States stand among the numbers of a mixed template's columns: no entry may be moved by a gradient.
    return Task(bound, rows, kinds=dict.fromkeys(rows, kinds.fixed) if template.mixed else {})


def model_of(template: Template) -> Callable[..., Tensor]:
    """The Pyro model of columns ``x`` (and ``static``) with any missing entries.

    Raises:
        Refusal: The template has states and lags above one.
    """
    if template.states and template.structure.lags > 1:
        raise Refusal("dbn: the model of states with lags above one needs its rows: use dbn.task().")
    return functools.partial(model, template=template, likelihood=densities_of(template).anything)


def model(
    x: Tensor | None = None,
    static: Tensor | None = None,
    *,
    template: Template,
    likelihood: Likelihood,
    rows: int = 1,
    slices: int = 1,
) -> Tensor:
    """Sites of a template's families, then ``static`` (rows, V_s) and ``x`` (rows, T, V), NaN where missing.

    What is left out is simulated: ``rows`` of ``slices`` slices. ``likelihood`` scores rows.

    Returns:
        The sequences, shape ``(rows, T, V)``.
    """
    values = prior(template)
    sizes = [len(column) for column in (x, static) if column is not None]
    count = sizes[0] if sizes else rows
    kind = densities_of(template)
    with pyro.plate("data", count):
        if template.static:
            drawn = _site(
                "static",
                static,
                lambda value: likelihood.static(template, values, value),
                lambda: kind.draw_static(template, values, count),
                constraints.independent(template.kind.entries(template.static), 1),
                (count, len(template.static)),
            )
            # A given column knows what is missing, its site does not.
            known = drawn if static is None else static
        else:
            known = torch.zeros(count, 0)
        return _site(
            "x",
            x,
            lambda value: likelihood.sequences(template, values, value, known),
            lambda: kind.draw_sequences(template, values, known, slices),
            constraints.independent(template.kind.entries(template.variables), 2),
            (count, slices if x is None else x.shape[1], len(template.variables)),
        )


def soft_model(x: Tensor, static: Tensor | None = None, *, template: Template) -> Tensor:
    """Complete rows of soft categories, probabilities ``(rows, T, V, K)`` and ``(rows, V_s, K)``.

    A row's score is the mean of the log-likelihood over its entries, which are independent.
    """
    values = prior(template)
    fixed = x.new_zeros(len(x), 0, x.shape[3]) if static is None else static

    def draw() -> Tensor:
        raise Refusal("dbn: soft rows are not simulated; simulate hard ones with simulate().")

    with pyro.plate("data", len(x)):
        rows = RowDistribution(lambda value: expected(template, values, value, fixed), draw, constraints.real, x.shape)
        return pyro.sample("x", rows, obs=x)


def prior(template: Template) -> dict[str, Tensor]:
    """Draws every latent site."""
    values: dict[str, Tensor] = {}
    for family in template.structure.families:
        values |= densities_of(template).prior(template, family)
    for site in template.noise_sites:
        values[site] = pyro.sample(site, dist.HalfNormal(template.noise_scale))
    return values


class RowDistribution(dist.TorchDistribution):
    """Rows of a shape ``(rows, *event)``, scored and drawn by given functions.

    ``score`` takes rows to log densities ``(rows,)``, nats; ``support`` is the constraint of one row.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (an attribute that torch asks for)

    def __init__(
        self, score: Callable[[Tensor], Tensor], draw: Callable[[], Tensor], support: Any, shape: tuple[int, ...]
    ) -> None:
        self._score, self._draw, self._support = score, draw, support
        super().__init__(torch.Size(shape[:1]), torch.Size(shape[1:]), validate_args=False)

    @property
    def support(self) -> Any:
        """Of a row."""
        return self._support

    def log_prob(self, value: Tensor) -> Tensor:
        """Log densities, nats, ``(rows,)``."""
        return self._score(value)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """One draw of all rows."""
        if tuple(sample_shape):
            raise Refusal("dbn: rows are drawn once a run of the model: run it again for more.")
        return self._draw()


def _site(
    name: str,
    column: Tensor | None,
    score: Callable[[Tensor], Tensor],
    draw: Callable[[], Tensor],
    support: Any,
    shape: tuple[int, ...],
) -> Tensor:
    shown = score
    if column is not None and column.is_floating_point():
        # Pyro and bayesdd see numbers; the densities see which of them are missing.
        missing = column.isnan()
        column = torch.where(missing, 0.0, column)

        def shown(value: Tensor) -> Tensor:
            return score(torch.where(missing, math.nan, value))

    return pyro.sample(name, RowDistribution(shown, draw, support, shape), obs=column)
