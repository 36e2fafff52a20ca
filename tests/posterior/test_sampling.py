"""sample, predict, weighted: the exact posterior of weighted rows, by bayesdd's samplers and by Pyro's own."""

import functools
import math
import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal

from bayesdd import DataNote, Distilled, Task, inference, on_disk, predict, sample, weighted
from bayesdd.density import checkpoint
from bayesdd.density.passes import Passes

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*tensor.*requires_grad.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]
GENERATOR = torch.Generator().manual_seed(0)
N, D = 30, 2
X = torch.randn(N, D, generator=GENERATOR, dtype=torch.float64)
Y = X @ torch.tensor([1.0, -0.5]).double() + torch.randn(N, generator=GENERATOR, dtype=torch.float64)


def model(x, y=None):
    """w ~ N(0, I), y ~ N(x w, 1): the posterior is Gaussian."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([D]).to_event(1))
    pyro.deterministic("double", 2 * w)
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


TASK = Task(model, {"x": X, "y": Y})
# Few rows of large weight: with a prior scaled along, the answer would be off by more than its own width.
SET = Distilled({"x": X[:3], "y": Y[:3]}, torch.tensor([0.5, 3.0, 1.5], dtype=torch.float64))


def exact(x, y, weight):
    precision = torch.eye(D).double() + x.T @ (weight[:, None] * x)
    return torch.linalg.solve(precision, x.T @ (weight * y)), torch.linalg.inv(precision)


FULL = exact(X, Y, torch.ones(N, dtype=torch.float64))
FEW = exact(SET.data["x"], SET.data["y"], SET.weight)


def agrees(draws, posterior, effective):
    """Means and standard deviations within five standard errors of ``effective`` independent draws."""
    mean, covariance = posterior
    sd = covariance.diagonal().sqrt()
    draws = (draws if isinstance(draws, torch.Tensor) else torch.from_numpy(draws.copy())).reshape(-1, D)
    assert float(((draws.mean(0) - mean) / sd).abs().max()) < 5 / math.sqrt(effective)
    assert float((draws.std(0) / sd - 1).abs().max()) < 5 / math.sqrt(2 * effective)


@functools.cache
def drawn(distilled, method):
    return sample(
        TASK, SET if distilled else None, draws=500, chains=4, method=getattr(inference, method), device="cpu"
    )


@pytest.mark.parametrize("method", ["hmc", "laplace"])
@pytest.mark.parametrize("distilled", [False, True])
def test_posterior_is_the_exact_one(distilled, method):
    idata = drawn(distilled, method)
    agrees(idata.posterior["w"].values, FEW if distilled else FULL, 800)
    np.testing.assert_allclose(idata.posterior["double"], 2 * idata.posterior["w"])


def test_weights_act_under_pyros_own_nuts():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            run = MCMC(NUTS(weighted(TASK, SET)), num_samples=200, warmup_steps=60, disable_progbar=True)
            run.run()
    finally:
        torch.set_default_dtype(before)
    agrees(run.get_samples()["w"], FEW, 67)


@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.long), torch.float64])
def test_weights_act_under_svi_in_either_dtype(dtype):
    """The guide's family holds the posterior: the optimum is the exact answer."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope():
            torch.manual_seed(0)
            run = weighted(TASK, SET)
            guide = AutoMultivariateNormal(run, init_scale=0.5)
            optimiser = pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.01 ** (1 / 300)})
            svi = SVI(run, guide, optimiser, Trace_ELBO(num_particles=3))
            for _ in range(300):
                svi.step()
            found = guide.get_posterior()
    finally:
        torch.set_default_dtype(before)
    mean, covariance = FEW
    sd = covariance.diagonal().sqrt()
    assert float(((found.mean.detach().double() - mean) / sd).abs().max()) < 0.1
    assert float((found.variance.detach().double().sqrt() / sd - 1).abs().max()) < 0.1


