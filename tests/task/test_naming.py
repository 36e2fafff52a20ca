"""Names along axes: as PyMC's dims and coords, in posteriors, rows and corrected moments; wrong ones are refused."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesdd import Task, inference, sample
from bayesdd.certificate.estimates import corrected

X = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ROWS = {"age": X[:, 0], "bmi": X[:, 1], "y": X.sum(1)}
SELECT = {"x": ["age", "bmi"], "y": "y"}
NAMES = {"dims": {"w": ["covariate"], "twice": "covariate"}, "coords": {"covariate": ["age", "bmi"]}}


def model(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    pyro.deterministic("twice", 2 * w)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def test_names_come_out_everywhere():
    task = Task(model, ROWS, columns=SELECT, **NAMES)
    idata = sample(task, draws=5, chains=2, method=inference.laplace)
    for site in ("w", "twice"):
        assert idata.posterior[site].dims == ("chain", "draw", "covariate")
    assert idata.posterior["covariate"].values.tolist() == ["age", "bmi"]
    assert idata.constant_data["x_dim_0"].values.tolist() == ["age", "bmi"]
    table = corrected(task.constrain(X), torch.zeros(20), torch.zeros(20), task.names)
    assert list(table.index) == ["w[age]", "w[bmi]", "twice[age]", "twice[bmi]"]
    assert task.with_data({"x": X, "y": X[:, 0]}).names == task.names


def test_an_array_column_shares_its_names():
    task = Task(model, ROWS, columns=SELECT, dims={"w": ["covariate"], "x": ["covariate"]})
    assert task.coords == {"covariate": ["age", "bmi"]}


@pytest.mark.parametrize(
    ("dims", "coords", "words"),
    [
        ({"v": ["covariate"]}, {}, ["'v'", "'twice'", "'w'"]),
        ({"w": ["a", "b"]}, {}, ["'w'", "['a', 'b']", "(2,)"]),
        ({"w": []}, {}, ["'w'", "(2,)"]),
        ({"w": ["draw"]}, {}, ["'w'", "'draw'"]),
        ({"w": ["covariate"]}, {"covariate": ["age"]}, ["'covariate'", "length 2", "names 1"]),
        ({"w": ["w"]}, {}, ["'w'", "rename"]),
        (["w"], {}, ["dims=", "mappings"]),
        ({}, ["age"], ["coords=", "mappings"]),
        ({"w": 3}, {}, ["lists of names", "3"]),
    ],
)
def test_wrong_names_are_refused_in_one_line(dims, coords, words):
    with pytest.raises(ValueError) as caught:
        Task(model, {"x": X, "y": X[:, 0]}, dims=dims, coords=coords)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)
