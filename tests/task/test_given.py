"""Every public verb says in one line what it was given in place of a task, a set or a number."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd.networks import Network, student


def model(x):
    theta = pyro.sample("theta", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(theta, 1.0).to_event(1), obs=x)


ROWS = {"x": torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)}
TASK = bayesdd.Task(model, ROWS)
SET = bayesdd.Distilled({"x": ROWS["x"][:2]}, torch.tensor([10.0, 20.0]))

CALLS = {
    "distill a model": (lambda: bayesdd.distill(model, ROWS), ["distill", "'model'", "bayesdd.Task(model, data)"]),
    "distill rows": (lambda: bayesdd.distill(ROWS, 2), ["distill", "dict", "bayesdd.Task"]),
    "distill a list of models": (lambda: bayesdd.distill([TASK, model], 2), ["part 1", "'model'"]),
    "rows for size": (lambda: bayesdd.distill(TASK, ROWS), ["size=", "bayesdd.Task(model, data)"]),
    "tolerance for size": (lambda: bayesdd.distill(TASK, 0.01), ["size=", "0.01", "tolerance=..."]),
    "seed for tolerance": (lambda: bayesdd.distill(TASK, 2, 0), ["tolerance=", "third argument", "0"]),
    "text for tolerance": (lambda: bayesdd.distill(TASK, tolerance="low"), ["tolerance=", "'low'"]),
    "init by path": (lambda: bayesdd.distill(TASK, 2, init="d.nc"), ["init", "'d.nc'", "Distilled.from_netcdf"]),
    "init a task": (lambda: bayesdd.distill(TASK, 2, init=TASK), ["init", "Task"]),
    "student a model": (lambda: bayesdd.distill(TASK, 2, student=model), ["student=", "'model'"]),
    "seed": (lambda: bayesdd.distill(TASK, 2, seed=1.5), ["seed=", "1.5"]),
    "seed as text": (lambda: bayesdd.distill(TASK, 2, seed="1"), ["seed=", "'1'"]),
    "memory": (lambda: bayesdd.distill(TASK, 2, memory=0), ["memory=", "bytes", "0"]),
    "certify the other way round": (lambda: bayesdd.certify(SET, TASK), ["certify", "the task stands first"]),
    "certify by path": (lambda: bayesdd.certify(TASK, "d.nc"), ["certify", "'d.nc'", "Distilled.from_netcdf"]),
    "certify seed": (lambda: bayesdd.certify(TASK, SET, seed=None), ["certify", "seed=", "None"]),
    "certify tolerance": (lambda: bayesdd.certify(TASK, SET, tolerance=-1), ["certify", "tolerance=", "-1"]),
    "certify memory": (lambda: bayesdd.certify(TASK, SET, memory=-1), ["certify", "memory="]),
    "sample a model": (lambda: bayesdd.sample(model, SET), ["sample", "'model'"]),
    "draws for a set": (lambda: bayesdd.sample(TASK, 1000), ["sample", "distilled set", "1000"]),
    "sample by path": (lambda: bayesdd.sample(TASK, "d.nc"), ["sample", "'d.nc'", "Distilled.from_netcdf"]),
    "half draws": (lambda: bayesdd.sample(TASK, SET, draws=2.5), ["draws=", "2.5"]),
    "no chains": (lambda: bayesdd.sample(TASK, SET, chains=0), ["chains=", "0"]),
    "sample seed": (lambda: bayesdd.sample(TASK, SET, seed=0.1), ["seed=", "0.1"]),
    "method by name": (lambda: bayesdd.sample(TASK, SET, method="nuts"), ["method=", "'nuts'", "inference"]),
    "predict a model": (lambda: bayesdd.predict(model, None, ROWS), ["predict", "'model'"]),
    "predict by path": (lambda: bayesdd.predict(TASK, "p.nc", {}), ["'p.nc'", "posterior.read"]),
    "predict seed": (lambda: bayesdd.predict(TASK, None, {}, seed="a"), ["seed=", "'a'"]),
    "weighted without a set": (lambda: bayesdd.weighted(TASK, ROWS), ["weighted", "dict"]),
    "weighted of a model": (lambda: bayesdd.weighted(model, SET), ["weighted", "'model'"]),
    "union of one": (lambda: bayesdd.union(SET), ["union", "list"]),
    "union of paths": (lambda: bayesdd.union(["a.nc", "b.nc"]), ["part 0", "'a.nc'", "Distilled.from_netcdf"]),
    "no target": (lambda: bayesdd.distill([], 2), ["empty list"]),
}


@pytest.mark.parametrize("name", CALLS)
def test_misuse_is_one_line(name):
    call, words = CALLS[name]
    with pytest.raises(bayesdd.Refusal) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_the_objective_that_networks_need_is_asked_for_at_once():
    x = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None]
    task = student({"x": x, "y": x[:, 0]}, network=Network((0.0,), (1.0,), (3,)), noise=0.1)
    with pytest.raises(bayesdd.Refusal, match=r"network .* not identified.*function_space"):
        bayesdd.distill(task, 4, progress=False)


def test_a_size_that_cannot_do_is_named_before_the_search(monkeypatch):
    said = []
    monkeypatch.setattr("bayesdd.distillation._distill.solved", lambda *_: said.append("searched") or 1 / 0)
    wide = bayesdd.Task(linear, {"x": torch.eye(8, dtype=torch.float64).repeat(20, 1), "y": torch.ones(160)})
    with pytest.warns(bayesdd.CertificateWarning, match=r"Take size=8 or more"), pytest.raises(ZeroDivisionError):
        bayesdd.distill(wide, 3, progress=False)
    assert said == ["searched"]


def linear(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([8]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)
