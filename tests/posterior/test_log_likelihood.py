"""log_likelihood: every row at every draw, whatever the blocks, and what ArviZ makes of it, against closed forms."""

import functools
import math

import arviz as az
import matplotlib
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr

from bayesdd import Distilled, Task, distill, inference, log_likelihood, on_disk, predict, sample
from bayesdd.posterior import arviz

matplotlib.use("Agg")
OLD = "InferenceData" in vars(az)  # ArviZ 0.23; 1.x holds groups in a DataTree
ELPD = "elpd_loo" if OLD else "elpd"
GENERATOR = torch.Generator().manual_seed(0)
N, D = 120, 2
X = torch.randn(N, D, generator=GENERATOR, dtype=torch.float64)
Y = X @ torch.tensor([1.0, -0.5]).double() + torch.randn(N, generator=GENERATOR, dtype=torch.float64)
COUNTS = torch.poisson((0.3 * X[:, 0]).exp(), generator=GENERATOR)


def model(x, y=None):
    """w ~ N(0, I), y ~ N(x w, 1): every leave-one-out predictive is Gaussian."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([D]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("obs", dist.Normal(x @ w, 1.0), obs=y)


def visits(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([D]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("visits", dist.Poisson((x @ w).exp()), obs=y)


TASK, POISSON = Task(model, {"x": X, "y": Y}), Task(visits, {"x": X, "y": COUNTS})


def expected(idata):
    w = torch.from_numpy(idata.posterior["w"].values.copy())
    return dist.Normal(w @ X.T, 1.0).log_prob(Y)


@functools.cache
def drawn():
    return sample(TASK, draws=50, chains=2, device="cpu")


def test_every_row_at_every_draw_whatever_the_blocks(monkeypatch):
    """In one block, in blocks of rows and draws that leave a rest, and in float32 to its seven digits."""
    idata = drawn()
    whole = log_likelihood(TASK, idata, device="cpu")
    assert whole.log_likelihood["obs"].dims == ("chain", "draw", "row")
    np.testing.assert_allclose(whole.log_likelihood["obs"], expected(idata), rtol=1e-9)
    assert not hasattr(idata, "log_likelihood") and whole.posterior["w"].identical(idata.posterior["w"])
    monkeypatch.setattr("bayesdd.posterior._log_likelihood.BLOCK", 50)
    monkeypatch.setattr("bayesdd.posterior._log_likelihood.CACHE_CELLS", 50 * 7)
    again = log_likelihood(TASK, whole, device="cpu", dtype="float32")
    assert again.log_likelihood["obs"].dtype == np.float32
    np.testing.assert_allclose(again.log_likelihood["obs"], expected(idata), rtol=1e-6)


def test_thinned_draws_keep_their_labels():
    thin = drawn().isel(draw=slice(None, None, 10))
    found = log_likelihood(TASK, thin, device="cpu").log_likelihood["obs"]
    assert found.coords["draw"].values.tolist() == [0, 10, 20, 30, 40]
    np.testing.assert_allclose(found, expected(thin), rtol=1e-9)
    labels = predict(TASK, thin, {"x": X}).posterior_predictive.coords["draw"]
    assert labels.values.tolist() == [0, 10, 20, 30, 40]


def test_rows_on_disk_are_read_block_by_block(tmp_path, monkeypatch):
    rows = xr.Dataset({"x": (("row", "d"), X.numpy()), "y": ("row", Y.numpy())})
    rows.to_netcdf(tmp_path / "rows.nc", engine="netcdf4")
    monkeypatch.setattr("bayesdd.posterior._log_likelihood.BLOCK", 50)
    task = Task(model, on_disk(tmp_path / "rows.nc", memory=24 * 4 * 40))
    assert task.rows.most < N
    found = log_likelihood(task, drawn(), device="cpu")
    np.testing.assert_allclose(found.log_likelihood["obs"], expected(drawn()), rtol=1e-9)


def test_what_does_not_fit_is_refused_before_it_is_computed():
    with pytest.raises(ValueError, match=r"^log_likelihood: 120 rows at 100 draws take .* dtype='float32'\.$"):
        log_likelihood(TASK, drawn(), memory=1000)
    with pytest.raises(ValueError, match="takes dtype='float64' or 'float32', got 'float16'"):
        log_likelihood(TASK, drawn(), dtype="float16")
    other = arviz.to_arviz({"posterior": arviz.dataset({"v": np.zeros((1, 5))})})
    with pytest.raises(ValueError, match="the posterior has no site 'w'"):
        log_likelihood(TASK, other)


def test_draws_of_any_tool_in_any_support_will_do():
    """Constrained draws made by NumPy: a simplex, a positive and a bounded site, a correlation matrix's factor."""

    def mixed(y):
        p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
        scale = pyro.sample("scale", dist.HalfCauchy(1.0))
        mean = pyro.sample("mean", dist.Uniform(-3.0, 3.0))
        factor = pyro.sample("factor", dist.LKJCholesky(2, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean + p[0] + factor[1, 0], scale), obs=y)

    rng = np.random.default_rng(0)
    r = rng.uniform(-0.9, 0.9, (2, 5))
    factor = np.stack([np.stack([np.ones_like(r), 0 * r], -1), np.stack([r, np.sqrt(1 - r**2)], -1)], -2)
    values = {
        "p": rng.dirichlet(np.ones(3), (2, 5)), "scale": rng.gamma(2.0, 1.0, (2, 5)),
        "mean": rng.uniform(-2, 2, (2, 5)), "factor": factor,
    }  # fmt: skip
    idata = arviz.to_arviz({"posterior": arviz.dataset(values)})
    task = Task(mixed, {"y": Y})
    found = log_likelihood(task, idata, device="cpu").log_likelihood["y"]
    mean = values["mean"] + values["p"][..., 0] + r
    at = torch.from_numpy(mean[..., None].copy()), torch.from_numpy(values["scale"][..., None].copy())
    np.testing.assert_allclose(found, dist.Normal(*at).log_prob(Y), rtol=1e-8)
    values["scale"] = -values["scale"]
    with pytest.raises(ValueError, match="draws of site 'scale' lie outside the support"):
        log_likelihood(task, arviz.to_arviz({"posterior": arviz.dataset(values)}))


