"""The files that ``bayesdd new`` writes, ``{name}`` for their own: a model and rows that run, to be replaced."""

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

STUDY = '''"""How many rows carry the posterior? A study: one question, one claim, one table with error bars.

Question: how far, in nats, is the posterior of M weighted synthetic rows from that of 1,000 rows?
Claim: 12 rows are certified within 0.05 nats at every seed.
How it could fail: fewer rows than parameters cannot carry a posterior; a seed may end at worse rows.
Cost: a minute or two; `python {name}.py --smoke` runs one size at one seed in seconds.
"""

import argparse
import time
import warnings

import pandas as pd
import pyro
import pyro.distributions as dist
import torch

import bayesdd


def model(x, y=None):
    """x: (N, 3) covariates, the first column 1.  y: (N,) 0 or 1, None when predicting."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def task():
    """The model with its rows: put your own in their place."""
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.ones(1000, 1), torch.randn(1000, 2, generator=generator)], 1)
    y = torch.bernoulli(torch.sigmoid(x @ torch.tensor([-1.0, 0.5, 1.0])), generator=generator)
    return bayesdd.Task(model, {{"x": x, "y": y}})


def main(sizes=(4, 8, 12), seeds=3):
    """One row a size and seed: both KLs with standard errors (nats), the verdict, and seconds."""
    whole, found = task(), []
    for size in sizes:
        for seed in range(seeds):
            begin = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", bayesdd.CertificateWarning)  # the table says it
                distilled = bayesdd.distill(whole, size=size, seed=seed, progress=False)
            # From fresh draws, which the distillation has not seen.
            certificate = bayesdd.certify(whole, distilled, seed=1000 + seed)
            numbers = {{name: getattr(certificate, name) for name in ("kl_reverse", "kl_reverse_se", "kl_forward")}}
            seconds = time.perf_counter() - begin
            found.append({{"size": size, "seed": seed, **numbers, "ok": certificate.ok, "seconds": seconds}})
    return pd.DataFrame(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one size, one seed")
    table = main(sizes=(12,), seeds=1) if parser.parse_args().smoke else main()
    print(table.to_string(index=False, float_format="%.3g"))
'''
