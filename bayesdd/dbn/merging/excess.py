r"""The forward KL to complete linear-Gaussian rows, in closed form.

The posterior given complete rows is a product of normal-inverse-gammas, so that

.. math:: \mathrm{KL}(p, p_U) = \text{const} - \sum_f E_p[\log \mathrm{NIG}(\beta_f, \sigma^2_f; U, w)]
          = \text{const} + \langle C_U, D \rangle + \sum_f \log Z_f(C_U)

with the second moments C_U of the rows, a constant matrix D from the means of p's sufficient statistics, and the
normalisers :math:`\log Z = \log\Gamma(a) - a \log b - \tfrac12 \log|\Lambda|`: no particles, no sampling. The excess is
the KL above that of the best product of normal-inverse-gammas; correlations between families, which p may have and
complete rows cannot, are not part of it.

The families say nothing of the rows' other moments, in which a search for edges would find false ones. ``implied`` is
the excess of a network with all edges, relative to the posterior of as many sequences of the full posterior's own
network: added with a small weight it leaves the rows no edges but those of the template.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.dbn.inference.pooling import Pooled
from bayesdd.dbn.inference.regressions import Layout
from bayesdd.dbn.inference.statistics import Statistics, of_regressions
from bayesdd.dbn.merging.moments import Joint
from bayesdd.dbn.merging.predictive import log_normalisers
from bayesdd.dbn.template.template import saturated


def implied(full: Pooled, slices: int) -> Callable[[Tensor], Tensor]:
    """Second moments of rows ``(kinds, d, d)`` -> their excess with all edges, nats.

    It is relative to as many sequences of ``slices`` slices as there are rows, simulated at the posterior mean.
    """
    layout = Layout.of(saturated(full.template))
    return excess_of(layout, of_regressions(layout.fitted(expected_gram(full, slices)[None]), layout.real))


def expected_gram(full: Pooled, slices: int) -> Tensor:
    """Expected second moments of N complete sequences at the posterior mean, each stretch: ``(kinds, d, d)``."""
    template = full.template
    centre = {site: full.draws[site].mean(0, keepdim=True) for site in template.sites}
    joint = Joint.of(template, centre, slices)
    mean = torch.cat([torch.ones(1, dtype=torch.float64), joint.mean[0]])
    moments = torch.outer(mean, mean)
    moments[1:, 1:] += joint.covariance[0]
    count, size = len(template.static), len(template.variables)
    fixed = list(range(1 + count))
    slice_at = [[1 + count + t * size + i for i in range(size)] for t in range(slices)]
    layout = Layout.of(template)
    width, stretches = layout.width, template.structure.stretches
    gram = torch.zeros(layout.kinds, width, width, dtype=torch.float64)

    def add(kind: int, places: list[int], entries: list[int]) -> None:
        to, of = torch.tensor(places), torch.tensor(entries)
        gram[kind, to[:, None], to] += full.count * moments[of[:, None], of]

    add(0, fixed, fixed)
    for kind, t in ((k, t) for k, stretch in enumerate(stretches) if k for t in stretch.slices(slices)):
        entries = [entry for some in slice_at[max(0, t - layout.lags) : t + 1] for entry in some]
        add(kind, [*fixed, *range(width - len(entries), width)], fixed + entries)
    return gram


def excess_of(layout: Layout, statistics: Statistics) -> Callable[[Tensor], Tensor]:
    """Forward KL of rows' second moments ``(kinds, d, d)`` above that of the best normal-inverse-gammas, nats."""
    constant, slope = _cross_entropy(layout, statistics), _slope(layout, statistics)

    def excess(gram: Tensor) -> Tensor:
        return (gram * slope).sum() + log_normalisers(layout, gram).sum() + constant

    return excess


def _slope(layout: Layout, statistics: Statistics) -> Tensor:
    """D: derivative of minus the expected log-likelihood in the second moments (it is linear in them)."""
    gram = torch.zeros(layout.kinds, layout.width, layout.width, dtype=torch.float64, requires_grad=True)
    blocks = layout.blocks(gram)
    linear = (
        0.5 * (blocks.inner * statistics.products).sum()
        - (blocks.cross * statistics.scaled).sum()
        + 0.5 * (blocks.square * statistics.precision).sum()
        + 0.5 * (blocks.total * statistics.log_variance).sum()
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
