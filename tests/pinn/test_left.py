"""What students leave of the equation and conditions, and what speaks against a surrogate."""

import functools

import numpy as np
import pytest
import torch

from bayesdd import pinn
from bayesdd.numerics.refusal import Refusal
from bayesdd.pinn.doubts import unheld
from bayesdd.pinn.left import left, sizes, taught, zeros
from bayesdd.pinn.residuals import Networks

START = torch.tensor([[0.5, 1.0]])


@functools.cache
def fitted():
    """Decay at a known rate to a line q(t), unknown: u' = q - u."""
    problem = pinn.Problem(
        inputs={"t": (0.0, 2.0)},
        parameters={"start": (0.5, 2.0)},
        outputs=("u",),
        equation=lambda s, p: s.u_t + p.rate * (s.u - p.q),
        conditions=[pinn.at(t=0.0, u=lambda s, p: s.start), pinn.at(t=2.0, u_t=lambda s, p: p.rate * (p.q - s.u))],
        constants={"rate": 1.0},
        unknown={"q": pinn.function("t")},
    )
    rng = np.random.default_rng(0)
    t, start = rng.uniform(0, 2, 40), rng.uniform(0.5, 2, 40)
    u = t - 1 + (start + 1) * np.exp(-t) + 0.05 * rng.normal(size=40)
    data = {"t": t, "start": start, "u": u}
    return pinn.fit(problem, data, seed=0, hidden=(4,), modes=1, steps=30, points=64), data


def test_students_are_plain_networks_beside_the_surrogates_constants_and_functions():
    """Where the functions stay as searched, both ways of writing the same networks leave the same."""
    surrogate, _ = fitted()
    latents = torch.randn(3, surrogate.plain.fields.dim, generator=torch.Generator().manual_seed(0)).double()
    networks, theta = taught(surrogate.networks, surrogate.plain, surrogate.theta, latents)
    terms = zeros(surrogate.problem, None, 5)
    found = sizes(networks, terms[1:2], theta)  # u at t = 0: no constant, no function
    plain = torch.cat([latents, torch.zeros(3, surrogate.plain.dim - latents.shape[1]).double()], 1)
    assert found == pytest.approx(sizes(surrogate.plain, terms[1:2], plain), rel=1e-12)
    own = Networks(surrogate.problem, surrogate.plain.fields, surrogate.networks.functions, networks.anchor)
    assert sizes(own, terms, theta) == pytest.approx(sizes(networks, terms, theta), rel=1e-12)
    # The last number is that of the unknown function: the surrogate's is what the equation reads.
    changed = theta.clone()
    changed[:, -1] += 1.0
    assert sizes(networks, terms[:1], changed) != pytest.approx(sizes(networks, terms[:1], theta), rel=1e-6)


def test_where_a_condition_fixes_the_field_the_truth_is_known():
    surrogate, _ = fitted()
    constant = torch.zeros(2, surrogate.plain.fields.dim, dtype=torch.float64)  # students that predict one number
    found = left(surrogate.networks, surrogate.plain, surrogate.theta, 9, constant, torch.tensor(2.0))
    assert [one.off is None for one in found] == [True, False, True]
    middle, _ = surrogate.plain.fields.outputs[0]
    start = zeros(surrogate.problem, None, 9)[1].points["start"]
    assert found[1].off == pytest.approx(float((start - middle).square().mean().sqrt()) / 2.0)
    assert found[1].students == pytest.approx(1.0) and found[1].target < 0.1


def test_measurements_that_the_fit_has_not_seen():
    surrogate, data = fitted()
    assert unheld(surrogate, data) == []
    wrong = {**data, "u": data["u"] + 1.0}
    (said,) = unheld(surrogate, wrong)
    assert said.startswith("of 'u' its 90% intervals hold 0% of 40 rows held out")
    assert said in surrogate.objective(held_out=wrong).keywords["doubt"]
    with pytest.raises(Refusal, match=r"objective\(held_out=...\): data lacks the column 'start'"):
        surrogate.objective(held_out={"t": [1.0], "u": [1.0]})


def test_what_is_asked_of_fields_is_a_share_of_each_ones_range():
    surrogate, _ = fitted()
    asked = surrogate.objective(error=0.05).keywords
    mean = asked["predictive"][0]
    assert asked["error"] == 0.05 and bool((asked["unit"] == mean.max() - mean.min()).all())
    assert surrogate.objective(error=0.1, unit=1.0).keywords["unit"] == 1.0
