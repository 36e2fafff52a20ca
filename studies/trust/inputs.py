"""Random arguments of ``Task``, ``distill`` and ``sample``: right results, or one line that says what is wrong.

Claim: whatever container, type, shape or setting is given, the result is right or a documented error of one line comes
within a minute; nothing else is raised, and no value is changed on the way in.
How it could fail: a container that loses its mask, an integer that overflows, a size that is no number.
Cost: a third of a second of processor time an input.
"""

from __future__ import annotations

import contextlib
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

import bayesdd
from studies.trust.tasks import linear

TITLE = "Inputs"
NOTE = (
    "Rows in a random container and type with random faults (missing, infinite, huge, text, other lengths, none), "
    "random settings. Right: the columns are to the last bit those that were given, weights are positive, rows "
    "finite, a certificate is there. Refused: a documented type, one line. Bad: anything else, or longer than a "
    "minute."
)
INPUTS, CHUNK, LONGEST = 500, 100, 60


def parts(smoke: bool) -> dict[str, list[str]]:
    """Cell -> words for :func:`cell`."""
    if smoke:
        return {"smoke": ["0", "6"]}
    return {f"inputs_{first}": [str(first), str(first + CHUNK)] for first in range(0, INPUTS, CHUNK)}


def cell(first: str, end: str) -> dict[str, Any]:
    """What became of some inputs."""
    counts: Counter[str] = Counter()
    bad = []
    for at in range(int(first), int(end)):
        what, why = _tried(at)
        counts[what] += 1
        if what == "bad":
            bad.append(f"{at}: {why}"[:400])
    return {"counts": dict(counts), "bad": bad}


def table(found: list[dict[str, Any]]) -> pd.DataFrame:
    """All inputs together."""
    counts: Counter[str] = Counter()
    for one in found:
        counts.update(one["counts"])
    row = {name: counts[name] for name in ("right", "refused", "bad")}
    return pd.DataFrame([{"inputs": sum(row.values()), **row, "met": counts["bad"] == 0}])


def _tried(seed: int) -> tuple[str, str]:
    """What one input led to, and of bad ones what it was."""
    rng = np.random.default_rng(seed)
    columns, faults = _columns(rng)
    container = list(CONTAINERS)[rng.integers(len(CONTAINERS))]
    settings = _settings(rng)
    told = f"{container} with {faults or 'no faults'}, {settings}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            given = CONTAINERS[container](columns)
        except (ValueError, TypeError):  # the container's own library cannot hold them
            return "refused", ""
        try:
            with _within(LONGEST):
                task = bayesdd.Task(linear, given)
                made = bayesdd.distill(task, progress=False, **settings)
                drawn = bayesdd.sample(task, made, draws=4, chains=2, method=bayesdd.inference.laplace)
        except (bayesdd.Refusal, TypeError) as error:
            return ("refused", "") if "\n" not in str(error) else ("bad", f"{told}: two lines: {error}")
        except BaseException as error:  # any other type is what is looked for
            return "bad", f"{told}: {type(error).__name__}: {error}"
    wrong = _wrong(columns, task, made, drawn)
    return ("bad", f"{told}: {wrong}") if wrong else ("right", "")


def _wrong(columns: dict[str, Any], task: bayesdd.Task, made: bayesdd.Distilled, drawn: Any) -> str:
    """What is not right about a result; empty where all is."""
    for name, column in task.data.items():
        if not np.array_equal(np.asarray(columns[name], float), column.double().numpy(), equal_nan=True):
            return f"column {name!r} is not what was given"
    if not bool(torch.isfinite(made.weight).all() & (made.weight > 0).all()):
        return "weights are not positive"
    if not all(bool(torch.isfinite(column).all()) for column in made.data.values()):
        return "rows are not finite"
    if made.certificate is None or not np.isfinite(drawn.posterior["w"].values).all():
        return "no certificate, or draws that are not finite"
    return ""


