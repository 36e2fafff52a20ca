"""One cell: a surrogate, rows by every road with the same steps, starts and final scaling, and who learns from them."""

from __future__ import annotations

import functools
import time
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesdd import CertificateWarning, distill, pinn
from bayesdd.data.columns import Columns
from bayesdd.distillation.problem import Problem
from bayesdd.networks import row_search, students
from bayesdd.networks._function_space import JUDGE_SEED, starting_rows, starting_weight
from bayesdd.networks.calibration import interval_score, settled
from bayesdd.networks.judging import JUDGE_STEPS, JUDGES
from bayesdd.networks.mlp import Network
from bayesdd.networks.purpose import Purpose
from bayesdd.networks.regression import Regression
from bayesdd.pinn import tasks
from studies.pinn_ood.plain import Activation, trained
from studies.pinn_ood.problems import FAMILIES
from studies.shared import cells

Weighted = tuple[Columns, Tensor]
NO_PHYSICS, ALL = "measurements, no physics", "all measurements, no physics"
NOISE, MEASURED = 0.1, 200
TAIL = 0.5  # standard deviations, a sixth of alpha's range each, from the middle at which the tails begin
TESTS, PLACES = 12, 48  # values of alpha in each tail that are tested, and places of each
Z90 = 1.6448536269514722
OTHER = (50, 50)  # hidden layers of the other architectures
ACTIVATIONS: dict[str, Activation] = {"tanh": torch.tanh, "silu": torch.nn.functional.silu}
# Steps of rows are counted over both starts; distill spends a fifth of them on the score of intervals.
FULL: dict[str, Any] = {
    "fit": {"hidden": (16, 16)}, "steps": 800, "students": 10, "other": 2, "judge": JUDGE_STEPS, "adam": 2000,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "fit": {"hidden": (5,), "modes": 2, "steps": 10, "points": 64}, "steps": 8, "students": 2, "other": 1, "judge": 10,
    "adam": 5,
}  # fmt: skip


