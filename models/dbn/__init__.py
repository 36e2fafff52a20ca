r"""Template dynamic Bayesian network: named variables over T slices, parameters tied over time.

Edges within a slice (intra) and from one slice to the next (inter); static variables have one value a sequence and may
be parents in every slice. The first slice has parameters of its own, later slices share theirs. For a variable v with
parents pa, all linear-Gaussian or all categorical:

.. math::
    \sigma_v^2 \sim \mathrm{InverseGamma}(a, b), \quad \beta_v \mid \sigma_v^2 \sim N(0, \sigma_v^2 s^2 I), \quad
    x_v \mid pa \sim N(\beta_{v0} + \beta_v^\top pa, \sigma_v^2); \\
    \theta_v \mid pa \sim \mathrm{Dirichlet}(\alpha, \dots, \alpha), \qquad x_v \mid pa \sim \theta_v.

Linear-Gaussian variables are standardised: a residual variance has prior mean b / (a - 1) = 1, the variable's own, and
a coefficient's prior deviation is s = 3 residual deviations, what a parent that alone explains 90% of the variance has.
A pseudo-count of 1 is a uniform prior on the tables. Missing entries (NaN) are integrated out exactly; sequences of
unequal length are padded by NaN. Measurement noise of known or unknown deviation may lie on every entry that is seen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdd.task import Task
from models.dbn.edges import edges as edges
from models.dbn.federated import federated as federated
from models.dbn.merge import harden as harden
from models.dbn.merge import merge as merge
from models.dbn.merge import overstated as overstated
from models.dbn.model import model as model
from models.dbn.pooled import pooled as pooled
from models.dbn.search import learn as learn
from models.dbn.source import Source as Source
from models.dbn.template import Template as Template

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
