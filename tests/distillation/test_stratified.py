"""Starting rows: every stratum that fits is there, and the weights stand for all rows."""

import math
from dataclasses import replace

import pytest
import torch

from bayesdd import kinds
from bayesdd.distillation.stratified import choose, strata

N = 1000
X = torch.randn(N, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
RARE = (torch.arange(N) < 30).double()
GROUP = torch.arange(N) % 10
ROWS = {"x": X, "y": RARE, "g": GROUP}
KINDS = {"x": kinds.real, "y": kinds.binary, "g": kinds.fixed}


def chosen(columns, kind, size, seed=0):
    return choose(columns, kind, size, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1, 2, 5, 12, 20, 57, N])
def test_as_many_rows_as_asked_with_weights_that_sum_to_all(size):
    picked, weight = chosen(ROWS, KINDS, size)
    assert picked.shape == weight.shape == (size,)
    assert bool((weight > 0).all()) and math.isclose(float(weight.sum()), N)
    assert bool((picked >= 0).all() & (picked < N).all())


def test_weights_of_a_stratum_sum_to_its_rows():
    picked, weight = chosen(ROWS, KINDS, 40)
    group = strata(ROWS, KINDS)
    total = torch.zeros(20, dtype=torch.float64).index_add(0, group[picked], weight)
    torch.testing.assert_close(total, torch.bincount(group).double())


def test_rare_labels_are_there_from_the_start():
    for seed in range(10):
        picked, _ = chosen({"x": X, "y": RARE}, {"x": kinds.real, "y": kinds.binary}, 12, seed)
        assert 0 < float(RARE[picked].sum()) < 6


def test_patterns_of_missing_entries_are_strata():
    x = X.clone()
    x[::50, 0] = math.nan
    group = strata({"x": x}, {"x": kinds.real})
    assert torch.equal(torch.bincount(group), torch.tensor([980, 20]))
    picked, _ = chosen({"x": x}, {"x": kinds.real}, 4)
    assert bool(x[picked, 0].isnan().any()) and not bool(x[picked, 0].isnan().all())


def test_soft_classes_are_strata_and_counts_are_not():
    labels = torch.arange(N) % 3
    assert len(strata({"y": labels}, {"y": kinds.soft(3)}).unique()) == 3
    assert len(strata({"y": labels.double()}, {"y": kinds.count}).unique()) == 1


def test_whole_outcomes_are_strata_by_value_or_in_ranges_where_many_occur():
    few = {"y": (torch.arange(N) % 5).double()}
    assert torch.equal(strata(few, {"y": kinds.whole}), torch.arange(N) % 5)
    many = {"y": torch.arange(N).double() ** 2}
    group = strata(many, {"y": kinds.whole})
    assert bool((group.diff() >= 0).all()) and 5 <= len(group.unique()) <= 8
    picked, _ = chosen(many, {"y": kinds.whole}, 10)
    assert len(many["y"][picked].unique()) == 10 and int(picked.max()) > 0.97 * N  # the tail that few rows reach


def test_rows_of_a_stratum_differ_while_there_are_enough():
    picked, _ = chosen(ROWS, KINDS, 60)
    assert len(picked.unique()) == 60
    few = {"y": torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)}
    picked, weight = chosen(few, {"y": kinds.binary}, 4)
    assert math.isclose(float(weight.sum()), 4)


def test_the_seed_decides():
    first, second = chosen(ROWS, KINDS, 20), chosen(ROWS, KINDS, 20)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], chosen(ROWS, KINDS, 20, seed=1)[0])


@pytest.mark.parametrize("spread", [3, 2**40])
def test_strata_are_the_distinct_rows_in_order_whatever_the_numbers(spread):
    """Small ranges are joined into one number, ranges beyond 64 bits are compared row by row."""
    keys = spread * torch.randint(-2, 3, (200, 3), generator=torch.Generator().manual_seed(0))
    group = strata({"g": keys}, {"g": kinds.fixed})
    torch.testing.assert_close(group, torch.unique(keys, dim=0, return_inverse=True)[1])


def test_members_of_rare_strata_are_found_beyond_the_rows_that_are_sorted(monkeypatch):
    monkeypatch.setattr("bayesdd.distillation.stratified.SORTED", 20)
    for seed in range(10):
        picked, weight = chosen(ROWS, KINDS, 60, seed)
        group = strata(ROWS, KINDS)
        assert len(picked.unique()) == 60 and set(group[picked].tolist()) == set(range(20))
        total = torch.zeros(20, dtype=torch.float64).index_add(0, group[picked], weight)
        torch.testing.assert_close(total, torch.bincount(group).double())


def test_atoms_and_their_sides_are_strata():
    value = torch.tensor([0.0, 2.0, 0.0, -1.0, 3.0], dtype=torch.float64)
    found = strata({"y": value}, {"y": replace(kinds.real, atoms=((0, 0.0),))})
    assert found[0] == found[2] and found[1] == found[4] and len(found.unique()) == 3
