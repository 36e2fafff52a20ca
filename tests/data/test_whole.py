"""Whole rows for fractional outcomes: the same log-likelihood where it is linear, and a refusal where it is not."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import statsmodels.api as sm
import torch
from sklearn.linear_model import LogisticRegression

from bayesdd import Distilled, Task
from bayesdd.data.whole import drawn, pieces, splits

GENERATOR = torch.Generator().manual_seed(1)
N, M = 60, 9
X = torch.cat([torch.ones(N, 1), torch.randn(N, 2, generator=GENERATOR)], 1).double()
U = torch.cat([torch.ones(M, 1), torch.randn(M, 2, generator=GENERATOR)], 1).double()
WEIGHT = torch.rand(M, generator=GENERATOR, dtype=torch.float64) * 5 + 1
TRIALS = 2 + torch.arange(N) % 3
FRACTION = torch.rand(M, generator=GENERATOR, dtype=torch.float64)
COUNT = FRACTION * 4
NOUGHTS = (torch.arange(N) % 2).double()


def regression(outcome, **more):
    """y_n | x_n ~ outcome(x_n' w), of known size 2 or of a size to be found."""

    def model(x, y=None, n=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        size = pyro.sample("size", dist.Gamma(2.0, 1.0)) if more.get("size") else torch.tensor(2.0).double()
        with pyro.plate("data", len(x)):
            return pyro.sample("y", outcome(x @ w, size, n), obs=y)

    return model


def bernoulli(eta, size, n):
    return dist.Bernoulli(logits=eta)


def binomial(eta, size, n):
    return dist.Binomial(n.double(), logits=eta)


def poisson(eta, size, n):
    return dist.Poisson(eta.exp())


def negative_binomial(eta, size, n):
    return dist.NegativeBinomial(size, logits=eta - size.log())


def log_likelihood(task, rows, weight):
    draws = torch.randn(20, task.dim, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return task.log_likelihood(rows, draws) @ weight


CASES = {
    "bernoulli": (Task(regression(bernoulli), {"x": X, "y": NOUGHTS}), {"x": U, "y": FRACTION}),
    "binomial": (
        Task(regression(binomial), {"x": X, "y": NOUGHTS, "n": TRIALS}),
        {"x": U, "y": FRACTION * 3, "n": torch.full((M,), 3)},
    ),
    # Numbers of trials given as floats move like any covariate: they are split along the same uniform.
    "moving trials": (
        Task(regression(binomial), {"x": X, "y": NOUGHTS, "n": TRIALS.double()}),
        {"x": U, "y": FRACTION * 3, "n": 3 + COUNT},
    ),
    "poisson": (Task(regression(poisson), {"x": X, "y": NOUGHTS}), {"x": U, "y": COUNT}),
    # Of known size, so that what is not linear in y is free of the parameters.
    "negative binomial": (Task(regression(negative_binomial), {"x": X, "y": NOUGHTS}), {"x": U, "y": COUNT}),
}


@pytest.mark.parametrize("case", CASES)
def test_whole_rows_have_the_same_log_likelihood_up_to_a_constant(case):
    task, rows = CASES[case]
    distilled = Distilled(rows, WEIGHT)
    frame = distilled.to_frame(whole=True, task=task)
    assert frame["y"].dtype == np.int64 and len(frame) > M
    back = Task(task.model, frame.drop(columns="weight"))
    weight = torch.from_numpy(frame["weight"].to_numpy().copy())
    excess = log_likelihood(task, rows, WEIGHT) - log_likelihood(task, back.data, weight)
    assert float((excess - excess[0]).abs().max()) < 1e-10 * float(excess.abs().max() + 100)
    assert abs(float(weight.sum() - WEIGHT.sum())) < 1e-12 * float(WEIGHT.sum())
    if "n" in rows:
        assert frame["n"].dtype == np.int64 and (frame["y"] <= frame["n"]).all()


def test_a_negative_binomial_of_unknown_size_does_not_split():
    task = Task(regression(negative_binomial, size=True), {"x": X, "y": NOUGHTS})
    distilled = Distilled({"x": U, "y": COUNT}, WEIGHT)
    assert splits(task, distilled.data) == {"y": False}
    with pytest.raises(ValueError, match=r"^to_frame.*'y' holds fractions.*not linear.*whole_outcomes=True\.$"):
        distilled.to_frame(whole=True, task=task)
    whole = Distilled({"x": U, "y": COUNT.round()}, WEIGHT).to_frame(whole=True, task=task)
    assert len(whole) == M and whole["y"].dtype == np.int64


def test_outcomes_of_several_entries_split_along_one_uniform():
    """Independent counts a row are linear entry by entry; an entry that enters another's mean is not."""

    def apart(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Poisson((x @ w).exp()[:, None].expand(-1, 4)).to_event(1), obs=y)

    def chained(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Poisson((x @ w + w[0] * y[:, 1]).exp()), obs=y[:, 0])

    real = torch.ones(N, 4).double().cumsum(1)
    soft = torch.rand(M, 4, generator=GENERATOR, dtype=torch.float64) * 3
    task = Task(apart, {"x": X, "y": real})
    rows = {"x": U, "y": soft}
    assert splits(task, rows) == {"y": True}
    found = pieces(rows, ["y"])
    assert len(found.owner) == 5 * M  # four different fractions a row
    mean = torch.zeros(M, 4).double().index_add(0, found.owner, found.columns["y"] * found.share[:, None])
    torch.testing.assert_close(mean, soft, rtol=1e-12, atol=1e-12)
    assert bool((found.columns["y"] == found.columns["y"].round()).all())
    assert splits(Task(chained, {"x": X, "y": real}), rows) == {"y": False}


def test_missing_entries_stay_missing_and_whole_rows_stay_one():
    y = torch.tensor([[1.0, torch.nan], [0.5, torch.nan], [2.0, 0.25]])
    found = pieces({"y": y.double()}, ["y"])
    assert found.owner.tolist() == [0, 1, 1, 2, 2] and found.share.tolist() == [1.0, 0.5, 0.5, 0.25, 0.75]
    assert found.columns["y"].isnan().tolist() == [[False, True]] * 3 + [[False, False]] * 2
    assert found.columns["y"][3:].tolist() == [[2.0, 1.0], [2.0, 0.0]]


def test_where_nobody_knows_the_task_is_asked_for():
    with pytest.raises(ValueError, match="needs task=, the task that the rows belong to"):
        Distilled({"y": FRACTION}, WEIGHT).to_frame(whole=True)
    with pytest.raises(ValueError, match="column 'x' is not in both the rows"):
        Distilled({"y": FRACTION}, WEIGHT).to_frame(whole=True, task=CASES["poisson"][0])
    recorded = Distilled({"y": FRACTION}, WEIGHT, provenance={"splits": {"y": True}})
    assert recorded.to_frame(whole=True)["y"].isin([0, 1]).all()


def test_fractions_are_drawn_without_bias():
    rows = {"y": torch.full((20_000,), 2.3, dtype=torch.float64), "n": torch.ones(20_000).long()}
    found = drawn(rows, ["y", "n"], torch.Generator().manual_seed(0))
    assert set(found["y"].tolist()) == {2.0, 3.0} and torch.equal(found["n"], rows["n"])
    assert abs(float(found["y"].mean()) - 2.3) < 5 * (0.3 * 0.7 / 20_000) ** 0.5


@pytest.mark.parametrize("case", ["bernoulli", "poisson"])
def test_statsmodels_fits_the_whole_rows_as_the_fractions(case):
    family = sm.families.Binomial() if case == "bernoulli" else sm.families.Poisson()
    task, rows = CASES[case]
    frame = Distilled(rows, WEIGHT).to_frame(whole=True, task=task)
    x = frame[["x[0]", "x[1]", "x[2]"]].to_numpy()
    found = sm.GLM(frame["y"], x, family, freq_weights=frame["weight"]).fit(tol=1e-13)
    exact = sm.GLM(rows["y"].numpy(), U.numpy(), family, freq_weights=WEIGHT.numpy()).fit(tol=1e-13)
    np.testing.assert_allclose(found.params, exact.params, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.cov_params(), exact.cov_params(), rtol=1e-7)


def test_scikit_learn_has_a_zero_gradient_where_the_fractions_have_one():
    task, rows = CASES["bernoulli"]
    frame = Distilled(rows, WEIGHT).to_frame(whole=True, task=task)
    x = frame[["x[0]", "x[1]", "x[2]"]].to_numpy()
    fit = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, solver="newton-cholesky")
    w = torch.from_numpy(fit.fit(x, frame["y"], sample_weight=frame["weight"]).coef_[0])
    slope = (WEIGHT * (rows["y"] - torch.sigmoid(U @ w))) @ U - w  # the penalty is the prior N(0, 1)
    assert float(slope.abs().max()) < 1e-7
