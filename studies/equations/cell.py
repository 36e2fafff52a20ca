"""A problem of the study: measured in one half of its parameter's range, fitted, asked for in both."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from bayesdd import pinn
from studies.equations.exact import exact
from studies.equations.problems import FUNCTIONS, PROBLEMS
from studies.equations.setting import GRID, TESTED, TESTS, judged, measurements, solved, some_points, tests
from studies.shared import cells

EXACT = "exact"  # what is measured instead of a surrogate
MIDDLE = (0.5, 0.5)  # of the parameter's range, where unknown functions are looked at
SIZES: dict[str, Any] = {"hidden": (16, 16), "modes": 4, "steps": 250}
SMALL: dict[str, Any] = {"hidden": (5,), "modes": 2, "steps": 10, "points": 64}


def measure(name: str, seed: int | str = 0, what: str = "", *, smoke: bool = False) -> dict[str, Any]:
    """Error, coverage and width in both halves and of functions, constants and seconds of the processor."""
    cells.set_threads()
    if what == EXACT:
        return exact(name, int(seed))
    make, _, noise, constants = PROBLEMS[name]
    problem, (data, measured) = make(), measurements(name, int(seed))
    begin = time.process_time()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", pinn.FitWarning)
        surrogate = pinn.fit(problem, {**data, **measured}, seed=int(seed), **(SMALL if smoke else SIZES))
    found: dict[str, Any] = {"seconds": time.process_time() - begin, "said": [str(one.message) for one in said]}
    rng = np.random.default_rng(TESTED)
    for half, points in tests(problem, rng).items():
        found[half] = judged(solved(name, points), surrogate.predict(points))
    everywhere = some_points(problem, MIDDLE, 1, GRID * TESTS, rng)
    predicted = surrogate.predict(everywhere)
    found["functions"] = {
        key: judged({key: function(everywhere)}, predicted) for key, function in FUNCTIONS.get(name, {}).items()
    }
    found["constants"] = {key: [*surrogate.constants[key], value] for key, value in constants.items()}
    return found | {"noise": noise, "noise found": surrogate.measurement_noise, "modes": len(surrogate.theta)}
