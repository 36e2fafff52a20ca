r"""Linear-Gaussian rows of one pattern of missing entries: their log-likelihood is linear in weighted moments.

For entries y of one pattern, with mean :math:`\mu` and covariance :math:`\Sigma` at a draw,

.. math:: \sum_m w_m \log N(y_m; \mu, \Sigma) = -\tfrac12 \{ \langle \Sigma^{-1}, S \rangle - 2 h'\Sigma^{-1}\mu
          + n (\mu'\Sigma^{-1}\mu + \log|2\pi\Sigma|) \}, \quad S = \sum w y y',\ h = \sum w y,\ n = \sum w.

At S fixed draws this is one matrix ``(S, F)`` times the moments ``(F,)``, F = r (r + 1) / 2 + r + 1 for r entries: what
rows do to a posterior is then a linear map, and matching it a least-squares problem.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import vmap

from bayesdd.dbn.likelihood.gaussian import LOG_2PI, grouped
from bayesdd.dbn.likelihood.missing import noise_of_entries, unrolled
from bayesdd.dbn.template.template import Template

CHUNK = 2**22  # numbers of one chunk of draws


@dataclass(frozen=True, eq=False)
class Joint:
    """Joint Gaussians of all entries at draws, without noise: mean ``(S, n)`` and covariance ``(S, n, n)``."""

    template: Template
    draws: dict[str, Tensor]
    mean: Tensor
    covariance: Tensor
    slices: int

    @classmethod
    def of(cls, template: Template, draws: dict[str, Tensor], slices: int) -> Joint:
        """At draws of the template's latent sites; noise sites may be among them."""
        plain = replace(template, noise=0.0, noise_site=None)
        values = {site: draws[site] for site in plain.sites}
        mean, factor = vmap(lambda v: unrolled(plain, v, slices))(values)
        return cls(plain, draws, mean, factor @ factor.mT, slices)

    def coefficients(self, template: Template, at: Tensor) -> Tensor:
        """The linear map of entries ``at`` measured with a template's noise: ``(S, F)``."""
        noise = noise_of_entries(template, self.draws, self.slices).expand(len(self.mean), -1)
        step = max(1, CHUNK // len(at) ** 2)
        pieces = [
            _coefficients(mean[:, at], covariance[:, at][:, :, at] + torch.diag_embed(spread[:, at]))
            for mean, covariance, spread in zip(
                self.mean.split(step), self.covariance.split(step), noise.split(step), strict=True
            )
        ]
        return torch.cat(pieces)

    def log_likelihood(self, template: Template, flat: Tensor) -> Tensor:
        """Sum over rows of all entries ``(rows, n)``, NaN where missing, at every draw: ``(S,)``."""
        total = self.mean.new_zeros(len(self.mean))
        for rows, at in grouped(~flat.isnan()):
            total = total + self.coefficients(template, at) @ moments(flat[rows][:, at], flat.new_ones(len(rows)))
        return total


def moments(rows: Tensor, weight: Tensor) -> Tensor:
    """Weighted second moments (lower triangle), first moments and total weight of rows ``(m, r)``: ``(F,)``."""
    weighted = weight[:, None] * rows
    i, j = torch.tril_indices(rows.shape[1], rows.shape[1])
    return torch.cat([(weighted.mT @ rows)[i, j], weighted.sum(0), weight.sum()[None]])


def _coefficients(mean: Tensor, covariance: Tensor) -> Tensor:
    size = mean.shape[1]
    root, _ = torch.linalg.cholesky_ex(covariance)
    precision = torch.cholesky_inverse(root)
    scaled = (precision @ mean[..., None])[..., 0]
    logs = 2 * root.diagonal(dim1=1, dim2=2).log().sum(1) + size * LOG_2PI
    i, j = torch.tril_indices(size, size)
    twice = torch.where(i == j, 0.5, 1.0)  # entries below the diagonal stand for those above
    constant = (mean * scaled).sum(1) + logs
    return torch.cat([-twice * precision[:, i, j], scaled, -0.5 * constant[:, None]], 1)
