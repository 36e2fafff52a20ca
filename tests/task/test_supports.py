"""Bounds and atoms of columns, read off log-likelihoods whose branches are known; sides that keep them."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesdd import kinds
from bayesdd.task import Task
from bayesdd.task.sides import sides
from bayesdd.task.supports import LOOKED_AT

N = 40
Z = torch.randn(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
COUNTS = (torch.arange(N) % 4).double()
COSTS = torch.where(torch.arange(N) % 3 == 0, 0.0, (5 + Z).exp())


def by_row(log_likelihood):
    """A model whose rows have the given log-likelihood ``(mean, column) -> (rows,)``."""

    def model(y):
        mean = pyro.sample("mean", dist.Normal(0.3, 0.5))
        with pyro.plate("data", len(y)):
            pyro.factor("y", log_likelihood(mean, y))

    return model


def kind_of(log_likelihood, column):
    return Task(by_row(log_likelihood), {"y": column}).column_kinds["y"]


def poisson(mean, y):
    return dist.Poisson(mean.exp()).log_prob(y)


ATOMS = {
    "zero inflation": (lambda m, y: torch.where(y == 0, -m.exp() / 2, poisson(m, y)), COUNTS, [(0, 0.0)]),
    "more than none": (lambda m, y: torch.where(y > 0, poisson(m, y), -(m**2)), COUNTS, [(0, 0.0)]),
    "one": (lambda m, y: torch.where(y == 1, -(m**2), poisson(m, y)), COUNTS, [(0, 1.0)]),
    "costs": (lambda m, y: torch.where(y > 0, -((y / 100 - m) ** 2), -(m**2) - 2), COSTS, [(0, 0.0)]),
    "two limits": (
        lambda m, y: torch.where(y <= -1, -(m**2), torch.where(y >= 1, m - 1, -((y - m) ** 2))),
        Z.clamp(-1.0, 1.0),
        [(0, -1.0), (0, 1.0)],
    ),
    "between values": (lambda m, y: -((y - m * (y > 0.25)) ** 2), Z, [(0, 0.25)]),
    "two years": (
        lambda m, y: -((y / 100 - m * ((y > 2001.25) & (y < 2003.5))) ** 2),
        2002 + Z,
        [(0, 2001.25), (0, 2003.5)],
    ),
    "a whole number among others": (
        lambda m, y: torch.where(y == 1, -(m**2), -((y - m) ** 2)),
        torch.where(torch.arange(N) == 7, 1.0, Z),
        [(0, 1.0)],
    ),
    "element": (
        lambda m, y: -((y[:, 0] - m) ** 2) - torch.where(y[:, 1] == 0, m**2, (y[:, 1] - m - 9) ** 2),
        torch.stack([COUNTS, COSTS], 1),
        [(1, 0.0)],
    ),
}


@pytest.mark.parametrize("name", ATOMS)
def test_values_at_which_the_log_likelihood_jumps_are_atoms(name):
    log_likelihood, column, atoms = ATOMS[name]
    assert list(kind_of(log_likelihood, column).atoms) == atoms


SMOOTH = {
    "poisson": (poisson, COUNTS),
    "kink": (lambda m, y: -(y - m).abs() - y.abs(), COUNTS),
    "kink between values": (lambda m, y: -(y - 0.25 - m).abs(), Z),
    "step of some width": (lambda m, y: -m * torch.sigmoid(1e4 * (y - 0.25)), Z),
    "steep": (lambda m, y: -(1e4 * (y - m) ** 2), COUNTS),
    "far": (lambda m, y: -((y - m) ** 2) - 1e8, COUNTS + 1e6),
    "missing": (
        lambda m, y: torch.where(y.isnan(), 0.0, -((y.nan_to_num() - m) ** 2)),
        torch.where(Z > 1, math.nan, Z),
    ),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_log_likelihoods_have_no_atoms(name):
    assert kind_of(*SMOOTH[name]).atoms == ()


def test_an_observed_column_that_the_model_branches_on_keeps_its_kind_and_its_atom():
    def hurdle(y):
        p, rate = pyro.sample("p", dist.Beta(1.0, 1.0)), pyro.sample("rate", dist.Gamma(2.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("any", dist.Bernoulli(p), obs=(y > 0).double())
            with pyro.poutine.mask(mask=y > 0):
                pyro.sample("y", dist.Poisson(rate), obs=y)
                pyro.factor("at least one", -torch.log(-torch.expm1(-rate)))

    kind = Task(hurdle, {"y": COUNTS.long()}).column_kinds["y"]
    assert (kind.name, kind.atoms) == ("count", ((0, 0.0),)) and repr(kind) == "bayesdd.kinds.count held at 0"
    given = Task(hurdle, {"y": COUNTS}, kinds={"y": kinds.positive}).column_kinds["y"]
    assert (given.name, given.atoms) == ("positive", ((0, 0.0),))


def test_a_column_that_jumps_everywhere_is_held_with_a_warning_that_names_it():
    table = torch.randn(4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with pytest.warns(UserWarning, match="jumps at 3 values of column 'y', such as 1.*held fixed"):
        assert kind_of(lambda m, y: -((y + table[y.long().clamp(0, 3)] - m) ** 2), COUNTS) == kinds.fixed


POSITIVE = Z.exp()
BOUNDS = {
    "exposure": (lambda m, y: dist.Poisson(y * m.exp()).log_prob(torch.ones(len(y))), POSITIVE, kinds.positive),
    "root": (lambda m, y: -((y.sqrt() - m) ** 2), POSITIVE, kinds.positive),
    "line": (lambda m, y: -((y - m) ** 2), POSITIVE, kinds.real),
    "count": (poisson, COUNTS, kinds.positive),
    "share": (lambda m, y: m * y.log() + (1 - y).log(), POSITIVE / (1 + POSITIVE), kinds.interval),
    "negative": (lambda m, y: -((y - m) ** 2), Z, kinds.real),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_column_is_positive_where_the_density_ends_at_zero(name):
    log_likelihood, column, kind = BOUNDS[name]
    found = kind_of(log_likelihood, column)
    if kind is kinds.interval:
        assert (found.low, found.high) == (0.0, 1.0)
    else:
        assert found == kind


def test_bounds_hold_by_element_where_only_some_elements_have_them():
    def log_likelihood(mean, y):
        return -((y[:, 0] - mean) ** 2) - (y[:, 1].log() - mean) ** 2

    kind = kind_of(log_likelihood, torch.stack([Z, POSITIVE], 1))
    assert (kind.name, kind.low, kind.high) == ("real", (-math.inf, 0.0), (math.inf, math.inf))


def test_what_the_user_states_is_not_overruled():
    model = by_row(lambda m, y: dist.Poisson(y * m.exp()).log_prob(torch.ones(len(y))))
    assert Task(model, {"y": POSITIVE}, kinds={"y": kinds.real}).column_kinds["y"] == kinds.real


@pytest.mark.parametrize("free", [-40.0, -1.0, 0.0, 2.0, 40.0])
def test_entries_stay_at_their_atom_or_on_their_side(free):
    column = torch.tensor([[-2.0], [-1.0], [0.2], [1.0], [3.0]], dtype=torch.float64)
    found = sides(kinds.Kind("real", lambda v: v, lambda v: v, atoms=((0, -1.0), (0, 1.0))), column)
    moved = found.from_free(torch.full_like(column, free))[:, 0]
    assert found.held[:, 0].tolist() == [False, True, False, True, False]
    assert moved[0] <= -1 <= moved[2] <= 1 <= moved[4]
    torch.testing.assert_close(found.from_free(found.to_free(column))[~found.held], column[~found.held])


def test_gradients_are_finite_on_every_side():
    column = torch.tensor([[-2.0], [0.2], [3.0], [1.0]], dtype=torch.float64)
    found = sides(kinds.Kind("real", lambda v: v, lambda v: v, atoms=((0, -1.0), (0, 1.0))), column)
    free = torch.tensor([[3.0], [800.0], [3.0], [800.0]], dtype=torch.float64, requires_grad=True)  # exp(800) overflows
    (slope,) = torch.autograd.grad(found.from_free(free).sum(), free)
    assert slope[:, 0].tolist() == pytest.approx([-math.exp(3.0), 0.0, math.exp(3.0), 0.0])


def test_observed_stays_within_the_values_of_each_element():
    column = torch.stack([Z, COUNTS], 1)
    kind = kinds.infer({"x": column}, (), {"x": kinds.observed})["x"]
    for free in (-30.0, 0.3, 30.0):
        moved = sides(kind, column).from_free(torch.full_like(column, free))
        assert bool((moved >= column.amin(0)).all() & (moved <= column.amax(0)).all())
    assert repr(kind) == "bayesdd.kinds.observed"


def test_values_that_occur_often_are_found_among_more_rows_than_are_sorted():
    count = LOOKED_AT + 10_000
    generator = torch.Generator().manual_seed(0)
    y = 2 + torch.randn(count, generator=generator, dtype=torch.float64)
    y[torch.rand(count, generator=generator) < 0.05] = 0.0
    kind = kind_of(lambda mean, y: torch.where(y == 0, -mean.square(), -((y - mean) ** 2) / 2), y)
    assert kind.atoms == ((0, 0.0),)
