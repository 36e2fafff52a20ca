"""The posterior that needs no network: constants by least squares on SciPy's solver, linearised at their mode.

Where nothing but constants is unknown, this is what a surrogate should say. A constant moves a field everywhere at
once, so that 90 % intervals of one set of measurements hold all of the truth or far less: whether a surrogate's are
right shows beside these, of the same measurements.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from studies.equations.problems import PROBLEMS
from studies.equations.setting import TESTED, Points, judged, measurements, solved, tests

STEP = 0.1  # of a constant's standard deviation a priori, for its slopes by central differences
SMALLER = 0.01  # the same at the mode, where standard deviations are smaller


def exact(name: str, seed: int = 0) -> dict[str, Any]:
    """Error, coverage and width in both halves, and constants; the noise is known."""
    begin = time.process_time()
    make, _, noise, constants = PROBLEMS[name]
    problem, (points, measured) = make(), measurements(name, seed)
    middle, spread = np.array([problem.unknown[one] for one in constants]).T
    values = np.concatenate(list(measured.values()))

    def fields(at: Points, standard: np.ndarray) -> np.ndarray:
        some = dict(zip(constants, middle + spread * standard, strict=True))
        return np.concatenate(list(solved(name, at, **some).values()))

    def slopes(at: Points, standard: np.ndarray, step: float) -> np.ndarray:
        steps = step * np.eye(len(standard))
        return np.stack([fields(at, standard + one) - fields(at, standard - one) for one in steps], 1) / (2 * step)

    def left(standard: np.ndarray) -> np.ndarray:
        return np.concatenate([(fields(points, standard) - values) / noise, standard])

    def rows(standard: np.ndarray, step: float = STEP) -> np.ndarray:
        return np.concatenate([slopes(points, standard, step) / noise, np.eye(len(standard))])

    mode = least_squares(left, np.zeros(len(middle)), rows, x_scale=1.0).x
    jacobian = rows(mode, SMALLER)
    covariance = np.linalg.inv(jacobian.T @ jacobian)
    found: dict[str, Any] = {}
    for half, at in tests(problem, np.random.default_rng(TESTED)).items():
        true, slope = solved(name, at), slopes(at, mode, SMALLER)
        sd = np.sqrt(np.sum((slope @ covariance) * slope, 1))
        parts = zip(np.split(fields(at, mode), len(true)), np.split(sd, len(true)), strict=True)
        found[half] = judged(true, dict(zip(true, parts, strict=True)))
    sds = spread * np.sqrt(np.diag(covariance))
    each = zip(constants, middle + spread * mode, sds, strict=True)
    found["constants"] = {key: [float(mean), float(sd), constants[key]] for key, mean, sd in each}
    return found | {"seconds": time.process_time() - begin}
