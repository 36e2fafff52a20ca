"""Calibration: uniform ranks where model and sampler are right, uneven ones where the posterior is too narrow."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd

X = torch.linspace(-1, 1, 12, dtype=torch.float64)


def line(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(w[0] + w[1] * x, 0.5), obs=y)


TASK = bayesdd.Task(line, {"x": X, "y": X})


def test_ranks_are_uniform_for_the_exact_posterior():
    found = bayesdd.calibrate(TASK, replications=100, seed=1)
    assert list(found.ranks) == ["w[0]", "w[1]"] and found.failed == 0
    assert float(found.p_value.min()) > 0.001
    assert int(found.ranks.min().min()) >= 0 and int(found.ranks.max().max()) <= found.draws


def test_posterior_calibration_given_rows():
    found = bayesdd.calibrate(TASK, replications=60, seed=2, observed={"x": X, "y": 0.5 + X})
    assert float(found.p_value.min()) > 0.001


def test_an_overconfident_posterior_is_seen():
    """Rows simulated with sd 0.5 and fitted as if every row counted four times: ranks pile up at both ends."""

    def counted_often(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=4.0):
            return pyro.sample("y", dist.Normal(w[0] + w[1] * x, 0.5), obs=y)

    found = bayesdd.calibrate(bayesdd.Task(counted_often, {"x": X, "y": X}), replications=60, seed=1)
    assert float(found.p_value.max()) < 0.01


@pytest.mark.long
def test_distilled_posteriors_are_calibrated_too():
    def mean(y=None, x=None):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(m, 1.0), obs=y)

    found = bayesdd.calibrate(bayesdd.Task(mean, {"x": X, "y": X}), replications=20, seed=1, size=1)
    assert float(found.p_value.min()) > 0.001


def test_the_plot_shows_every_parameter():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    figure = bayesdd.calibrate(TASK, replications=20).plot()
    assert sum(bool(axis.get_title()) for axis in figure.axes) == 2


def test_refusals():
    with pytest.raises(bayesdd.Refusal, match="at least 20"):
        bayesdd.calibrate(TASK, replications=3)
    with pytest.raises(bayesdd.Refusal, match="'x'"):
        bayesdd.calibrate(TASK, observed={"y": X})

    def factor(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.factor("row", -((w - x) ** 2))

    with pytest.raises(bayesdd.Refusal, match="observes no column"):
        bayesdd.calibrate(bayesdd.Task(factor, {"x": X}))
