"""Template dynamic Bayesian networks: three variables and a static one, complete, masked or categorical."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdd.dbn import Template
from bayesdd.task.task import Task

GAUSSIAN = Template(
    variables=("pressure", "dose", "symptom"),
    static=("age",),
    intra=(("age", "pressure"), ("pressure", "dose"), ("dose", "symptom")),
    inter=(("pressure", "pressure"), ("dose", "pressure"), ("symptom", "symptom")),
)
CATEGORICAL = Template(
    variables=("pressure", "dose", "symptom"),
    static=("sex",),
    intra=(("sex", "pressure"), ("pressure", "dose"), ("dose", "symptom")),
    inter=(("pressure", "pressure"), ("dose", "pressure"), ("symptom", "symptom")),
    states={"pressure": 3, "dose": 2, "symptom": 2, "sex": 2},
)


def task(rows: int = 2000, slices: int = 5, seed: int = 0) -> Task:
    """Simulated sequences of three linear-Gaussian variables and a static one, complete."""
    return GAUSSIAN.task(simulated(GAUSSIAN, rows, slices, seed))


def task_masked(rows: int = 2000, slices: int = 5, seed: int = 0) -> Task:
    """The same from two sources: one has never measured the symptom, the other neither dose nor age."""
    data = simulated(GAUSSIAN, rows, slices, seed)
    data["x"][::2, :, 2] = torch.nan
    data["x"][1::2, :, 1] = torch.nan
    data["static"][1::2] = torch.nan
    return GAUSSIAN.task(data)


def task_categorical(rows: int = 2000, slices: int = 5, seed: int = 0) -> Task:
    """Simulated sequences of three categorical variables and a static one, complete."""
    return CATEGORICAL.task(simulated(CATEGORICAL, rows, slices, seed))


def simulated(template: Template, rows: int, slices: int, seed: int) -> dict[str, Tensor]:
    """Columns at parameters drawn at random: flat tables, or coefficients small enough to keep sequences bounded."""
    generator, values = torch.Generator().manual_seed(seed), {}
    for site, shape in template.sites.items():
        if template.states:
            gamma = torch._standard_gamma(torch.ones(shape, dtype=torch.float64), generator=generator)
            values[site] = gamma / gamma.sum(-1, keepdim=True)
        elif shape:
            values[site] = 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
        else:
            values[site] = 0.3 + 0.4 * torch.rand((), generator=generator, dtype=torch.float64)
    return template.sample(values, rows, slices, seed)
