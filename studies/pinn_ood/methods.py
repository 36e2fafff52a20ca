"""What the study compares: rows distilled by function-space matching, and rows by other roads."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bayesdd import CertificateWarning, distill
from bayesdd.data.columns import Columns
from bayesdd.distillation.problem import Problem
from bayesdd.networks import function_space, row_search
from bayesdd.networks._function_space import starting_weight
from bayesdd.networks.purpose import Purpose
from bayesdd.networks.regression import Regression
from bayesdd.pinn.equation import Family
from bayesdd.task.task import Task
from studies.pinn_ood import parts

Weighted = tuple[Columns, Tensor]


class Setting:
    """One family, one set of measurements, one target: what every method may use."""

    def __init__(self, family: Family, seed: int, teacher: dict[str, Any], smoke: bool) -> None:
        self.family, self.seed, self.smoke = family, seed, smoke
        self.learner: Task = parts.student(family, seed, smoke)
        self.regression = Regression(self.learner, "the study")
        wanted = teacher["target"]["purpose"]
        columns = parts.purpose(family, seed, smoke)
        mean, sd = (torch.tensor(wanted[name], dtype=torch.float64) for name in ("mean", "sd"))
        self.mode = torch.tensor(teacher["target"]["mode"], dtype=torch.float64)
        self.purpose = Purpose(columns, mean, sd, label=lambda rows: self.regression.mean(self.mode[None], rows)[0])
        self.generator = torch.Generator().manual_seed(seed)


def labelled(setting: Setting, picked: Tensor) -> Weighted:
    """Purpose inputs labelled by the target's predictive mean; their common weight scaled as for distilled rows."""
    rows = {**setting.purpose.some(picked).inputs, "y": setting.purpose.mean[picked]}
    return _searched(setting, rows, steps=0)


def random_rows(setting: Setting, size: int) -> Weighted:
    """Labelled inputs at random over the domain."""
    return labelled(setting, torch.randperm(len(setting.purpose.mean), generator=setting.generator)[:size])


def sobol_rows(setting: Setting, size: int) -> Weighted:
    """Labelled inputs of a Sobol sequence over the domain."""
    return labelled(setting, torch.arange(size))


def greedy_rows(setting: Setting, size: int) -> Weighted:
    """Labelled inputs one by one where the student, linearised at the target's mode, is least certain yet."""
    regression, mode = setting.regression, setting.mode[None]
    with torch.no_grad():
        slopes = regression.jacobian(mode, setting.purpose.inputs)[1][0]
        kernel = (slopes / regression.prior(mode)[2]) @ slopes.T
    picked: list[int] = []
    for _ in range(size):
        at = int(kernel.diagonal().argmax())
        picked.append(at)
        # A row with the target's own precision there.
        kernel = kernel - torch.outer(kernel[at], kernel[at]) / (kernel[at, at] + setting.purpose.sd[at] ** 2)
    return labelled(setting, torch.tensor(picked))


def optimised_inputs(setting: Setting, size: int) -> Weighted:
    """Inputs moved to where students of their labels err least; labels by the target, one common weight.

    Source: "Learning where to learn", arXiv 2505.21626, 2025: the distribution of training inputs, optimised for
    deployment; here as M points.
    """
    picked = torch.arange(size)
    rows = {**setting.purpose.some(picked).inputs, "y": setting.purpose.mean[picked]}

    def tie(moved: Columns) -> Columns:
        return {**moved, "y": setting.regression.mean(setting.mode[None], moved)[0]}

    return _searched(setting, rows, steps=parts.settings(setting.smoke)["steps"], tie=tie)


def subset(setting: Setting, size: int) -> Weighted:
    """A random subset of the noisy measurements, weighted N / M."""
    data = setting.learner.data
    picked = torch.randperm(setting.learner.size, generator=setting.generator)[: min(size, setting.learner.size)]
    weight = torch.full((len(picked),), setting.learner.size / len(picked), dtype=torch.float64)
    return {name: column[picked] for name, column in data.items()}, weight


def no_physics(setting: Setting, size: int) -> Weighted:
    """All the noisy measurements, no equation."""
    return dict(setting.learner.data), torch.ones(setting.learner.size, dtype=torch.float64)


def distilled(setting: Setting, size: int) -> tuple[Columns, Tensor, dict[str, Any]]:
    """Function-space matching, by ``bayesdd.distill``; with what its certificate says."""
    objective = functools.partial(
        function_space,
        purpose=setting.purpose.inputs,
        predictive=(setting.purpose.mean, setting.purpose.sd),
        label=setting.purpose.label,
        steps=parts.settings(setting.smoke)["steps"],
    )
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CertificateWarning)  # the verdict is in the table
        found = distill(setting.learner, size, objective=objective, seed=setting.seed, progress=False)
    assert found.certificate is not None  # distill attaches one
    said = {key: getattr(found.certificate, key) for key in ("mean_error", "spread_ratio", "ok")}
    return found.data, found.weight, {**said, "seconds": time.process_time() - begin}


METHODS: dict[str, Callable[[Setting, int], Weighted]] = {
    "random subset": subset,
    "labelled random": random_rows,
    "labelled Sobol": sobol_rows,
    "labelled greedy": greedy_rows,
    "optimised inputs": optimised_inputs,
}


def _searched(setting: Setting, rows: Columns, *, steps: int, tie: row_search.Tie | None = None) -> Weighted:
    """Rows and one common weight: scaled (and moved) as distilled ones are."""
    start = starting_weight(setting.regression, setting.purpose)
    pool = setting.purpose.labelled(setting.regression)
    weight = start.expand(len(rows["y"])).clone()
    problem = Problem.from_rows(pool, rows, weight, torch.device("cpu"), equal_weights=True, move_rows=True)
    vector = row_search.search(
        setting.regression,
        problem,
        setting.purpose,
        setting.seed,
        lambda _: None,
        students=4,
        steps=steps,
        restart=10,
        tie=tie,
    )
    with torch.no_grad():
        found, weight = problem.stored(vector)
        found = found if tie is None else tie(found)
    return {name: column.detach() for name, column in found.items()}, weight.clone()
