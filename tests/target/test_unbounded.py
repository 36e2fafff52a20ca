"""Posteriors without a maximum are refused by name; a hierarchical scale, whose log joint rises too, is not."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd.density.density import Density
from bayesdd.inference.mode import scattered
from bayesdd.target.unbounded import refuse_unbounded


def line(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 10.0).expand([x.shape[-1]]).to_event(1))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ w, noise), obs=y)


def location(y):
    at = pyro.sample("at", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(at, 1.0), obs=y)


def centred(g, y):
    tau = pyro.sample("tau", dist.HalfNormal(5.0))
    with pyro.plate("groups", 4):
        effect = pyro.sample("effect", dist.Normal(0.0, tau))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(effect[g], 10.0), obs=y)


X = np.column_stack([np.ones(60), np.linspace(-1, 1, 60)])


@pytest.mark.parametrize("y", [X @ [1.0, 2.0], np.full(60, 3.0)])
def test_rows_fitted_exactly_name_the_scale(y):
    with pytest.raises(bayesdd.Refusal, match=r"no maximum: .* site 'noise'"):
        bayesdd.distill(bayesdd.Task(line, {"x": X, "y": y}), size=5, progress=False)


def test_values_beyond_float64_are_refused():
    y = 1e20 * np.random.default_rng(0).normal(size=50)
    with pytest.raises(bayesdd.Refusal, match="common scale"):
        bayesdd.distill(bayesdd.Task(location, {"y": y}), size=5, progress=False)


def test_a_centred_hierarchy_is_no_fault():
    task = bayesdd.Task(centred, {"g": np.arange(4).repeat(3), "y": 10 * np.random.default_rng(0).normal(size=12)})
    density = Density([(task, task.rows, None)])
    refuse_unbounded(density, scattered(density, 1, 0)[0])
    assert bool(torch.isfinite(density.log_joint(scattered(density, 1, 0))))
