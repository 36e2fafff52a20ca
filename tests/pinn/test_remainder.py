"""What is missing behind the last correction of the fields."""

import warnings
from dataclasses import replace

import pytest
import torch

from bayesdd import pinn
from bayesdd.pinn.remainder import MOST, Remainder, missing
from bayesdd.pinn.residuals import linearised, residuals
from bayesdd.pinn.terms import field_term


def test_a_correction_repeated_sums_up_to_what_is_missing():
    """Corrections of a linear equation that each leave a third: 1/3 + 1/9 + ... of the first are missing behind it."""
    assert missing(1 / 3) == pytest.approx(sum(3.0**-power for power in range(1, 60)))
    assert missing(0.0) == 0.0
    assert missing(2.0) == missing(MOST) == pytest.approx(MOST / (1 - MOST))


def test_what_is_missing_grows_with_the_share_that_is_left(monkeypatch):
    problem = pinn.Problem(
        inputs={"t": (0.0, 2.0)},
        parameters={"start": (0.5, 2.0)},
        outputs=("u",),
        equation=lambda s, p: s.u_t + 0.8 * s.u,
        conditions=[pinn.at(t=0.0, u=lambda s, p: s.start)],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pinn.FitWarning)
        fitted = pinn.fit(problem, seed=0, hidden=(8,), modes=2, steps=100)
    assert fitted.shares == {}  # residuals as small as these do not matter
    monkeypatch.setattr("bayesdd.pinn.remainder.NEGLIGIBLE", 1e-9)
    remainder = Remainder(fitted)
    rows = {"t": torch.linspace(0, 2, 20).double(), "start": torch.ones(20).double()}
    term = field_term(fitted.problem, ["u"], rows)
    (lacking,) = remainder.of(term, linearised(fitted.networks, [term], fitted.theta)[1])
    (after,), (before,) = (
        residuals(networks, [term], fitted.theta)
        for networks in (fitted.networks, replace(fitted.networks, added=None))
    )
    share = remainder.share
    assert 0 < share == max(remainder.shares.values()) < MOST
    torch.testing.assert_close(lacking, share / (1 - share) * (after - before).mean(0))
