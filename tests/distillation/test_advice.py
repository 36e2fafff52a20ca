"""What is said besides the certificate: values far outside the data, and a remedy."""

import math
from dataclasses import replace

import pytest
import torch

import bayesdd
from bayesdd.data.certificate import Certificate
from bayesdd.distillation.advice import far_values, remedy

AGES = {"age": torch.linspace(18, 90, 30, dtype=torch.float64), "y": torch.zeros(30, dtype=torch.int64)}


def rows(*ages):
    return bayesdd.Distilled({"age": list(map(float, ages)), "y": [0] * len(ages)}, torch.ones(len(ages)))


@pytest.mark.parametrize(("ages", "lines"), [((18, 90), 0), ((0, 110), 0), ((-21, 40), 1), ((40, 147), 1)])
def test_values_beyond_half_the_range_are_named_once(ages, lines):
    found = far_values(rows(*ages), AGES)
    assert len(found) == lines
    assert all("'age'" in line and "18 and 90" in line and "kinds.observed" in line for line in found)


def test_elements_are_named_and_missing_entries_are_not_looked_at():
    real = {"x": torch.tensor([[0.0, 1.0], [1.0, math.nan], [0.5, 3.0]])}
    found = far_values(bayesdd.Distilled({"x": [[math.nan, 9.0]]}, [1.0]), real)
    assert len(found) == 1 and "'x[1]'" in found[0]


def test_large_divergences_have_another_remedy_and_no_empty_bound():
    near = Certificate(0.2, 0.01, 0.2, 0.01, 0.2, 0.01, 0.1, 0.1, 900.0, 3.0, 0.0, 0.0, draws=1000, tolerance=0.05)
    lost = replace(near, kl_reverse=134.0, kl_forward=0.0, kl_forward_se=math.inf)
    assert "kinds.fixed" in remedy(lost, 5, 34)
    assert "size=34" in remedy(near, 5, 34)
    assert "more rows" in remedy(near, 40, 34) and "34" not in remedy(near, 40, 34)
    assert "at least 0" not in str(lost) and "kl_forward cannot be told" in str(lost)