def test_several_sites_of_a_row_are_left_out_together():
    def two(x, y, z):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([D]).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)
            pyro.sample("z", dist.Poisson((x @ w).exp()), obs=z)

    task = Task(two, {"x": X, "y": Y, "z": COUNTS})
    found = log_likelihood(task, drawn(), device="cpu").log_likelihood
    w = torch.from_numpy(drawn().posterior["w"].values.copy())
    both = expected(drawn()) + dist.Poisson((w @ X.T).exp()).log_prob(COUNTS)
    np.testing.assert_allclose(found["joint"], both, rtol=1e-9)


def leave_one_out():
    """Log density of every y_n given all the others, by one rank-one update each."""
    covariance = torch.linalg.inv(torch.eye(D).double() + X.T @ X)
    mean = covariance @ X.T @ Y
    h = (X @ covariance * X).sum(1)
    residual = (Y - X @ mean) / (1 - h)
    return dist.Normal(0.0, (1 / (1 - h)).sqrt()).log_prob(residual)


def elpd(rows, effective, **settings):
    """Leave-one-out sum by ArviZ, and its Monte Carlo error: that of log means of 1 / p over effective draws."""
    method = inference.laplace  # independent draws, which are exact here
    idata = sample(TASK, rows, draws=2000, method=method, log_likelihood=True, device="cpu", **settings)
    found = az.loo(idata, pointwise=True)
    assert float(found.pareto_k.max()) < 0.7  # a well-specified model has no bad point
    inverse = np.exp(-idata.log_likelihood["obs"].values.reshape(-1, N))
    per_draw = (inverse / inverse.mean(0)).sum(1)
    return getattr(found, ELPD), per_draw.std() / math.sqrt(effective or idata.posterior.attrs["corrected_ess"])


def test_loo_of_every_draw_is_the_closed_form():
    """From all rows, and from a set in another place and too wide, whose draws are off until they are corrected."""
    off = Distilled({"x": X, "y": Y + 0.1 * X[:, 0]}, torch.full((N,), 0.6))
    exact = float(leave_one_out().sum())
    for found, error in (elpd(None, 8000), elpd(off, None, corrected=True)):
        assert abs(found - exact) < 5 * error < 0.5
    found, error = elpd(off, 8000)
    assert abs(found - exact) > 20 * error


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # ArviZ's own, by pandas 3.1
def test_compare_finds_no_difference_between_a_distilled_posterior_and_the_full_one():
    small = distill(TASK, 3, seed=0, progress=False)
    assert small.certificate.ok
    method = inference.laplace
    full, few = (sample(TASK, rows, method=method, log_likelihood=True, device="cpu") for rows in (None, small))
    table = az.compare({"full": full, "distilled": few})
    assert float(np.ptp(table[ELPD])) < 0.1 < float(table["se"].min())
    assert not table.get("warning", np.array(False)).any()  # 1.x has no such column where nothing is wrong


@pytest.mark.filterwarnings("ignore")  # ArviZ's and matplotlib's own
@pytest.mark.parametrize("distilled", [False, True])
def test_predictions_join_the_posterior_in_arvizs_plots(distilled):
    rows = Distilled({"x": X[:60], "y": COUNTS[:60]}, torch.full((60,), 2.0)) if distilled else None
    idata = sample(POISSON, rows, draws=100, log_likelihood=True, method=inference.laplace, device="cpu")
    (idata.extend if OLD else idata.update)(predict(POISSON, idata, POISSON.data))
    assert {*idata.observed_data.dims} == {"row"} and idata.observed_data.sizes["row"] == N
    (az.plot_ppc if OLD else az.plot_ppc_dist)(idata)
    values = az.loo_pit(idata, y="visits") if OLD else az.loo_pit(idata, var_names="visits")["visits"]
    assert values.shape == (N,) and bool((values >= 0).all() and (values <= 1).all())
    az.plot_loo_pit(idata, **{"y" if OLD else "var_names": "visits"})
    matplotlib.pyplot.close("all")
