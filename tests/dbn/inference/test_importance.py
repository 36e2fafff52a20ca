"""Importance sampling: against augmentation, which shares only the statistics with it, and with two mirrored modes."""

import pytest
import torch

from bayesdd import dbn
from bayesdd.dbn import Source, Template
from bayesdd.dbn.inference import drawing
from bayesdd.dbn.inference.augmentation import Augmentation, augmented, expectation_maximised
from bayesdd.dbn.inference.drawing import diagnostics, drawn
from bayesdd.dbn.inference.importance import Weighted, _systematic, modes, weighted
from bayesdd.dbn.inference.marginal import Marginal
from bayesdd.dbn.inference.patterns import patterns_of
from bayesdd.dbn.likelihood.source import gathered, with_noise

# u drives w, but no row has both: the sign of the coefficient is free, its size is not.
MIRROR = Template(("u", "w"), intra=(("u", "w"),), inter=(("u", "u"),))
CHAIN = Template(("a", "b"), intra=(("a", "b"),), inter=(("a", "a"), ("b", "b")))


def simulated(template, count, slices, slope=0.8):
    values = {site: torch.full(shape, slope if shape else 0.3).double() for site, shape in template.sites.items()}
    for site, shape in template.sites.items():
        if shape:
            values[site][0] = 0.0
    return dbn.simulate(template, values, count, slices, seed=0)["x"]


def mirrored():
    """The first source's rows and their negatives: exact symmetry."""
    x = simulated(MIRROR, 300, 6)
    return [Source({"x": torch.cat([x[:150], -x[:150]])}, ("u",)), Source({"x": x[150:]}, ("w",))]


def marginal_of(template, sources):
    rows = gathered(template, sources)
    return Marginal(with_noise(template, sources), patterns_of(template, rows), rows[0][0].shape[1])


def test_both_modes_of_a_sign_that_nothing_identifies_are_found_and_weigh_alike(recwarn):
    marginal = marginal_of(MIRROR, mirrored())
    start = Augmentation(marginal.templates, marginal.patterns, 6).starts(6, torch.Generator().manual_seed(0))
    ends = expectation_maximised(marginal.templates, marginal.patterns, 6, start=start, steps=50)
    parts = modes(marginal, marginal.points(ends))
    place = marginal.places["w"].stop - 1
    assert sorted(float(part.mean[place].sign()) for part in parts) == [-1.0, 1.0]
    found = weighted(marginal, parts, proposals=2000, draws=2000, batches=4, generator=torch.Generator().manual_seed(1))
    slopes = found.points[..., place].flatten()
    assert abs(float((slopes > 0).double().mean()) - 0.5) < 4 * 0.5 / found.ess**0.5
    assert found.khat < 0.7 and found.ess > 1000


def test_importance_sampling_and_augmentation_draw_from_one_posterior():
    x = simulated(CHAIN, 80, 4, 0.5)
    x[:40, :, 1], x[60:, 2] = torch.nan, torch.nan
    marginal = marginal_of(CHAIN, [Source({"x": x[:50]}, noise=0.3), Source({"x": x[50:]})])
    args = (marginal.templates, marginal.patterns, 4)
    generator = torch.Generator().manual_seed(0)
    ours = drawn(*args, draws=4000, seed=0)
    assert ours.ess > 2000 and ours.rhat < 1.02
    start = Augmentation(*args).starts(8, generator)
    chains, statistics = augmented(*args, start=start, draws=250, burn=50, thin=1, generator=generator)
    _, ess = diagnostics(chains)
    for site, theirs in chains.items():
        mine = ours.chains[site].flatten(0, 1)
        deviation = theirs.flatten(0, 1).std(0)
        error = deviation * (1 / ess + 1 / ours.ess) ** 0.5
        assert ((mine.mean(0) - theirs.flatten(0, 1).mean(0)).abs() < 4.5 * error).all(), site
        assert ((mine.std(0) / deviation).log().abs() < 4.5 * (0.5 / ess + 0.5 / ours.ess) ** 0.5 * 1.5).all(), site
    torch.testing.assert_close(ours.statistics.log_variance, statistics.log_variance, rtol=0, atol=0.05)


def test_systematic_resampling_takes_each_as_often_as_its_share_within_one():
    share = torch.softmax(torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 0)
    counts = torch.bincount(_systematic(share, 400, torch.Generator().manual_seed(1)), minlength=50)
    assert ((counts - 400 * share).abs() < 1).all()


class Stub:
    """What ``weighted`` returns, whatever it is asked for."""

    def __init__(self, points, ess, khat=0.0):
        self.found = Weighted(points, ess, khat)

    def __call__(self, *args, **more):
        return self.found


@pytest.fixture(scope="module")
def small():
    return marginal_of(CHAIN, [Source({"x": simulated(CHAIN, 10, 3, 0.5)}, noise=0.3)])


def serves(monkeypatch, marginal, stub, draws=2000):
    """Whether draws by importance sampling are kept, of 1,000 proposals; what R-hat of their batches is."""
    monkeypatch.setattr(drawing, "HANDLED", 1)
    monkeypatch.setattr(drawing, "weighted", stub)
    found, kept = drawing._independent(marginal, [], draws, torch.Generator().manual_seed(0))
    return kept, found.rhat


def batches(marginal, distinct, each, apart=0.0, seed=0):
    """Eight batches of so many distinct points, repeated, whose means have a standard deviation of ``apart``."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(8, distinct, marginal.dim, generator=generator, dtype=torch.float64)
    means = torch.linspace(-1.5, 1.5, 8, dtype=torch.float64)[:, None, None]
    return 0.1 * (points + apart * means).repeat_interleave(each // distinct, 1)


@pytest.mark.parametrize(("ess", "khat", "kept"), [(900.0, 0.0, True), (60.0, 0.0, False), (900.0, 0.8, False)])
def test_proposals_serve_by_their_share_and_tail(monkeypatch, small, ess, khat, kept):
    found, rhat = serves(monkeypatch, small, Stub(batches(small, 250, 250), ess, khat))
    assert found == kept and rhat < 1.02


def test_batches_that_disagree_do_not_serve_however_good_their_weights_look(monkeypatch, small):
    """R-hat below the limit of chains, but above that of as many independent draws."""
    found, rhat = serves(monkeypatch, small, Stub(batches(small, 250, 250, apart=0.35), 900.0))
    assert 1 + drawing.AGREED / (900 / 8) < rhat < drawing.RHAT and not found


def test_few_proposals_repeated_agree_as_so_many_independent_draws_do(monkeypatch, small):
    """Repeated draws look like disagreement; the effective number says how much is chance."""
    found, rhat = serves(monkeypatch, small, Stub(batches(small, 25, 250), 200.0))
    assert rhat > 1 + drawing.AGREED / 250 and found


def test_no_number_of_draws_excuses_more_than_the_limit_of_chains(monkeypatch, small):
    """Of ten effective draws a batch chance alone would allow for 1.4."""
    found, rhat = serves(monkeypatch, small, Stub(batches(small, 250, 250, apart=0.7), 80.0))
    assert drawing.RHAT < rhat < 1 + drawing.AGREED / 10 and not found
