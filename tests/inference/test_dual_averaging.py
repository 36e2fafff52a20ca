"""Dual averaging ends where the acceptance is what was asked for."""

import math

import pytest

from bayesdd.inference.dual_averaging import DualAveraging


@pytest.mark.parametrize("first", [1e-3, 0.1, 1.0])
def test_it_finds_the_step_at_which_the_target_is_met(first):
    steps = DualAveraging(first, target=0.8, longest=10.0, drawn_to=10 * first, shrinkage=0.05)
    for _ in range(2000):
        steps.update(math.exp(-steps.size))  # met at log(1 / 0.8)
    steps.end()
    assert abs(steps.size - math.log(1.25)) < 0.02


def test_steps_are_no_longer_than_they_may_be_and_stay_without_updates():
    steps = DualAveraging(0.1, target=0.8, longest=0.3, drawn_to=1.0, shrinkage=0.05)
    steps.end()
    assert steps.size == 0.1
    for _ in range(50):
        steps.update(1.0)
        assert steps.size <= 0.3
    steps.end()
    assert steps.size == 0.3
