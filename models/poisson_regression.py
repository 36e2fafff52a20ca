r"""Poisson regression: visits to a doctor per year against the terms of an insurance plan and the patient's health.

.. math:: w \sim N(0, I_d), \qquad y_n \mid x_n, w \sim \mathrm{Poisson}(\exp(x_n^\top w)).

Covariates are standardised (first column 1), so the unit prior says that one standard deviation of a covariate
multiplies the rate by a factor between 1/7 and 7, and that a typical person makes between 1/7 and 7 visits a year, each
with 95% probability.
"""

import numpy as np
import pyro
import pyro.distributions as dist
from torch import Tensor

from bayesdd.task.task import Task


def model(x: Tensor, y: Tensor | None = None) -> Tensor:
    """x: (N, d) standardised covariates, first column 1.  y: (N,) counts."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Poisson((x @ w).exp()), obs=y)


def task() -> Task:
    """The RAND health insurance experiment: 20,190 person-years, a constant and 9 covariates, outpatient visits.

    Covariates in order: constant, lncoins, idp, lpi, fmde, physlm, disea, hlthg, hlthf, hlthp. The file comes with
    statsmodels, nothing is downloaded.

    Raises:
        ModuleNotFoundError: statsmodels is missing; it comes with ``pip install bayesdd[study]``.

    Source: Newhouse, "Free for All? Lessons from the RAND Health Insurance Experiment", 1993; file and covariates from
    Cameron & Trivedi, "Microeconometrics", 2005.
    """
    from statsmodels.datasets import randhie

    visits = randhie.load_pandas()
    covariates = visits.exog.to_numpy(dtype=np.float64)
    standardised = (covariates - covariates.mean(0)) / covariates.std(0)
    x = np.column_stack([np.ones(len(standardised)), standardised])
    return Task(model, {"x": x, "y": visits.endog.to_numpy(dtype=np.float64)})
