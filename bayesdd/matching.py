r"""Second-order matching: the half-variance in closed form, no particles.

With gradient g and Hessian H of the log-ratio at the mean of a Gaussian N(mu, C),

.. math:: \tfrac12 \mathrm{Var}[g'd + \tfrac12 d'Hd] = \tfrac12 g'Cg + \tfrac14 \mathrm{tr}((HC)^2).

Of the full data it takes one gradient and one Hessian at mu. With nuisances, whose marginal log-likelihood has no simple
derivatives, it takes those of the Gaussian instead: g_D = -grad log prior, H_D = -C^{-1} - Hess log prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.density import derivatives
from bayesdd.inference.laplace import Gaussian
from bayesdd.pyro_model import Columns
from bayesdd.target import Target
from bayesdd.task import Task


@dataclass(frozen=True, eq=False)
class SecondOrder:
    """What the closed form needs of the full posterior.

    Attributes:
        gaussian: N(mu, C) of the full posterior.
        gradient: g_D at mu, nats per unit, shape ``(P,)``.
        hessian: H_D at mu, shape ``(P, P)``.
        prior_precision: Minus the Hessian of the log prior at mu.
    """

    gaussian: Gaussian
    gradient: Tensor
    hessian: Tensor
    prior_precision: Tensor

    @classmethod
    def of(cls, gaussian: Gaussian, target: Target) -> SecondOrder:
        """At a Gaussian of the student's latents: exact derivatives of l_D, or with nuisances those of its own log."""
        _, slope, curvature = target.prior.prior_derivatives(gaussian.mean[None])
        if len(target.nuisance):
            precision = torch.cholesky_inverse(gaussian.factor)
            return cls(gaussian, -slope[0], -precision - curvature[0], -curvature[0])
        full = torch.empty_like(gaussian.mean)
        full[target.index] = gaussian.mean
        _, gradient, hessian = target.joint.likelihood_derivatives(full[None])
        index = target.index
        return cls(gaussian, gradient[0][index], hessian[0][index[:, None], index], -curvature[0])

    def __call__(self, student: Task, rows: Columns, weight: Tensor) -> Tensor:
        """Half-variance of the log-ratio's quadratic part, nats; differentiable in rows and weights."""
        directions = torch.arange(len(self.gradient), device=weight.device)
        _, slope, hessian = derivatives(student, rows, weight, self.gaussian.mean, directions, create_graph=True)
        factor = self.gaussian.factor
        along = factor.T @ (self.gradient - slope)
        across = factor.T @ (self.hessian - hessian) @ factor
        return 0.5 * (along**2).sum() + 0.25 * (across**2).sum()
