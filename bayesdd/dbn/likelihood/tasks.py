"""The tasks of a merge: the joint posterior of its sources, and what people fit to the rows that come of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import biject_to

from bayesdd.dbn.likelihood.densities import Likelihood, densities_of
from bayesdd.dbn.likelihood.gaussian import as_rows, entries, grouped
from bayesdd.dbn.likelihood.model import model, soft_model, task
from bayesdd.dbn.likelihood.parameters import simulate
from bayesdd.dbn.likelihood.source import Source, gathered, with_noise
from bayesdd.dbn.template.columns import Rows, as_columns
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal
from bayesdd.task import Task, kinds


def target(template: Template, sources: Sequence[Source]) -> list[Task]:
    """The joint posterior of sources, one task each: their log-likelihoods add, the prior counts once.

    What a source does not see is integrated out; unknown noise scales are latent sites that only the target has.

    Args:
        template: The template, without noise of its own.
        sources: The sources.

    Raises:
        Refusal: A source does not fit or sees nothing, or no source sees one of the variables.

    Warns:
        UserWarning: Two sources have no variable in common, or none has seen as many slices as edges need.
    """
    rows = gathered(template, sources)
    return [_task(noisy, some) for noisy, some in zip(with_noise(template, sources), rows, strict=True)]


def student(template: Template, slices: int, sources: Sequence[Source] = (), soft: bool = False) -> Task:
    """The task that people fit to distilled rows: the network without noise, missing entries integrated out.

    Args:
        template: The template.
        slices: Number T of slices of the rows.
        sources: Sources whose patterns of missing entries it takes; without them, complete rows only.
        soft: Rows are of soft categories, as complete categorical ones are merged.

    Raises:
        Refusal: Soft rows of linear-Gaussian variables, or sources of another number of slices.
    """
    if soft and (not template.states or template.mixed):
        raise Refusal("student(soft=True) is for categorical templates; this one has linear-Gaussian variables.")
    if sources:
        found = gathered(template, sources)
        x, static = (torch.cat(part) for part in zip(*found, strict=True))
        if any(noisy.noisy for noisy in with_noise(template, sources)):
            x, static = _with_thinned(template, x, static)
        if slices != x.shape[1]:
            raise Refusal(f"student: the sources have {x.shape[1]} slices, not {slices}.")
        return task(template, as_columns(template, (x, static)))
    # These rows only show the format.
    spaces = {site: (biject_to(template.space(site, shape)), shape) for site, shape in template.sites.items()}
    plain = {site: space(torch.zeros(space.inverse_shape(shape))) for site, (space, shape) in spaces.items()}
    rows = simulate(template, plain, 8, slices, seed=0)
    if not soft:
        return task(template, rows)
    most = max(template.states.values())
    even = {name: torch.nn.functional.one_hot(column, most).double() for name, column in rows.items()}
    return Task(functools.partial(soft_model, template=template), even, kinds=dict.fromkeys(even, kinds.fixed))


def thinnings(template: Template, seen: Tensor, slices: int) -> list[Tensor]:
    """A pattern of entries ``(n,)``, without its odd slices, and without its even ones; whole where none is left."""
    count = len(template.static)
    number = torch.arange(slices).repeat_interleave(len(template.variables))
    kept = [torch.cat([torch.ones(count, dtype=torch.bool), number % 2 == k]) & seen for k in (0, 1)]
    return [seen, *(some if bool(some[count:].any()) else seen for some in kept)]


def _with_thinned(template: Template, x: Tensor, static: Tensor) -> Rows:
    """Rows, and one more for every thinned pattern that merged rows may have."""
    flat, slices = entries(template, x, static), x.shape[1]
    more = [flat]
    for rows, _ in grouped(~flat.isnan()):
        example = flat[rows[0]]
        thinned = thinnings(template, ~example.isnan(), slices)[1:]
        more += [torch.where(seen, example, torch.nan)[None] for seen in thinned]
    return as_rows(template, torch.cat(more), slices)


def _task(template: Template, rows: Rows) -> Task:
    x, static = rows
    if not template.static or not bool(static.isnan().all()):
        return task(template, as_columns(template, rows))
    # A Task refuses a column without a single number, so a source that sees nothing static has no such column.
    likelihood = densities_of(template).chosen(template, x, static)
    bound = functools.partial(_without_static, template=template, likelihood=likelihood, slices=x.shape[1])
    return Task(bound, {"x": x})


def _without_static(x: Tensor, *, template: Template, likelihood: Likelihood, slices: int) -> Tensor:
    static = torch.full((len(x), len(template.static)), torch.nan)
    return model(x, static, template=template, likelihood=likelihood, slices=slices)
