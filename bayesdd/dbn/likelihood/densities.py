"""What each kind of variables does in its own way: priors, draws of rows, and which density serves which rows.

The rows are looked at once to choose a density, which is then a plain function of tensors, batched by vmap. Rows of few
patterns of missing entries cost little more than complete ones, rows filtered one by one ten times as much.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.func import vmap

from bayesdd.dbn.likelihood import ancestral, categorical, elimination, gaussian, messages, missing, mixed, probit
from bayesdd.dbn.template.columns import whole
from bayesdd.dbn.template.mixture import Mixture
from bayesdd.dbn.template.structure import Entry, Family, Values
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal

PATTERNS = 32  # above, filtering each row is cheaper; a pattern costs 45 operations of the recorded graph
CELLS = 2**21  # numbers that the entries of one chunk of draws may take: 16 MB
CATEGORICAL_PATTERNS = 8  # 8 operations of the recorded graph an entry and pattern
FRONTIER = 4096  # joint states of missing entries held at once: 32 kB a row and draw
FEW_STATES = 64  # up to which all joint states of a slice cost less than each sequence's own


class Likelihood(NamedTuple):
    """Log densities of one draw: of sequences given static values, and of static values; ``(rows,)`` each, nats."""

    sequences: Callable[[Template, Values, Tensor, Tensor], Tensor]
    static: Callable[[Template, Values, Tensor], Tensor]


class Densities(NamedTuple):
    """Densities of one kind of variables.

    Attributes:
        prior: Draws a family's latent sites in a Pyro model.
        draw_static: Draws static values (``ancestral``).
        draw_sequences: Draws sequences given static values.
        anything: The likelihood of rows of any pattern of missing entries.
        chosen: The cheapest likelihood of given rows ``x`` and ``static``, exact for complete rows too. Raises a
            ValueError for categorical rows of too many patterns and joint states.
    """

    prior: Callable[[Template, Family], Values]
    draw_static: Callable[..., Tensor]
    draw_sequences: Callable[..., Tensor]
    anything: Likelihood
    chosen: Callable[[Template, Tensor, Tensor], Likelihood]


def densities_of(template: Template) -> Densities:
    """Those of a template's variables."""
    return MIXED if template.mixed else CATEGORICAL if template.states else GAUSSIAN


