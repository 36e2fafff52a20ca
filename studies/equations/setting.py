"""What a problem of the study is given, where it is asked, and how answers are judged."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesdd import pinn
from studies.equations.problems import PROBLEMS

SETS, PLACES = 16, 8  # parameters that are measured, and places of each
TESTS, GRID = 8, 64  # parameters of each half that are tested, and places of each
TESTED = 10_007  # seed of the tests
HALVES = {"in": (0.5, 1.0), "out": (0.0, 0.5)}  # of the parameter's range: the first one is measured
Z90 = 1.6448536269514722
Points = dict[str, np.ndarray]


def measurements(name: str, seed: int) -> tuple[Points, dict[str, np.ndarray]]:
    """Where a problem is measured, and noisy values of its fields there."""
    problem, rng = PROBLEMS[name][0](), np.random.default_rng(seed)
    points = some_points(problem, HALVES["in"], SETS, PLACES, rng)
    noise, values = PROBLEMS[name][2], solved(name, points)
    return points, {key: value + noise * rng.normal(size=len(value)) for key, value in values.items()}


def tests(problem: pinn.Problem, rng: np.random.Generator) -> dict[str, Points]:
    """Where predictions are compared with the truth: half -> points."""
    return {half: some_points(problem, part, TESTS, GRID, rng) for half, part in HALVES.items()}


def some_points(
    problem: pinn.Problem, part: tuple[float, float], sets: int, places: int, rng: np.random.Generator
) -> Points:
    """So many random places for each of so many parameters in a part of their range."""
    name, (low, high) = next(iter(problem.parameters.items()))
    values = low + (high - low) * rng.uniform(*part, sets)
    found = {one: rng.uniform(*ends, len(values) * places) for one, ends in problem.inputs.items()}
    return found | {name: values.repeat(places)}


def solved(name: str, points: Points, **constants: float) -> dict[str, np.ndarray]:
    """The solver's fields, parameter by parameter; constants that are not given are the true ones."""
    make, truth, _, true = PROBLEMS[name]
    problem = make()
    parameter, outputs = next(iter(problem.parameters)), problem.names.outputs
    found = np.empty((len(outputs), len(points[parameter])))
    for value in np.unique(points[parameter]):
        here = points[parameter] == value
        found[:, here] = truth(float(value), {one: column[here] for one, column in points.items()}, **true | constants)
    return dict(zip(outputs, found, strict=True))


def judged(true: dict[str, np.ndarray], predicted: dict[str, Any]) -> dict[str, float]:
    """Relative L2 error of means, share of the truth in 90 % intervals, and their width over the truth's size."""
    off = np.concatenate([predicted[key][0] - value for key, value in true.items()])
    sd = np.concatenate([predicted[key][1] for key in true])
    size = np.sqrt(np.mean(np.concatenate(list(true.values())) ** 2))
    return {
        "error": float(np.sqrt(np.mean(off**2)) / size),
        "coverage": float(np.mean(np.abs(off) <= Z90 * sd)),
        "width": float(2 * Z90 * sd.mean() / size),
    }