class Measured:
    """One family and one set of measurements, and where it is tested."""

    def __init__(self, family: str, seed: int) -> None:
        self.seed, self.problem = seed, FAMILIES[family]()
        rng = np.random.default_rng(100 * seed)
        low, high = self.problem.ranges["alpha"]
        self.middle, self.sd = (low + high) / 2, (high - low) / 6
        points = self.places(MEASURED, rng) | {"alpha": self.tail(MEASURED, rng, 1.0)}
        exact = self.problem.reference(tensors(points))["u"].numpy()
        self.data = {**points, "u": exact + NOISE * rng.normal(size=MEASURED)}

    def fitted(self, **settings: Any) -> tuple[pinn.Surrogate, float]:
        """A surrogate and its seconds of the processor."""
        begin = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pinn.FitWarning)
            return pinn.fit(self.problem, self.data, seed=self.seed, **settings), time.process_time() - begin

    def tail(self, count: int, rng: np.random.Generator, sign: float) -> np.ndarray:
        """Alphas of a tail: normal, from half a standard deviation off the middle to three."""
        drawn = np.abs(rng.normal(size=20 * count + 100))
        return self.middle + sign * self.sd * drawn[(drawn > TAIL) & (drawn < 3)][:count]

    def places(self, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Random places and times."""
        return {name: rng.uniform(low, high, count) for name, (low, high) in self.problem.inputs.items()}

    def tests(self, sign: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Points of a tail and the solution there."""
        rng = np.random.default_rng(98 + int(sign))
        points = {"alpha": self.tail(TESTS, rng, sign).repeat(PLACES), **self.places(TESTS * PLACES, rng)}
        return points, self.problem.reference(tensors(points))["u"].numpy()

    def stacked(self, points: Columns) -> Tensor:
        """Inputs and alpha in [-1, 1], as plain networks read them, ``(N, d)``."""
        ranges = self.problem.ranges.items()
        return torch.stack([2 * (points[name] - low) / (high - low) - 1 for name, (low, high) in ranges], 1)


class Setting(Measured):
    """The same with one surrogate: what every road to rows may use."""

    def __init__(self, family: str, seed: int, smoke: bool) -> None:
        super().__init__(family, seed)
        self.sizes = SMALL if smoke else FULL
        self.surrogate, self.seconds = self.fitted(**self.sizes["fit"])
        self.regression = Regression(self.surrogate.student, "the study")
        objective: Any = self.surrogate.objective()
        given = objective.keywords
        mean, sd = given["predictive"]
        self.purpose = Purpose(given["purpose"], mean, sd, label=given["label"])
        self.pool = self.purpose.labelled(self.regression)


def measure(family: str, seed: int, size: int, *, smoke: bool = False) -> dict[str, Any]:
    """Every road's rows, their seconds, and what networks of several shapes make of them in either tail."""
    cells.set_threads()
    begin, setting, found = time.process_time(), Setting(family, seed, smoke), {}
    roads = {"distilled": distilled, "inputs optimised": optimised, "labelled Sobol": labelled, NO_PHYSICS: measured}
    for name, road in roads.items():
        clock = time.process_time()
        rows, weight = road(setting, size)
        found[name] = {"seconds": time.process_time() - clock} | judged(setting, rows, weight)
    return {"roads": found, "seconds": time.process_time() - begin}


def without_rows(family: str, seed: int, *, smoke: bool = False) -> dict[str, Any]:
    """The same of all measurements, with no physics, and of the surrogate itself: its weights handed over."""
    cells.set_threads()
    begin, setting = time.process_time(), Setting(family, seed, smoke)
    handed = {place: [scores(*setting.surrogate.predict(points)["u"], true)] for place, points, true in tails(setting)}
    found = {
        "weights handed over": {"seconds": setting.seconds, **handed},
        ALL: {"seconds": 0.0, **judged(setting, *measured(setting, MEASURED))},
    }
    return {"roads": found, "seconds": time.process_time() - begin}


def distilled(setting: Setting, size: int) -> Weighted:
    """Rows, outcomes and weights by ``bayesdd.distill``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CertificateWarning)
        found = distill(
            setting.surrogate.student,
            size,
            objective=setting.surrogate.objective(steps=2 * setting.sizes["steps"] // 5),
            seed=setting.seed,
            progress=False,
        )
    return found.data, found.weight


def optimised(setting: Setting, size: int) -> Weighted:
    """Inputs moved to where students of their labels err least, from the same two starts, with the same last scaling.

    Source: "Learning where to learn", arXiv 2505.21626, 2025.
    """

    def tie(rows: Columns) -> Columns:
        assert setting.purpose.label is not None
        return {**rows, "u": setting.purpose.label(rows)}

    steps, candidates = setting.sizes["steps"] // 2, []
    some = setting.purpose.some(torch.arange(size))
    weight = starting_weight(setting.regression, setting.purpose).expand(size).clone()
    first = {**some.inputs, "u": some.mean}, weight
    for rows, given in (_spread(setting, size), first):
        problem = Problem.from_rows(setting.pool, rows, given, torch.device("cpu"), equal_weights=False, move_rows=True)
        settings: dict[str, Any] = {"students": 4, "restart": 10}
        vector = row_search.search(
            setting.regression, problem, setting.purpose, setting.seed, lambda _: None, steps=steps, tie=tie, **settings
        )
        with torch.no_grad():
            moved, kept = problem.stored(vector)
            candidates.append(_scaled(setting, tie(moved), kept))
    return min(candidates, key=functools.partial(_score, setting))


def labelled(setting: Setting, size: int) -> Weighted:
    """The purpose's first inputs, a Sobol sequence, with their labels; scaled alike."""
    some = setting.purpose.some(torch.arange(size))
    weight = starting_weight(setting.regression, setting.purpose).expand(size).clone()
    return _scaled(setting, {**some.inputs, "u": some.mean}, weight)


def measured(setting: Setting, size: int) -> Weighted:
    """The first measurements, which lie anywhere; the noise is known, so that each weighs one."""
    return {name: torch.as_tensor(column[:size]) for name, column in setting.data.items()}, torch.ones(size).double()


def judged(setting: Setting, rows: Columns, weight: Tensor) -> dict[str, Any]:
    """Scores of students from scratch in both tails, and out of distribution of those of other shapes."""
    own, sizes = setting.regression, setting.sizes
    shape: Network = setting.surrogate.networks.fields
    network = Network(shape.centre, shape.radius, OTHER, outputs=shape.outputs)
    other = Regression(tasks.student(setting.problem, network, setting.pool.data, own.noise), "the study")
    found = _students(setting, own, rows, weight, sizes["students"])
    found["2 x 50"] = _students(setting, other, rows, weight, sizes["other"])["out"]
    points, truth = setting.tests(-1.0)
    for name, activation in ACTIVATIONS.items():
        networks = trained(
            setting.stacked(rows), rows["u"], weight,
            hidden=OTHER, activation=activation, count=sizes["other"], steps=sizes["adam"],
        )  # fmt: skip
        values = networks(setting.stacked(tensors(points))).numpy()
        found[f"torch, {name}"] = [{"error": _error(one, truth)} for one in values]
    return found


def tails(setting: Measured) -> list[tuple[str, dict[str, np.ndarray], np.ndarray]]:
    """Of the measured tail and the other one: name, points, solution there."""
    return [(place, *setting.tests(sign)) for place, sign in (("in", 1.0), ("out", -1.0))]


def tensors(points: dict[str, np.ndarray]) -> Columns:
    """Columns as tensors."""
    return {name: torch.from_numpy(column) for name, column in points.items()}


def _students(
    setting: Setting, regression: Regression, rows: Columns, weight: Tensor, count: int
) -> dict[str, list[dict[str, float]]]:
    precision, found = weight / regression.noise**2, {}
    fits = students.from_scratch(regression, rows, precision, count, 10_007, setting.sizes["judge"])
    for place, points, truth in tails(setting):
        with torch.no_grad():
            mean, sd = students.spread(regression, fits.latents, rows, precision, tensors(points))
        found[place] = [scores(m.numpy(), s.numpy(), truth) for m, s in zip(mean, sd, strict=True)]
    return found


def scores(mean: np.ndarray, sd: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Relative L2 error of means, and the share of the truth that their 90% intervals hold."""
    return {"error": _error(mean, truth), "held": float(np.mean(np.abs(mean - truth) <= Z90 * sd))}


def _error(mean: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((mean - truth) ** 2) / np.mean(truth**2)))


def _spread(setting: Setting, size: int) -> Weighted:
    return starting_rows(setting.regression, setting.purpose, setting.pool.data, setting.seed, size)


def _scaled(setting: Setting, rows: Columns, weight: Tensor) -> Weighted:
    scale = settled(
        setting.regression, rows, weight, setting.purpose,
        count=2 * JUDGES, seed=setting.seed + 2 * JUDGE_SEED, steps=setting.sizes["judge"],
    )  # fmt: skip
    return rows, weight * float(np.exp(scale))


def _score(setting: Setting, found: Weighted) -> float:
    rows, weight = found
    precision = weight / setting.regression.noise**2
    with torch.no_grad():
        fits = students.from_scratch(
            setting.regression, rows, precision, 2 * JUDGES, setting.seed + JUDGE_SEED, setting.sizes["judge"]
        )
        return float(interval_score(setting.regression, fits.latents, rows, precision, setting.purpose).median())
