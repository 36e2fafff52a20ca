"""Deterministic optimisation: L-BFGS in float64.

Stochastic-gradient schedules, which the published pseudocoreset codes use, end orders of magnitude higher.

Source: Byrd, Lu, Nocedal & Zhu, "A limited memory algorithm for bound constrained optimization", SIAM J. Sci.
Comput. 1995.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

MEMORY_PAIRS = 100  # in 300 iterations they reach 2e-12 where 50 pairs reach 2e-7, in equal time
PATIENCE = 100  # iterations over which the value must fall by the share `stalled`
RESTARTS = 3


def lbfgs(
    objective: Callable[[Tensor], Tensor],
    start: Tensor,
    iterations: int,
    *,
    stalled: float = 0.01,
    enough: float = -math.inf,
) -> tuple[Tensor, float]:
    """Minimises a differentiable function of one flat vector.

    Args:
        objective: ``(n,)`` -> zero-dimensional, nats.
        start: Starting vector ``(n,)``.
        iterations: Most iterations.
        stalled: Relative decrease over 100 iterations below which it stops.
        enough: Value at which it stops.

    Returns:
        The best vector met and its value; the start where nothing finite was better.
    """
    from scipy.optimize import minimize  # half a second, which a first result often does without

    best_vector, best_value = start.detach().clone(), math.inf
    trace: list[float] = []

    def evaluate(point: Any) -> tuple[float, Any]:
        nonlocal best_vector, best_value
        vector = torch.as_tensor(point, dtype=torch.float64).to(start.device).clone().requires_grad_(True)
        value = objective(vector)
        (gradient,) = torch.autograd.grad(value, vector)
        number = float(value.detach())
        if not math.isfinite(number) or not bool(torch.isfinite(gradient).all()):
            # Where there is no finite value a bowl around the best point takes its place: line searches turn back.
            away = vector.detach() - best_vector
            rise = 10 * (1 + abs(best_value)) if math.isfinite(best_value) else 1.0
            return (best_value if math.isfinite(best_value) else 0.0) + rise, (
                2 * rise * away / (away @ away).clamp_min(1e-300)
            ).cpu().numpy()
        if number < best_value:
            best_vector, best_value = vector.detach(), number
        return number, gradient.cpu().numpy()

    def after(_: Any) -> None:
        trace.append(best_value)
        before = trace[-PATIENCE] if len(trace) >= PATIENCE else math.inf
        if best_value <= enough or before - best_value < stalled * abs(before):
            raise StopIteration

    options = {
        "maxiter": iterations,
        "maxfun": 2 * iterations + 20,
        "maxcor": MEMORY_PAIRS,
        "ftol": 0.0,
        "gtol": 0.0,
    }
    # SciPy's BLAS threads compete with torch's own: ten times slower.
    with threadpool_limits(1, user_api="blas"):
        for _ in range(RESTARTS):
            before = best_value
            first = best_vector.cpu().numpy()
            ended = minimize(evaluate, first, jac=True, method="L-BFGS-B", callback=after, options=options)
            # Status 2 is a failed line search; a fresh start from the best point often helps.
            if ended.status != 2 or not best_value < before:
                break
    return best_vector, best_value
