"""Functional forms of the two distributions whose own code writes in place, which ``torch.func.vmap`` refuses.

They hold only while bayesdd runs a model; the formulas are Pyro's and torch's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro.distributions import Categorical, OrderedLogistic
from torch import Tensor
from torch.distributions import Multinomial


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


@contextmanager
def vmap_safe() -> Iterator[None]:
    """Puts the functional forms in place; restores the library's own."""
    ordered, multinomial = OrderedLogistic.__init__, Multinomial.log_prob
    OrderedLogistic.__init__, Multinomial.log_prob = _ordered_logistic, _multinomial  # type: ignore[method-assign]
    try:
        yield
    finally:
        OrderedLogistic.__init__, Multinomial.log_prob = ordered, multinomial  # type: ignore[method-assign]
