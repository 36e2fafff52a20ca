"""Censored observations as a distribution: what a survival analyst writes as ``Surv(time, event)``.

    pyro.sample("time", bayesdd.censored(dist.Weibull(scale, shape), event), obs=time)

Codes of ``event`` are those of R's ``Surv(type = "interval")``: 1 seen at the value, 0 later than it (right-censored),
2 earlier (left-censored), 3 between the value and ``until``. Give them as integers: synthetic rows then keep the codes
of real rows.
"""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar

import torch
from pyro.distributions import Exponential, LogNormal, Normal, TorchDistribution, Weibull
from torch import Tensor

from bayesdd.numerics.refusal import Refusal, WrongType

LATER, SEEN, EARLIER, BETWEEN = 0, 1, 2, 3
LEAST = math.log(2.0)  # of an exponent: where log(1 - exp(-x)) changes form


def censored(base: Any, event: Any, until: Any = None) -> Censored:
    """A distribution whose values are seen, or known to lie later, earlier or between.

    Args:
        base: Distribution of the value itself, with batch shape ``(rows,)``: Exponential, Weibull, Normal, LogNormal,
            or another one with a ``cdf`` (``log_survival`` can be registered for it).
        event: Code of every row, ``(rows,)``: 1 seen, 0 right-censored, 2 left-censored, 3 interval-censored.
        until: Upper ends of the intervals, ``(rows,)``; other rows' entries are not looked at.

    Returns:
        A Pyro distribution; its draws are not censored.

    Raises:
        WrongType: ``base`` is no distribution.
        Refusal: ``base`` has event dimensions.

    Example:
        >>> days, seen = torch.tensor([3.0, 9.0]), torch.tensor([1, 0])  # the second was followed for nine days
        >>> bayesdd.censored(dist.Exponential(torch.ones(2)), seen).log_prob(days)
        tensor([-3., -9.])
    """
    if not isinstance(base, torch.distributions.Distribution):
        raise WrongType(f"censored needs a distribution such as dist.Weibull(scale, shape), got {type(base).__name__}")
    if base.event_shape:
        raise Refusal(f"censored takes one value a row, but {type(base).__name__} has shape {tuple(base.event_shape)}")
    return Censored(base, torch.as_tensor(event), None if until is None else torch.as_tensor(until))


class Censored(TorchDistribution):
    """See :func:`censored`."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, base: Any, event: Tensor, until: Tensor | None) -> None:
        self.base, self.event, self.until = base, event, until
        shape = torch.broadcast_shapes(base.batch_shape, event.shape)
        super().__init__(shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the base distribution."""
        return self.base.support

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Values as they are without censoring."""
        found: Tensor = self.base.expand(self.batch_shape).sample(torch.Size(sample_shape))
        return found

    def expand(self, batch_shape: Any, _instance: Any = None) -> Censored:
        """The same in another batch shape."""
        until = None if self.until is None else self.until.expand(batch_shape)
        return Censored(self.base.expand(batch_shape), self.event.expand(batch_shape), until)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of seen values, log probability of what is known of the others, nats."""
        survival = log_survival(self.base, value)
        found = torch.where(self.event == SEEN, self.base.log_prob(value), survival)
        found = torch.where(self.event == EARLIER, _log1mexp(survival), found)
        if self.until is None:
            return found
        between = self.event == BETWEEN
        later = log_survival(self.base, torch.where(between, self.until, value + 1.0))
        return torch.where(between, survival + _log1mexp(torch.where(between, later - survival, -1.0)), found)


def _log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp(x))`` for x below 0, to the last digits at both ends."""
    near = x > -LEAST
    close = torch.where(near, x, -LEAST)
    return torch.where(near, (-torch.expm1(close)).log(), torch.log1p(-torch.where(near, -1.0, x).exp()))


@functools.singledispatch
def log_survival(base: Any, value: Tensor) -> Tensor:
    """Log probability of a larger value, nats; stable forms are registered by type of distribution."""
    while hasattr(base, "base_dist") and not hasattr(base, "cdf"):
        base = base.base_dist
    return torch.log1p(-base.cdf(value))


@log_survival.register
def _(base: Exponential, value: Tensor) -> Tensor:
    found: Tensor = -base.rate * value
    return found


@log_survival.register
def _(base: Weibull, value: Tensor) -> Tensor:
    found: Tensor = -((value / base.scale) ** base.concentration)
    return found


@log_survival.register
def _(base: Normal, value: Tensor) -> Tensor:
    found: Tensor = torch.special.log_ndtr((base.loc - value) / base.scale)
    return found


@log_survival.register
def _(base: LogNormal, value: Tensor) -> Tensor:
    found: Tensor = torch.special.log_ndtr((base.loc - value.log()) / base.scale)
    return found
