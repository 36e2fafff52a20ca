r"""Linear-Gaussian sequences with missing entries (NaN) and measurement noise, both integrated out exactly.

* ``by_pattern``: patterns of missing entries known beforehand. The joint Gaussian of all n = V_s + T V entries once a
  draw, one Cholesky factor of the entries seen a pattern, one product with it a row: O(K n^3) a draw, O(K n^2) a row.
* ``filtered``: every row its own pattern. A Kalman filter whose state is the static variables and one slice, or as many
  as the longest lag L; an unseen entry's row and column of the innovation covariance are the identity's: O(T (L V)^3) a
  row. Source: Kalman, "A new approach to linear filtering and prediction problems", J. Basic Engineering 1960.

Both give log p(x | static) of one draw, nats, and are batched by ``torch.func.vmap``: nothing branches on a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from bayesdd.dbn.likelihood.gaussian import (
    LOG_2PI,
    Equations,
    complete,
    entries,
    equations,
    in_order,
    noise_variance,
    ordered,
    positions,
)
from bayesdd.dbn.template.structure import Values
from bayesdd.dbn.template.template import Template


def by_pattern(
    template: Template, values: Values, x: Tensor, static: Tensor, *, patterns: tuple[tuple[int, ...], ...]
) -> Tensor:
    """Log p(x | static) of rows with few known patterns of missing entries, NaN for any other row: ``(rows,)``.

    A pattern is the places, in ``gaussian.entries``, of the entries that are seen. Without measurement noise complete
    rows need none.
    """
    flat = entries(template, x, static)
    seen, filled = ~flat.isnan(), flat.nan_to_num()
    mean, factor = unrolled(template, values, x.shape[1])
    covariance = factor @ factor.mT + noise_of_entries(template, values, x.shape[1]).diag()
    score = torch.full((len(flat),), math.nan, dtype=mean.dtype)
    if not template.noisy:
        score = torch.where(seen.all(1), complete(template, values, x.nan_to_num(), static.nan_to_num()), score)
    for places in patterns:
        at = torch.tensor(places, dtype=torch.int64)
        factor = cholesky(covariance[at][:, at])
        white = torch.linalg.solve_triangular(factor, (filled[:, at] - mean[at]).mT, upper=False)
        # Static entries come first: what follows them in the factorisation is p(x | static).
        first = sum(place < static.shape[1] for place in places)
        logs = 2 * factor.diagonal()[first:].log().sum() + (len(at) - first) * LOG_2PI
        wanted = torch.tensor([place in places for place in range(flat.shape[1])])
        mine = (seen == wanted).all(1)
        score = torch.where(mine, -0.5 * (white[first:].square().sum(0) + logs), score)
    return score


def filtered(template: Template, values: Values, x: Tensor, static: Tensor) -> Tensor:
    """Log p(x | static) of sequences with any missing entries: ``(rows, T, V)`` -> ``(rows,)``."""
    x, static = in_order(template, x, static)
    mean, covariance, _ = _static_state(template, values, static)
    noise = noise_variance(template, values)
    count, size, total = static.shape[1], x.shape[2], x.new_zeros(len(x))
    _, *slices = [form.reduced() for form in equations(template, values)]
    lags = len(slices) - 1
    for t in range(x.shape[1]):
        gain, shift, root = slices[min(t, lags)]
        every = torch.eye(gain.shape[1], dtype=gain.dtype)
        kept = torch.cat([every[:count], every[count + size * (t >= lags) :]])  # the earliest slice is done with
        step, place = torch.cat([kept, gain]), len(kept)
        mean = mean @ step.mT + pad(shift, (place, 0))
        covariance = step @ covariance @ step.mT + pad(root @ root.mT, (place, 0, place, 0))
        mean, covariance, added = condition(mean, covariance, x[:, t], noise[count:], place)
        total = total + added
    return total


def static_density(template: Template, values: Values, static: Tensor) -> Tensor:
    """Log p(static) of static values with any missing entries: ``(rows, V_s)`` -> ``(rows,)``."""
    return _static_state(template, values, ordered(static, positions(template)[1]))[2]


def unrolled(
    template: Template, values: Values, slices: int, changed: Callable[[int, Equations], Equations] | None = None
) -> tuple[Tensor, Tensor]:
    """Mean ``(n,)`` of all entries of a row, without noise, and a factor ``(n, n)`` of their covariance.

    ``changed`` takes the number of a slice and its equations to others.
    """
    of_static, *forms = equations(template, values)
    kinds = [form.reduced() for form in forms]
    (_, mean, root), count, size = of_static.reduced(), len(template.static), len(template.variables)
    means, factors, lags = [mean], [pad(root, (0, slices * size))], len(forms) - 1
    for t in range(slices):
        kind, earlier = min(t, lags), max(1, 1 + t - lags)
        gain, shift, root = kinds[kind] if changed is None else changed(t, forms[kind]).reduced()
        before_mean, before = (torch.cat([some[0], *some[earlier:]]) for some in (means, factors))
        means.append(gain @ before_mean + shift)
        factors.append(gain @ before + pad(root, (count + t * size, (slices - 1 - t) * size)))
    return torch.cat(means), torch.cat(factors)


def noise_of_entries(template: Template, values: Values, slices: int) -> Tensor:
    """Variance of the measurement noise of all entries of a row ``(..., n)``; of a known noise ``(n,)``."""
    noise, count = noise_variance(template, values), len(template.static)
    return torch.cat([noise[..., :count], noise[..., count:].tile(slices)], -1)


def condition(
    mean: Tensor, covariance: Tensor, values: Tensor, noise: Tensor, first: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Conditions states of mean ``(rows, d)`` on their entries from ``first`` on, seen as ``values``; NaN is unseen.

    ``noise`` are the variances of these entries' noise.

    Returns:
        Mean ``(rows, d)``, covariance ``(rows, d, d)`` and the log density of what is seen ``(rows,)``.
    """
    last = first + values.shape[1]
    seen = ~values.isnan()
    spread = covariance[..., first:last, first:last] + noise[: last - first].diag()
    pairs = seen[:, :, None] & seen[:, None, :]
    factor = cholesky(torch.where(pairs, spread, torch.eye(values.shape[1], dtype=spread.dtype)))
    error = torch.where(seen, values - mean[..., first:last], 0.0)
    cross = torch.where(seen[:, :, None], covariance[..., first:last, :], 0.0)
    white = torch.linalg.solve_triangular(factor, torch.cat([cross, error[:, :, None]], 2), upper=False)
    cross, error = white[:, :, :-1], white[:, :, -1:]
    logs = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1) + LOG_2PI * seen.to(mean.dtype).sum(1)
    mean = mean + (cross.mT @ error)[:, :, 0]
    return mean, covariance - cross.mT @ cross, -0.5 * (error.square().sum((1, 2)) + logs)


def cholesky(matrix: Tensor) -> Tensor:
    """Lower factors; NaN where a matrix is not positive definite (an optimiser's wild step must not raise)."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    return torch.where((info == 0)[..., None, None], factor, math.nan)


def _static_state(template: Template, values: Values, static: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and covariance of the static variables given those seen, and log p(static); columns parents first."""
    _, shift, root = equations(template, values)[0].reduced()
    return condition(shift, root @ root.mT, static, noise_variance(template, values), 0)
