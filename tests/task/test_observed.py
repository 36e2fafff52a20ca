"""Which column a site observes: what its value is computed from, never what it merely equals."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesdd import kinds
from bayesdd.task import Task
from bayesdd.task.observed import following

N = 12
Z = torch.randn(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ONE = torch.ones(N, dtype=torch.float64)
COUNTS = torch.arange(N) % 4
PARTLY = torch.where(torch.arange(N) % 5 == 1, math.nan, Z)


def site(value):
    """A model with one site, which observes what ``value`` makes of the columns."""

    def model(**columns):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(columns["y"])):
            noise = dist.Normal(mean, 1.0).expand([len(columns["y"])]).mask(~torch.isnan(columns["y"]))
            pyro.sample("y", noise, obs=value(**columns))

    return model


SEEN = {
    "itself": (lambda y: y, Z),
    "filled": (lambda y: y.nan_to_num(), PARTLY),
    "filled by a number that occurs": (lambda y: torch.where(y.isnan(), Z[0], y), PARTLY),
    "cast": (lambda y: y.double(), COUNTS),
    "single precision": (lambda y: y.float(), Z),
    "copied": (lambda y: y.clone() + 0.0, Z),
    "constant column": (lambda y: y, ONE),
    "flag of a flag": (lambda y: (y > 0).double(), (Z > 0).double()),
}


@pytest.mark.parametrize("name", SEEN)
def test_values_computed_from_a_column_observe_it(name):
    value, column = SEEN[name]
    (found,) = Task(site(value), {"y": column}).structure.observed
    assert found.column == "y" and found.elements == (0,)


DERIVED = {
    "ones": (lambda y: torch.ones(len(y)), ONE),
    "indicator": (lambda y: (y > 0).double(), COUNTS),
    "difference": (lambda y: y - 1.0, Z),
    "logarithm": (lambda y: y.exp().log1p(), Z),
    "part": (lambda y: torch.where(y > 0, y, 0.0), Z),
}


@pytest.mark.parametrize("name", DERIVED)
def test_constants_indicators_and_derived_vectors_observe_none(name):
    value, column = DERIVED[name]
    (found,) = Task(site(value), {"y": column}).structure.observed
    assert found.column is None and found.sources == (() if name == "ones" else ("y",))


def test_a_column_of_ones_beside_a_site_that_observes_ones_keeps_its_kind():
    def model(x, time, event):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with pyro.plate("data", len(x)):
            rate = (x @ w).exp()
            pyro.sample("time", dist.Exponential(rate).mask(event == 1), obs=time)
            pyro.sample("alive", dist.Bernoulli((-rate * time).exp()).mask(event == 0), obs=torch.ones_like(time))

    rows = {"x": torch.stack([ONE, Z], 1), "time": Z.exp(), "event": torch.arange(N) % 2}
    task = Task(model, rows)
    assert [o.column for o in task.structure.observed] == ["time", None]
    assert task.column_kinds == {"x": kinds.real, "time": kinds.positive, "event": kinds.fixed}


def test_a_site_observes_the_part_of_a_column_that_its_parameters_do_not_use():
    def model(z):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(z)):
            pyro.sample("first", dist.Normal(0.0, 1.0), obs=z[:, 0])
            pyro.sample("rest", dist.Normal(a * z[:, :-1], 1.0).to_event(1), obs=z[:, 1:])
            pyro.sample("last", dist.Normal(a * z[:, 1], 1.0), obs=z[:, -1])

    task = Task(model, {"z": torch.stack([Z, Z + 1, Z.cos()], 1)})
    found = {o.name: (o.column, o.elements) for o in task.structure.observed}
    assert found == {"first": ("z", (0,)), "rest": (None, ()), "last": ("z", (2,))}


def test_elements_that_no_site_observes_do_not_take_the_kind_of_those_that_one_does():
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=w * x[:, 0]), obs=x[:, 1])

    task = Task(model, {"x": torch.stack([Z, (Z > 0).double()], 1)})
    assert task.structure.observed[0].elements == (1,)
    assert task.column_kinds["x"] == kinds.fixed


def test_of_two_equal_columns_the_one_that_is_computed_with_is_observed():
    model = site(lambda y, other: other)
    assert Task(model, {"y": Z, "other": Z}).structure.observed[0].column == "other"


def test_a_group_that_moves_out_of_range_is_no_hindrance():
    def model(group, y):
        level = pyro.sample("level", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(level[group], 1.0), obs=y)

    (found,) = Task(model, {"group": torch.zeros(N, dtype=torch.int64), "y": Z}).structure.observed
    assert found.column == "y"


def test_entries_are_replaced_by_others_that_occur():
    column = torch.tensor([[2.0, 0.0, 5.0], [7.0, 1.0, 5.0], [math.nan, 0.0, 5.0], [2.0, 1.0, 5.0]])
    expected = torch.tensor([[7.0, 1.0, 6.0], [2.0, 0.0, 6.0], [math.nan, 1.0, 6.0], [7.0, 0.0, 6.0]])
    torch.testing.assert_close(following(column), expected, equal_nan=True, rtol=0, atol=0)
    assert torch.equal(following(torch.tensor([3, 1, 3])), torch.tensor([1, 3, 1]))
