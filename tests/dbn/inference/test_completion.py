"""Moments of true entries against the conditional normal of all entries at once."""

import pytest
import torch

from bayesdd.dbn import Template
from bayesdd.dbn.inference.augmentation import Augmentation
from bayesdd.dbn.inference.patterns import patterns_of
from bayesdd.dbn.inference.regressions import Layout
from bayesdd.dbn.likelihood.gaussian import entries, equations, reordered
from bayesdd.dbn.likelihood.missing import noise_of_entries, unrolled

# The order of the structure is not the template's own; a is exact, the others are noisy, one of them unknown.
NET = Template(
    ("c", "a", "b"),
    static=("s",),
    intra=(("s", "a"), ("a", "b")),
    inter=(("a", "a"), ("c", "a"), ("b", "c")),
    noise={"c": 0.3, "s": 0.5},
    noise_site={"b": "error"},
)


def rows():
    """Five rows of a pattern without b, a short one, one of the static value alone, and whole ones."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(14, 3, 3, generator=generator, dtype=torch.float64)
    static = torch.randn(14, 1, generator=generator, dtype=torch.float64)
    x[:5, :, 2], x[5, 1:], x[6], static[2:4] = torch.nan, torch.nan, torch.nan, torch.nan
    return x, static


@pytest.fixture(scope="module")
def augmentation():
    return Augmentation([NET], patterns_of(NET, [rows()]), 3)


def conditional_moments(values):
    """Expected moments of each kind of slice and squared errors of the unknown noise, row after row."""
    mean, factor = unrolled(NET, values, 3)
    noise, flat = noise_of_entries(NET, values, 3), entries(NET, *rows())
    gram, square = torch.zeros(3, 8, 8, dtype=torch.float64), 0.0
    for row in flat:
        seen = (~row.isnan()).nonzero()[:, 0]
        covariance = factor @ factor.mT
        gain = covariance[:, seen] @ torch.linalg.inv(covariance[seen][:, seen] + noise[seen].diag())
        centre, left = mean + gain @ (row[seen] - mean[seen]), covariance - gain @ covariance[seen]
        full = torch.zeros(11, 11, dtype=torch.float64)
        full[0, 0], full[0, 1:], full[1:, 0] = 1, centre, centre
        full[1:, 1:] = left + torch.outer(centre, centre)
        for t in range(-1, (int(seen.max()) - 1) // 3 + 1):
            of = [0, 1, *range(2 + 3 * max(t - 1, 0), 5 + 3 * t)]
            to = [0, 1, *range(8 - (len(of) - 2), 8)]
            gram[t + 1 if t < 1 else 2][torch.tensor(to)[:, None], torch.tensor(to)] += full[of][:, of]
        errors = (row - centre).square() + left.diagonal()
        square = square + errors[3::3][~row[3::3].isnan()].sum()  # b is third in the order c, a, b
    return gram, square


def test_moments_are_those_of_the_conditional_normal(augmentation):
    assert NET.structure.order == ("c", "a", "b")
    start = augmentation.starts(2, torch.Generator().manual_seed(1))
    gram, squares = augmentation.completed(augmentation.equations(start), start)
    for chain in range(2):
        exact, square = conditional_moments({site: value[chain] for site, value in start.items()})
        torch.testing.assert_close(gram[chain], exact)
        torch.testing.assert_close(squares["error"][chain], square)


def test_over_relaxed_rows_keep_the_moments(augmentation):
    """At fixed parameters over-relaxed rows of many chains are draws as good as the first."""
    one, count = augmentation.starts(1, torch.Generator().manual_seed(1)), 3000
    exact, _ = augmentation.completed(augmentation.equations(one), one)
    many = {site: value.expand(count, *value.shape[1:]) for site, value in one.items()}
    generator, before = torch.Generator().manual_seed(2), []
    for _ in range(3):
        gram, _ = augmentation.completed(augmentation.equations(many), many, generator, before)
    error = gram.std(0) / count**0.5 + 1e-9
    assert ((gram.mean(0) - exact[0]).abs() < 4.5 * error).all()


def test_over_relaxed_parameters_keep_their_posterior():
    """Means and deviations of coefficients and variances after sweeps at fixed moments, in many chains."""
    layout = Layout.of(NET)
    augmentation = Augmentation([NET], patterns_of(NET, [rows()]), 3)
    start = augmentation.starts(1, torch.Generator().manual_seed(1))
    found = layout.fitted(augmentation.completed(augmentation.equations(start), start)[0])
    count, generator = 4000, torch.Generator().manual_seed(3)
    many = type(found)(*(part.expand(count, *part.shape[1:]).contiguous() for part in found))
    now = many.draw(layout.real, generator)
    for _ in range(2):
        now = many.draw(layout.real, generator, now, 0.6)
    slopes, variance = now
    error = slopes.std(0) / count**0.5 + 1e-9
    assert ((slopes.mean(0) - torch.where(layout.real, found.mean[0], 0.0)).abs() < 4.5 * error).all()
    precision, exact = 1 / variance, (found.shape / found.scale)[0]
    assert ((precision.mean(0) - exact).abs() < 4.5 * precision.std(0) / count**0.5).all()
    assert (precision.var(0) * found.scale[0].square() / found.shape[0] - 1).abs().max() < 0.25


def test_equations_in_another_order_give_the_same_slices():
    other = Template(("b", "c", "a"), static=("s",))
    values = {site: torch.rand(shape, dtype=torch.float64) + 0.5 for site, shape in NET.sites.items()}
    forms = equations(NET, values)
    for mine, theirs, names in zip(forms, reordered(forms, NET, other), ("s", "cab", "cab"), strict=True):
        order = [names.index(name) for name in (("s",) if names == "s" else other.structure.order)]
        torch.testing.assert_close(theirs.shift, mine.shift[order])
        torch.testing.assert_close(theirs.own, mine.own[order][:, order])
