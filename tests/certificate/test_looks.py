"""Verdicts on sets whose divergences are known: mass that is no mode, aliases, heavy tails, mirrored modes."""

import math

import numpy as np
import pytest
import torch

import bayesdd
from bayesdd.certificate.looks import _drawn
from bayesdd.certificate.modes import Found, excess
from bayesdd.certificate.proposal import Proposal, _missed, _normal_at
from bayesdd.inference.sequential import Tempered
from bayesdd.numerics.gaussian import Gaussian
from studies.trust.breaks import BREAKS
from studies.trust.certificates import divergences
from studies.trust.families import family


def test_excess_is_the_integrand_of_the_divergence():
    """Between N(0, 1) and N(0.5, 1) both sides' integrals are 1/8."""
    x = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    gap = 0.125 - 0.5 * x
    weight = torch.softmax(-0.5 * x**2, 0)
    assert float(weight @ excess(gap)) == pytest.approx(0.125, abs=2e-3)  # gaps below -2 are cut
    assert float(excess(torch.zeros(1))) == 0 and float(excess(torch.tensor([math.nan]))) > 1e11


@pytest.mark.parametrize("name", ["proportion", "rate", "robust", "mixture", "mirrored"])
def test_intervals_hold_and_sound_sets_pass(name):
    """Tails, labels and signs: two sets each, asked at three times the truth; four standard errors."""
    for seed in (3, 4):
        one = family(name, seed)
        rows, weight = one.some(np.random.default_rng(seed))
        distilled = bayesdd.Distilled(rows, weight)
        reverse, forward = divergences(one, distilled)
        if max(reverse, forward) > 0.3:
            continue
        said = bayesdd.certify(one.task, distilled, seed=seed, tolerance=3 * max(reverse, forward, 1e-3))
        assert said.ok, said.reasons
        assert abs(said.kl_reverse - reverse) < 4 * said.kl_reverse_se + 1e-9
        assert abs(said.kl_forward - forward) < 4 * said.kl_forward_se + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_a_slab_that_the_rows_lack_is_no_certificate(seed):
    """The rows are taken for clean ones: the slab's mass is in the full posterior only."""
    one = family("slab", seed)
    rows = {**one.task.data, "robust": torch.zeros(2, dtype=torch.float64)}
    distilled = bayesdd.Distilled(rows, torch.ones(2, dtype=torch.float64))
    assert divergences(one, distilled)[1] > 1.0
    said = bayesdd.certify(one.task, distilled, seed=seed, tolerance=1.0)
    assert not said.ok and "full posterior's mass" in said.doubt


@pytest.mark.parametrize("seed", range(2))
def test_where_the_weights_say_nothing_the_second_look_says_how_far(seed):
    """A slab that a few draws of the spike reach: their k-hat is too large, and their mean far too small."""
    family, (clean, tolerance), _ = BREAKS["mass that is no mode"][1]()
    said = bayesdd.certify(family.task, clean, seed=seed, tolerance=tolerance)
    assert not said.ok and "full posterior's mass" in said.doubt
    assert said.kl_forward > 0.1 * divergences(family, clean)[1]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_aliases_that_only_one_posterior_has_are_no_certificate(seed):
    """At whole times omega and 2 pi - omega give the same values; rows at other times tell them apart."""
    one = family("frequency", 1)
    t = torch.arange(1.0, 13.0, dtype=torch.float64)
    full = one.task.with_data({"t": t, "y": 1.2 * (1.1 * t).sin()})
    between = t + 0.25
    distilled = bayesdd.Distilled({"t": between, "y": 1.2 * (1.1 * between).sin()}, torch.ones(12))
    said = bayesdd.certify(full, distilled, seed=seed, tolerance=0.05)
    assert not said.ok
    truths = divergences(one._replace(task=full), distilled)
    for truth, value, error in zip(
        truths, (said.kl_reverse, said.kl_forward), (said.kl_reverse_se, said.kl_forward_se), strict=True
    ):
        if math.isfinite(error):
            assert abs(value - truth) < 3 * error
        else:  # a lower bound, from few particles
            assert truth / 4 < value < 4 * truth and said.doubt


def test_the_rows_themselves_are_sound_however_many_modes():
    one = family("mixture", 0)
    distilled = bayesdd.Distilled(one.task.data, torch.ones(one.task.size))
    assert bayesdd.certify(one.task, distilled, tolerance=1e-6).ok


def test_modes_that_particles_have_met_do_not_shrink_their_weights():
    """A mode far off takes its share of the evidence; one that particles lie in takes none, whatever Laplace says."""
    points = torch.linspace(-1, 1, 50, dtype=torch.float64)[:, None]
    level = torch.full((50,), -math.log(50), dtype=torch.float64)
    found = Tempered(points, points, level, torch.zeros(50, dtype=torch.float64), log_evidence=0.0)

    def mode(at, log_mass):
        here = Gaussian(torch.tensor([at], dtype=torch.float64), torch.eye(1, dtype=torch.float64), height=0.0)
        return Gaussian(here.mean, here.factor, height=log_mass - here.log_mass)

    for modes, total in (([mode(0.0, 9.0)], 1.0), ([mode(0.0, 9.0), mode(50.0, 0.0)], 0.5), ([], 1.0)):
        _, _, weight = _drawn(found, Found(modes, 1), 10, seed=0)
        assert float(weight.sum()) == pytest.approx(total)


def test_one_particle_that_a_proposal_misses_gets_a_normal_of_its_own():
    """A single heavy particle has no spread; the normal lies there, narrower than the posterior."""
    points = torch.linspace(-1, 1, 50, dtype=torch.float64)[:, None]
    every = torch.cat([points, torch.tensor([[40.0]], dtype=torch.float64)])
    level = torch.cat([torch.full((50,), 0.9 / 50), torch.tensor([0.1])]).double().log()
    found = Tempered(points, every, level, torch.zeros(51, dtype=torch.float64), log_evidence=0.0)
    near = Gaussian(torch.zeros(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64), height=0.0)
    missed = _missed(found, Proposal(None, [near], 0.0, Found([near], 1)))
    assert missed is not None and float(missed.sum()) == pytest.approx(0.1)
    there = _normal_at(found, missed, 0.0)
    assert float(there.mean) == pytest.approx(40.0) and 0 < float(there.factor) < 1.0
