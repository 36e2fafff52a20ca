"""Posteriors of states with linear-Gaussian parents: against a grid, and by the identities of a posterior's score."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import stats

from bayesdd import dbn
from bayesdd.dbn import Source, Template
from bayesdd.dbn.inference.mixed import mixed_draws
from bayesdd.dbn.likelihood import unconstrain

COURSE = Template(
    ("bili", "stage", "end"),
    intra=(("bili", "stage"),),
    inter=(("bili", "bili"), ("stage", "stage"), ("bili", "end"), ("stage", "bili")),
    states={"stage": 2, "end": ("alive", "dead")},
    terminal="end",
)
TRUE = {
    "bili_initial": [0.0],
    "bili_initial_variance": 1.0,
    "stage_initial": [[0.2, 0.5]],
    "end_initial": [[-2.0]],
    "bili": [0.0, 0.7, 0.5],
    "bili_variance": 0.4,
    "stage": [[-0.5, 0.6, 1.5]],
    "end": [[-1.2, 0.6]],
}


def patients(count, seed=0):
    return dbn.simulate(COURSE, {site: torch.tensor(value).double() for site, value in TRUE.items()}, count, 3, seed)[
        "x"
    ]


def batch_error(draws):
    """Means and their standard errors, from 20 batches of a chain."""
    batches = np.asarray(draws)[: len(draws) // 20 * 20].reshape(20, -1, *np.shape(draws)[1:]).mean(1)
    return batches.mean(0), batches.std(0, ddof=1) / math.sqrt(20)


def test_a_probit_regression_has_the_posterior_of_a_grid():
    one = Template(("a", "c"), intra=(("a", "c"),), states={"c": 2})
    rng = np.random.default_rng(0)
    a = rng.normal(size=30)
    c = (0.4 + 1.2 * a + rng.normal(size=30) > 0).astype(float)
    side = np.linspace(-3, 6, 181)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    logs = stats.norm(0, 3).logpdf(grid).sum(1)
    logs += stats.norm.logcdf((2 * c - 1) * (grid[:, :1] + grid[:, 1:] * a)).sum(1)
    weight = np.exp(logs - logs.max())
    mean = np.average(grid, axis=0, weights=weight)
    square = np.average((grid - mean) ** 2, axis=0, weights=weight)
    rows = [(torch.tensor(np.stack([a, c], 1))[:, None], torch.zeros(30, 0))]
    draws = mixed_draws([one], rows, draws=500, burn=30, chains=1, generator=torch.Generator().manual_seed(0))
    ours = draws["c_initial"][0, :, 0].numpy()
    for found, exact in ((ours, mean), ((ours - mean) ** 2, square)):
        centre, error = batch_error(found)
        assert (np.abs(centre - exact) < 4.5 * error).all() and (error < 0.3 * np.sqrt(square)).all()


@pytest.mark.long
def test_draws_with_missing_numbers_and_states_are_those_of_the_density():
    """Under the posterior the score has mean 0, and its product with the parameters, about their means, mean -1."""
    x = patients(24)
    x[:12, :, 1] = torch.nan  # one hospital does not see the stage
    x[16:20, 1, 0] = x[22:, 0, 0] = torch.nan
    rows = dbn.likelihood.source.gathered(COURSE, [Source({"x": x[:12]}), Source({"x": x[12:]})])
    generator = torch.Generator().manual_seed(0)
    chain = mixed_draws([COURSE] * 2, rows, draws=500, burn=50, chains=1, generator=generator)
    draws = {site: value[0, ::2] for site, value in chain.items()}
    task = dbn.task(COURSE, {"x": torch.cat([some for some, _ in rows])})
    free = unconstrain(COURSE, draws).requires_grad_()
    parts = [task.log_prior(part).sum() + task.log_likelihood(task.data, part).sum() for part in free.split(50)]
    (score,) = torch.autograd.grad(torch.stack(parts).sum(), free)
    free = free.detach()
    for found, exact in ((score, 0.0), (score * (free - free.mean(0)), -1.0)):
        centre, error = batch_error(found)
        assert (np.abs(centre - exact) < 4.5 * error).all() and (error < 1.5).all()


@pytest.mark.long
def test_sources_are_merged_to_weighted_rows_with_a_certificate_and_ends():
    x = patients(40)
    sources = [Source({"x": x[:20]}, variables=["bili", "stage", "end"]), Source({"x": x[20:]})]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # so few draws disagree by chance
        full = dbn.pooled(COURSE, sources, draws=120)
        found = dbn.merge(COURSE, sources, size=25, full=full)
    assert found.provenance["gap"]["kl_forward"] < 1.0 and found.certificate is not None
    long = found.to_long()
    assert set(long["end"].dropna()) <= {"alive", "dead"} and long["end"].eq("dead").any()
    last = long.groupby("patient")["end"].last()
    assert (long.groupby("patient")["end"].apply(lambda e: e.eq("dead").sum()) == last.eq("dead")).all()
    assert full.to_arviz().posterior["end"].dims == ("chain", "draw", "end_step", "end_term")
    with pytest.raises(ValueError, match="no closed form for 'stage', which has a linear-Gaussian parent"):
        dbn.merge(COURSE, sources, size=5, complete=True, full=full)
    with pytest.raises(ValueError, match="'stage' with its linear-Gaussian parents has none"):
        dbn.conjugate(COURSE, {"x": x})