def _columns(rng: np.random.Generator) -> tuple[dict[str, Any], list[str]]:
    """Columns of a linear regression, in random types, with random faults."""
    n = int(rng.choice([2, 3, 17, 40]))
    x = np.column_stack([np.ones(n), rng.normal(size=n)])
    columns: dict[str, Any] = {"x": x, "y": x @ [0.5, -0.5] + rng.normal(size=n)}
    kind = str(rng.choice(["float64", "float64", "float32", "int64", "int8", "uint8", "bool", "float16", "object"]))
    columns["y"] = (
        columns["y"].round().astype(kind) if kind not in ("float64", "float32") else columns["y"].astype(kind)
    )
    faults = [kind]
    for _ in range(int(rng.choice([0, 0, 0, 1, 1, 2]))):
        fault = list(FAULTS)[rng.integers(len(FAULTS))]
        with contextlib.suppress(
            ValueError, TypeError, OverflowError, IndexError, KeyError
        ):  # a type that cannot hold the fault
            FAULTS[fault](columns, rng)
            faults.append(fault)
    return columns, faults


def _put(name: str, value: Any) -> Callable[[dict[str, Any], np.random.Generator], None]:
    def put(columns: dict[str, Any], rng: np.random.Generator) -> None:
        column = np.array(columns[name])
        column.reshape(-1)[rng.integers(column.size)] = value
        columns[name] = column

    return put


def _change(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any], np.random.Generator], None]:
    def changed(columns: dict[str, Any], rng: np.random.Generator) -> None:
        columns[name] = change(columns[name])

    return changed


FAULTS: dict[str, Callable[[dict[str, Any], np.random.Generator], None]] = {
    "NaN in y": _put("y", np.nan),
    "infinity in x": _put("x", np.inf),
    "1e200 in y": _put("y", 1e200),
    "1e-300 in x": _put("x", 1e-300),
    "1e30 in x": _put("x", 1e30),
    "text in y": _change("y", lambda y: y.astype(str)),
    "None in y": _change("y", lambda y: np.array([None, *y[1:]], object)),
    "shorter y": _change("y", lambda y: y[:-1]),
    "no rows": _change("y", lambda y: y[:0]),
    "y with an axis more": _change("y", lambda y: y[:, None]),
    "x without its axis": _change("x", lambda x: x[:, 0]),
    "x with a column more": _change("x", lambda x: np.column_stack([x, x[:, -1]])),
    "equal rows of x": _change("x", np.ones_like),
    "y of one value": _change("y", np.zeros_like),
    "complex y": _change("y", lambda y: y + 1j),
    "dates": _change("y", lambda y: np.arange(len(y)).astype("datetime64[D]")),
    "masked y": _change("y", lambda y: np.ma.masked_array(y, [True] + [False] * (len(y) - 1))),
    "backwards": _change("x", lambda x: x[::-1]),
    "a column more": lambda columns, rng: columns.update(z=np.arange(len(columns["y"]))),
    "no y": lambda columns, rng: columns.__delitem__("y"),
}
CONTAINERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "arrays": dict,
    "lists": lambda columns: {name: column.tolist() for name, column in columns.items()},
    "tensors": lambda columns: {
        name: torch.as_tensor(np.ascontiguousarray(column)) for name, column in columns.items()
    },
    "series": lambda columns: {
        name: pd.Series(column) if column.ndim == 1 else pd.DataFrame(column) for name, column in columns.items()
    },
    "Dataset": lambda columns: xr.Dataset(
        {name: (("row", *(f"{name}{k}" for k in range(1, column.ndim))), column) for name, column in columns.items()}
    ),
}


def _settings(rng: np.random.Generator) -> dict[str, Any]:
    """Settings of ``distill``: mostly small ones that fit, some that nobody meant."""
    sizes: list[Any] = [1, 3, 0, -1, 1.5, "2", None, 10**9, np.int64(2), True, float("nan")]
    tolerances: list[Any] = [1.0, 0.0, -1.0, float("nan"), float("inf"), "1"]
    seeds: list[Any] = [1, 2**31, -1, 1.5, None, "0"]
    found: dict[str, Any] = {"size": 2, "tolerance": 1e3, "seed": 0}
    for name, values in (("size", sizes), ("tolerance", tolerances), ("seed", seeds)):
        if rng.uniform() < 0.2:
            found[name] = values[rng.integers(len(values))]
    return found


@contextlib.contextmanager
def _within(seconds: int) -> Iterator[None]:
    """Raises TimeoutError after so many seconds of processor time."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
