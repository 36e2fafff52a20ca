"""Kinds: maps that invert each other, and the kind that a site's support calls for."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from bayesdd import kinds
from bayesdd.task import Task
from bayesdd.task.program import Observation


def spread(low, high):
    return torch.linspace(low, high, 9, dtype=torch.float64)


INSIDE = {
    kinds.real: spread(-3, 3),
    kinds.positive: spread(0.1, 9),
    kinds.interval(-1, 4): spread(-0.9, 3.9),
    kinds.binary: spread(0.1, 0.9),
    kinds.count: spread(0.5, 20),
    kinds.trials: spread(0.1, 0.9),
}


@pytest.mark.parametrize("kind", INSIDE, ids=repr)
def test_maps_invert_each_other(kind):
    torch.testing.assert_close(kind.from_free(kind.to_free(INSIDE[kind])), INSIDE[kind])


EDGES = {kinds.positive: [0.0], kinds.interval(-1, 4): [-1.0, 4.0], kinds.binary: [0.0, 1.0], kinds.count: [0.0]}


@pytest.mark.parametrize("kind", EDGES, ids=repr)
def test_edges_start_inside_where_gradients_are_alive(kind):
    free = kind.to_free(torch.tensor(EDGES[kind], dtype=torch.float64)).requires_grad_(True)
    moved = kind.from_free(free)
    (slope,) = torch.autograd.grad(moved.sum(), free)
    assert bool(torch.isfinite(free).all() & (slope.abs() > 0).all())


def test_soft_classes_are_probabilities_near_the_class_and_stay_where_they_are():
    kind = kinds.soft(3)
    labels = torch.tensor([2, 0, 1])
    probability = kind.from_free(kind.to_free(labels))
    torch.testing.assert_close(probability.sum(1), torch.ones(3, dtype=torch.float64))
    assert torch.equal(probability.argmax(1), labels) and bool((probability > 0).all())
    assert probability.shape == (3, 3) and kind.classes == 3
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        kinds.soft(1)


REALS, WHOLE = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
INFERRED = [
    (dist.Normal(0.0, 1.0), REALS, kinds.real),
    (dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), torch.zeros(4, 2).double(), kinds.real),
    (dist.Normal(torch.zeros(2), 1.0).to_event(1), torch.zeros(4, 2).double(), kinds.real),
    (dist.Gamma(1.0, 1.0), REALS, kinds.positive),
    (dist.LogNormal(0.0, 1.0), REALS, kinds.positive),
    (dist.Exponential(torch.ones(4)), REALS, kinds.positive),
    (dist.Bernoulli(0.5), REALS, kinds.binary),
    (dist.Bernoulli(torch.ones(3) / 2).to_event(1), torch.zeros(4, 3).double(), kinds.binary),
    (dist.Poisson(1.0), REALS, kinds.count),
    (dist.NegativeBinomial(2.0, 0.5), REALS, kinds.count),
    (dist.Binomial(5, 0.5), REALS, kinds.trials),
    (dist.Categorical(torch.ones(3)), WHOLE, kinds.fixed),
    (dist.Geometric(0.5), WHOLE, kinds.fixed),
    (dist.Dirichlet(torch.ones(3)), torch.ones(4, 3).double() / 3, kinds.fixed),
]


@pytest.mark.parametrize("fn, column, kind", INFERRED, ids=lambda value: type(value).__name__)
def test_the_observing_site_decides(fn, column, kind):
    base = fn.base_dist if isinstance(fn, dist.Independent) else fn
    site = Observation("y", fn.support, "y", type(base).__name__)
    assert kinds.infer({"y": column}, (site,), {})["y"] == kind


def test_supports_with_bounds_of_their_own_keep_them():
    for fn in (dist.Beta(1.0, 1.0), dist.Uniform(-2.0, 3.0), dist.Pareto(2.0, 1.0)):
        site = Observation("y", fn.support, "y", type(fn).__name__)
        kind = kinds.infer({"y": REALS}, (site,), {})["y"]
        moved = kind.from_free(spread(-2, 2))
        assert bool(fn.support.check(moved).all()) and bool((moved.diff() > 0).all())
        torch.testing.assert_close(kind.to_free(moved), spread(-2, 2))


def test_unobserved_columns_follow_their_type_and_the_user_overrules():
    columns = {"x": REALS, "g": WHOLE, "z": REALS}
    found = kinds.infer(columns, (), {"z": kinds.positive})
    assert found == {"x": kinds.real, "g": kinds.fixed, "z": kinds.positive}


def test_a_column_of_two_sites_of_different_kinds_is_kept():
    sites = (
        Observation("a", constraints.real, "y", "Normal"),
        Observation("b", constraints.boolean, "y", "Bernoulli"),
    )
    assert kinds.infer({"y": torch.zeros(4, 2).double()}, sites, {})["y"] is kinds.fixed
    assert kinds.infer({"y": torch.zeros(4, 2).double()}, sites[:1] * 2, {})["y"] is kinds.real


@pytest.mark.parametrize(
    "given, words",
    [
        ({"w": kinds.real}, "column 'w', but the data have"),
        ({"x": "real"}, "one of bayesdd.kinds, got 'real'"),
        ({"x": kinds.soft(3)}, "integer classes, but column 'x'"),
        ({"y": kinds.soft(3)}, "labels up to 3"),
        ({"g": kinds.real}, "integers"),
    ],
)
def test_kinds_that_do_not_fit_are_refused_in_one_line(given, words):
    columns = {"x": REALS, "y": torch.arange(4), "g": WHOLE}
    site = Observation("y", dist.Categorical(torch.ones(4)).support, "y", "Categorical")
    with pytest.raises(ValueError, match=words) as caught:
        kinds.infer(columns, (site,), given)
    assert "\n" not in str(caught.value)


def test_a_column_without_a_gradient_is_kept_unless_the_user_says_otherwise():
    def model(group, y):
        level = pyro.sample("level", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(level[group.long()], 1.0), obs=y)

    rows = {"group": torch.tensor([0.0, 1.0, 0.0, 1.0]), "y": torch.tensor([0.1, 0.9, -0.2, 1.3])}
    assert Task(model, rows).column_kinds == {"group": kinds.fixed, "y": kinds.real}
    assert Task(model, rows, kinds={"group": kinds.real}).column_kinds["group"] is kinds.real
