"""Functional forms of three distributions and of normal noise, for vmap: their own code writes in place, or is slow.

They hold only while bayesdd runs a model; the densities are Pyro's and torch's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro.distributions import Categorical, OrderedLogistic
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Multinomial,
    lowrank_multivariate_normal,
    multivariate_normal,
    normal,
    studentT,
)

_NOISY: tuple[Any, ...] = (normal, multivariate_normal, lowrank_multivariate_normal, studentT)
LINEAR_FROM = 40.0  # softplus(x) = x to float64's last digit; torch's own bound of 20 leaves 2e-9


def _ordered_logistic(self: Any, predictor: Tensor, cutpoints: Tensor, validate_args: bool | None = None) -> None:
    below = torch.sigmoid(cutpoints - predictor.unsqueeze(-1))
    self.predictor = predictor.expand(below.shape[:-1])
    self.cutpoints = cutpoints.expand(below.shape)
    between = below[..., 1:] - below[..., :-1]
    probability = torch.cat([below[..., :1], between, 1 - below[..., -1:]], -1)
    Categorical.__init__(self, probability, validate_args=validate_args)


def _multinomial(self: Any, value: Tensor) -> Tensor:
    logits, value = torch.broadcast_tensors(self.logits, value)
    ways = torch.lgamma(value.sum(-1) + 1) - torch.lgamma(value + 1).sum(-1)
    return ways + (torch.where((value == 0) & torch.isneginf(logits), 0.0, logits) * value).sum(-1)


def _bernoulli(self: Any, value: Tensor) -> Tensor:
    """Three operations in place of the twelve that vmap makes of torch's cross entropy: twice as fast."""
    logits, value = torch.broadcast_tensors(self.logits, value)
    found: Tensor = value * logits - torch.nn.functional.softplus(logits, threshold=LINEAR_FROM)
    return found


def _standard_normal(shape: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(shape, dtype=dtype, device=device)


@contextmanager
def vmap_safe() -> Iterator[None]:
    """Puts the functional forms in place; restores the library's own."""
    ordered, multinomial, bernoulli = OrderedLogistic.__init__, Multinomial.log_prob, Bernoulli.log_prob
    OrderedLogistic.__init__, Multinomial.log_prob = _ordered_logistic, _multinomial  # type: ignore[method-assign]
    Bernoulli.log_prob = _bernoulli  # type: ignore[method-assign]
    noise = [module._standard_normal for module in _NOISY]
    for module in _NOISY:
        module._standard_normal = _standard_normal
    try:
        yield
    finally:
        for module, own in zip(_NOISY, noise, strict=True):
            module._standard_normal = own
        OrderedLogistic.__init__, Multinomial.log_prob = ordered, multinomial  # type: ignore[method-assign]
        Bernoulli.log_prob = bernoulli  # type: ignore[method-assign]
