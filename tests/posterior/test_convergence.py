"""sample speaks up: stuck and separated chains, divergences; and jumps between modes that are known."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd.posterior.convergence import troubles


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_independent_draws_are_no_trouble():
    for draws in (20, 100, 300):
        assert troubles({"w": noise(4, draws, 3), "s": noise(4, draws)}, {"diverging": torch.zeros(4, draws)}) == []


def test_what_is_wrong_is_named():
    apart = noise(4, 200, 2)
    apart[0, :, 1] += 2.0
    assert "'w' (R-hat" in troubles({"w": apart, "s": noise(4, 200)}, {})[0]
    still = noise(4, 200)
    still[1, 20:] = still[1, 20]
    assert any("1 of 4 chains stood still" in said for said in troubles({"s": still}, {}))
    diverging = (noise(4, 200) > 1.5).double()
    assert "diverged" in troubles({"s": noise(4, 200)}, {"diverging": diverging})[0]


def test_chains_jump_between_known_modes():
    """A parameter known up to its sign, the positive root preferred: exact shares, no warning."""

    def root(y):
        t = pyro.sample("t", dist.Normal(0.3, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(t**2, 0.3), obs=y)

    task = bayesdd.Task(root, {"y": torch.full((10,), 1.5)})
    grid = torch.linspace(-4, 4, 40_001, dtype=torch.float64)
    log_joint = -0.5 * (grid - 0.3) ** 2 - 10 * (1.5 - grid**2) ** 2 / (2 * 0.09)
    share = float(torch.softmax(log_joint, 0)[grid > 0].sum())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = bayesdd.sample(task, draws=50, chains=12, seed=0).posterior["t"].values
    assert abs((found > 0).mean() - share) < 4 * math.sqrt(share * (1 - share) / 150)


@pytest.mark.long
def test_a_funnel_is_not_passed_over_in_silence():
    """Few rows and a centred scale: draws reach the neck as often as they should, or a warning says otherwise."""

    def schools(group, y):
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        theta = pyro.sample("theta", dist.Normal(0.0, tau).expand([8]).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(theta[group], 10.0), obs=y)

    task = bayesdd.Task(schools, {"group": torch.arange(8), "y": torch.tensor([8.0, 3, 7, -1, 1, 8, 2, 5])})
    grid = torch.linspace(1e-4, 200.0, 400_001, dtype=torch.float64)
    y = task.data["y"][:, None]
    log_joint = -torch.log1p((grid / 5) ** 2) + dist.Normal(0.0, (100 + grid**2).sqrt()).log_prob(y).sum(0)
    below = float(torch.softmax(log_joint, 0)[grid < 0.5].sum())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tau = bayesdd.sample(task, draws=300, chains=4, seed=0).posterior["tau"].values
    seen = float((tau < 0.5).mean())
    warned = [w for w in said if issubclass(w.category, bayesdd.ConvergenceWarning)]
    assert warned or abs(seen - below) < 0.5 * below, (seen, below)
    assert not warned or "'tau'" in str(warned[0].message) or "diverged" in str(warned[0].message)


@pytest.mark.parametrize("draws", [1, 3])
def test_too_few_draws_to_tell(draws):
    assert troubles({"w": noise(2, draws)}, {}) == []
