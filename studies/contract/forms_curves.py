"""Curves: dose and response, kinetics, splines, Gaussian processes."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from studies.contract.form import Data, Form, Rng


def emax(dose: Tensor, y: Tensor | None = None) -> None:
    """Dose and response: an Emax curve."""
    base = pyro.sample("base", dist.Normal(0.0, 2.0))
    top = pyro.sample("top", dist.Normal(0.0, 5.0))
    half = pyro.sample("half", dist.LogNormal(1.0, 1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("data", len(dose)):
        pyro.sample("y", dist.Normal(base + top * dose / (half + dose), sigma), obs=y)


def doses(rng: Rng) -> Data:
    """Five doses, placebo among them."""
    dose = rng.choice([0.0, 1.0, 3.0, 10.0, 30.0], size=300)
    return {"dose": dose, "y": 0.5 + 3 * dose / (4 + dose) + 0.7 * rng.normal(size=300)}


def michaelis_menten(concentration: Tensor, rate: Tensor | None = None) -> None:
    """Enzyme kinetics with noise in proportion to the rate."""
    top = pyro.sample("top", dist.LogNormal(0.0, 1.0))
    half = pyro.sample("half", dist.LogNormal(0.0, 1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    with pyro.plate("data", len(concentration)):
        mean = top * concentration / (half + concentration)
        pyro.sample("rate", dist.LogNormal(mean.log(), sigma), obs=rate)


def enzymes(rng: Rng) -> Data:
    """Concentrations over two decades."""
    c = np.exp(rng.uniform(-2.5, 2.5, size=200))
    return {"concentration": c, "rate": 2 * c / (1.5 + c) * np.exp(0.15 * rng.normal(size=200))}


def spline(basis: Tensor, y: Tensor | None = None) -> None:
    """A curve from eight basis functions with a smoothing prior."""
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    a = pyro.sample("a", dist.Normal(0.0, 2.0))
    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([basis.shape[-1]]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("data", len(basis)):
        pyro.sample("y", dist.Normal(a + basis @ (tau * z), sigma), obs=y)


def bumps(rng: Rng) -> Data:
    """Cubic B-splines of one covariate: every row has four that are not zero."""
    from scipy.interpolate import BSpline

    t = rng.uniform(0, 1, size=500)
    knots = np.concatenate([np.zeros(3), np.linspace(0, 1, 6), np.ones(3)])
    basis = BSpline.design_matrix(t, knots, 3).toarray()
    return {"basis": basis, "y": np.sin(5 * t) + 0.3 * rng.normal(size=500)}


def latent_process(cell: Tensor, y: Tensor | None = None, *, cholesky: Tensor) -> None:
    """A Gaussian process on a grid, its Cholesky factor computed outside."""
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(cholesky)]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("data", len(cell)):
        pyro.sample("y", dist.Normal((scale * cholesky @ z)[cell], sigma), obs=y)


def kernel(points: int = 12) -> Tensor:
    """Cholesky factor of a squared exponential kernel on an even grid."""
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    square = (t[:, None] - t) ** 2
    return torch.linalg.cholesky((-square / (2 * 0.2**2)).exp() + 1e-6 * torch.eye(points, dtype=torch.float64))


def cells(rng: Rng) -> Data:
    """Noisy values of a wave at twelve places."""
    cell = rng.integers(12, size=600)
    return {"cell": cell, "y": np.sin(cell / 2) + 0.4 * rng.normal(size=600)}


FORMS = (
    Form("emax", "dose-response, Emax", emax, doses),
    Form("michaelis_menten", "Michaelis-Menten", michaelis_menten, enzymes),
    Form("spline", "B-splines", spline, bumps),
    Form("latent_process", "Gaussian process weights", partial(latent_process, cholesky=kernel()), cells),
)
