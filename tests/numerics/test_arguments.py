"""Numbers that users give: taken as they are meant, refused in one line."""

import math

import numpy as np
import pytest
import torch

from bayesdd.numerics import arguments


def test_integers_of_any_library_are_whole_numbers():
    assert [arguments.whole(n, "n", 1) for n in (3, np.int64(3), torch.tensor(3))] == [3, 3, 3]
    assert arguments.seed(0, "f") == 0 and arguments.positive(np.float32(0.5), "p") == 0.5


@pytest.mark.parametrize("value", [1.5, 2.0, "3", None, True, 0, 11, [1]])
def test_anything_else_is_named(value):
    with pytest.raises(ValueError, match=r"^n must be a whole number from 1 to 10, got .*, hint$") as caught:
        arguments.whole(value, "n", 1, 10, ", hint")
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "0.1", None, True])
def test_what_is_not_positive_is_named(value):
    with pytest.raises(ValueError, match=r"^p must be a positive number, got"):
        arguments.positive(value, "p")
