"""The exact posterior beside which surrogates stand, against a closed form."""

import numpy as np
import pytest

from bayesdd import pinn
from studies.equations import exact as module
from studies.equations import problems
from studies.equations.setting import Z90, measurements

SLOPE, NOISE = 1.3, 0.2


def growth():
    """U' = c from u(0) = start: u = start + c t."""
    return pinn.Problem(
        inputs={"t": (0.0, 2.0)},
        parameters={"start": (0.0, 1.0)},
        outputs=("u",),
        equation=lambda s, p: s.u_t - p.c,
        conditions=[pinn.at(t=0.0, u=lambda s, p: s.start)],
        unknown={"c": (0.5, 1.0)},
    )


def test_a_constant_that_enters_linearly_has_its_conjugate_posterior(monkeypatch):
    truth = lambda start, at, c: (start + c * at["t"])[None]  # noqa: E731
    monkeypatch.setitem(problems.PROBLEMS, "growth", (growth, truth, NOISE, {"c": SLOPE}))
    points, measured = measurements("growth", 3)
    found = module.exact("growth", 3)
    precision = 1 + (points["t"] ** 2).sum() / NOISE**2
    mean = (0.5 + (points["t"] * (measured["u"] - points["start"])).sum() / NOISE**2) / precision
    assert found["constants"]["c"] == pytest.approx([mean, precision**-0.5, SLOPE], rel=1e-5)
    assert found["in"]["coverage"] == found["out"]["coverage"] == (abs(mean - SLOPE) <= Z90 * precision**-0.5)
    # Widths and errors are t times those of c over the root mean square of u.
    ratio = 2 * Z90 * precision**-0.5 / abs(mean - SLOPE)
    for half in ("in", "out"):
        spread = found[half]["width"] / found[half]["error"] / ratio
        assert np.sqrt(3) / 2 == pytest.approx(spread, rel=0.05)  # mean of t over its root mean square
