"""What rows elsewhere have to do as rows in one process do, whatever engine keeps them."""

import pytest
import torch

import bayesdd
from bayesdd.data.rows import opened
from bayesdd.density.density import Density


@pytest.fixture
def same_passes():
    """Whether two tasks of the same rows give the same sums at these draws, to rounding."""

    def check(away, held, draws):
        a, b = (Density([(task, task.rows, None)]) for task in (away, held))
        for found, expected in zip(
            (a.sweep(draws), *a.log_joint_gradient(draws), *a.likelihood_derivatives(draws[:2])),
            (b.sweep(draws), *b.log_joint_gradient(draws), *b.likelihood_derivatives(draws[:2])),
            strict=True,
        ):
            assert torch.allclose(found, expected, rtol=1e-12, atol=1e-9)

    return check


@pytest.fixture
def counted_there():
    """Whether equal rows of a frame, as an engine keeps it, are counted there, one by one and by their weights."""

    def check(frame, kept):
        given = frame.assign(ward=frame["ward"].where(frame["x[1]"] < 1))
        for weight in (None, "count"):
            few = opened(bayesdd.grouped(kept(given)), ["y", "ward"], weight=weight)
            sums = given.groupby(["y", "ward"], dropna=False)["count"].agg("size" if weight is None else "sum")
            assert few.counted == len(frame) and few.labels["ward"] == ("east", "west")
            assert few.sample_weight.tolist() == sums.tolist() and len(few.columns["y"]) == 6
        with pytest.raises((ValueError, OSError), match="'less' is missing, or -1"):
            opened(bayesdd.grouped(kept(given.assign(less=given["count"] - 2))), ["y"], weight="less")

    return check
