"""Mixed templates from sources: draws against exact posteriors, and the rows that stand for them."""

import dataclasses
import functools
import itertools
import math
import warnings

import numpy as np
import pytest
import torch

from bayesdd import dbn
from bayesdd.dbn import Source, Template
from bayesdd.dbn.inference.mixed import mixed_draws

ONE = Template(("a",), static=("sex",), intra=(("sex", "a"),), states={"sex": ("f", "m")})


def patients(count, slices, seed=0):
    """One number, lower in men, that follows itself; a stage that rises and raises it."""
    rng = np.random.default_rng(seed)
    sex, stage, a = rng.integers(0, 2, count), rng.integers(0, 2, count), rng.normal(size=count)
    found = []
    for _ in range(slices):
        stage = np.maximum(stage, rng.uniform(size=count) < 0.2)
        a = 0.5 * a - 0.8 * sex + 0.7 * stage + 0.6 * rng.normal(size=count)
        found.append(np.stack([a, stage], 1))
    return np.stack(found, 1), sex[:, None].astype(float)


def test_draws_with_missing_states_have_the_exact_posterior():
    """One slice, the sex of five of twelve patients unknown: 32 conjugate posteriors, mixed by their evidence."""
    x, sex = patients(12, 1)
    x, open_ = x[..., :1], [0, 2, 5, 7, 11]
    logs, means = [], []
    for states in itertools.product((0, 1), repeat=len(open_)):
        sex[open_, 0] = states
        found = dbn.conjugate(ONE, {"x": x, "static": sex}).families
        number, table = found["a_initial"], found["sex"].concentration
        evidence = torch.lgamma(table).sum() - torch.lgamma(table.sum())
        evidence += torch.lgamma(number.shape) - number.shape * number.scale.log() - 0.5 * number.precision.logdet()
        logs.append(float(evidence))
        means.append([*number.mean.tolist(), float(number.scale / (number.shape - 1)), float(table[1] / table.sum())])
    exact = np.average(means, axis=0, weights=np.exp(np.array(logs) - max(logs)))
    sex[open_] = np.nan
    rows = [(torch.tensor(x), torch.tensor(sex))]
    generator = torch.Generator().manual_seed(0)
    draws = mixed_draws([ONE], rows, draws=900, burn=50, chains=1, generator=generator)
    variance, male = draws["a_initial_variance"][0].tolist(), draws["sex"][0, :, 1].tolist()
    sites = [*draws["a_initial"][0].mT.tolist(), variance, male]
    for ours, theirs in zip(sites, exact, strict=True):
        batches = np.reshape(ours, (30, -1)).mean(1)  # draws are a chain
        assert abs(batches.mean() - theirs) < 4.5 * batches.std(ddof=1) / math.sqrt(30)


COURSE = Template(
    ("a", "stage"),
    static=("sex",),
    intra=(("sex", "a"), ("stage", "a")),
    inter=(("a", "a"), ("stage", "stage")),
    states={"sex": ("f", "m"), "stage": 2},
)


@functools.cache
def pooled_course():
    x, sex = patients(60, 3)
    labels = np.where(sex == 1, "m", "f").astype(object)
    sources = [Source({"x": x[:25], "static": labels[:25]}), Source({"x": x[25:], "static": labels[25:]})]
    return x, sex, sources, dbn.pooled(COURSE, sources, draws=400)


@pytest.mark.long
def test_complete_sources_give_the_conjugate_posterior_and_merge_to_rows_with_labels_and_ranges():
    x, sex, sources, full = pooled_course()
    exact = dbn.conjugate(COURSE, {"x": x, "static": sex}).families
    assert full.rhat < 1.1
    family = exact["a"]
    spread = (family.scale / family.shape * torch.linalg.inv(family.precision).diagonal()).sqrt()
    assert ((full.draws["a"].mean(0) - family.mean).abs() < 5 * spread / math.sqrt(400)).all()
    table = exact["stage"].concentration
    torch.testing.assert_close(full.draws["stage"].mean(0), table / table.sum(-1, keepdim=True), atol=0.03, rtol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few hard states over-state what follows a rare one
        found = dbn.merge(COURSE, sources, size=10, complete=True, full=full)
    ours = dbn.conjugate(COURSE, found.data, found.weight).families["a"]
    assert ((ours.mean - family.mean).abs() < 0.3 * spread).all()
    long = found.to_long()
    assert set(long["sex"]) <= {"f", "m"} and set(long["stage"]) <= {0, 1}
    assert long["a"].between(x[..., 0].min() - 1e-9, x[..., 0].max() + 1e-9).all()
    few = dbn.merge(COURSE, sources, size=30, full=full)
    assert few.provenance["gap"]["kl_reverse"] < 0.05


def test_noise_of_numbers_is_told_from_their_spread():
    x, sex = patients(300, 2)
    x[..., 0] += np.random.default_rng(1).normal(0, 0.8, x.shape[:2])
    rows = [(torch.tensor(x), torch.tensor(sex))]
    generator = torch.Generator().manual_seed(0)
    known = dataclasses.replace(COURSE, noise=0.8)
    with_noise = mixed_draws([known], rows, draws=150, burn=60, chains=1, generator=generator)["a_variance"].mean()
    without = mixed_draws([COURSE], rows, draws=50, burn=10, chains=1, generator=generator)["a_variance"].mean()
    assert abs(float(with_noise) - 0.36) < 0.15 < abs(float(without) - 0.36)


@pytest.mark.long
def test_mixed_noisy_sources_are_merged_to_complete_rows_only():
    *_, sources, full = pooled_course()
    noisy = [dataclasses.replace(source, noise=0.1) for source in sources]
    with pytest.raises(ValueError, match="sources without noise: use complete=True"):
        dbn.merge(COURSE, noisy, size=5, full=dataclasses.replace(full, sources=tuple(noisy)))


def test_edges_of_both_kinds_are_not_searched():
    x, sex = patients(5, 2)
    with pytest.raises(ValueError, match="edges are searched among variables of one kind"):
        dbn.learn(COURSE, {"x": x, "static": sex})
    with pytest.raises(ValueError, match="with both kinds in a template leave the categorical ones out"):
        dbn.edges(COURSE, [Source({"x": x, "static": sex})])
