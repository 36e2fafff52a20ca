"""Coordinates: rows to free vectors and back; what must not move does not."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from bayesdd import kinds
from bayesdd.data.distilled import Distilled, explode
from bayesdd.distillation.coordinates import Coordinates

N, M = 60, 7


def rows(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(N, *shape, generator=generator, dtype=torch.float64)

    x = normal(3)
    x[:, 2] = 1.0
    x[:, 1] = 1e4 * (x[:, 0] + 0.01 * x[:, 1]) + 5e4
    series = normal(4, 2)
    series[::3, 1] = math.nan
    return {
        "x": x,
        "series": series,
        "size": normal().exp(),
        "share": normal().sigmoid() * 2 - 1,
        "label": (normal() > 0).double(),
        "visits": torch.arange(N).double() % 5,
        "successes": torch.arange(N).double() % 3,
        "trials": torch.arange(N) % 3 + 2,
        "group": torch.arange(N) % 4,
    }


KINDS = {
    "x": kinds.real,
    "series": kinds.real,
    "size": kinds.positive,
    "share": kinds.interval(-1, 1),
    "label": kinds.binary,
    "visits": kinds.count,
    "successes": kinds.trials,
    "trials": kinds.fixed,
    "group": kinds.fixed,
}


def build(**settings):
    real = rows()
    start = {name: column[:M] for name, column in real.items()}
    return Coordinates(real, KINDS, start, {"successes": start["trials"].double()}, **settings), start


def test_rows_to_free_and_back():
    coordinates, start = build()
    back = coordinates.rows(coordinates.free())
    edges = {"label", "visits", "successes"}  # an exact 0 or 1 starts inside, where gradients are alive
    for name in start.keys() - edges:
        assert_close(back[name], start[name], equal_nan=True, rtol=1e-8, atol=1e-8)
    inside = start["visits"] > 0
    assert_close(back["visits"][inside], start["visits"][inside])
    assert_close(back["label"], start["label"].clamp(0.05, 0.95))
    assert_close(back["successes"], (start["successes"] / start["trials"]).clamp(0.05, 0.95) * start["trials"])
    assert_close(coordinates.rows(coordinates.free())["x"], back["x"], rtol=0, atol=0)


def test_what_must_not_move_does_not():
    coordinates, start = build()
    noise = torch.randn(coordinates.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = coordinates.rows(coordinates.free() + noise)
    assert torch.equal(moved["x"][:, 2], torch.ones(M, dtype=torch.float64))
    assert torch.equal(moved["group"], start["group"]) and torch.equal(moved["trials"], start["trials"])
    assert torch.equal(moved["series"].isnan(), start["series"].isnan())
    here = ~start["series"].isnan()
    assert bool((moved["series"] != start["series"])[here].all())
    assert bool((moved["x"][:, :2] != start["x"][:, :2]).all())


def test_entries_at_an_atom_stay_and_the_others_keep_their_side():
    real = rows()
    real["visits"], real["size"] = real["visits"].clamp_min(1.0), real["size"].clamp_max(1.5)
    held = KINDS | {"visits": replace(kinds.count, atoms=((0, 1.0),)), "size": replace(kinds.real, atoms=((0, 1.5),))}
    held["x"] = kinds.infer({"x": real["x"]}, (), {"x": kinds.observed})["x"]
    start = {name: column[:M] for name, column in real.items()}
    coordinates = Coordinates(real, held, start, {"successes": start["trials"].double()})
    torch.testing.assert_close(coordinates.rows(coordinates.free())["size"], start["size"])
    for step in (-3.0, 0.5, 3.0):
        moved = coordinates.rows(coordinates.free() + step)
        for name, atom, sign in (("visits", 1.0, 1.0), ("size", 1.5, -1.0)):
            at = start[name] == atom
            assert 0 < int(at.sum()) < M and torch.equal(moved[name][at], start[name][at])
            assert bool((sign * (moved[name] - atom)[~at] > 0).all() & (moved[name] != start[name])[~at].all())
        low, high = real["x"].amin(0), real["x"].amax(0)
        assert bool((moved["x"] >= low).all() & (moved["x"] <= high).all())


def test_moved_rows_stay_in_their_supports():
    coordinates, start = build()
    moved = coordinates.rows(torch.full((coordinates.dim,), 30.0, dtype=torch.float64))
    low = coordinates.rows(torch.full((coordinates.dim,), -30.0, dtype=torch.float64))
    for found in (moved, low):
        assert bool((found["size"] >= 0).all() & (found["visits"] >= 0).all())
        assert bool((found["share"].abs() <= 1).all() & (found["label"] >= 0).all() & (found["label"] <= 1).all())
        assert bool((found["successes"] >= 0).all() & (found["successes"] <= start["trials"]).all())


def test_free_vectors_are_differentiable_and_missing_entries_have_no_gradient():
    coordinates, _ = build()
    free = coordinates.free().requires_grad_(True)
    moved = coordinates.rows(free)
    total = sum(column.nan_to_num().sum() for column in moved.values() if column.is_floating_point())
    (slope,) = torch.autograd.grad(total, free)
    assert bool(slope.isfinite().all())
    (patch,) = torch.autograd.grad(coordinates.rows(free)["series"][0, 1].nan_to_num().sum(), free)
    assert bool((patch == 0).all())


def test_whitened_coordinates_have_the_shrunk_correlation_of_the_rows():
    """Covariance of the free coordinates of all real rows: the identity, but for the shrinkage."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    x[:, 1] = 1e4 * (x[:, 0] + 0.3 * x[:, 1])
    coordinates = Coordinates({"x": x}, {"x": kinds.real}, {"x": x}, {})
    free = coordinates.free().reshape(4000, 3)
    assert_close(free.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    assert_close(torch.cov(free.T), torch.eye(3, dtype=torch.float64), atol=0.02, rtol=0)
    assert_close(coordinates.factor @ coordinates.inverse, torch.eye(3).double(), atol=1e-9, rtol=0)


def test_wide_rows_are_standardised_one_by_one(monkeypatch):
    monkeypatch.setattr("bayesdd.distillation.coordinates.LARGEST_JOINT_WHITENING", 1)
    coordinates, start = build()
    assert_close(coordinates.rows(coordinates.free())["x"], start["x"])


def test_an_element_that_varies_in_few_rows_can_move(monkeypatch):
    monkeypatch.setattr("bayesdd.distillation.coordinates.ROWS_FOR_COVARIANCE", 10)
    x = torch.zeros(100, 1, dtype=torch.float64)
    x[3] = 1.0  # thinned out
    coordinates = Coordinates({"x": x}, {"x": kinds.real}, {"x": x[:5]}, {})
    assert float(coordinates.free().abs().max()) < 10
    assert_close(coordinates.rows(coordinates.free())["x"], x[:5])


def test_elements_that_vary_late_are_found_and_constant_ones_are_not(monkeypatch):
    monkeypatch.setattr("bayesdd.distillation.coordinates.LOOKED_AT", 10)
    x = torch.zeros(100, 3, dtype=torch.float64)
    x[:, 0] = torch.arange(100)
    x[90, 2], x[5, 1] = 1.0, torch.nan
    coordinates = Coordinates({"x": x}, {"x": kinds.real}, {"x": x[10:14]}, {})
    assert coordinates.free_masks["x"].all(0).tolist() == [True, False, True]


def test_rows_that_may_not_move_have_no_coordinates():
    coordinates, start = build(move=False)
    assert coordinates.dim == 0
    moved = coordinates.rows(coordinates.free())
    assert all(torch.equal(moved[name].nan_to_num(), start[name].nan_to_num()) for name in start)


@pytest.mark.parametrize("second", [False, True])
def test_soft_rows_explode_into_weighted_classes(second):
    kind = {"y": kinds.soft(3), "x": kinds.real, **({"z": kinds.soft(2)} if second else {})}
    real = {"y": torch.arange(N) % 3, "x": rows()["x"], **({"z": torch.arange(N) % 2} if second else {})}
    start = {name: column[:M] for name, column in real.items()}
    coordinates = Coordinates(real, kind, start, {})
    stored = coordinates.rows(coordinates.free())
    assert stored["y"].shape == (M, 3)
    assert_close(stored["y"].sum(1), torch.ones(M, dtype=torch.float64))
    weight = torch.arange(1.0, M + 1, dtype=torch.float64)
    soft = {name: k.classes for name, k in kind.items() if k.classes}
    hard, weights = explode(stored, weight, soft)
    expected, expected_weights = Distilled(stored, weight, soft=soft).hard()
    assert_close(weights.sum(), weight.sum())

    def table(columns, weight):
        return sorted(zip(columns["y"].tolist(), columns["x"][:, 0].tolist(), weight.tolist(), strict=True))

    assert_close(torch.tensor(table(hard, weights)), torch.tensor(table(expected, expected_weights)))
    row = torch.arange(len(weights)) // (6 if second else 3)
    mean = torch.zeros(M, 3, dtype=torch.float64).index_put((row, hard["y"]), weights, accumulate=True)
    assert_close(mean, stored["y"] * weight[:, None])


@pytest.mark.parametrize("kind", [kinds.real, kinds.count])
def test_whole_numbers_move_as_the_same_numbers_in_floats(kind):
    whole = torch.arange(N) % 5
    made = [Coordinates({"y": y}, {"y": kind}, {"y": y[:M]}, {}) for y in (whole, whole.double())]
    free = [coordinates.free() for coordinates in made]
    assert free[0].dtype == torch.float64 and torch.equal(*free)
    moved = [coordinates.rows(free[0] + 0.3)["y"] for coordinates in made]
    assert moved[0].dtype == torch.float64 and torch.equal(*moved)
