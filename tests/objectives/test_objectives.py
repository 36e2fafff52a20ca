"""Functionals of the log-ratio: closed forms between Gaussians, and identities that every one must satisfy."""

import inspect
import math
from functools import partial
from pathlib import Path

import pytest
import torch

from bayesdd import objectives
from bayesdd.objectives import forward_kl, half_variance, renyi, reverse_kl
from bayesdd.objectives.sorts import Functional, Matching, name_of, sort_of

# A new file `_name.py` adds its tests; a setting without a default is named here.
SETTINGS = {"renyi": {"alpha": 0.5}, "predictive_risk": {"purpose": None}}
FILES = sorted(path.stem[1:] for path in Path(objectives.__path__[0]).glob("_[a-z]*.py"))
SORTS = {call: sort_of(call) for call in (partial(getattr(objectives, f), **SETTINGS.get(f, {})) for f in FILES)}
FUNCTIONALS = [call for call, sort in SORTS.items() if sort is Functional]
DRAWS = 400_000


def gaussians(mean, sd):
    """Draws of N(mean, sd^2) with the log-ratio to N(0, 1)."""
    theta = mean + sd * torch.randn(DRAWS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ratio = -0.5 * theta**2 + 0.5 * ((theta - mean) / sd) ** 2 + math.log(sd)
    return ratio, torch.full_like(ratio, -math.log(DRAWS))


def kl(m0, s0, m1, s1):
    return math.log(s1 / s0) + (s0**2 + (m0 - m1) ** 2) / (2 * s1**2) - 0.5


def test_every_objective_is_checked():
    """Functionals here, matching objectives in ``test_matching``."""
    assert sorted(name for name, value in vars(objectives).items() if inspect.isfunction(value)) == FILES
    assert set(SORTS.values()) == {Functional, Matching}


def test_closed_forms():
    mean, sd = 0.2, 1.1
    ratio, even = gaussians(mean, sd)
    assert float(reverse_kl(ratio, even)) == pytest.approx(kl(mean, sd, 0, 1), rel=0.02)
    assert float(forward_kl(ratio, even)) == pytest.approx(kl(0, 1, mean, sd), rel=0.02)
    # Delta = a theta^2 + b theta + c under N(mean, sd^2).
    a = 0.5 / sd**2 - 0.5
    b = -mean / sd**2
    variance = (2 * a * mean + b) ** 2 * sd**2 + 2 * a**2 * sd**4
    assert float(half_variance(ratio, even)) == pytest.approx(variance / 2, rel=0.02)
    # Renyi of N(0,1) from N(mean, sd^2): van Erven & Harremoes 2014, equation 10.
    alpha = 0.5
    mixed = alpha * sd**2 + (1 - alpha)
    expected = alpha * mean**2 / (2 * mixed) + math.log(math.sqrt(mixed) / sd**alpha) / (1 - alpha)
    assert float(renyi(ratio, even, alpha=alpha)) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("call", FUNCTIONALS, ids=name_of)
def test_constants_cancel_and_weights_are_draws(call):
    ratio, even = (t[:1000] for t in gaussians(0.3, 1.2))
    even = even - even.logsumexp(0)
    value = call(ratio, even)
    assert float(value) > 0
    torch.testing.assert_close(call(ratio + 1e4, even), value, rtol=1e-7, atol=1e-9)
    assert abs(float(call(torch.full_like(ratio, 7.0), even))) < 1e-12
    # Weight two on a draw is the draw twice.
    doubled = even.clone()
    doubled[:10] += math.log(2)
    twice = torch.cat([ratio, ratio[:10]])
    flat = torch.full_like(twice, -math.log(len(twice)))
    torch.testing.assert_close(call(ratio, doubled - doubled.logsumexp(0)), call(twice, flat))


@pytest.mark.parametrize("alpha", [1.0, 0.0, -2.0])
def test_renyi_refuses_orders_without_meaning(alpha):
    with pytest.raises(ValueError, match=r"renyi needs an order alpha"):
        renyi(torch.zeros(3), torch.zeros(3), alpha=alpha)


def test_an_infinite_divergence_is_refused():
    """Full posterior: Student-t tails; distilled: normal. Of order 2 their divergence does not exist."""
    noise = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ratio = 0.5 * noise**2 - 1.5 * torch.log1p(noise**2 / 2)
    even = torch.full_like(ratio, -math.log(len(ratio)))
    with pytest.raises(ValueError, match="renyi of order 2 is infinite at the 7 rows found"):
        renyi.refuse_infinite(ratio, even, 7, alpha=2.0)
    renyi.refuse_infinite(ratio, even, 7, alpha=0.5)
