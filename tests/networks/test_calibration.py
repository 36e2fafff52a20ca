"""The interval score and the common scale of weights, against closed forms of normal intervals and linear students."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd.data.accuracy import Z90 as Z
from bayesdd.networks import students
from bayesdd.networks.calibration import held, interval_score, rescaling, scored, settled
from bayesdd.networks.purpose import Purpose
from bayesdd.networks.regression import Regression

NOISE = 0.2


def slope(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(w * x, NOISE), obs=y)


def wide(x, y=None):
    """More weights than its rows say anything of: a slope to each side of zero."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x.clamp_min(0) * w[0] + x.clamp_max(0) * w[1], NOISE), obs=y)


ROWS = {"x": torch.tensor([1.0, 2.0], dtype=torch.float64), "y": torch.tensor([0.5, 1.0], dtype=torch.float64)}
WEIGHT = torch.tensor([0.7, 1.3], dtype=torch.float64)
FITS = 20


def student(model):
    regression = Regression(bayesdd.Task(model, ROWS), "the test")
    return regression, students.start(regression, 3, 0)


def of_slope(scale):
    """Posterior mean and sd of the slope at weights of this common scale."""
    precision = scale * WEIGHT / NOISE**2
    total = 1 + float((precision * ROWS["x"] ** 2).sum())
    return float((precision * ROWS["x"] * ROWS["y"]).sum()) / total, total**-0.5


def test_the_interval_score_is_the_integral_that_it_says():
    """Against a million draws of the target's predictive, within five standard errors."""
    off, spread, sd = (torch.tensor(v, dtype=torch.float64) for v in ([[0.3, -0.1]], [[0.2, 0.05]], [0.1, 0.15]))
    draws = sd * torch.randn(10**6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    half = Z * spread
    each = (2 * half + 20 * ((draws - off).abs() - half).clamp_min(0)).mean(1)
    inside = ((draws - off).abs() < half).double().mean(1)
    score = 2 * Z * float(scored(off, spread, sd).exp())
    assert score == pytest.approx(float(each.mean()), abs=5 * float(each.std()) / 1e3)
    assert float(held(off, spread, sd)) == pytest.approx(float(inside.mean()), abs=5 * float(inside.std()) / 1e3)


def test_the_interval_score_is_proper():
    """Of all students the target itself scores best; of all widths around a wrong mean, the one that holds 90%."""
    sd = torch.tensor([0.1, 0.4], dtype=torch.float64)
    own = scored(torch.zeros(1, 2, dtype=torch.float64), sd[None], sd)
    z = torch.tensor(Z, dtype=torch.float64)
    tail = 2 * torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / (1 - 0.9)  # the score of a normal's own interval
    assert float(own.exp()) == pytest.approx(float(tail * sd.mean() / Z), rel=1e-9)
    for off, factor in (([0.05, 0.0], 1.0), ([0.0, 0.0], 1.1), ([0.0, 0.0], 0.9)):
        worse = scored(torch.tensor([off], dtype=torch.float64), factor * sd[None], sd)
        assert float(worse) > float(own)
    widths = torch.linspace(0.1, 1.0, 901, dtype=torch.float64)[:, None]
    off, one = torch.full_like(widths, 0.3), torch.tensor([0.1], dtype=torch.float64)
    best = int(scored(off, widths, one).argmin())
    assert float(held(off, widths, one)[best]) == pytest.approx(0.9, abs=2e-3)


def test_the_score_of_a_linear_student_and_its_gradients():
    """Value by the normal equations; the derivative in the rows' precisions, students held, by differences."""
    regression, start = student(slope)
    at = torch.linspace(0.5, 2.0, 4, dtype=torch.float64)
    mean, sd = of_slope(1.0)
    purpose = Purpose({"x": at}, 0.45 * at, torch.full_like(at, 0.05))
    precision = (WEIGHT / NOISE**2).requires_grad_(True)
    theta = students.climb(regression, ROWS, precision.detach(), start, FITS).latents
    found = interval_score(regression, theta, ROWS, precision, purpose)
    expected = scored(((mean - 0.45) * at)[None], (sd * at)[None], purpose.sd)
    torch.testing.assert_close(found, expected.expand(3), rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(found[0], precision)
    step = 1e-4 * torch.eye(2, dtype=torch.float64)
    values = [[interval_score(regression, theta, ROWS, precision + s * e, purpose)[0] for s in (1, -1)] for e in step]
    differences = torch.stack([(up - down).detach() / 2e-4 for up, down in values])
    torch.testing.assert_close(gradient, differences, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("sharper", [0.1, 1.0, 5.0])
def test_the_scale_of_weights_that_holds_ninety_percent(sharper):
    """A target whose predictive is the student's at another scale: that scale is found, from scratch or as they are."""
    regression, start = student(slope)
    at = torch.linspace(0.5, 2.0, 4, dtype=torch.float64)
    mean, sd = of_slope(sharper)
    purpose = Purpose({"x": at}, mean * at, sd * at)
    log_scale = settled(regression, ROWS, WEIGHT, purpose, count=3, seed=0, steps=4 * FITS)
    # Half a step of the fine grid, and what reluctance to move costs: 0.02 in held probability a unit.
    assert log_scale == pytest.approx(math.log(sharper), abs=0.15)
    precision = WEIGHT / NOISE**2
    fits = students.climb(regression, ROWS, precision, start, FITS)
    narrowed = rescaling(regression, fits, ROWS, precision, purpose)
    if sharper == 1.0:
        assert narrowed == pytest.approx(0.0, abs=0.01)
    else:
        assert narrowed * math.log(sharper) > 0


def test_a_spread_that_no_weight_narrows_leaves_the_weights():
    """Rows on one side of zero, a purpose on the other: the prior's spread there, whatever the weights."""
    regression, start = student(wide)
    at = torch.linspace(-2.0, -0.5, 4, dtype=torch.float64)
    purpose = Purpose({"x": at}, torch.zeros_like(at), torch.full_like(at, 1e-3))
    precision = WEIGHT / NOISE**2
    fits = students.climb(regression, ROWS, precision, start, FITS)
    spread = students.spread(regression, fits.latents, ROWS, 100 * precision, {"x": at})[1]
    torch.testing.assert_close(spread, at.abs().expand(3, -1), rtol=1e-6, atol=1e-6)
    assert rescaling(regression, fits, ROWS, precision, purpose) == pytest.approx(0.0, abs=1e-9)


def test_students_that_do_not_follow_get_no_sharper_rows():
    """However little their intervals would hold it: first they have to arrive."""
    regression, start = student(slope)
    at = torch.linspace(0.5, 2.0, 4, dtype=torch.float64)
    mean, sd = of_slope(20.0)
    purpose = Purpose({"x": at}, mean * at, sd * at)
    precision = WEIGHT / NOISE**2
    fits = students.climb(regression, ROWS, precision, start, FITS)
    assert rescaling(regression, fits, ROWS, precision, purpose) > 0.5
    late = students.Fits(fits.latents, fits.damping, torch.full_like(fits.left, 10.0))
    assert rescaling(regression, late, ROWS, precision, purpose) <= 0
