"""The tasks of ``lens``: six kinds of inference, their held-out rows and their true posteriors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from torch import Tensor

import bayesdd
from bayesdd.target.bound import Bound
from bayesdd.target.second_order import SecondOrder
from bayesdd.target.target import Target
from models import gaussian_mean, gaussian_mixture, linear_regression
from studies.lens.truth import Truth, conjugate, intercepts, sampled
from studies.shared import densities, glm_cases


@dataclass(frozen=True)
class Case:
    """One task of the study.

    Attributes:
        name: As in cells' names.
        title: As in the table.
        dim: Number P of latent coordinates.
        rows: (seed, data folder, smoke) -> task on all rows, the held-out ones included.
        share: Share of the rows that is held out.
        truth: (task, seed) -> its posterior.
        file: What of the data folder it needs, if anything.
    """

    name: str
    title: str
    dim: int
    rows: Callable[[int, Path | None, bool], bayesdd.Task]
    share: float
    truth: Callable[[bayesdd.Task, int], Truth]
    file: str = ""

    @property
    def sizes(self) -> list[int]:
        """Numbers M of synthetic rows: 2 P and 50."""
        return sorted({2 * self.dim, 50})


@dataclass(frozen=True)
class Stage:
    """A task with its seed, ready to be distilled.

    Attributes:
        task: The rows to distil.
        purpose: Half of the held-out rows, for methods that ask what the rows are for.
        held_out: The other half, for scoring.
        truth: The full posterior.
        bound: How close M rows can come.
    """

    task: bayesdd.Task
    purpose: dict[str, Tensor]
    held_out: dict[str, Tensor]
    truth: Truth
    bound: Bound


@lru_cache(maxsize=1)
def staged(name: str, seed: int, data: str | None = None, smoke: bool = False) -> Stage:
    """A task's rows, split, with its full posterior; the last one is kept for the cells that follow."""
    case = next(case for case in CASES if case.name == name)
    every = case.rows(seed, None if data is None else Path(data), smoke)
    order = np.random.default_rng(seed).permutation(every.size)
    held = round(case.share * every.size)
    pieces = order[held:], order[: held // 2], order[held // 2 : held]
    kept, purpose, scored = ({name: column[piece] for name, column in every.data.items()} for piece in pieces)
    task = every.with_data(kept)
    if not smoke and task.dim != case.dim:
        raise ValueError(f"{name} has {task.dim} latent coordinates, but its case says {case.dim}: correct the case.")
    return Stage(task, purpose, scored, case.truth(task, seed), _bound(task, seed))


def _bound(task: bayesdd.Task, seed: int) -> Bound:
    target = Target([task], task, "cpu", seed)
    gaussian = target.gaussian()
    if gaussian is None:
        raise ValueError(f"{task.name} has no Laplace fit, which the bound of the theory needs.")
    return Bound.of(SecondOrder.of(gaussian, target), target)


CASES = [
    Case(
        "gaussian_mean",
        "Gaussian mean",
        20,
        glm_cases.simulated(gaussian_mean.task, {"rows": 2000, "dim": 20}, {"rows": 60, "dim": 2}),
        1 / 2,
        partial(conjugate, gaussian_mean.exact),
    ),
    Case(
        "linear_regression",
        "linear, known noise",
        11,
        glm_cases.simulated(linear_regression.task, {"rows": 3000, "dim": 11}, {"rows": 90, "dim": 2}),
        1 / 3,
        partial(conjugate, linear_regression.exact),
    ),
    Case("ds1", "logistic, ds1", 11, glm_cases.ds1, 0.1, partial(sampled, densities.logistic), file="ds1_large.npz"),
    Case("randhie", "Poisson, randhie", 10, glm_cases.randhie, 0.1, partial(sampled, densities.poisson)),
    Case(
        "gaussian_mixture",
        "Gaussian mixture",
        5,
        glm_cases.simulated(gaussian_mixture.task, {"rows": 6000}, {"rows": 400}),
        1 / 6,
        partial(sampled, densities.gaussian_mixture),
    ),
    Case(
        "varying_intercepts",
        "varying intercepts, 10 groups",
        15,
        glm_cases.simulated(glm_cases.few_groups, {"rows": 30_000, "groups": 10}, {"rows": 4000, "groups": 2}),
        1 / 3,
        intercepts,
    ),
]
