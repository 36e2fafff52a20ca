"""Certificates of predictions: errors and spreads at every input, in sds and in the outcome's own terms."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd.networks import bnn, students
from bayesdd.networks.judging import Terms, certificate
from bayesdd.networks.mlp import Network
from bayesdd.networks.purpose import Purpose
from bayesdd.networks.regression import Regression

NOISE = 0.2


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr("bayesdd.networks.judging.JUDGE_STEPS", 60)


def test_uneven_spreads_are_not_certified():
    x = torch.linspace(-1, 1, 32, dtype=torch.float64)[:, None]
    rows = {"x": torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]}
    rows["y"] = torch.sin(2 * rows["x"][:, 0])
    regression = Regression(bnn.student(rows, network=Network((0.0,), (1.0,), (4,)), noise=0.1), "this test")
    weight = torch.ones(12, dtype=torch.float64)
    precision = weight / regression.noise**2
    fits = students.from_scratch(regression, rows, precision, 8, 7, 60)
    mean, spread = students.spread(regression, fits.latents, rows, precision, {"x": x})
    mean, sd = mean.mean(0).detach(), spread.log().mean(0).exp().detach()
    uneven = sd * torch.where(torch.arange(32) % 2 == 0, 4.0, 0.25)
    even = certificate(regression, Purpose({"x": x}, mean, sd), rows, weight, 0.6, 0)
    found = certificate(regression, Purpose({"x": x}, mean, uneven), rows, weight, 0.6, 0)
    assert abs(found.spread_ratio - even.spread_ratio) < 1e-9  # the geometric mean does not see it
    assert even.spread_off < 1.8 and 3 < found.spread_off < 5
    assert not any("from input to input" in reason for reason in even.reasons)
    assert any("from input to input" in reason for reason in found.reasons) and not found.ok
    terms = Terms(error=0.3, held=0.09)
    assert certificate(regression, Purpose({"x": x}, mean, sd), rows, weight, 0.6, 0, terms=terms).ok
    assert not certificate(regression, Purpose({"x": x}, mean, uneven), rows, weight, 0.6, 0, terms=terms).ok


def slope(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(w * x, NOISE), obs=y)


def line():
    """A student with one mode, whose predictive is known in closed form."""
    rows = {"x": torch.tensor([1.0, 2.0], dtype=torch.float64), "y": torch.tensor([0.5, 1.0], dtype=torch.float64)}
    weight = torch.tensor([0.7, 1.3], dtype=torch.float64)
    precision = 1 + float((weight * rows["x"] ** 2).sum()) / NOISE**2
    mean = float((weight * rows["x"] * rows["y"]).sum()) / NOISE**2 / precision
    x = torch.linspace(0.5, 2.0, 60, dtype=torch.float64)
    return Regression(bayesdd.Task(slope, rows), "this test"), rows, weight, x, mean * x, x / precision**0.5


def test_numbers_in_own_terms_are_those_of_normal_distributions():
    regression, rows, weight, x, mean, sd = line()
    purpose = Purpose({"x": x}, mean + 0.1, 0.5 * sd)
    unit = certificate(regression, purpose, rows, weight, 0.3, 0, terms=Terms(unit=1.0)).accuracy
    share = certificate(regression, purpose, rows, weight, 0.3, 0).accuracy
    assert unit.error == pytest.approx(0.1, rel=1e-4) and unit.worst_error == pytest.approx(0.1, rel=1e-4)
    assert share.error == pytest.approx(0.1 / float(mean[-1] - mean[0]), rel=1e-4) and share.of_range
    assert unit.too_wide == pytest.approx(float((0.5 * sd).quantile(0.9)), rel=1e-4)
    target = torch.distributions.Normal(mean + 0.1, 0.5 * sd)
    inside = target.cdf(mean + 1.6448536 * sd) - target.cdf(mean - 1.6448536 * sd)
    assert unit.held == pytest.approx(float(inside.mean()), abs=1e-5)


def test_intervals_that_hold_ninety_percent_by_chance_are_seen_where_they_are_narrow():
    """A fifth of the inputs hold half, the others all: 90 % together."""
    regression, rows, weight, x, mean, sd = line()
    factor = torch.where(torch.arange(60) % 5 == 0, 2.44, 0.25)
    terms = Terms(error=0.5, held=0.05)
    found = certificate(regression, Purpose({"x": x}, mean, factor * sd), rows, weight, 0.3, 0, terms=terms)
    assert found.accuracy.held == pytest.approx(0.9, abs=0.01)
    assert [reason[:36] for reason in found.reasons] == ["where 90% intervals are narrowest they"[:36]]
    assert certificate(regression, Purpose({"x": x}, mean, sd), rows, weight, 0.3, 0, terms=terms).ok


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"error": 5.0}, "share of the outcome's range, below 1"),
        ({"error": -0.1}, "error= must be a positive number"),
        ({"held": 0.2}, "intervals of any width may do"),
        ({"unit": 0.0}, "unit= must be a positive number"),
    ],
)
def test_terms_that_say_nothing_are_refused(wrong, said):
    with pytest.raises(bayesdd.Refusal, match=said) as caught:
        Terms(**{"error": 0.1, **wrong})
    assert "\n" not in str(caught.value)


def test_a_unit_a_row_must_be_of_all_rows():
    regression, rows, weight, x, mean, sd = line()
    with pytest.raises(bayesdd.Refusal, match=r"for each of the 60 purpose rows, got shape \(3,\)"):
        certificate(regression, Purpose({"x": x}, mean, sd), rows, weight, 0.3, 0, terms=Terms(unit=torch.ones(3)))
