"""Spreads that are too wide here and too narrow there are not certified, whatever their geometric mean."""

import torch

from bayesdd.networks import bnn, students
from bayesdd.networks.judging import certificate
from bayesdd.networks.mlp import Network
from bayesdd.networks.purpose import Purpose
from bayesdd.networks.regression import Regression


def test_uneven_spreads_are_not_certified(monkeypatch):
    monkeypatch.setattr("bayesdd.networks.judging.JUDGE_STEPS", 60)
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