def at_draws(template: Template, parameters: Values, x: Tensor, static: Tensor) -> Tensor:
    """Log-likelihood of rows at draws ``(S, *shape)``, nats: ``(S, rows)``.

    Raises:
        Refusal: A categorical sequence has too many joint states of missing entries.
    """
    if template.mixed:
        return _mixed_at_draws(template, parameters, x, static)
    many = math.prod(template.states.values()) > FEW_STATES or template.structure.lags > 1
    if template.states and not whole(x, static) and many:
        return _at_draws_by_sequence(template, parameters, x, static)
    likelihood = densities_of(template).chosen(template, x, static)

    def single(values: Values) -> Tensor:
        total = likelihood.sequences(template, values, x, static)
        return total + likelihood.static(template, values, static) if template.static else total

    width = 1 if likelihood.sequences in (gaussian.complete, categorical.complete) else 16
    return vmap(single, chunk_size=max(1, CELLS // (width * x.numel())))(parameters)


def _at_draws_by_sequence(template: Template, parameters: Values, x: Tensor, static: Tensor) -> Tensor:
    log = vmap(lambda values: categorical.tables(template, values))(parameters)
    patterns = _patterns(template, x, static, with_complete=True)
    most = elimination.largest(template, x.shape[1], patterns)
    if template.structure.lags == 1 and (len(patterns) > PATTERNS or most > FRONTIER):
        return messages.log_likelihood(template, log, x, static)
    if most > FRONTIER:
        raise Refusal(
            f"dbn: these rows have {most:,} joint states of missing entries at once, and with lags above one the exact "
            f"sum takes at most {FRONTIER}: use gibbs(), which has no such limit."
        )
    of_static = vmap(lambda values: categorical.static_forward(template, values, static))(parameters)
    return of_static + elimination.by_group(template, log, x, static)


def _normal_prior(template: Template, family: Family) -> Values:
    spread = dist.InverseGamma(template.variance_shape, template.variance_scale)
    variance = pyro.sample(f"{family.site}_variance", spread)
    slopes = dist.Normal(0.0, template.coefficient_scale * variance.sqrt()).expand(template.sites[family.site])
    return {f"{family.site}_variance": variance, family.site: pyro.sample(family.site, slopes.to_event(1))}


def _gaussian_chosen(template: Template, x: Tensor, static: Tensor) -> Likelihood:
    if not template.noisy and whole(x, static):
        return Likelihood(gaussian.complete, missing.static_density)
    # Complete rows are taken in any case; with noise they need a pattern of their own.
    patterns = _patterns(template, x, static, with_complete=template.noisy)
    if len(patterns) > PATTERNS:
        return GAUSSIAN.anything
    return Likelihood(functools.partial(missing.by_pattern, patterns=patterns), missing.static_density)


def _dirichlet_prior(template: Template, family: Family) -> Values:
    *parents, own = template.sites[family.site]
    table = dist.Dirichlet(torch.full((own,), template.pseudo_count)).expand(parents)
    return {family.site: pyro.sample(family.site, table.to_event(len(parents)))}


def _categorical_chosen(template: Template, x: Tensor, static: Tensor) -> Likelihood:
    if whole(x, static):
        return Likelihood(categorical.complete, categorical.static_complete)
    patterns = _patterns(template, x, static, with_complete=False)
    few = len(patterns) <= CATEGORICAL_PATTERNS
    most = elimination.largest(template, x.shape[1], patterns) if few else 0
    joint, longer = math.prod(template.states.values()), template.structure.lags > 1
    if (joint > FEW_STATES or longer) and few and most <= FRONTIER:
        sequences = functools.partial(elimination.by_pattern, patterns=patterns)
        return Likelihood(sequences, categorical.static_forward)
    if joint <= categorical.JOINT_STATES and not longer:
        return CATEGORICAL.anything
    found = f"{most:,} joint states of missing entries at once, and a task sums over {FRONTIER:,}"
    if not few:
        found = f"{len(patterns):,} patterns of missing entries, and a task tells {CATEGORICAL_PATTERNS} apart"
    raise Refusal(f"dbn: these rows have {found}: use gibbs(), or complete rows.")


def _mixed_prior(template: Template, family: Family) -> Values:
    if family.variable in template.probits:
        shape = template.sites[family.site]
        slopes = dist.Normal(torch.zeros(shape, dtype=torch.float64), template.coefficient_scale)
        return {family.site: pyro.sample(family.site, slopes.to_event(2))}
    return (_dirichlet_prior if family.variable in template.states else _normal_prior)(template, family)


def _mixed_at_draws(template: Template, parameters: Values, x: Tensor, static: Tensor) -> Tensor:
    mixture = Mixture.of(template)
    total = torch.zeros(len(next(iter(parameters.values()))), len(x), dtype=torch.float64)
    for every, entries in mixed.hidden_entries(template, x, static):
        lacking = _lacking(mixture, x[every], static[every], entries)
        for rows, width in ((every[~lacking], 16), (every[lacking], 16 + 2 * probit.POINTS)):
            if not len(rows):
                continue
            single = _mixed_scored(mixture, x[rows], static[rows], entries, FRONTIER)
            chunk = max(1, CELLS // (width * mixed.joint_states(template, entries) * x[rows].numel()))
            found = vmap(lambda v, f=single, r=rows: f(v, x[r], static[r]), chunk_size=chunk)(parameters)
            total[:, rows] = found
    return total


def _lacking(mixture: Mixture, x: Tensor, static: Tensor, entries: tuple[Entry, ...]) -> Tensor:
    """Rows with a state of which a linear-Gaussian parent is missing."""
    if not mixture.utilities or mixed.joint_states(mixture.template, entries) > FRONTIER:
        return torch.zeros(len(x), dtype=torch.bool)
    rows = mixed.completed(mixture, x, static, entries)
    return (
        probit.steps_of(mixture, rows.numbers, probit.signs(mixture, rows.states, rows.live))[1]
        .reshape(rows.agree.shape)
        .any(0)
    )


def _mixed_scored(
    mixture: Mixture, x: Tensor, static: Tensor, entries: tuple[Entry, ...], most: int
) -> Callable[[Values, Tensor, Tensor], Tensor]:
    """The density of one draw of rows like given ones, of which these entries may be missing."""
    if (count := mixed.joint_states(mixture.template, entries)) > most:
        raise Refusal(
            f"dbn: these rows have {count:,} joint states of missing categorical entries, of which {most:,} are "
            "summed over: use pooled(), which draws them."
        )
    rows = mixed.completed(mixture, x, static, entries)
    chosen, steps = _gaussian_chosen(mixture.continuous, *rows.numbers), None
    if mixture.utilities:
        steps, _ = probit.steps_of(mixture, rows.numbers, probit.signs(mixture, rows.states, rows.live))

    def gaussian_part(values: Values, z: Tensor, z_static: Tensor) -> Tensor:
        total = chosen.sequences(mixture.continuous, values, z, z_static)
        return total + chosen.static(mixture.continuous, values, z_static)

    return functools.partial(mixed.scored, mixture, entries=entries, gaussian=gaussian_part, steps=steps)


def _mixed_chosen(template: Template, x: Tensor, static: Tensor) -> Likelihood:
    """The density of a whole row stands with its sequence: static values may be missing together with others."""
    every = {entry for _, entries in mixed.hidden_entries(template, x, static) for entry in entries}
    score = _mixed_scored(Mixture.of(template), x, static, tuple(sorted(every)), categorical.JOINT_STATES)
    return Likelihood(lambda _, values, x, static: score(values, x, static), _nothing)


def _nothing(template: Template, values: Values, static: Tensor) -> Tensor:
    return torch.zeros(len(static), dtype=torch.float64)


def _mixed_any(template: Template, values: Values, x: Tensor, static: Tensor) -> Tensor:
    raise Refusal("dbn: the model of a mixed template needs its rows: use dbn.task(template, rows).")


GAUSSIAN = Densities(
    _normal_prior,
    ancestral.gaussian_static,
    ancestral.gaussian_sequences,
    Likelihood(missing.filtered, missing.static_density),
    _gaussian_chosen,
)
CATEGORICAL = Densities(
    _dirichlet_prior,
    ancestral.categorical_static,
    ancestral.categorical_sequences,
    Likelihood(categorical.forward, categorical.static_forward),
    _categorical_chosen,
)
MIXED = Densities(
    _mixed_prior,
    ancestral.mixed_static,
    ancestral.mixed_sequences,
    Likelihood(_mixed_any, _nothing),
    _mixed_chosen,
)


def _patterns(template: Template, x: Tensor, static: Tensor, *, with_complete: bool) -> tuple[tuple[int, ...], ...]:
    seen = ~gaussian.entries(template, x, static).isnan()
    seen = torch.cat([seen, torch.ones_like(seen[:1])]) if with_complete else seen[~seen.all(1)]
    return tuple(tuple(at.tolist()) for _, at in gaussian.grouped(seen))
