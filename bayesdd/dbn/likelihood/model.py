"""The Pyro model of a template: priors of its families, and one site a row for the sequence and its static values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from bayesdd.dbn.likelihood import ancestral, categorical
from bayesdd.dbn.likelihood.likelihood import Likelihood
from bayesdd.dbn.template import structure

if TYPE_CHECKING:
    from bayesdd.dbn.template.template import Template


def model(
    x: Tensor | None = None,
    static: Tensor | None = None,
    *,
    template: Template,
    likelihood: Likelihood,
    rows: int = 1,
    slices: int = 1,
) -> Tensor:
    """Sites of a template's families, then ``static`` and ``x``; what is left out is simulated.

    Args:
        x: Sequences, NaN where missing, shape ``(rows, T, V)``.
        static: Static values, NaN where missing, shape ``(rows, V_s)``; none where the template has none.
        template: The template.
        likelihood: The densities that score rows.
        rows: Number of rows to simulate where no column is given.
        slices: Number T of slices to simulate.

    Returns:
        The sequences, shape ``(rows, T, V)``.
    """
    values = prior(template)
    sizes = [len(column) for column in (x, static) if column is not None]
    count = sizes[0] if sizes else rows
    draw_static, draw_sequences = ancestral.categorical if template.states else ancestral.gaussian
    with pyro.plate("data", count):
        if template.static:
            drawn = _site(
                "static",
                static,
                lambda value: likelihood.static(template, values, value),
                lambda: draw_static(template, values, count),
                _support(template, template.static, 1),
                (count, len(template.static)),
            )
            # A given column knows what is missing, its site does not.
            known = drawn if static is None else static
        else:
            known = torch.zeros(count, 0, dtype=torch.int64 if template.states else None)
        return _site(
            "x",
            x,
            lambda value: likelihood.sequences(template, values, value, known),
            lambda: draw_sequences(template, values, known, slices),
            _support(template, template.variables, 2),
            (count, slices if x is None else x.shape[1], len(template.variables)),
        )


def soft_model(x: Tensor, static: Tensor | None = None, *, template: Template) -> Tensor:
    """Complete rows of soft categories: the mean of the log-likelihood over independent entries scores a row.

    Args:
        x: Probabilities ``(rows, T, V, K)``.
        static: Probabilities ``(rows, V_s, K)``; none where the template has none.
        template: The template.
    """
    values = prior(template)
    fixed = x.new_zeros(len(x), 0, x.shape[3]) if static is None else static

    def draw() -> Tensor:
        raise ValueError("dbn: soft rows are not simulated; simulate hard ones with Template.sample.")

    with pyro.plate("data", len(x)):
        rows = Rows(lambda value: categorical.expected(template, values, value, fixed), draw, constraints.real, x.shape)
        return pyro.sample("x", rows, obs=x)


def prior(template: Template) -> dict[str, Tensor]:
    """Draws every latent site."""
    values = {}
    for family in template.structure.families:
        if template.states:
            *parents, own = structure.shape(template, family)
            table = dist.Dirichlet(torch.full((own,), template.pseudo_count))
            values[family.site] = pyro.sample(family.site, table.expand(parents).to_event(len(parents)))
        else:
            spread = dist.InverseGamma(template.variance_shape, template.variance_scale)
            variance = pyro.sample(f"{family.site}_variance", spread)
            slopes = dist.Normal(0.0, template.coefficient_scale * variance.sqrt())
            values[f"{family.site}_variance"] = variance
            values[family.site] = pyro.sample(family.site, slopes.expand([1 + len(family.parents)]).to_event(1))
    if template.noise_site:
        values[template.noise_site] = pyro.sample(template.noise_site, dist.HalfNormal(template.noise_scale))
    return values


class Rows(dist.TorchDistribution):
    """One row each, scored and drawn by given functions.

    Args:
        score: Rows ``(rows, *event)`` -> log densities ``(rows,)``, nats.
        draw: -> rows.
        support: Of one entry.
        shape: ``(rows, *event)``.
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
            raise ValueError("dbn: rows are drawn once a run of the model: run it again for more.")
        return self._draw()


def _site(
    name: str,
    column: Tensor | None,
    score: Callable[[Tensor], Tensor],
    draw: Callable[[], Tensor],
    support: Any,
    shape: tuple[int, ...],
) -> Tensor:
    if column is None:
        return pyro.sample(name, Rows(score, draw, support, shape))
    if not column.is_floating_point():
        return pyro.sample(name, Rows(score, draw, support, shape), obs=column)
    # Pyro and bayesdd see numbers; the densities see which of them are missing.
    missing = column.isnan()
    masked = Rows(lambda value: score(torch.where(missing, math.nan, value)), draw, support, shape)
    return pyro.sample(name, masked, obs=torch.where(missing, 0.0, column))


def _support(template: Template, names: tuple[str, ...], dims: int) -> Any:
    if not template.states:
        return constraints.independent(constraints.real, dims)
    last = torch.tensor([template.states[name] - 1 for name in names])
    return constraints.independent(constraints.integer_interval(0, last), dims)
