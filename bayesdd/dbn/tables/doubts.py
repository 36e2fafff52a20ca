"""Numbers that may not be what they seem: units that differ between sources, codes for "not measured", raw scales.

None of this is an error for certain, so that these are warnings: each names source and variable, with the number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bayesdd.data.measures import Measure
from bayesdd.data.values import Array
from bayesdd.dbn.tables.units import known_factor
from bayesdd.dbn.template.columns import Rows, by_name
from bayesdd.dbn.template.template import Template

SENTINELS = (-99999, -9999, -999, -99, -9, 99, 999, 9999, 99999, -999.9, 999.9)  # what stands for "not measured"
FAR = 8.0  # quarter ranges beyond the quarters from which one of them is no measurement: one in 1e10 of a normal
ENOUGH = 10  # entries of a variable below which nothing is said of a source
APART = 2.0  # deviations between means: two populations of patients differ by less
SPREADS = 4.0  # ratio of deviations; mg to umol is 17 for bilirubin, 88 for creatinine, 18 for glucose
RAW = 10.0  # deviation, its inverse or distance of the mean from which the priors, of about 1, do not fit


def doubts_about(template: Template, rows: Sequence[Rows], measures: Mapping[str, Measure]) -> list[str]:
    """Warnings about the numbers of all sources, a line each."""
    columns = [by_name(template, *some) for some in rows]
    found = []
    for name in (*template.static, *template.variables):
        if name in template.states:
            continue
        numbers = {k: some[name][~some[name].isnan()].numpy() for k, some in enumerate(columns)}
        numbers = {k: some for k, some in numbers.items() if len(some)}
        found += [line for k, some in numbers.items() if (line := _sentinel(k, name, measures[name].outside(some)))]
        found += _apart(name, {k: some for k, some in numbers.items() if len(some) >= ENOUGH}, measures[name])
        found += _raw(name, np.concatenate([*numbers.values(), np.zeros(0)]))
    return found


def _sentinel(source: int, name: str, values: Array) -> str:
    for code in SENTINELS:
        mine = np.isclose(values, code, rtol=1e-9)
        others = values[~mine]
        if not mine.any() or len(others) < ENOUGH:
            continue
        low, high = np.quantile(others, [0.25, 0.75])
        if code < low - FAR * (high - low) or code > high + FAR * (high - low):
            times = f"{int(mine.sum())} times" if mine.sum() > 1 else "once"
            return (
                f"source {source}: variable {name!r} holds {code:g} {times}, far from its other values "
                f"({others.min():.3g} to {others.max():.3g}): write NaN where it stands for 'not measured'."
            )
    return ""


def _apart(name: str, numbers: Mapping[int, Array], measure: Measure) -> list[str]:
    """Sources whose mean or deviation is far from that of the source in the middle."""
    if len(numbers) < 2:
        return []
    middle = sorted(numbers, key=lambda k: float(numbers[k].mean()))[(len(numbers) - 1) // 2]
    centre, spread = numbers[middle].mean(), numbers[middle].std()
    found = []
    for k, some in numbers.items():
        if k == middle or not (spread > 0 and some.std() > 0):
            continue
        common = np.sqrt((some.var() + spread**2) / 2)
        ratio = some.std() / spread
        if abs(some.mean() - centre) > APART * common or not 1 / SPREADS < ratio < SPREADS:
            here, there = measure.outside(some), measure.outside(numbers[middle])
            factor = _factor(here, there, ratio)
            known = f" ({way})" if (way := known_factor(name, factor)) else ""
            found.append(
                f"source {k} and source {middle} differ in variable {name!r}: mean {here.mean():.4g} (deviation "
                f"{here.std():.3g}) against {there.mean():.4g} ({there.std():.3g}), a factor of {factor:.3g}{known}: "
                "if units differ, bring them to one, as Source.from_long(..., units=) does."
            )
    return found


def _factor(here: Array, there: Array, ratio: float) -> float:
    """By what one would multiply: of positive values that of their middles, else that of their deviations."""
    if (here > 0).all() and (there > 0).all():
        return float(np.exp(np.log(here).mean() - np.log(there).mean()))
    return float(ratio)


def _raw(name: str, every: Array) -> list[str]:
    if len(every) < ENOUGH or not every.std() > 0:
        return []
    centre, spread = float(every.mean()), float(every.std())
    if 1 / RAW < spread < RAW and abs(centre) < RAW * max(1.0, spread):
        return []
    return [
        f"variable {name!r} has mean {centre:.4g} and deviation {spread:.3g} over all sources, but the template's "
        "priors are for standardised numbers, about 0 and 1: use dbn.standardise(template, sources)."
    ]
