"""A problem of the study: measured in one half of its parameter's range, fitted, asked for in both."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from bayesdd import pinn
from studies.equations.problems import FUNCTIONS, PROBLEMS
from studies.shared import cells

SETS, PLACES = 16, 8  # parameters that are measured, and places of each
TESTS, GRID = 8, 64  # parameters of each half that are tested, and places of each
Z90 = 1.6448536269514722
SIZES: dict[str, Any] = {"hidden": (16, 16), "modes": 4, "steps": 250}
SMALL: dict[str, Any] = {"hidden": (5,), "modes": 2, "steps": 10, "points": 64}


def measure(name: str, seed: int | str = 0, *, smoke: bool = False) -> dict[str, Any]:
    """Error, coverage and width in both halves and of functions, constants and seconds of the processor."""
    cells.set_threads()
    seed = int(seed)
    make, truth, noise, constants = PROBLEMS[name]
    problem, rng = make(), np.random.default_rng(seed)
    (low, high), middle = next(iter(problem.parameters.values())), 0.5
    data = _points(problem, low + (high - low) * rng.uniform(middle, 1, SETS), PLACES, rng)
    values = _truth(problem, truth, data)
    measured = {key: value + noise * rng.normal(size=len(value)) for key, value in values.items()}
    begin = time.process_time()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", pinn.FitWarning)
        surrogate = pinn.fit(problem, {**data, **measured}, seed=seed, **(SMALL if smoke else SIZES))
    found: dict[str, Any] = {"seconds": time.process_time() - begin, "said": [str(one.message) for one in said]}
    tests = np.random.default_rng(10_007)
    for place, part in (("in", (middle, 1.0)), ("out", (0.0, middle))):
        points = _points(problem, low + (high - low) * tests.uniform(*part, TESTS), GRID, tests)
        found[place] = _judged(_truth(problem, truth, points), surrogate.predict(points))
    everywhere = _points(problem, np.array([low + (high - low) * middle]), GRID * TESTS, tests)
    predicted = surrogate.predict(everywhere)
    found["functions"] = {
        key: _judged({key: function(everywhere)}, predicted) for key, function in FUNCTIONS.get(name, {}).items()
    }
    found["constants"] = {key: [*surrogate.constants[key], value] for key, value in constants.items()}
    return found | {"noise": noise, "noise found": surrogate.measurement_noise, "modes": len(surrogate.theta)}


def _judged(true: dict[str, np.ndarray], predicted: dict[str, Any]) -> dict[str, float]:
    off = np.concatenate([predicted[key][0] - value for key, value in true.items()])
    sd = np.concatenate([predicted[key][1] for key in true])
    size = np.sqrt(np.mean(np.concatenate(list(true.values())) ** 2))
    return {
        "error": float(np.sqrt(np.mean(off**2)) / size),
        "coverage": float(np.mean(np.abs(off) <= Z90 * sd)),
        "width": float(2 * Z90 * sd.mean() / size),
    }


def _points(problem: pinn.Problem, values: np.ndarray, places: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """So many random places for every value of the parameter."""
    found = {name: rng.uniform(low, high, len(values) * places) for name, (low, high) in problem.inputs.items()}
    return found | {next(iter(problem.parameters)): values.repeat(places)}


def _truth(problem: pinn.Problem, truth: Any, points: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The solver's answer, parameter by parameter."""
    parameter = next(iter(problem.parameters))
    found = np.empty((len(problem.names.outputs), len(points[parameter])))
    for value in np.unique(points[parameter]):
        here = points[parameter] == value
        found[:, here] = truth(float(value), {name: column[here] for name, column in points.items()})
    return dict(zip(problem.names.outputs, found, strict=True))
