r"""Complete linear-Gaussian rows with a given posterior, by the forward KL in closed form.

The posterior given complete rows is a product of normal-inverse-gammas, so that

.. math:: \mathrm{KL}(p, p_U) = \text{const} - \sum_f E_p[\log \mathrm{NIG}(\beta_f, \sigma^2_f; U, w)]
          = \text{const} + \langle C_U, D \rangle + \sum_f \log Z_f(C_U)

with the second moments C_U of the rows, a constant matrix D from the means of p's sufficient statistics, and the
normalisers :math:`\log Z = \log\Gamma(a) - a \log b - \tfrac12 \log|\Lambda|`: no particles, no sampling. What is
left above the best product of normal-inverse-gammas, whatever their rows, is the excess; the correlations between
families that p has and complete rows cannot have come on top.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.optimise import lbfgs
from bayesdd.problem import SMALLEST_WEIGHT
from models.dbn.gaussian import in_order, positions
from models.dbn.pooled import Pooled
from models.dbn.predictive import log_normalisers, prediction_loss
from models.dbn.regressions import Layout
from models.dbn.statistics import Statistics

STARTS = 3
TOO_FEW = 5.0  # nats of excess above which rows are too few for the posterior: then predictions count
PILOT = 400  # simulated rows behind the units of the variables
ITERATIONS = 500
ENOUGH = 1e-4  # nats of excess below which nothing is left to gain


def complete_rows(
    full: Pooled, size: int, slices: int, *, seed: int, equal_weights: bool, iterations: int = ITERATIONS
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Rows and weights whose posterior is closest to the given one.

    Args:
        full: The posterior; only its statistics and the means of its draws are used, no row of a source.
        size: Number M of rows.
        slices: Their number T of slices.
        seed: Seed of the starting rows, which are simulated.
        equal_weights: One common weight.
        iterations: Most iterations a start.

    Returns:
        Sequences ``(M, T, V)``, static values ``(M, V_s)``, weights ``(M,)``, and the excess, nats.
    """
    template, layout = full.template, Layout.of(full.template)
    if not isinstance(full.statistics, Statistics):
        raise TypeError("complete_rows is for linear-Gaussian templates; use soft_rows.")
    excess = excess_of(layout, full.statistics)
    found, least, coordinates = None, math.inf, Coordinates.of(full, slices, seed)
    for start in range(STARTS):
        begin = coordinates.start(size, seed + 1 + start, equal_weights=equal_weights)
        objective = lambda v: excess(layout.grams(*coordinates.rows(v, size)))  # noqa: E731
        vector, value = lbfgs(objective, begin, iterations, enough=ENOUGH)
        if value < least:
            found, least = vector, value
        if least <= ENOUGH:
            break
    if found is None:
        raise ValueError("complete_rows: no start gave a finite value; check the scales of the sources.")
    if least > TOO_FEW:
        loss = prediction_loss(full, layout, slices, seed)
        found, _ = lbfgs(lambda v: loss(layout.grams(*coordinates.rows(v, size))), found, iterations, stalled=1e-5)
        least = float(excess(layout.grams(*coordinates.rows(found, size))).detach())
    x, static, weight = coordinates.rows(found, size)
    moved, fixed = (torch.argsort(torch.tensor(places, dtype=torch.int64)) for places in positions(template))
    return x[..., moved], static[..., fixed], weight, least


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Rows, parents first, and log weights as one flat vector; every variable in units of its deviation.

    Attributes:
        full: The posterior that is distilled.
        slices: Number T of slices.
        centre: Mean of every static variable and variable ``(V_s + V,)``, in the posterior predictive.
        scale: Its deviation there.
    """

    full: Pooled
    slices: int
    centre: Tensor
    scale: Tensor

    @classmethod
    def of(cls, full: Pooled, slices: int, seed: int) -> Coordinates:
        """From rows simulated at the posterior mean."""
        x, static = _simulated(full, PILOT, slices, seed)
        columns = [column for column in (static, x.flatten(0, 1)) if column.shape[1]]
        centre = torch.cat([column.mean(0) for column in columns])
        scale = torch.cat([column.std(0) for column in columns]).clamp_min(1e-6)
        return cls(full, slices, centre, scale)

    def start(self, size: int, seed: int, *, equal_weights: bool) -> Tensor:
        """Simulated rows, each weighted N / M."""
        x, static = _simulated(self.full, size, self.slices, seed)
        count = static.shape[1]
        white = [(static - self.centre[:count]) / self.scale[:count], (x - self.centre[count:]) / self.scale[count:]]
        weight = torch.full((1 if equal_weights else size,), math.log(self.full.count / size), dtype=torch.float64)
        return torch.cat([*(part.flatten() for part in white), weight])

    def rows(self, vector: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Sequences ``(M, T, V)``, static values ``(M, V_s)``, weights ``(M,)``."""
        count = len(self.full.template.static)
        width = len(self.centre) - count
        static, x, weight = vector.split(
            [size * count, size * self.slices * width, len(vector) - size * (count + self.slices * width)]
        )
        static = self.centre[:count] + self.scale[:count] * static.reshape(size, count)
        x = self.centre[count:] + self.scale[count:] * x.reshape(size, self.slices, width)
        return x, static, weight.exp().clamp_min(SMALLEST_WEIGHT).expand(size)


