"""The three sorts of objectives: what ``distill(objective=...)`` takes.

A ``Functional`` of the log-ratio, a ``Matching`` objective of rows and draws, or a ``Standalone`` one, which brings its
own solver and certificate. A setting is bound by ``functools.partial``.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.data.predictive import PredictiveCertificate
from bayesdd.numerics.refusal import Refusal, WrongType
from bayesdd.target.reference import Reference
from bayesdd.target.target import Target
from bayesdd.task.task import Task

F = TypeVar("F", bound=Callable[..., Any])


class Functional(Protocol):
    """A divergence as a functional of the log-ratio; any function of two arguments.

    One that may be infinite carries ``refuse_infinite(log_ratio, log_weight, size, **settings)``; see ``renyi``.
    """

    def __call__(self, log_ratio: Tensor, log_weight: Tensor, /) -> Tensor:
        """Nats, from Delta at S draws ``(S,)`` and the log of the draws' normalised weights ``(S,)``."""


class Matching(Protocol):
    """What rows do for given draws; any function of one argument."""

    def __call__(self, reference: Reference, /) -> Callable[[Columns, Tensor], Tensor]:
        """``(rows, weight) -> nats``; what it needs of the full posterior is computed here, once."""


@runtime_checkable
class Standalone(Protocol):
    """An objective that needs no particles of the posterior; declared by ``@standalone``.

    Networks: particles cannot stand for the posterior of their weights, so that the log-ratio and its KLs say nothing.
    What their rows are for, predictions, is matched and certified.
    """

    stands_alone: bool

    def __call__(self, target: Target, seed: int, say: Callable[[str], None], /) -> Solver:
        """How the target is solved; ``say`` shows progress."""


@dataclass(frozen=True, eq=False)
class Solver:
    """How a stand-alone objective is solved and judged.

    Attributes:
        pool: The student's task on the rows that starting rows are chosen from.
        choose: Number of rows -> rows of the pool and their weights, to start from.
        solve: Problem at its starting rows (``distillation.problem``) -> its vector.
        certificate: Rows, weights, tolerance and seed -> certificate.
        tolerance: What counts as certified unless the caller says so; None: the objective's settings say it.
    """

    pool: Task
    choose: Callable[[int], tuple[Columns, Tensor]]
    solve: Callable[[Any], Tensor]
    certificate: Callable[[Columns, Tensor, float, int], PredictiveCertificate]
    tolerance: float | None

    def limit(self, asked: float | None) -> float:
        """The tolerance that a caller has asked for, or its own; NaN where the objective's settings judge.

        Raises:
            Refusal: Both say what counts.
        """
        if self.tolerance is None and asked is not None:
            raise Refusal(
                f"tolerance={asked:g} is in predictive sds, but this objective has error=, in the outcome's own terms: "
                "give one of them."
            )
        own = math.nan if self.tolerance is None else self.tolerance
        return own if asked is None else asked


def standalone(function: F) -> F:
    """Declares that a function is a ``Standalone`` objective."""
    vars(function)["stands_alone"] = True
    return function


def sort_of(objective: Callable[..., Any]) -> type:
    """The sort of an objective: ``Functional``, ``Matching`` or ``Standalone``.

    Raises:
        WrongType: It is of none of them, or lacks a setting.
        Refusal: Its settings are refused (by a functional itself, at two draws).
    """
    parameters = inspect.signature(objective).parameters.values() if callable(objective) else []
    required = [p for p in parameters if p.default is p.empty]
    function, name = _bare(objective)
    if unset := [p.name for p in required if p.kind is p.KEYWORD_ONLY]:
        raise WrongType(
            f"objective {name} lacks the setting {unset[0]!r}: pass functools.partial({name}, {unset[0]}=...)."
        )
    if isinstance(function, Standalone):
        return Standalone
    needed = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in required)
    if needed not in (1, 2):
        raise WrongType(
            "distill(objective=...) needs a function (log_ratio, log_weight) such as bayesdd.objectives.reverse_kl, or "
            f"one of bayesdd.objectives, got {name} of {needed} arguments."
        )
    if needed == 1:
        return Matching
    half = torch.full((2,), 0.5, dtype=torch.float64)
    objective(half, half.log())
    return Functional


def name_of(objective: Callable[..., Any]) -> str:
    """Name of an objective with its settings, for messages and provenance."""
    _, name = _bare(objective)
    if not isinstance(objective, functools.partial):
        return name
    plain = [f"{key}={value}" for key, value in objective.keywords.items() if isinstance(value, int | float | str)]
    return f"{name}({', '.join(plain)})"


def _bare(objective: Any) -> tuple[Any, str]:
    """The function itself, without its settings, and its name."""
    found = objective.func if isinstance(objective, functools.partial) else objective
    return found, getattr(found, "__name__", type(found).__name__)
