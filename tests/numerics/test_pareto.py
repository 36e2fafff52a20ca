"""k-hat against known tails and against ArviZ."""

import math
import warnings

import numpy as np
import pytest
import torch

from bayesdd.numerics.pareto import khat


@pytest.mark.parametrize("shape", [0.3, 0.5, 0.8, 1.2])
def test_recovers_the_shape_of_pareto_weights(shape):
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, error = khat(-shape * uniform.log())
    assert abs(found - shape) < 4 * error


def test_equals_arviz():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        arviz = pytest.importorskip("arviz", minversion="0.20")
    if not hasattr(arviz, "psislw"):
        pytest.skip("this ArviZ generation has no array-level psislw")
    values = np.random.default_rng(0).standard_t(4, size=4000)
    expected = float(arviz.psislw(values)[1])
    assert khat(torch.from_numpy(values))[0] == pytest.approx(expected, abs=0.02)


def test_constant_weights_have_no_tail():
    assert khat(torch.full((1000,), 3.0, dtype=torch.float64)) == (-math.inf, 0.0)
    assert khat(torch.zeros(3, dtype=torch.float64)) == (math.inf, math.inf)
