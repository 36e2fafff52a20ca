"""Sources of a merge: holders of rows that see different variables of one template, with their measurement noise.

A hospital sees some variables, at some visits, through its own instruments. The target of a merge is the joint
posterior of all sources, with what they do not see integrated out and their noise modelled: log-likelihoods add, the
prior counts once. Nothing is standardised source by source: raw values of long tables are standardised by one scale, on
which all sources agree (``bayesdd.dbn.tables``).
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import pad

from bayesdd.data.columns import DataNote
from bayesdd.data.measures import Measure
from bayesdd.dbn.tables import LongTable, Named, agreed, doubts_about, read_long, read_named
from bayesdd.dbn.template.columns import Rows, as_columns
from bayesdd.dbn.template.ending import until_end
from bayesdd.dbn.template.template import Template
from bayesdd.numerics import words
from bayesdd.numerics.refusal import Refusal, WrongType

NAMED = 8  # pairs that a message names


@dataclass(frozen=True, eq=False, repr=False)
class Source(words.Described):
    """One holder of rows.

    Args:
        data: Columns in whatever a Task takes: ``x`` (rows, T, V), NaN where missing, or a list of sequences of unequal
            lengths ``(T_i, V)``; ``static`` (rows, V_s), left out where the source sees none of it. Text and categories
            are states. Names of a data frame's columns, or along the last axis of an xarray DataArray, place the
            columns.
        variables: Names of the variables it sees, static ones among them, in any order; all others count as missing.
            Those that change over time name the last axis of ``x``, and static ones that of ``static``, in their order;
            an axis of all the template's variables, of which ``variables`` names some only, is in the template's order.
            Default: all, in the template's order.
        noise: Known standard deviation of its measurement noise, or variable -> standard deviation; of long tables in
            transformed values.
        noise_site: Name of a latent site for an unknown one, with the template's half-normal prior, or variable -> name
            where variables have noises of their own; sources of equal name share it.
        measures: Variable -> how its numbers read outside (``from_long`` and ``standardise`` fill it in).
        table: The long table that the rows come from, if they do.

    Example:
        >>> course = Template(("bili", "albumin"), inter=(("bili", "bili"), ("albumin", "albumin")))
        >>> Source({"x": np.zeros((4, 3, 2))}, variables=["albumin", "bili"])  # patients, visits, variables by name
        Source: 4 rows
          columns    x (3, 2)
          variables  albumin, bili
          noise      none
    """

    data: Any
    variables: Sequence[str] | None = None
    noise: float | Mapping[str, float] = 0.0
    noise_site: str | Mapping[str, str] | None = None
    measures: Mapping[str, Measure] = field(default_factory=dict)
    table: LongTable | None = None

    @classmethod
    def from_long(
        cls,
        table: pd.DataFrame | str | os.PathLike[str],
        *,
        patient: str,
        time: str,
        every: Any = 1,
        variables: Mapping[str, str] | Sequence[str] | None = None,
        units: Mapping[str, Sequence[Any]] | None = None,
        transform: Mapping[str, str] | None = None,
        static: Sequence[str] = (),
        start: Any = None,
        slices: int | None = None,
        noise: float | Mapping[str, float] = 0.0,
        noise_site: str | Mapping[str, str] | None = None,
        own_ids: bool = False,
        ends: Mapping[str, Sequence[Any]] | None = None,
    ) -> Source:
        """A source from a long table, one line a patient and visit, in the source's own names and units.

        Slice t holds what was measured nearest to t steps after the start, within half a step. Values stay raw: where
        sources are used together, they agree on one scale (:func:`bayesdd.dbn.standardise`), and merged rows go back
        to names and units by ``to_frame`` and ``to_long``.

        Args:
            table: A data frame, or the path of a CSV or Parquet file.
            patient: Column of the patients.
            time: Column of the times: numbers, or dates.
            every: Length of a step, in the unit of the times; of dates in days, or as ``pandas.Timedelta`` takes it.
            variables: The table's name -> ours, or a list of names that are the same; default all columns.
            units: Our name -> (unit in the table, unit wanted), as pint spells them; a third entry is the molar mass,
                g/mol, where one is an amount and the other a mass (common laboratory values are known by name).
            transform: Our name -> "log", "log1p", "sqrt" or "logit", of the converted values.
            static: Our names of the variables that have one value a patient.
            start: Time of slice 0, or the column that holds each patient's; default 0, of dates a patient's first.
            slices: Number of slices; what comes later is left out. Default: all.
            noise: As for Source, in transformed values.
            noise_site: As for Source.
            own_ids: Whether patients are numbered by this source alone: a number that another source has too is then
                another patient.
            ends: Our name of a terminal variable -> (column of the time of the end, column of its state, the state of
                those who go on), one value a patient, such as ``{"end": ("futime", "status", "censored")}``. An end is
                seen at the first slice after it, whoever goes on at the last slice before its time.

        Raises:
            Refusal: A column is missing or no time, a patient has two rows at one time or two values of a static
                variable, units do not convert, a transform is not defined; the message names patient or variable.

        Warns:
            DataNote: Values share a step with a nearer one and are left out.

        Example:
            >>> visits = pd.DataFrame({"id": [1, 1, 2], "day": [0, 365, 0], "bili": [17.1, 34.2, 10.0]})
            >>> north = Source.from_long(visits, patient="id", time="day", every=365.25, variables=["bili"],
            ...     units={"bili": ("umol/l", "mg/dl")}, transform={"bili": "log"})
            >>> np.exp(north.data["x"].values[0, :, 0]).round(2)  # logs of mg/dl, year by year
            array([1., 2.])
        """
        read = read_long(
            table,
            patient=patient,
            time=time,
            every=every,
            variables=variables,
            units=units or {},
            transform=transform or {},
            static=static,
            start=start,
            slices=slices,
            own_ids=own_ids,
            ends=ends or {},
        )
        return cls(read.data, None, noise, noise_site, read.measures, read.table)

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
            "variables": words.listed(self.variables or self.measures) or "those it has entries of",
            "noise": noise,
            **({"table": words.listed([self.table.name, *self.table.notes])} if self.table else {}),
        }


def gathered(template: Template, sources: Sequence[Source]) -> list[Rows]:
    """Rows of every source, padded to one number of slices; rows of which nothing is seen are left out.

    Faults and warnings are those of :func:`target`.
    """
    found, measures = joined(template, sources)
    for line in doubts_about(template, found, measures):
        warnings.warn(line, UserWarning, stacklevel=3)
    slices = max(x.shape[1] for x, _ in found)
    found = [(pad(x, (0, 0, 0, slices - x.shape[1]), value=torch.nan), static) for x, static in found]
    seen = [_seen(rows).any(0) for rows in found]
    names = [*template.static, *template.variables]
    if unseen := [name for name, any_ in zip(names, torch.stack(seen).any(0).tolist(), strict=True) if not any_]:
        raise Refusal(
            f"merging: no source sees the variable {unseen[0]!r}: leave it out of the template, or add a source that "
            "has measured it."
        )
    last = 1 + max(int((~x.isnan()).any(2).any(0).nonzero().max()) for x, _ in found if not bool(x.isnan().all()))
    starts = [(family.site, stretch.start) for stretch in template.structure.stretches for family in stretch.families]
    if template.inter and (unreached := [site for site, start in starts if start >= last]):
        warnings.warn(
            f"no source has seen more than {last} slice{'s' * (last > 1)}: the parameters of later ones stay at their "
            f"prior, {words.listed(unreached)}.",
            UserWarning,
            stacklevel=3,
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


def joined(template: Template, sources: Sequence[Source]) -> tuple[list[Rows], dict[str, Measure]]:
    """Rows of every source as numbers of one scale, and variable -> how these read outside.

    Raises:
        Refusal: A source does not fit the template, or two do not fit together.
    """
    if template.noisy:
        raise Refusal("Template: noise belongs to the sources that are merged: give it to Source, not to Template.")
    if not sources:
        raise Refusal("merging needs at least one source, got none.")
    _refuse_shared(sources)
    read = [_read(template, source, f"source {k}") for k, source in enumerate(sources)]
    common = agreed(template, read, [source.measures for source in sources])
    return [_checked(template, rows, f"source {k}") for k, rows in enumerate(common.rows)], common.measures


def described(template: Template, sources: Sequence[Source]) -> dict[str, Any]:
    """What a provenance says of sequences, so that tables have names, units and states (``bayesdd.data.sequences``)."""
    measures = joined(template, sources)[1]
    table = next((source.table for source in sources if source.table), None)
    head = {} if table is None else {"patient": table.patient, "time": table.time, "every": table.every}
    return {
        "x": {name: measures[name].to_dict() for name in template.variables},
        "static": {name: measures[name].to_dict() for name in template.static},
    } | head


def standardise(template: Template, sources: Sequence[Source]) -> list[Source]:
    """Sources on one scale: every linear-Gaussian variable with mean 0 and deviation 1 over all of them.

    Long tables need this only where a scale must serve sources that come later: those that are given along with
    standardised ones take on their scale. Sources share the number, mean, sum of squares, least and greatest value of
    each variable, and no rows.

    Args:
        template: The template.
        sources: The sources; their arrays are taken to hold raw values of one unit and transform, unless they have been
            standardised before.

    Returns:
        Sources of all the template's variables, whose ``measures`` say how numbers read outside. Known noise is
        rescaled.

    Raises:
        Refusal: As for :func:`target`.

    Example:
        >>> north = Source({"x": 3.5 + 0.4 * np.random.default_rng(0).normal(size=(40, 3, 1))})
        >>> (scaled,) = standardise(Template(("albumin",), inter=(("albumin", "albumin"),)), [north])
        >>> round(scaled.measures["albumin"].centre, 1), round(float(scaled.data["x"].std()), 1)
        (3.5, 1.0)
    """
    every = (*template.static, *template.variables)
    raw = {name: Measure(centre=None) for name in every}
    sources = [source if source.measures else replace(source, measures=raw) for source in sources]
    rows, measures = joined(template, sources)
    made = zip(sources, rows, with_noise(template, sources), strict=True)
    return [
        replace(source, data=as_columns(template, some), variables=None, noise=noisy.noise, measures=measures)
        for source, some, noisy in made
    ]


def _refuse_shared(sources: Sequence[Source]) -> None:
    """Refuses patients that two long tables hold."""
    owner: dict[Any, int] = {}
    for k, source in enumerate(sources):
        if not isinstance(source, Source):
            raise WrongType(f"merging: source {k} must be a Source(rows, ...), got {type(source).__name__}.")
        if source.table is None or source.table.own_ids:
            continue
        if both := [patient for patient in source.table.patients if patient in owner]:
            more = f" (and {len(both) - 1} more)" if len(both) > 1 else ""
            raise Refusal(
                f"source {owner[both[0]]} and source {k} both hold patient {both[0]!r}{more}, whose rows would count "
                "twice: keep each patient in one source, or give from_long(..., own_ids=True) where equal numbers are "
                "different patients."
            )
        owner |= dict.fromkeys(source.table.patients, k)


def with_noise(template: Template, sources: Sequence[Source]) -> list[Template]:
    """The template with the noise of every source, in the numbers of the scale that they agree on."""
    noises = [source.noise for source in sources]
    if any(known and _raw(source) for known, source in zip(noises, sources, strict=True)):
        measures = joined(template, sources)[1]
        noises = [
            _scaled(known, measures) if _raw(source) else known for known, source in zip(noises, sources, strict=True)
        ]
    return [
        replace(template, noise=known, noise_site=source.noise_site)
        for known, source in zip(noises, sources, strict=True)
    ]


def _raw(source: Source) -> bool:
    return any(measure.centre is None for measure in source.measures.values())


def _scaled(noise: float | Mapping[str, float], measures: Mapping[str, Measure]) -> dict[str, float]:
    own = noise if isinstance(noise, Mapping) else dict.fromkeys(measures, noise)
    return {
        name: float(value) / measures[name].scale if name in measures else float(value) for name, value in own.items()
    }


def rows_of(
    template: Template, source: Source, along: Sequence[Source] = ()
) -> tuple[Rows, Template, dict[str, Measure]]:
    """Rows of one holder, who need not see every variable, on the scale that other sources have agreed on.

    Rows of which nothing is seen are left out. Also the template with this noise, and how numbers read outside.

    Raises:
        Refusal: As for :func:`target`, or the scale of the rows is not known.
    """
    fixed: list[Source] = []
    if any(_raw(other) for other in along):
        if not source.measures:
            raise Refusal(
                "patients: plain arrays came, but the sources are tables in units of their own, so that the patients' "
                "scale is not known: read the patients as the sources were, by Source.from_long."
            )
        # The holder's patients may be among those of the sources: only their scale is asked.
        fixed = [replace(standardise(template, along)[0], table=None)]
    rows, measures = joined(template, [*fixed, source])
    return rows[-1], with_noise(template, [*fixed, source])[-1], measures


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


def _seen(rows: Rows) -> Tensor:
    """Which variables a row has seen, static ones first: ``(rows, V_s + V)``."""
    x, static = rows
    return torch.cat([~static.isnan(), (~x.isnan()).any(1)], 1)


def _read(template: Template, source: Source, name: str) -> Named:
    try:
        found = read_named(template, source.data, source.variables)
    except Refusal as error:
        raise type(error)(f"{name}{'' if str(error).startswith('has ') else ':'} {error}") from None
    coded = {name: measure.labels for name, measure in source.measures.items() if measure.labels}
    found = replace(found, labels=coded | found.labels)
    table = source.table
    if table and (unused := [other for other in table.others if other in (*template.static, *template.variables)]):
        warnings.warn(
            f"{name}: {table.name} has a column {unused[0]!r}, as the template has a variable, but variables= does not "
            "name it: it counts as missing.",
            DataNote,
            stacklevel=5,
        )
    return found


def _checked(template: Template, rows: Rows, name: str) -> Rows:
    """Rows of which something is seen; refuses states that the template does not have."""
    try:
        x, static = template.kind.column(rows[0], template.variables), template.kind.column(rows[1], template.static)
        x = until_end(template, x)
    except Refusal as error:
        raise type(error)(f"{name}: {error}") from None
    kept = _seen((x, static)).any(1)
    return x[kept].double(), static[kept].double()
