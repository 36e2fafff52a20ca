"""The contract of every public function of ``bayesdd.baselines``; what the methods without a likelihood promise."""

import functools
import inspect
import math
import warnings
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd import baselines
from bayesdd.baselines import kmeans, stratified
from bayesdd.data.certificate import CertificateWarning
from bayesdd.task.provenance import check
from models import categorical_regression, gaussian_mean, logistic_regression

METHODS = {name: f for name, f in vars(baselines).items() if inspect.isfunction(f)}
HELPERS = {"_moving", "_parts", "_training"}  # files that hold no method
SIZE = 12

# Settings under which a method takes about a second: add yours here.
QUICK: dict[str, dict[str, object]] = {
    "coreset_mcmc": {"iterations": 300},
    "distribution_matching": {"iterations": 50},
    "gradient_matching": {"iterations": 50},
    "kernel_ridge": {"iterations": 50},
    "psvi": {"iterations": 60},
    "sparse_vi": {"steps": 20},
    "trajectory_matching": {"iterations": 50, "length": 20, "ahead": 5, "steps": 5},
    "unrolling": {"iterations": 50, "steps": 5},
}
# Methods that promise a total weight near N.
KEEPS_TOTAL = {"kmeans", "leverage", "stratified", "uniform"}
# Methods whose result does not depend on the seed.
SEEDLESS: set[str] = set()


@functools.cache
def task_of(name):
    if name == "logistic":
        return logistic_regression.task(rows=200, dim=3)
    if name == "gaussian":
        return gaussian_mean.task(rows=100, dim=2)
    return categorical_regression.task(rows=150, dim=2)


@functools.cache
def made(method, name, seed=0):
    """The method's result, or the message with which it refuses the task."""
    try:
        return METHODS[method](task_of(name), SIZE, seed=seed, **QUICK.get(method, {}))
    except ValueError as error:
        assert method in str(error) and "\n" not in str(error), f"a refusal names the method in one line: {error}"
        return str(error)


def result(method, name, seed=0):
    found = made(method, name, seed)
    if isinstance(found, str):
        pytest.skip(found)
    return found


# One process a method: what it made is kept for all tests.
every_method = pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.xdist_group(f"baselines: {name}")) for name in METHODS]
)
every_task = pytest.mark.parametrize("name", ["logistic", "gaussian", "categorical"])


def test_one_file_a_method_named_like_it():
    files = {path.stem for path in Path(baselines.__path__[0]).glob("_[a-z]*.py")}
    assert files - HELPERS == {f"_{name}" for name in METHODS}


@every_method
def test_signature_and_source(method):
    (task, size, seed, *settings) = inspect.signature(METHODS[method]).parameters.values()
    assert (task.name, size.name, seed.name) == ("task", "size", "seed")
    assert all(p.kind is p.KEYWORD_ONLY for p in (seed, *settings))
    assert all(p.default is not p.empty for p in settings)
    assert "Source:" in (inspect.getmodule(METHODS[method]).__doc__ or "")


@every_method
def test_takes_one_of_the_tasks_at_least(method):
    assert any(not isinstance(made(method, name), str) for name in ("logistic", "gaussian"))


@every_task
@every_method
def test_rows_and_weights(method, name):
    task, found = task_of(name), result(method, name)
    assert isinstance(found, bayesdd.Distilled) and found.certificate is None
    assert 1 <= len(found) <= SIZE
    assert bool((torch.isfinite(found.weight) & (found.weight > 0)).all())
    check(found, task)  # columns, shapes and types are the task's
    for column, real in task.data.items():
        values = found.data[column]
        assert bool(torch.isfinite(values).all())
        constant = (real == real[:1]).flatten(1).all(0) if real.dim() > 1 else (real == real[0]).all()[None]
        assert torch.equal(
            values.reshape(len(values), -1)[:, constant],
            real.reshape(len(real), -1)[:1, constant].expand(len(values), -1),
        )
        if task.column_kinds[column].name == "fixed":
            assert set(values.tolist()) <= set(real.tolist())
    assert found.provenance["objective"] and found.provenance["rows"] == task.size
    assert found.provenance["size"] == len(found)


@pytest.mark.parametrize("method", sorted(KEEPS_TOTAL & METHODS.keys()))
@every_task
def test_total_weight_is_near_the_number_of_rows(method, name):
    ratio = float(result(method, name).weight.sum()) / task_of(name).size
    assert 1 / 3 < ratio < 3


@every_method
def test_the_seed_decides_and_nothing_else(method):
    first = result(method, "logistic")
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    again = METHODS[method](task_of("logistic"), SIZE, seed=0, **QUICK.get(method, {}))
    assert torch.equal(states[0], torch.get_rng_state()) and np.array_equal(states[1], np.random.get_state()[1])
    assert _same(first, again)
    if method not in SEEDLESS:
        assert not _same(first, result(method, "logistic", seed=1))


def _same(a, b):
    """Equal up to rounding: a model that was recorded meanwhile rounds the last digit of a sum otherwise."""
    same = functools.partial(torch.allclose, rtol=1e-9, atol=1e-12)
    return len(a) == len(b) and same(a.weight, b.weight) and all(same(a.data[name], b.data[name]) for name in a.data)


