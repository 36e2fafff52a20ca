"""Weighted rows that are sequences, as tables with the variables' own names, units and states.

The provenance of such rows holds, under ``"sequences"``, the names and measures (``measures``) of the variables along
the last axes of ``x`` (rows, T, V) and ``static`` (rows, V_s), and what a step is.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from bayesdd.data.columns import DataNote
from bayesdd.data.measures import Measure, measures_of
from bayesdd.data.names import free_name
from bayesdd.data.values import Array
from bayesdd.numerics.refusal import Refusal

NEAR = 1e-6  # shares of a range by which rounding may leave it


def long_table(data: Mapping[str, Tensor], weight: Tensor, about: Mapping[str, Any]) -> pd.DataFrame:
    """One line a patient and step: patient, time, variables, static variables, weight.

    Steps of which a row has no entry are left out.

    Args:
        data: Columns ``x`` and ``static``.
        weight: Of the rows.
        about: What the provenance holds of the sequences.

    Raises:
        Refusal: Rows of soft categories.
    """
    moving, fixed = _named(data, about)
    rows, slices = next(iter(moving.values())).shape
    found = {name: values.reshape(-1) for name, values in moving.items()}
    found |= {name: np.repeat(values, slices) for name, values in fixed.items()}
    step = float(about.get("every") or 1.0)
    time = np.tile(np.arange(slices) * (int(step) if step.is_integer() else step), rows)
    head = {free_name(about.get("patient") or "patient", found): np.repeat(np.arange(rows), slices)}
    head[free_name(about.get("time") or "time", {**found, **head})] = time
    table = pd.DataFrame(head | found | {weight_name(found): np.repeat(weight.numpy(), slices)})
    seen = table[list(moving)].notna().any(axis=1)
    return table[seen].reset_index(drop=True)


def wide_table(data: Mapping[str, Tensor], weight: Tensor, about: Mapping[str, Any]) -> pd.DataFrame:
    """One line a patient: static variables, variables step by step (``name[0]``, ``name[1]``, ...), weight."""
    moving, fixed = _named(data, about)
    found = dict(fixed)
    for name, values in moving.items():
        found |= {f"{name}[{t}]": values[:, t] for t in range(values.shape[1])}
    return pd.DataFrame(found | {weight_name({**moving, **fixed}): weight.numpy()})


def weight_name(taken: Mapping[str, Any]) -> str:
    """What the column of weights is called: "weight", but where the data have one of their own."""
    return free_name("distilled_weight", taken) if "weight" in taken else "weight"


def _named(data: Mapping[str, Tensor], about: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Variable -> values ``(rows, T)``, and static variable -> values ``(rows,)``, in the user's own terms."""
    if data["x"].ndim != 3:
        raise Refusal("rows of soft categories have no states yet: harden them first, bayesdd.dbn.harden(full, rows)")
    moving: dict[str, Array] = {}
    fixed: dict[str, Array] = {}
    beyond = []
    for column, found in (("x", moving), ("static", fixed)):
        for at, (name, measure) in enumerate(measures_of(about[column]).items()):
            numbers = data[column][..., at].double().numpy()
            found[name], outside = _within(measure, measure.outside(numbers))
            beyond += [f"{name!r} ({outside})"] if outside else []
    if beyond:
        warnings.warn(
            f"rows hold values beyond those observed, of {', '.join(beyond)}: the table shows the nearest that was "
            "observed, so that its posterior is not quite that of the rows (.data has them as they are)",
            DataNote,
            stacklevel=4,
        )
    return moving, fixed


def _within(measure: Measure, values: Array) -> tuple[Array, int]:
    """Values within the range observed, and how many were not."""
    if measure.labels or measure.low is None or measure.high is None:
        return values, 0
    slack = NEAR * max(measure.high - measure.low, abs(measure.high), abs(measure.low))
    outside = int(((values < measure.low - slack) | (values > measure.high + slack)).sum())
    return np.clip(values, measure.low, measure.high), outside
