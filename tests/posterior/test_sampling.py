"""sample, predict, weighted: the exact posterior of weighted rows, by bayesdd's samplers and by Pyro's own."""

import functools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal

from bayesdd import Distilled, Task, inference, predict, sample, weighted

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
            run = MCMC(NUTS(weighted(TASK, SET)), num_samples=300, warmup_steps=100, disable_progbar=True)
            run.run()
    finally:
        torch.set_default_dtype(before)
    agrees(run.get_samples()["w"], FEW, 100)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
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
    np.testing.assert_array_equal(few.observed_data["y"], SET.data["y"])
    np.testing.assert_array_equal(few.constant_data["weight"], SET.weight)
    assert full.posterior.attrs["task"] == TASK.name and full.posterior.attrs["seed"] == 0


def test_log_likelihood_is_kept_of_full_rows_only():
    full, few = drawn(False, "hmc"), drawn(True, "hmc")
    assert not hasattr(few, "log_likelihood")
    values = full.log_likelihood["y"]
    assert values.dims == ("chain", "draw", "row") and values.sizes["row"] == N
    w = torch.from_numpy(full.posterior["w"].sel(draw=values["draw"]).values.copy())
    expected = dist.Normal(w @ X.T, 1.0).log_prob(Y)
    np.testing.assert_allclose(values, expected, rtol=1e-9)


def test_log_likelihood_is_thinned_to_a_bounded_size(monkeypatch):
    monkeypatch.setattr("bayesdd.posterior.sampling.LOG_LIKELIHOOD_CELLS", 40 * N)
    idata = sample(TASK, draws=50, chains=2, method=inference.laplace, device="cpu")
    values = idata.log_likelihood["y"]
    assert values.size <= 40 * N
    w = torch.from_numpy(idata.posterior["w"].sel(draw=values["draw"]).values.copy())
    np.testing.assert_allclose(values, dist.Normal(w @ X.T, 1.0).log_prob(Y), rtol=1e-9)


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


def test_rows_called_row_and_weight_keep_their_names():
    def named(row, weight, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(row)):
            return pyro.sample("y", dist.Normal(w * row + weight, 1.0), obs=y)

    task = Task(named, {"row": X[:, 0], "weight": X[:, 1], "y": Y})
    few = Distilled({name: column[:2] for name, column in task.data.items()}, torch.tensor([1.0, 2.0]))
    idata = sample(task, few, draws=5, chains=2, method=inference.laplace, device="cpu")
    np.testing.assert_array_equal(idata.constant_data["distilled_weight"], few.weight)
    np.testing.assert_array_equal(idata.constant_data["weight"], X[:2, 1])
    np.testing.assert_array_equal(idata.constant_data["row"], X[:2, 0])


@pytest.mark.parametrize(
    "rows, words",
    [
        ({"z": X}, r"needs the columns \['x'\] of the new rows, got \['z'\]"),
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
    with pytest.raises(ValueError, match="'z' is real of shape"):
        sample(TASK, other)

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
