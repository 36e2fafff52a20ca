"""One on-policy round: fresh draws of a distilled posterior, one sweep of the full data, a verdict."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayesdd.certificate import draw_distilled
from bayesdd.cloud import Cloud, tilted
from bayesdd.estimates import estimate
from bayesdd.inference.draws import Draws
from bayesdd.objectives import half_variance
from bayesdd.objectives.renyi import refuse_infinite, renyi
from bayesdd.problem import Problem
from bayesdd.target import Target

ROUNDS = 5
ROUND_DRAWS = 2000
IMPROVEMENT = 0.9  # a round that does not bring its value below this share of the best so far has failed
ENOUGH = 1e-7  # nats: a half-variance below which nothing is left to gain, unless the sweeps' own noise is more
# Sum of both KLs, nats, at which rounds end: a mixture took 15 s to 3e-7, and 32 s more to 1e-7.
SETTLED = 1e-5


@dataclass
class Solution:
    """The best parameter vector so far, judged on fresh draws of its own posterior."""

    problem: Problem
    vector: Tensor
    score: float = math.inf
    draws: Draws | None = None


def fresh(problem: Problem, vector: Tensor, seed: int, turn: int, thrift: int, start: Draws | None = None) -> Draws:
    """Draws of the distilled posterior for round number ``turn``."""
    seed = seed + 7919 * (turn + 1)
    return draw_distilled(problem.density(vector), seed, count=ROUND_DRAWS // thrift, start=start)


def judge(
    target: Target, problem: Problem, vector: Tensor, draws: Draws, objective: Callable[..., Tensor] = half_variance
) -> tuple[Cloud, float, float]:
    """The draws as particles of the distilled posterior, the score there (lower is better), and the half-variance.

    The score of the half-variance is the sum of both KLs, of which it is the second order; any other functional is
    judged by itself.

    Raises:
        ValueError: The objective is infinite at this posterior.
    """
    flat = draws.flat
    full = target.log_likelihood(flat)
    with torch.no_grad():
        own = problem.log_likelihood(vector, flat)
    found = estimate(full - own, draws, float(full.abs().max()))
    log_weight = torch.zeros_like(full) if draws.log_weight is None else draws.log_weight.flatten()
    finite = torch.isfinite(full)
    log_weight = log_weight[finite] - log_weight[finite].logsumexp(0)
    cloud = Cloud(flat[finite], full[finite], log_weight, own[finite])
    if objective is half_variance:
        score = found["kl_reverse"] + (found["kl_forward"] if found["khat"] < 0.7 else found["half_variance"])
    else:
        ratio = cloud.log_likelihood - cloud.own
        if isinstance(objective, functools.partial) and objective.func is renyi:
            refuse_infinite(ratio, log_weight, problem.coordinates.size, **objective.keywords)
        score = float(objective(ratio, log_weight))
    return cloud, score, found["half_variance"]


def measured(objective: Callable[..., Tensor], problem: Problem, vector: Tensor, cloud: Cloud) -> Tensor:
    """A functional of the log-ratio on particles, nats; differentiable in the vector.

    The half-variance is taken under the particles' own posterior, any other one under the distilled posterior at the
    vector, to which the particles are tilted.
    """
    distilled = problem.log_likelihood(vector, cloud.draws)
    log_weight = cloud.log_weight if objective is half_variance else tilted(cloud, distilled)
    return objective(cloud.log_likelihood - distilled, log_weight)


def name_of(objective: Callable[..., Any]) -> str:
    """Name of an objective with its settings, for messages and provenance."""
    if isinstance(objective, functools.partial):
        plain = {k: v for k, v in objective.keywords.items() if isinstance(v, int | float | str)}
        settings = ", ".join(f"{key}={value}" for key, value in plain.items())
        return f"{objective.func.__name__}({settings})"
    return getattr(objective, "__name__", type(objective).__name__)
