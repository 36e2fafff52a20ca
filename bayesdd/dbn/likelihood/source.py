"""Sources of a merge: holders of rows that see different variables of one template, with their measurement noise.

A hospital sees some variables, at some visits, through its own instruments. The target of a merge is the joint
posterior of all sources, with what they do not see integrated out and their noise modelled: log-likelihoods add, the
prior counts once. Nothing is standardised source by source.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to
from torch.nn.functional import pad

from bayesdd.data.values import tensor
from bayesdd.dbn.likelihood.densities import Likelihood, densities_of
from bayesdd.dbn.likelihood.gaussian import as_rows, entries, grouped
from bayesdd.dbn.likelihood.model import model, soft_model, task
from bayesdd.dbn.likelihood.parameters import simulate
from bayesdd.dbn.template.columns import Rows, as_columns, known, shaped
from bayesdd.dbn.template.template import Template
from bayesdd.numerics import words
from bayesdd.numerics.refusal import Refusal, WrongType
from bayesdd.task import Task, kinds

NAMED = 8  # pairs that a message names


@dataclass(frozen=True, eq=False)
class Source:
    """One holder of rows.

    Args:
        data: Columns as for :func:`bayesdd.dbn.task`: ``x`` (rows, T, V), NaN where missing, or a list of sequences of
            unequal lengths ``(T_i, V)``; ``static`` (rows, V_s), left out where the source sees none of it. The last
            axis of ``x`` holds the template's variables, or those of ``variables`` only, in that order.
        variables: Names of the variables it sees, static ones among them; all others count as missing. Default: those
            of which an entry is seen.
        noise: Known standard deviation of its measurement noise, or variable -> standard deviation.
        noise_site: Name of a latent site for an unknown one, with the template's half-normal prior; sources of equal
            name share it.
    """

    data: Any
    variables: Sequence[str] | None = None
    noise: float | Mapping[str, float] = 0.0
    noise_site: str | None = None

    def __repr__(self) -> str:
        return words.text(*self._said)

    def _repr_html_(self) -> str:
        return words.html(*self._said)

    @property
    def _said(self) -> tuple[str, dict[str, str]]:
        """What it is in a line, and what it sees; data that fit nothing are refused where the source is used."""
        parts = dict(self.data) if isinstance(self.data, Mapping) else {}
        shapes = {str(name): tuple(getattr(value, "shape", ())) for name, value in parts.items()}
        sizes = {f"{len(value):,}" for value in parts.values() if hasattr(value, "__len__")}
        known = any(self.noise.values()) if isinstance(self.noise, Mapping) else self.noise
        noise = f"unknown, site {self.noise_site!r}" if self.noise_site else f"{self.noise}" if known else "none"
        return f"Source: {'/'.join(sorted(sizes)) or 'unknown number of'} rows", {
            "columns": words.listed(words.sized(name, shape[1:]) for name, shape in shapes.items()),
            "variables": "those it has entries of" if self.variables is None else words.listed(self.variables),
            "noise": noise,
        }


def gathered(template: Template, sources: Sequence[Source]) -> list[Rows]:
    """Rows of every source, padded to one number of slices; rows of which nothing is seen are left out.

    Faults and warnings are those of :func:`target`.
    """
    if template.noisy:
        raise Refusal("Template: noise belongs to the sources that are merged: give it to Source, not to Template.")
    if not sources:
        raise Refusal("merging needs at least one source, got none.")
    found = [_rows(template, source, f"source {k}") for k, source in enumerate(sources)]
    slices = max(x.shape[1] for x, _ in found)
    found = [(pad(x, (0, 0, 0, slices - x.shape[1]), value=torch.nan), static) for x, static in found]
    seen = [_seen(rows).any(0) for rows in found]
    names = [*template.static, *template.variables]
    if unseen := [name for name, any_ in zip(names, torch.stack(seen).any(0).tolist(), strict=True) if not any_]:
        raise Refusal(
            f"merging: no source sees the variable {unseen[0]!r}: leave it out of the template, or add a source that "
            "has measured it."
        )
    for (i, a), (j, b) in itertools.combinations(enumerate(seen), 2):
        if not bool((a & b).any()):
            pairs = apart(template, found)
            warnings.warn(
                f"source {i} and source {j} have no variable in common; no row tells how these depend on each other "
                f"beyond what the edges say: {listed(pairs)}.",
                UserWarning,
                stacklevel=3,
            )
            break
    return found


def target(template: Template, sources: Sequence[Source]) -> list[Task]:
    """The joint posterior of sources, one task each: their log-likelihoods add, the prior counts once.

    What a source does not see is integrated out; unknown noise scales are latent sites that only the target has.

    Args:
        template: The template, without noise of its own.
        sources: The sources.

    Raises:
        Refusal: A source does not fit or sees nothing, or no source sees one of the variables.

    Warns:
        UserWarning: Two sources have no variable in common.
    """
    rows = gathered(template, sources)
    return [_task(noisy, some) for noisy, some in zip(with_noise(template, sources), rows, strict=True)]


def with_noise(template: Template, sources: Sequence[Source]) -> list[Template]:
    """The template with the noise of every source."""
    return [replace(template, noise=source.noise, noise_site=source.noise_site) for source in sources]


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
    if soft and not template.states:
        raise Refusal("student(soft=True) is for categorical templates; this one is linear-Gaussian.")
    if sources:
        found = gathered(template, sources)
        x, static = (torch.cat(part) for part in zip(*found, strict=True))
        if any(noisy.noisy for noisy in with_noise(template, sources)):
            x, static = _with_thinned(template, x, static)
        if slices != x.shape[1]:
            raise Refusal(f"student: the sources have {x.shape[1]} slices, not {slices}.")
        return task(template, as_columns(template, (x, static)))
    # These rows only show the format.
    spaces = {site: (biject_to(template.kind.space(shape)), shape) for site, shape in template.sites.items()}
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


def rows_of(template: Template, source: Source) -> Rows:
    """Rows of one holder, who need not see every variable; rows of which nothing is seen are left out."""
    return _rows(template, source, "patients")


def apart(template: Template, rows: Sequence[Rows]) -> list[tuple[str, str]]:
    """Pairs of variables that no row has seen together, at whatever slices."""
    seen = torch.cat([_seen(some) for some in rows]).double()
    together = seen.mT @ seen > 0
    names = [*template.static, *template.variables]
    return [(names[i], names[j]) for i, j in itertools.combinations(range(len(names)), 2) if not bool(together[i, j])]


def listed(pairs: Sequence[tuple[str, str]]) -> str:
    """Pairs as a message shows them."""
    shown = ", ".join(f"({a}, {b})" for a, b in pairs[:NAMED])
    return shown + (f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else "")


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


def _seen(rows: Rows) -> Tensor:
    """Which variables a row has seen, static ones first: ``(rows, V_s + V)``."""
    x, static = rows
    return torch.cat([~static.isnan(), (~x.isnan()).any(1)], 1)


def _rows(template: Template, source: Source, name: str) -> Rows:
    if not isinstance(source, Source):
        raise WrongType(f"merging: {name} must be a Source(rows, ...), got {type(source).__name__}.")
    every = [*template.static, *template.variables]
    wanted = every if source.variables is None else list(source.variables)
    if unknown := [variable for variable in wanted if variable not in every]:
        raise Refusal(f"{name}: variables= names {unknown[0]!r}, which is none of the template's {every}.")
    data = {**source.data} if isinstance(source.data, Mapping) else source.data
    try:
        if isinstance(data, dict) and "x" in data:
            data["x"] = _padded(data["x"])
            if not bool((~data["x"].isnan()).any()):
                raise Refusal("no entry of any sequence was seen: leave it out.")
            if "static" in data:
                data["static"] = tensor(data["static"], "column 'static'")
                if bool(data["static"].isnan().all()):
                    del data["static"]  # the same as a column that is left out
        found = known(data)
        if "x" in found and found["x"].dim() == 3:
            found["x"] = _spread(template, source, found["x"])
        if template.static and "static" not in found:
            found["static"] = torch.full((len(found["x"]), len(template.static)), torch.nan)
        x, static = (column.double() for column in shaped(template, found))
    except Refusal as error:
        raise type(error)(f"{name}: {error}") from None
    x[:, :, [variable not in wanted for variable in template.variables]] = torch.nan
    static[:, [variable not in wanted for variable in template.static]] = torch.nan
    kept = _seen((x, static)).any(1)
    if not bool(kept.any()):
        raise Refusal(f"{name} has seen no entry of the variables {wanted}: leave it out.")
    return x[kept], static[kept]


def _padded(x: Any) -> Tensor:
    """Sequences ``(rows, T, V)``; a list of unequal lengths is padded by NaN."""
    if isinstance(x, list | tuple):
        parts = [tensor(part, f"column 'x', sequence {i}").double() for i, part in enumerate(x)]
        if not parts or any(part.dim() != 2 or part.shape[1] != parts[0].shape[1] for part in parts):
            raise Refusal("a list of sequences needs arrays (slices, variables) of equal width.")
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=torch.nan)
    return tensor(x, "column 'x'").double()


def _spread(template: Template, source: Source, x: Tensor) -> Tensor:
    """A source's own columns where they belong among all variables."""
    shown = [name for name in source.variables or () if name in template.variables]
    if not len(shown) == x.shape[2] < len(template.variables):
        return x
    wide = torch.full((*x.shape[:2], len(template.variables)), torch.nan, dtype=torch.float64)
    wide[:, :, [template.variables.index(name) for name in shown]] = x.double()
    return wide