def _simulated(full: Pooled, size: int, slices: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows at the posterior mean, parents first."""
    centre = {site: full.draws[site].mean(0) for site in full.template.sites}
    data = full.template.sample(centre, size, slices, seed)
    return in_order(full.template, data["x"], data.get("static", torch.zeros(size, 0, dtype=torch.float64)))


def excess_of(layout: Layout, statistics: Statistics) -> Callable[[Tensor], Tensor]:
    """Forward KL of rows' second moments ``(3, d, d)`` above that of the best normal-inverse-gammas, nats."""
    constant, slope = _cross_entropy(layout, statistics), _slope(layout, statistics)

    def excess(gram: Tensor) -> Tensor:
        return (gram * slope).sum() + log_normalisers(layout, gram).sum() + constant

    return excess


def _slope(layout: Layout, statistics: Statistics) -> Tensor:
    """D: derivative of minus the expected log-likelihood in the second moments (it is linear in them)."""
    gram = torch.zeros(3, layout.width, layout.width, dtype=torch.float64, requires_grad=True)
    blocks = layout.blocks(gram)
    linear = (
        0.5 * (blocks.inner * statistics.products).sum()
        - (blocks.cross * statistics.scaled).sum()
        + 0.5 * (blocks.square * statistics.precision).sum()
        + 0.5 * (blocks.count * statistics.log_variance).sum()
    )
    (slope,) = torch.autograd.grad(linear, gram)
    return slope


def _cross_entropy(layout: Layout, statistics: Statistics) -> Tensor:
    """What the prior adds to -E[log NIG], minus the least that any normal-inverse-gammas have."""
    template, tau, log_variance = layout.template, statistics.precision, statistics.log_variance
    terms = layout.real.sum(1).double()
    square = statistics.products.diagonal(dim1=-2, dim2=-1).sum(-1)
    prior = (template.variance_shape + 1) * log_variance + tau * template.variance_scale
    prior = prior + 0.5 * square / template.coefficient_scale**2
    shape = _shape(tau.log() + log_variance)
    rest = statistics.products - statistics.scaled[..., :, None] * statistics.scaled[..., None, :] / tau[:, None, None]
    rest = rest + torch.diag_embed((~layout.real).double())
    best = torch.lgamma(shape) - shape * (shape / tau).log() + (shape + 1) * log_variance + shape
    best = best + 0.5 * torch.logdet(rest) + 0.5 * terms
    return (prior - best).sum()


def _shape(gap: Tensor) -> Tensor:
    """Solves log a - digamma(a) = gap > 0 by Newton's method in log a."""
    log_shape = (0.5 / gap).log()
    for _ in range(50):
        shape = log_shape.exp()
        off = log_shape - torch.digamma(shape) - gap
        log_shape = log_shape - off / (1 - shape * torch.polygamma(1, shape))
    return log_shape.exp()
