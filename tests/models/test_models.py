"""Every module in models/: its task is what its docstring says, checked against formulas that know nothing of Pyro."""

import functools
import importlib
import inspect
from pathlib import Path

import numpy as np
import pyro.poutine as poutine
import pytest
import torch
from scipy import stats
from scipy.special import log_softmax, logsumexp
from torch.autograd.functional import hessian, jacobian

from models import gaussian_mean

MODULES = sorted(p.stem for p in Path(gaussian_mean.__file__).parent.glob("*.py") if p.stem != "__init__")
TASKS = [(m, f) for m in MODULES for f in vars(importlib.import_module(f"models.{m}")) if f.startswith("task")]
EXACT = [m for m in MODULES if hasattr(importlib.import_module(f"models.{m}"), "exact")]

BLOCKS = 100  # of rows, over which the scores are averaged before they are studentised


@functools.cache
def build(module, factory="task"):
    return getattr(importlib.import_module(f"models.{module}"), factory)()


def draws_of(task, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.5 * torch.randn(count, task.dim, generator=generator, dtype=torch.float64)


def first(task, count):
    return {name: column[:count] for name, column in task.data.items()}


def sums_to_one(value):
    return value.dim() > 1 and bool((value > 0).all() and (value.sum(-1) - 1).abs().max() < 1e-12)


def mixture(t):
    means = np.array([t["lower"], t["lower"] + t["gap"]])
    return np.log([t["share"], 1 - t["share"]]), means, t["spread"]


# Log-likelihood of each row at one draw: (rows' columns, constrained latents) -> (rows,).
LOG_LIKELIHOOD = {
    ("gaussian_mean", "task"): lambda c, t: stats.multivariate_normal(t["theta"], np.eye(len(t["theta"]))).logpdf(
        c["x"]
    ),
    ("linear_regression", "task"): lambda c, t: stats.norm(c["x"] @ t["w"], 0.5).logpdf(c["y"]),
    ("linear_regression", "task_unknown_noise"): lambda c, t: stats.norm(c["x"] @ t["w"], t["sigma"]).logpdf(c["y"]),
    ("logistic_regression", "task"): lambda c, t: -np.log1p(np.exp((1 - 2 * c["y"]) * (c["x"] @ t["w"]))),
    ("poisson_regression", "task"): lambda c, t: stats.poisson(np.exp(c["x"] @ t["w"])).logpmf(c["y"]),
    ("gaussian_mixture", "task"): lambda c, t: logsumexp(
        mixture(t)[0] + stats.norm(*mixture(t)[1:]).logpdf(c["y"][:, None]), axis=1
    ),
    ("varying_intercepts", "task"): lambda c, t: stats.norm(
        t["mu"] + t["tau"] * t["z"][c["group"]] + c["x"] @ t["w"], t["sigma"]
    ).logpdf(c["y"]),
    ("categorical_regression", "task"): lambda c, t: log_softmax(
        np.column_stack([np.zeros(len(c["x"])), c["x"] @ t["w"]]), axis=1
    )[np.arange(len(c["y"])), c["y"]],
}
NORMAL, HALF_NORMAL = stats.norm(0, 1), stats.halfnorm(0, 1)
# Log-density of each latent site as users write it; on the unconstrained scale the Jacobian below is added.
LOG_PRIOR = {
    ("gaussian_mean", "task"): {"theta": NORMAL},
    ("linear_regression", "task"): {"w": NORMAL},
    ("linear_regression", "task_unknown_noise"): {"w": NORMAL, "sigma": HALF_NORMAL},
    ("logistic_regression", "task"): {"w": NORMAL},
    ("poisson_regression", "task"): {"w": NORMAL},
    ("gaussian_mixture", "task"): {
        "lower": stats.norm(0, 3),
        "gap": stats.lognorm(0.5, scale=np.e),
        "spread": stats.lognorm(0.5),
        "share": stats.beta(2, 2),
    },
    ("varying_intercepts", "task"): {"mu": NORMAL, "tau": HALF_NORMAL, "sigma": HALF_NORMAL, "w": NORMAL, "z": NORMAL},
    ("categorical_regression", "task"): {"w": NORMAL},
}


def log_jacobian(value, support):
    lower, upper = support
    return 0 * value if lower == -np.inf else np.log(value) if upper == np.inf else np.log(value * (1 - value))


@pytest.mark.parametrize(("module", "factory"), TASKS)
def test_task_constructs_with_as_many_parameters_as_its_sites_hold(module, factory):
    task = build(module, factory)
    values = task.constrain(draws_of(task, 1)).items()
    # Probabilities sum to one: a row of a table holds one parameter less than it has entries.
    tied = {name: value[..., 0].numel() for name, value in values if name in task.sites and sums_to_one(value)}
    assert task.dim == sum(int(np.prod(shape)) - tied.get(name, 0) for name, shape in task.sites.items())
    assert all(len(column) == task.size for column in task.data.values())


@pytest.mark.parametrize(("module", "factory"), TASKS)
def test_two_constructions_hold_the_same_rows_and_leave_the_global_generators_alone(module, factory):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    again = getattr(importlib.import_module(f"models.{module}"), factory)()
    torch.testing.assert_close(build(module, factory).data, again.data, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


@pytest.mark.parametrize(("module", "factory"), list(LOG_LIKELIHOOD))
def test_log_likelihood_is_the_hand_written_formula(module, factory):
    task = build(module, factory)
    draws, rows = draws_of(task, 5), first(task, 40)
    ours = task.log_likelihood(rows, draws).numpy()
    sites = {name: value.numpy() for name, value in task.constrain(draws).items()}
    columns = {name: column.numpy() for name, column in rows.items()}
    formula = LOG_LIKELIHOOD[module, factory]
    theirs = [formula(columns, {name: sites[name][s] for name in task.sites}) for s in range(len(draws))]
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("module", "factory"), list(LOG_PRIOR))
def test_log_prior_is_the_hand_written_density_up_to_a_constant(module, factory):
    task = build(module, factory)
    draws = draws_of(task, 6)
    sites = task.constrain(draws)
    assert set(task.sites) == set(LOG_PRIOR[module, factory])
    theirs = np.zeros(len(draws))
    for name, density in LOG_PRIOR[module, factory].items():
        value = sites[name].numpy().reshape(len(draws), -1)
        theirs += (density.logpdf(value) + log_jacobian(value, density.support())).sum(1)
    ours = task.log_prior(draws).numpy()
    np.testing.assert_allclose(ours - ours[0], theirs - theirs[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("module", "factory"), TASKS)
def test_rows_simulated_without_the_outcome_have_scores_of_mean_zero(module, factory):
    """E[d/dtheta l(theta; z)] = 0 when z is drawn at theta: simulation and likelihood are one distribution."""
    task = build(module, factory)
    draw = draws_of(task, 1, seed=1) / 2
    arguments = inspect.signature(task.model).parameters
    inputs = {name: column for name, column in task.data.items() if arguments[name].default is not None}
    outcomes = task.data.keys() - inputs.keys()
    rows = {"rows": task.size} if "rows" in arguments else {}
    latents = {name: value[0] for name, value in task.constrain(draw).items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trace = poutine.trace(poutine.condition(task.model, data=latents)).get_trace(**inputs, **rows)
    simulated = {name: trace.nodes[name]["value"] for name in outcomes}
    assert outcomes
    assert all(simulated[name].shape == task.data[name].shape for name in outcomes)
    columns = inputs | {name: value.to(task.data[name].dtype) for name, value in simulated.items()}

    def block_sums(draw):
        per_row = task.log_likelihood(columns, draw[None])[0]
        return torch.stack([block.sum() for block in per_row.tensor_split(BLOCKS)])

    score = jacobian(block_sums, draw[0])
    assert (score != 0).any(0).all()
    assert (score.mean(0) / score.std(0) * BLOCKS**0.5).abs().max() < 4.5


@pytest.mark.parametrize("module", EXACT)
def test_exact_is_the_maximum_and_curvature_of_the_weighted_log_posterior(module):
    """The log-posterior is quadratic, so one Newton step from anywhere by autograd ends at its mean."""
    task, exact = build(module), importlib.import_module(f"models.{module}").exact
    rows = first(task, 25)
    weight = torch.rand(25, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3

    def log_posterior(draw):
        return task.log_prior(draw[None])[0] + (weight * task.log_likelihood(rows, draw[None])[0]).sum()

    mean, covariance = exact(**rows, weight=weight)
    for draw in draws_of(task, 2):
        precision = -hessian(log_posterior, draw)
        step = torch.linalg.solve(precision, jacobian(log_posterior, draw))
        torch.testing.assert_close(torch.linalg.inv(precision), covariance, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(draw + step, mean, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("module", EXACT)
def test_exact_counts_a_row_of_weight_k_as_k_rows(module):
    task, exact = build(module), importlib.import_module(f"models.{module}").exact
    rows, times = first(task, 6), torch.tensor([1, 3, 2, 1, 5, 4])
    repeated = exact(**{name: column.repeat_interleave(times, 0) for name, column in rows.items()})
    torch.testing.assert_close(exact(**rows, weight=times), repeated, rtol=1e-10, atol=1e-12)


def test_one_row_holds_the_posterior_of_a_gaussian_mean():
    x = build("gaussian_mean").data["x"]
    full, one = gaussian_mean.exact(x), gaussian_mean.exact(x.mean(0, keepdim=True), weight=[len(x)])
    assert 0 <= gaussian_mean.kl(one, full) < 1e-20


@pytest.mark.parametrize("module", EXACT)
def test_kl_is_the_textbook_one_in_both_directions(module):
    task, exact = build(module), importlib.import_module(f"models.{module}").exact
    p, q = exact(**first(task, 30)), exact(**first(task, 20))
    normal_p, normal_q = (torch.distributions.MultivariateNormal(*moments) for moments in (p, q))
    torch.testing.assert_close(gaussian_mean.kl(p, q), torch.distributions.kl_divergence(normal_p, normal_q))
    torch.testing.assert_close(gaussian_mean.kl(q, p), torch.distributions.kl_divergence(normal_q, normal_p))


def test_kl_keeps_its_digits_near_zero():
    mean, identity, tiny = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64), 1e-6
    near_zero = gaussian_mean.kl((mean, (1 + tiny) * identity), (mean, identity))
    torch.testing.assert_close(float(near_zero), 3 * tiny**2 / 4 * (1 - 2 * tiny / 3), rtol=1e-8, atol=0.0)


def test_poisson_rows_are_the_rand_visits():
    data = build("poisson_regression").data
    assert data["x"].shape == (20_190, 10)
    torch.testing.assert_close(data["x"].mean(0), torch.eye(10, dtype=torch.float64)[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(data["x"][:, 1:].std(0, correction=0), torch.ones(9, dtype=torch.float64))
    assert data["y"].min() == 0
    assert torch.equal(data["y"], data["y"].round())
