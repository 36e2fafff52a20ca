"""The task file that ``bayesdd new`` writes, ``{name}`` for its own: a model and rows that run, to be replaced."""

TASK = '''"""Who comes back to the clinic? A model and simulated rows: put your own in their place.

    bayesdd distill {name}:task --size 20 --out d.nc
    bayesdd certify {name}:task --distilled d.nc
    bayesdd sample {name}:task --distilled d.nc --out posterior.nc
"""

import pyro
import pyro.distributions as dist
import torch

from bayesdd import Task


def model(x, y=None):
    """x: (N, 3) covariates, the first column 1.  y: (N,) 1 for a patient who came back, None when predicting."""
    # Latent sites stand outside the plate: one value for all rows. A proper prior, in the units of the parameter.
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    # Observed sites stand inside the plate of the rows, one value a row, each depending on that row alone.
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def task():
    """The model with its rows: arrays by name, a data frame, or the path of a .nc, .npz or .csv file."""
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.ones(1000, 1), torch.randn(1000, 2, generator=generator)], 1)
    y = torch.bernoulli(torch.sigmoid(x @ torch.tensor([-1.0, 0.5, 1.0])), generator=generator)
    return Task(model, {{"x": x, "y": y}})
'''
