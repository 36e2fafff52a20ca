"""TODO."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bayesdd.numerics.pareto import khat
from bayesdd.numerics.refusal import Refusal


def stands_alone(objective: Callable[..., Any]) -> bool:
    """Whether an objective ``(target, seed, say)`` brings its own solver and certificate (``bayesdd.distillation.standalone``)."""
    parameters = inspect.signature(objective).parameters.values() if callable(objective) else []
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return needed == ["target", "seed", "say"]


def is_functional(objective: Callable[..., Any]) -> bool:
    """Whether an objective is a functional ``(log_ratio, log_weight)``, not a matching objective ``(reference)``.

    Raises:
        TypeError: It takes neither two arguments nor one.
        Refusal: Its settings are refused (by itself, at two draws).
    """
    parameters = inspect.signature(objective).parameters.values() if callable(objective) else []
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    unset = [p.name for p in parameters if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
    name = getattr(objective, "__name__", type(objective).__name__)
    if unset:
        raise TypeError(
            f"distill(objective={name}) lacks the setting {unset[0]!r}: pass functools.partial({name}, {unset[0]}=...)."
        )
    if len(needed) not in (1, 2) and not stands_alone(objective):
        raise TypeError(
            "distill(objective=...) needs a function (log_ratio, log_weight) such as bayesdd.objectives.reverse_kl, or "
            f"one of bayesdd.objectives, got {name} of {len(needed)} arguments."
        )
    if len(needed) != 2:
        return False
    half = torch.full((2,), 0.5, dtype=torch.float64)
    objective(half, half.log())
    return True


def refuse_infinite(log_ratio: Tensor, log_weight: Tensor, size: int, *, alpha: float) -> None:
    """Raises where the divergence does not exist: ``E[exp(alpha Delta)]`` is infinite.

    Args:
        log_ratio: Delta at S draws of the distilled posterior, nats, ``(S,)``.
        log_weight: log of the draws' normalised weights, ``(S,)``.
        size: Number M of synthetic rows, for the message.
        alpha: Order.

    Raises:
        Refusal: The Pareto shape of the terms is 1 or more.
    """
    shape = khat(log_weight + alpha * log_ratio)[0]
    if alpha > 1 and shape >= 1:
        raise Refusal(
            f"renyi of order {alpha:g} is infinite at the {size} rows found: the distilled posterior's tails are "
            f"lighter than the full one's (Pareto shape {shape:.2f}, and only below 1 a mean exists). "
            "Take an order below 1, or more rows."
        )
