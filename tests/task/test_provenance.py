"""Which sets belong to a task, which fit another one, and what is said of the others."""

import dataclasses
import math
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesdd import Distilled, Task, certify, sample, weighted
from bayesdd.inference import laplace
from bayesdd.task.provenance import check, fitting, provenance_of

N = 40
X = torch.randn(N, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(N) % 4


def counts(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Poisson((x @ w).exp()), obs=y)


def others(y=None, size=N):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", size if y is None else len(y)):
        return pyro.sample("y", dist.Poisson(rate), obs=y)


def labels(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2, 3]).to_event(2))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Categorical(logits=x @ w), obs=y)


TASK = Task(counts, {"x": X, "y": Y})
OWN = provenance_of(TASK, [TASK], 0, 3, "none")


def few(**changes):
    weight = torch.tensor([2.0, 1.0, 3.0])
    return dataclasses.replace(Distilled({"x": X[:3], "y": Y[:3] + 0.25}, weight, provenance=OWN), **changes)


def test_its_own_set_belongs():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = check(few(), TASK)
    assert list(found.data) == ["x", "y"] and all(torch.equal(found.data[k], few().data[k]) for k in found.data)


def test_a_changed_model_is_warned_of_where_its_rows_are_used_and_answered_by_certify():
    changed = few(provenance=OWN | {"model_hash": "another"})
    with pytest.warns(UserWarning, match="^the source of .*counts has changed[^\n]*$"):
        check(changed, TASK)
    assert certify(TASK, changed).kl_reverse > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"provenance": OWN | {"sites": {"w": [3]}}}, ["site 'w'", "(3,)", "(2,)"]),
        ({"provenance": OWN | {"sites": {"w": [2], "tau": []}}}, ["site 'tau'", "absent"]),
        ({"provenance": OWN | {"sites": {}}}, ["site 'w'", "absent"]),
        ({"data": {"x": X[:3]}}, ["lacks column 'y'"]),
        ({"data": {"x": X[:3, :1], "y": Y[:3]}}, ["column 'x'", "(1,)", "(2,)"]),
        ({"data": {"x": X[:3], "y": Y[:3], "z": Y[:3]}}, ["column 'z'", "absent"]),
        ({"data": {"x": X[:3], "y": Y[:3] - 1}, "provenance": {}}, ["site 'y'", "-1.0", "row 0", "support"]),
        ({"data": {"x": X[:3], "y": Y[:3] - 0.5}, "provenance": {}}, ["site 'y'", "-1.0", "row 0", "support"]),
    ],
)
def test_another_set_is_refused_in_one_line(changes, words):
    with pytest.raises(ValueError) as caught:
        check(few(**changes), TASK)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in ["counts", *words]), message


def test_whole_numbers_are_asked_for_where_the_task_has_them():
    task = Task(labels, {"x": X, "y": Y % 3})
    for wrong in (0.5, math.nan):
        with pytest.raises(ValueError, match="column 'y' holds whole numbers in the task, but the set has"):
            fitting(Distilled({"x": X[:2], "y": torch.tensor([1.0, wrong])}, torch.ones(2)), task)
    assert fitting(Distilled({"x": X[:2], "y": torch.tensor([1.0, 2.0])}, torch.ones(2)), task).data["y"].dtype == (
        torch.int64
    )
    soft = Distilled({"x": X[:2], "y": torch.tensor([[0.2, 0.8], [1.0, 0.0]])}, torch.ones(2), soft={"y": 2})
    assert fitting(soft, task).soft == {"y": 2}


def test_soft_classes_fit_a_column_of_floats_as_hard_rows():
    soft = Distilled({"x": X[:2], "y": torch.tensor([[0.25, 0.75], [1.0, 0.0]])}, torch.ones(2), soft={"y": 2})
    found = fitting(soft, TASK)
    assert found.data["y"].tolist() == [0.0, 1.0, 0.0] and found.weight.tolist() == [0.25, 0.75, 1.0]


def test_another_tasks_certificate_is_the_kl_of_its_own_posteriors():
    """Gamma(2 + sum w y, 1 + sum w) against Gamma(2 + sum y, 1 + N), whose KL is known."""
    task = Task(others, {"y": Y})
    rows = few()
    found = certify(task, rows, seed=3)
    a, b = 2 + float(rows.weight @ rows.data["y"]), 1 + float(rows.weight.sum())
    small, full = (torch.distributions.Gamma(*map(torch.tensor, at)) for at in ((a, b), (2.0 + int(Y.sum()), 1.0 + N)))
    kl = float(torch.distributions.kl_divergence(small, full))
    assert abs(found.kl_reverse - kl) < 5 * found.kl_reverse_se and not found.ok
    with pytest.raises(ValueError, match="latent site 'w' is of shape"):
        sample(task, rows)


def test_a_set_made_by_hand_of_arrays_works_everywhere():
    weight = np.array([5.0, 15.0, 20.0])
    rows = Distilled({"y": np.array([0, 1, 3])}, weight)
    task = Task(others, {"y": Y})
    draws = sample(task, rows, draws=2000, chains=2, method=laplace, device="cpu").posterior["rate"].values
    a, b = 2 + 75.0, 1 + 40.0
    assert abs(draws.mean() - a / b) < 5 * math.sqrt(a) / b / math.sqrt(2000)
    assert certify(task, rows).half_variance > 0
    model = pyro.poutine.condition(weighted(task, rows), {"rate": torch.tensor(1.5)})
    found = pyro.poutine.trace(model).get_trace().log_prob_sum()
    rate = torch.tensor(1.5).double()
    y = torch.tensor([0.0, 1.0, 3.0]).double()
    expected = dist.Gamma(2.0, 1.0).log_prob(rate) + torch.tensor(weight) @ dist.Poisson(rate).log_prob(y)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0.0)


def wards(ward, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    with pyro.plate("data", len(ward)):
        return pyro.sample("y", dist.Normal(w[ward], 1.0), obs=y)


def test_labels_are_matched_by_name_not_by_code():
    task = Task(wards, {"ward": ["east", "north", "west"] * 4, "y": np.arange(12.0)})
    found = check(Distilled({"ward": ["west", "north"], "y": [0.0, 1.0]}, [1.0, 2.0]), task)
    assert found.data["ward"].tolist() == [2, 1] and found.labels["ward"] == ("east", "north", "west")
    with pytest.raises(ValueError, match="'south', which is none of"):
        check(Distilled({"ward": ["south"], "y": [0.0]}, [1.0]), task)
