"""The sum of several sources' summaries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bayesdd.numerics.refusal import Refusal, WrongType
from bayesdd.summaries.noun import Summary

SAME = 1e-9  # relative difference within which points and priors of sources count as one


def combine(summaries: Sequence[Summary]) -> Summary:
    """Adds the summaries of sources at one point: the summary of all their rows, the prior counted once.

    What the sources' remainders add up to is at most the sum of their standard deviations. Each was measured over
    draws as wide as the source's own posterior or a stated share of it; here each is taken at the width of the
    posterior of all rows.

    Args:
        summaries: Of different sources, of one model, at one point.

    Returns:
        Their sum.

    Raises:
        Refusal: Models, latent sites, points or priors differ, or one summary came twice.
        WrongType: Something else than a summary came.

    Example:
        >>> parts = [{name: column[half::2] for name, column in task.data.items()} for half in (0, 1)]
        >>> at = bayesdd.summary(task).at
        >>> one, two = (bayesdd.summary(task.with_data(part), at=at) for part in parts)
        >>> bayesdd.combine([one, two]).rows == task.size
        True
    """
    summaries = list(summaries)
    if not summaries:
        raise Refusal("combine: the list is empty; give the summaries of at least one source")
    for place, other in enumerate(summaries):
        if not isinstance(other, Summary):
            raise WrongType(
                f"combine: part {place} is no summary but {type(other).__name__}; bayesdd.summary makes one"
            )
        _refuse_other(summaries[0], other, place)
        for earlier, one in enumerate(summaries[:place]):
            if one.value == other.value and torch.equal(one.gradient, other.gradient):
                raise Refusal(
                    f"combine: sources {earlier} and {place} sent the same summary; the rows of each count once: leave "
                    "one out"
                )
    first = summaries[0]
    total = replace(
        first,
        value=math.fsum(one.value for one in summaries),
        gradient=torch.stack([one.gradient for one in summaries]).sum(0),
        hessian=torch.stack([one.hessian for one in summaries]).sum(0),
        third=torch.stack([one.third for one in summaries]).sum(0),
        rows=sum(one.rows for one in summaries),
        sources=sum(one.sources for one in summaries),
    )
    width = [_width(one, total) for one in summaries]
    remainder = [
        math.fsum(one.left_out(float(scale) * w) for one, w in zip(summaries, width, strict=True))
        for scale in first.scales
    ]
    return replace(total, remainder=torch.tensor(remainder, dtype=torch.float64))


def _width(one: Summary, total: Summary) -> float:
    """How wide the posterior of all rows is in units of one source's."""
    covariance = torch.linalg.pinv(total.precision, hermitian=True)
    return math.sqrt(max(1e-12, float((one.precision * covariance).sum()) / len(one.at)))


def _refuse_other(first: Summary, other: Summary, place: int) -> None:
    """Refuses what does not add up, by name."""
    what = f"combine: source {place} ({other.task})"
    if other.sites != first.sites or other.model_hash != first.model_hash:
        raise Refusal(
            f"{what} has another model than source 0 ({first.task}): latent sites {_shapes(other)} against "
            f"{_shapes(first)}; all sources need the same model"
        )
    if not _same(first.at, other.at):
        raise Refusal(
            f"{what} was summed at another point than source 0; take all summaries at one: summary(task, at=)"
        )
    if not (_same(first.prior_gradient, other.prior_gradient) and _same(first.prior_hessian, other.prior_hessian)):
        raise Refusal(f"{what} has another prior than source 0: the prior counts once, so all need the same")


def _shapes(one: Summary) -> str:
    return ", ".join(f"{name}{list(shape)}" for name, shape in one.sites.items())


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=SAME, atol=SAME)
