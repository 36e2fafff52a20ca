"""One cell: bayesdd's surrogate of a family and a set of measurements, then every rival for as long."""

from __future__ import annotations

import importlib.util
import time
import warnings
from typing import Any

import numpy as np
import torch

from studies.peers import deepxde, laplace
from studies.pinn_ood.cell import Measured, scores, tails, tensors
from studies.shared import cells
from studies.surrogates import EQUATIONS, RATES, trained

FULL: dict[str, Any] = {"hidden": (16, 16)}  # the default of pinn.fit, and of every rival
SMALL: dict[str, Any] = {"hidden": (5,), "modes": 1, "steps": 10, "points": 64}
MEMBERS = 5  # of the ensemble
OURS, PLAIN, ENSEMBLE = "bayesdd.pinn.fit", "plain torch", f"ensemble of {MEMBERS}"
LAPLACE, DEEPXDE = "plain torch + laplace-torch", "DeepXDE"
PACKAGES = {DEEPXDE: "deepxde", LAPLACE: "laplace"}  # method -> the module that it needs


def lacking() -> list[str]:
    """Methods whose packages are not installed."""
    return [method for method, package in PACKAGES.items() if importlib.util.find_spec(package) is None]


def measure(family: str, seed: str = "0", *, smoke: bool = False) -> dict[str, Any]:
    """Method -> its seconds of the processor, error and share held in both tails."""
    cells.set_threads()
    begin, measured, equation = time.perf_counter(), Measured(family, int(seed)), EQUATIONS[family]
    settings = SMALL if smoke else FULL
    surrogate, seconds = measured.fitted(**settings)
    found = {OURS: _judged(measured, lambda points: surrogate.predict(points)["u"], seconds)}
    hidden, clock = settings["hidden"], time.process_time()
    ends = [(trained(measured, equation, hidden, rate, seconds / len(RATES)), rate) for rate in RATES]
    (_, network, _), rate = min(ends, key=lambda end: end[0][0])
    used = time.process_time() - clock
    found[PLAIN] = _judged(measured, lambda points: (_values(network, measured, points), None), used)
    missing = lacking()
    if LAPLACE not in missing:
        clock = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library's own making
            predicted = laplace.around(network, measured, equation)
            found[LAPLACE] = _judged(measured, predicted, used + time.process_time() - clock)
    clock = time.process_time()
    members = [trained(measured, equation, hidden, rate, seconds / MEMBERS, seed)[1] for seed in range(1, MEMBERS + 1)]
    found[ENSEMBLE] = _judged(measured, lambda points: _together(members, measured, points), _since(clock))
    if DEEPXDE not in missing:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            solution, used = deepxde.solved(measured, equation, hidden, seconds)
        found[DEEPXDE] = _judged(measured, lambda points: (solution(points), None), used)
    return {"methods": found, "seconds": time.perf_counter() - begin}


def _since(clock: float) -> float:
    return time.process_time() - clock


def _judged(measured: Measured, predict: Any, seconds: float) -> dict[str, Any]:
    """Scores in both tails of a method that gives means and, or None, standard deviations of points."""
    found: dict[str, Any] = {"seconds": seconds}
    for place, points, truth in tails(measured):
        mean, sd = predict(points)
        found[place] = scores(mean, np.zeros_like(mean) if sd is None else sd, truth)
        if sd is None:
            found[place]["held"] = None
    return found


def _values(network: torch.nn.Sequential, measured: Measured, points: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(network(measured.stacked(tensors(points)))[:, 0])


def _together(
    members: list[torch.nn.Sequential], measured: Measured, points: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of an ensemble."""
    each = np.stack([_values(network, measured, points) for network in members])
    return each.mean(0), each.std(0, ddof=1)
