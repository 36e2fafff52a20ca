r"""A course of treatment: blood pressure, dose and symptom at yearly visits, as a template dynamic Bayesian network.

Every patient has a sequence of T visits and one static value. At each visit the pressure sets the dose and the dose the
symptom; pressure and symptom also follow themselves, and a dose lowers or raises the next visit's pressure:

.. math:: \text{age} \to p_t \to d_t \to s_t, \qquad p_{t-1} \to p_t, \quad d_{t-1} \to p_t, \quad s_{t-1} \to s_t.

The first visit has parameters of its own, all later ones share theirs. Given its parents a variable is linear-Gaussian
(:func:`task`, :func:`task_masked`; every column in units of its own standard deviation) or categorical
(:func:`task_categorical`; states 0, 1, ...):

.. math::
    \sigma_v^2 \sim \mathrm{InverseGamma}(2, 1), \quad \beta_v \mid \sigma_v^2 \sim N(0, 9 \sigma_v^2 I), \quad
    x_v \mid pa \sim N(\beta_{v0} + \beta_v^\top pa, \sigma_v^2); \qquad
    \theta_v \mid pa \sim \mathrm{Dirichlet}(1, \dots, 1), \quad x_v \mid pa \sim \theta_v.

A residual variance has prior mean 1, the variable's own; a coefficient's prior deviation of three residual deviations
is what a parent that alone explains 90% of the variance has; tables are uniform. Missing entries (NaN) are integrated
out. Given complete rows ``bayesdd.dbn.conjugate`` is the exact posterior.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdd import dbn
from bayesdd.task import Task

INTER = (("pressure", "pressure"), ("dose", "pressure"), ("symptom", "symptom"))
GAUSSIAN = dbn.Template(
    variables=("pressure", "dose", "symptom"),
    static=("age",),
    intra=(("age", "pressure"), ("pressure", "dose"), ("dose", "symptom")),
    inter=INTER,
)
CATEGORICAL = dbn.Template(
    variables=("pressure", "dose", "symptom"),
    static=("sex",),
    intra=(("sex", "pressure"), ("pressure", "dose"), ("dose", "symptom")),
    inter=INTER,
    states={"pressure": 3, "dose": 2, "symptom": 2, "sex": 2},
)


def task(rows: int = 2000, slices: int = 5, seed: int = 0) -> Task:
    """Simulated linear-Gaussian sequences, complete."""
    return dbn.task(GAUSSIAN, _simulate_gaussian(rows, slices, seed))


def task_masked(rows: int = 2000, slices: int = 5, seed: int = 0) -> Task:
    """The same from two clinics: one has never measured the symptom, the other neither dose nor age."""
    data = _simulate_gaussian(rows, slices, seed)
    data["x"][::2, :, 2] = torch.nan
    data["x"][1::2, :, 1] = torch.nan
    data["static"][1::2] = torch.nan
    return dbn.task(GAUSSIAN, data)


def task_categorical(rows: int = 2000, slices: int = 5, seed: int = 0) -> Task:
    """Simulated categorical sequences, complete."""
    generator, values = torch.Generator().manual_seed(seed), {}
    for site, shape in CATEGORICAL.sites.items():
        gamma = torch._standard_gamma(torch.ones(shape, dtype=torch.float64), generator=generator)
        values[site] = gamma / gamma.sum(-1, keepdim=True)  # a draw of the flat prior
    return dbn.task(CATEGORICAL, dbn.simulate(CATEGORICAL, values, rows, slices, seed))


def _simulate_gaussian(rows: int, slices: int, seed: int) -> dict[str, Tensor]:
    generator, values = torch.Generator().manual_seed(seed), {}
    for site, shape in GAUSSIAN.sites.items():  # coefficients (k,) that keep sequences bounded, variances ()
        noise = torch.randn if shape else torch.rand
        drawn = noise(shape, generator=generator, dtype=torch.float64)
        values[site] = 0.3 * drawn if shape else 0.3 + 0.4 * drawn
    return dbn.simulate(GAUSSIAN, values, rows, slices, seed)