def test_soft_observations_pass_pyros_validation_and_only_theirs():
    def labels(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([D]).to_event(1))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)

    task = Task(labels, {"x": X, "y": (Y > 0).double()})
    run = weighted(task, Distilled({"x": X[:2], "y": torch.tensor([0.3, 0.9]).double()}, torch.ones(2) * 5))
    w = torch.tensor([0.2, -0.4])
    trace = pyro.poutine.trace(pyro.poutine.condition(run, {"w": w})).get_trace()
    eta = (X[:2] @ w.double()).float()
    y = torch.tensor([0.3, 0.9])
    expected = 5 * (y * torch.nn.functional.logsigmoid(eta) + (1 - y) * torch.nn.functional.logsigmoid(-eta)).sum()
    prior = dist.Normal(0.0, 1.0).log_prob(w).sum()
    torch.testing.assert_close(trace.log_prob_sum(), expected + prior)


def test_groups_dims_and_attributes_are_those_of_arviz():
    full, few = drawn(False, "hmc"), drawn(True, "hmc")
    assert full.posterior["w"].dims == ("chain", "draw", "w_dim_0")
    assert full.posterior.sizes["chain"] == 4 and full.posterior.sizes["draw"] == 500
    assert full.sample_stats["diverging"].dims == ("chain", "draw")
    assert full.observed_data["y"].dims == ("row",) and full.constant_data["x"].dims[0] == "row"
    assert full.posterior.attrs["task"] == TASK.name and full.posterior.attrs["seed"] == 0
    assert not hasattr(full, "log_likelihood") and not hasattr(full, "distilled_data")
    for name in ("x", "y"):
        np.testing.assert_array_equal(few.distilled_data[name], SET.data[name])
    np.testing.assert_array_equal(few.distilled_data["weight"], SET.weight)
    assert few.distilled_data["weight"].dims == ("distilled_row",) and "certify" in few.distilled_data.attrs["about"]
    # Whoever is handed a distilled posterior is not handed the real rows with it.
    assert not hasattr(few, "observed_data") and not hasattr(few, "constant_data")