@pytest.mark.parametrize("name", ["logistic", "gaussian"])
@every_method
def test_certify_says_how_good_it_is(method, name):
    certificate = bayesdd.certify(task_of(name), result(method, name))
    assert certificate.kl_reverse > -1e-9 and certificate.kl_forward > -1e-9  # k-means is exact on the Gaussian mean


@pytest.mark.parametrize("size", [-3, 0, 201])
@every_method
def test_impossible_sizes_are_refused_in_one_line(method, size):
    with pytest.raises(ValueError, match=rf"^[^\n]*size[^\n]*{size}[^\n]*$"):
        METHODS[method](task_of("logistic"), size, seed=0, **QUICK.get(method, {}))


# ---- rows without a likelihood: stratified, k-means


def test_strata_keep_their_weight():
    task = task_of("logistic")
    for method in (stratified, kmeans):
        found = method(task, SIZE, seed=3)
        assert math.isclose(float(found.weight @ found.data["y"]), float(task.data["y"].sum()))
        assert math.isclose(float(found.weight.sum()), task.size)


def test_kmeans_holds_the_mean_of_the_rows_and_with_it_the_posterior_of_a_gaussian_mean():
    task = task_of("gaussian")
    for size in (1, 7, 40, task.size):
        found = kmeans(task, size, seed=0)
        distilled = gaussian_mean.exact(found.data["x"], found.weight)
        assert float(gaussian_mean.kl(distilled, gaussian_mean.exact(task.data["x"]))) < 1e-20
    assert torch.equal(found.weight, torch.ones_like(found.weight))


def test_kmeans_finds_separated_clusters_within_labels():
    generator = torch.Generator().manual_seed(0)
    block = torch.arange(240) % 6
    label = (block % 2).double()
    x = torch.stack([torch.ones(240), 20.0 * (block // 2)], 1).double()
    x[:, 1] += 0.1 * torch.randn(240, generator=generator, dtype=torch.float64)
    found = kmeans(bayesdd.Task(logistic_regression.model, {"x": x, "y": label}), 6, seed=0)
    assert torch.equal(found.weight, torch.full((6,), 40.0, dtype=torch.float64))
    centres = sorted(zip(found.data["y"].tolist(), found.data["x"][:, 1].tolist(), strict=True))
    expected = sorted((float(b % 2), float(x[block == b, 1].mean())) for b in range(6))
    np.testing.assert_allclose(centres, expected, rtol=1e-12)


def counts(y=None, *, rows=1):
    rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", rows if y is None else len(y)):
        return pyro.sample("y", dist.Poisson(rate), obs=y)


def test_the_mean_count_of_equal_covariates_loses_nothing():
    y = torch.poisson(torch.full((60,), 3.0), generator=torch.Generator().manual_seed(0)).double()
    task = bayesdd.Task(counts, {"y": y})
    found, draws = kmeans(task, 5, seed=0), torch.linspace(-1, 2, 9, dtype=torch.float64)[:, None]
    assert len(found) == 1
    ratio = task.log_likelihood(task.data, draws).sum(1) - task.log_likelihood(found.data, draws) @ found.weight
    torch.testing.assert_close(ratio - ratio[0], torch.zeros(9, dtype=torch.float64), rtol=0, atol=1e-10)


def gappy(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)), pyro.poutine.mask(mask=~torch.isnan(x[:, 0])):
        pyro.sample("x0", dist.Normal(mean[0], 1.0), obs=x[:, 0].nan_to_num())


@pytest.mark.parametrize("method", [stratified, kmeans])
def test_patterns_of_missing_entries_stay(method):
    x = torch.randn(80, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:20, 0] = math.nan
    found = method(bayesdd.Task(gappy, {"x": x}), 8, seed=0)
    missing = found.data["x"][:, 0].isnan()
    assert math.isclose(float(found.weight[missing].sum()), 20) and not bool(found.data["x"][:, 1].isnan().any())


def test_kmeans_takes_coinciding_rows_and_soft_classes():
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64).repeat(30, 1)
    labels = torch.arange(60) // 2 % 3
    kinds = {"y": bayesdd.kinds.soft(3)}
    model = functools.partial(categorical_regression.model, classes=3)
    found = kmeans(bayesdd.Task(model, {"x": x, "y": labels}, kinds=kinds), 30, seed=0)
    assert len(found) == 6 and torch.equal(found.weight, torch.full((6,), 10.0, dtype=torch.float64))
    assert torch.equal(found.data["y"].sum(0), torch.full((3,), 2.0, dtype=torch.float64))


@functools.cache
def wide():
    """Five directions that 2,000 rows inform by more than a nat each."""
    return logistic_regression.task(rows=2000, dim=5)


@every_method
def test_fewer_rows_than_directions_warn_and_are_not_certified(method):
    with pytest.warns(CertificateWarning, match=r"2 rows cannot come closer than .* nats.*Take size=5"):
        found = METHODS[method](wide(), 2, seed=0, **QUICK.get(method, {}))
    assert not bayesdd.certify(wide(), found, tolerance=0.05).ok


@pytest.mark.parametrize(
    "objective", [bayesdd.objectives.reverse_kl, bayesdd.objectives.fisher, bayesdd.objectives.bilevel]
)
def test_own_objectives_warn_of_too_few_rows(objective):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = bayesdd.distill(wide(), 2, objective=objective, progress=False)
    said = [str(warning.message) for warning in caught]
    assert any("2 rows cannot come closer than" in line for line in said)
    assert any(line.startswith("not certified") for line in said) and not found.certificate.ok
