r"""What several sources agree on: the states of each variable and, where they hold raw values, one scale.

A scale needs of every source the number, the mean and the sum of squares about it of what it has measured, and the
least and the greatest value; no row leaves a source. With numbers :math:`n_k`, means :math:`m_k` and sums of squares
:math:`s_k`,

.. math:: n = \sum n_k, \quad m = \tfrac1n \sum n_k m_k, \quad s^2 = \tfrac1n \sum \{ s_k + n_k (m_k - m)^2 \}.

Source: Chan, Golub & LeVeque, "Algorithms for computing the sample variance", The American Statistician 1983.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesdd.data.measures import Measure
from bayesdd.data.values import Labels
from bayesdd.dbn.tables.named import Named, one_order, recoded
from bayesdd.dbn.template.columns import Rows, by_name
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal


@dataclass(frozen=True, eq=False)
class Agreement:
    """What sources agree on.

    Attributes:
        measures: Variable -> how its numbers read outside.
        rows: Numbers of every source, states as codes.
    """

    measures: dict[str, Measure]
    rows: list[Rows]


@dataclass(frozen=True)
class Summary:
    """What a source says of a variable: number, mean, sum of squares about it, least and greatest value."""

    count: int
    mean: float
    squares: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Tensor) -> Summary | None:
        """Of values, NaN where missing; None of none."""
        seen = values[~values.isnan()]
        if not len(seen):
            return None
        mean = seen.mean()
        squares = float((seen - mean).square().sum())
        return cls(len(seen), float(mean), squares, float(seen.min()), float(seen.max()))

    @property
    def deviation(self) -> float:
        """Standard deviation."""
        return math.sqrt(self.squares / self.count)


def together(parts: Sequence[Summary]) -> Summary:
    """The summary of all values, from those of the sources."""
    count = sum(part.count for part in parts)
    mean = sum(part.count * part.mean for part in parts) / count
    squares = sum(part.squares + part.count * (part.mean - mean) ** 2 for part in parts)
    return Summary(count, mean, squares, min(part.low for part in parts), max(part.high for part in parts))


def agreed(template: Template, sources: Sequence[Named], measures: Sequence[Mapping[str, Measure]]) -> Agreement:
    """States, scales and numbers of all sources.

    Args:
        template: The template.
        sources: What each source holds.
        measures: Of each source, variable -> how its values read; raw ones have no centre yet.

    Raises:
        Refusal: States or measures of two sources do not fit; some hold raw values, others numbers of unknown scale.
    """
    columns = [by_name(template, some.x, some.static) for some in sources]
    found: dict[str, Measure] = {}
    for name in (*template.static, *template.variables):
        own = [some.get(name) for some in measures]
        seen = [k for k, some in enumerate(columns) if not bool(some[name].isnan().all())]
        if name in template.states:
            labels = _labels(template, name, sources, columns, seen)
            found[name] = Measure(labels=labels or tuple(range(template.states[name])))
            for k in seen:
                columns[k][name].copy_(_codes(columns[k][name], sources[k].labels.get(name, ()), labels))
            continue
        if text := [k for k in seen if sources[k].labels.get(name)]:
            had, where = list(sources[text[0]].labels[name]), f"source {text[0]}"
            column = "static" if name in template.static else "x"
            raise Refusal(
                f"{where}: column {column!r} holds text, such as {had[0]!r}, in variable {name!r}, which "
                f"the template takes for a number: give numbers or codes, or declare states={{{name!r}: {had}}}."
            )
        found[name] = _measure(name, [own[k] for k in seen], [columns[k][name] for k in seen], seen)
        for k in seen:
            mine = own[k]
            if mine is not None and mine.centre is None:
                columns[k][name].sub_(found[name].centre or 0.0).div_(found[name].scale)
    return Agreement(found, [(some.x, some.static) for some in sources])


def _measure(name: str, own: list[Measure | None], values: list[Tensor], seen: list[int]) -> Measure:
    """The common measure of a variable, values as they came."""
    if not own:
        return Measure()
    known = [measure or Measure() for measure in own]
    for k, measure in zip(seen, known, strict=True):
        for what in ("transform", "unit"):
            mine, first = getattr(measure, what), getattr(known[0], what)
            if mine != first and (what == "transform" or (mine and first)):
                raise Refusal(
                    f"source {k}: variable {name!r} has {what} {mine!r}, but {first!r} in source {seen[0]}: give all "
                    f"sources the same {what}."
                )
    raw = [measure.centre is None for measure in known]
    fixed = list(dict.fromkeys((measure.centre, measure.scale) for measure in known if measure.centre is not None))
    summary = together([found for some in values if (found := Summary.of(some))])
    if not any(raw):
        centre, scale = fixed[0]
    elif all(raw):
        centre, scale = summary.mean, summary.deviation or 1.0
    else:
        centre, scale = fixed[0]
        if unknown := [k for k, measure in zip(seen, own, strict=True) if measure is None]:
            raise Refusal(
                f"source {unknown[0]}: variable {name!r} holds numbers of a scale of its own, but other sources raw "
                "values of long tables: read all of them by Source.from_long."
            )
    if len(fixed) > 1:
        raise Refusal(
            f"variable {name!r} comes in two scales, {fixed[0]} and {fixed[1]}: standardise all sources at once."
        )
    first = replace(known[0], centre=centre, scale=scale, unit=next((m.unit for m in known if m.unit), None))
    lows, highs = [], []
    for measure, some in zip(known, values, strict=True):
        found = Summary.of(some)
        if measure.low is not None and measure.high is not None:
            lows.append(measure.low)
            highs.append(measure.high)
        elif found:
            own_terms = replace(first, centre=0.0, scale=1.0) if measure.centre is None else first
            outside = own_terms.outside(torch.tensor([found.low, found.high]).double().numpy())
            lows.append(float(outside[0]))
            highs.append(float(outside[1]))
    return replace(first, low=min(lows), high=max(highs))


def _labels(
    template: Template, name: str, sources: Sequence[Named], columns: Sequence[Mapping[str, Tensor]], seen: list[int]
) -> Labels:
    """Labels of a variable's states: the template's, else those that all sources have together."""
    count, declared = template.states[name], tuple(template.labels.get(name, ()))
    came = {k: sources[k].labels.get(name, ()) for k in seen}
    numbers = {k: _distinct(columns[k][name]) for k, labels in came.items() if not labels}
    if declared:
        named = not any(isinstance(label, str) for label in declared)  # else numbers are codes
        for k, labels in came.items():
            if unknown := [label for label in labels or (numbers[k] if named else ()) if label not in declared]:
                raise Refusal(
                    f"source {k}: variable {name!r} holds {unknown[0]!r}, which is none of its states "
                    f"{list(declared)}: correct it, or declare it in states=."
                )
        return declared
    if not any(came.values()):
        return ()  # codes, which the template checks
    found = one_order(list(came.values()), f"variable {name!r}")
    if all(isinstance(label, int) for label in found) and set(found) <= set(range(count)):
        return tuple(range(count))
    declare = f"declare them in order, states={{{name!r}: {list(found)}}}."
    if plain := [k for k, labels in came.items() if not labels]:
        raise Refusal(f"source {plain[0]}: variable {name!r} holds numbers, but labels in other sources: {declare}")
    if not all(isinstance(label, str) for label in found):
        # A coefficient `stage=1` could be of the state 1 or of the second one.
        raise Refusal(f"variable {name!r} has the numbers {list(found)} as states: {declare}")
    if len(found) > count:
        raise Refusal(
            f"variable {name!r} holds the {len(found)} states {list(found)} over all sources, but the template "
            f"declares {count}: declare them, states={{{name!r}: {list(found)}}}."
        )
    if len(found) < count:
        raise Refusal(
            f"variable {name!r} holds only the states {list(found)} over all sources, but the template declares "
            f"{count}: name them in order, states={{{name!r}: [...]}}."
        )
    return found


def _codes(values: Tensor, own: Labels, labels: Labels) -> Tensor:
    """Values of a source as codes of the labels agreed."""
    if not labels:
        return values
    if own:
        return recoded(values, own, labels)
    if any(isinstance(label, str) for label in labels):
        return values  # codes
    found = torch.full_like(values, torch.nan)
    for code, label in enumerate(labels):
        found[values == float(label)] = code
    return found


def _distinct(values: Tensor) -> list[int | float]:
    found = values[~values.isnan()].unique().tolist()
    return [int(number) if float(number).is_integer() else number for number in found]