def test_outcomes_are_named_by_site_and_discrete_ones_are_integers(monkeypatch):
    monkeypatch.setattr("bayesdd.task.task.BLOCK", 7)

    def two(x, count=None, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([D]).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("visits", dist.Poisson((x @ w).exp()), obs=count)
            with pyro.poutine.mask(mask=True if y is None else ~y.isnan()):
                pyro.sample("level", dist.Normal(x @ w, 1.0), obs=None if y is None else y.nan_to_num())

    y = torch.where(X[:, 0] > 0, Y, torch.nan)
    columns = {"x": X, "count": torch.arange(N) % 3, "y": y}
    task = Task(two, columns)
    full = sample(task, draws=5, chains=2, method=inference.laplace, device="cpu")
    found = predict(task, full, columns)
    for idata in (full, found):
        assert idata.observed_data["visits"].dtype == np.int64
        np.testing.assert_array_equal(idata.observed_data["visits"], columns["count"])
        np.testing.assert_array_equal(idata.observed_data["level"], y)
        assert list(idata.constant_data.data_vars) == ["x"]
    assert found.posterior_predictive["visits"].dtype == np.int64
    for name in found.observed_data:
        assert found.posterior_predictive[name].dims == ("chain", "draw", *found.observed_data[name].dims)


def test_a_plate_beside_the_rows_leaves_them_in_front():
    def grid(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        rows, times = pyro.plate("data", len(x), dim=-2), pyro.plate("times", 3, dim=-1)
        with rows, times:
            return pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)

    x = torch.arange(15.0).reshape(5, 3).double()
    task = Task(grid, {"x": x, "y": 2 * x})
    idata = sample(task, draws=400, chains=2, method=inference.laplace, device="cpu")
    np.testing.assert_array_equal(idata.observed_data["y"], 2 * x)
    found = predict(task, idata, {"x": x}).posterior_predictive["y"]
    assert found.dims == ("chain", "draw", "row", "y_dim_0")
    # The posterior of w is 2 within 2 / sum x^2, so that every mean is 2 x within five standard errors.
    assert float(np.abs(found.mean(("chain", "draw")).values - 2 * x.numpy()).max()) < 5 * math.sqrt(1.3 / 800) + 0.03


def test_the_seed_decides_and_the_global_generator_does_not_move():
    state = torch.random.get_rng_state()
    first, again, other = (
        sample(TASK, SET, draws=20, chains=2, seed=seed, device="cpu").posterior["w"].values for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_predictions_have_the_exact_mean_and_spread():
    new = torch.tensor([[1.0, 2.0], [-3.0, 0.5]], dtype=torch.float64)
    found = predict(TASK, drawn(False, "laplace"), {"x": new})
    assert found.posterior_predictive["y"].dims == ("chain", "draw", "row")
    y = found.posterior_predictive["y"].values.reshape(-1, 2)
    mean, covariance = FULL
    sd = ((new @ covariance * new).sum(1) + 1).sqrt()
    assert float(((torch.from_numpy(y.mean(0)) - new @ mean) / sd).abs().max()) < 5 / math.sqrt(1500)
    assert float((torch.from_numpy(y.std(0)) / sd - 1).abs().max()) < 5 / math.sqrt(2 * 1500)
    np.testing.assert_array_equal(found.constant_data["x"], new)
    assert not hasattr(found, "observed_data")


def test_an_outcome_that_the_model_transforms_is_predicted_on_the_scale_of_its_site():
    def logged(x, cost=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([D]).to_event(1))
        with pyro.plate("data", len(x)):
            return pyro.sample("log_cost", dist.Normal(x @ w, 1.0), obs=None if cost is None else cost.log())

    task, idata, new = Task(logged, {"x": X, "cost": Y.exp()}), drawn(False, "laplace"), {"x": X[:2]}
    plain = predict(TASK, idata, new).posterior_predictive["y"]
    for rows in (new, {**new, "cost": [1.0, math.e]}):
        found = predict(task, idata, rows)
        np.testing.assert_allclose(found.posterior_predictive["log_cost"], plain)
        assert list(found.constant_data) == ["x"]
    np.testing.assert_allclose(found.observed_data["log_cost"], [0.0, 1.0])

    def whole(x, cost):
        return logged(x, cost)

    with pytest.raises(ValueError, match=r"none is left to predict.*'cost'\], the default None[^\n]*$"):
        predict(Task(whole, {"x": X, "cost": Y.exp()}), idata, {"x": X, "cost": Y.exp()})


def test_rows_to_predict_come_in_every_form_that_a_task_takes(tmp_path):
    """Columns that the model does not take are left out; outcomes are handed on and change no prediction."""
    idata = drawn(False, "laplace")
    frame = pd.DataFrame({"x[0]": X[:7, 0], "x[1]": X[:7, 1], "y": Y[:7], "id": np.arange(7)})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    dataset = xr.Dataset({"x": (("n", "d"), X[:7].numpy()), "y": ("n", Y[:7].numpy())})
    dataset.to_netcdf(tmp_path / "rows.nc", engine="netcdf4")
    bare = predict(TASK, idata, {"x": X[:7].numpy()}, seed=4).posterior_predictive["y"]
    for rows in (frame, dataset, tmp_path / "rows.csv", str(tmp_path / "rows.nc"), on_disk(tmp_path / "rows.nc")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataNote)
            found = predict(TASK, idata, rows, seed=4)
        np.testing.assert_allclose(found.posterior_predictive["y"], bare, rtol=1e-12)
        np.testing.assert_allclose(found.observed_data["y"], Y[:7], rtol=1e-12)
        assert list(found.constant_data.data_vars) == ["x"]


def test_rows_called_row_and_weight_keep_their_names():
    def named(row, weight, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(row)):
            return pyro.sample("y", dist.Normal(w * row + weight, 1.0), obs=y)

    task = Task(named, {"row": X[:, 0], "weight": X[:, 1], "y": Y})
    few = Distilled({name: column[:2] for name, column in task.data.items()}, torch.tensor([1.0, 2.0]))
    idata = sample(task, few, draws=5, chains=2, method=inference.laplace, device="cpu")
    np.testing.assert_array_equal(idata.distilled_data["distilled_weight"], few.weight)
    np.testing.assert_array_equal(idata.distilled_data["weight"], X[:2, 1])
    np.testing.assert_array_equal(idata.distilled_data["row"], X[:2, 0])
    full = sample(task, draws=5, chains=2, method=inference.laplace, log_likelihood=True, device="cpu")
    assert full.observed_data["y"].dims == full.constant_data["row"].dims == ("row_",)
    assert full.log_likelihood["y"].dims == ("chain", "draw", "row_")


@pytest.mark.parametrize(
    "rows, words",
    [
        ({"z": X}, r"needs the columns \['x'\] of the new rows, got \['z'\]; 'x' is missing"),
        ({"x": X[:, :1]}, r"'x' has shape \(1,\) a row, but \(2,\)"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows, words):
    with pytest.raises(ValueError, match=words):
        predict(TASK, drawn(False, "laplace"), rows)


def test_misuse_of_sample_is_refused():
    with pytest.raises(ValueError, match="draws= must be a whole number from 1 on, got 0"):
        sample(TASK, SET, draws=0)
    other = Distilled({"z": X[:3], "y": Y[:3]}, torch.ones(3))
    with pytest.raises(ValueError, match="column 'z' is absent in the task"):
        sample(TASK, other)
    with pytest.raises(ValueError, match="corrects draws of a distilled set to all rows: give distilled="):
        sample(TASK, corrected=True)
    with pytest.raises(ValueError, match=r"30 rows at 100,000,000 draws take .* GiB, more than the 8 allowed"):
        sample(TASK, draws=10**8, chains=1, log_likelihood=True)

    def chain(x, y=None):
        w = pyro.sample("chain", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(x[:, 0] * w, 1.0), obs=y)

    with pytest.raises(ValueError, match=r"'chain' .* rename the site"):
        sample(Task(chain, {"x": X, "y": Y}))


def test_a_model_that_needs_its_observations_cannot_predict():
    def stubborn(x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(x[:, 0] * w, 1.0), obs=y)

    task = Task(stubborn, {"x": X, "y": Y})
    idata = sample(task, draws=5, chains=1, method=inference.laplace, device="cpu")
    with pytest.raises(ValueError, match=r"cannot run without its observed columns \['y'\]: give them"):
        predict(task, idata, {"x": X})


def test_chains_that_were_cut_short_go_on_to_the_same_draws(tmp_path, monkeypatch):
    """Passes made before the interruption are taken from the file."""
    monkeypatch.setattr(checkpoint, "LEAST_CELLS", 1)
    settings = {"draws": 20, "chains": 2, "seed": 3}
    passes, own = [], Passes._sum
    monkeypatch.setattr(Passes, "_sum", lambda *given: passes.append(1) or own(*given))
    whole = sample(TASK, **settings).posterior["w"].values
    needed = len(passes)

    def cut(density, **given):
        left, own = iter(range(needed // 2)), density.log_joint_gradient

        def stopping(draws):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return own(draws)

        density.log_joint_gradient = stopping
        return inference.hmc(density, **given)

    with pytest.raises(KeyboardInterrupt):
        sample(TASK, **settings, method=cut, checkpoint=tmp_path / "c")
    passes.clear()
    resumed = sample(TASK, **settings, checkpoint=tmp_path / "c").posterior["w"].values
    assert np.array_equal(resumed, whole)
    assert 0 < len(passes) < 0.6 * needed
