r"""Score matching: gradients of the log-ratio in theta, at draws of the full posterior.

.. math:: \tfrac12 \mathrm{E}_{\theta \sim p} \| F' \nabla_\theta \Delta(\theta) \|^2, \qquad C = FF'

with C the full posterior covariance. For Gaussian posteriors of equal covariance it is the KL; it bounds the KL of any
Gaussian from above. In a vanishing neighbourhood of one point it is gradient matching (Zhao et al. 2021) with C in
place of the cosine.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.numerics.refusal import Refusal
from bayesdd.target.reference import Reference


def fisher(reference: Reference, *, draws: int = 500) -> Callable[[Columns, Tensor], Tensor]:
    """Loss: the Fisher divergence of the distilled from the full posterior, preconditioned; nats, at least 0.

    Args:
        reference: The full posterior.
        draws: Draws of the full posterior at which scores are compared; each costs one gradient of all rows.

    Raises:
        Refusal: The target has sites that the student lacks: the marginal score has no closed form.

    Source: Campbell & Broderick, "Automated scalable Bayesian inference via Hilbert coresets", JMLR 2019 (weighted
    Fisher information distance); Huggins, Campbell, Kasprzak & Broderick, arXiv 1809.09505, 2018.
    """
    target, student = reference.target, reference.target.student
    if len(target.nuisance):
        raise Refusal(
            f"fisher needs the score of the shared sites alone, but the target has sites that {student.name} lacks: "
            "use half_variance, or give the student these sites."
        )
    points = reference.particles.draws[:draws]
    weights = torch.softmax(reference.particles.log_weight[:draws], 0)
    full = target.joint.log_joint_gradient(target.joint_order(points))[1][:, target.index]
    full = full - target.prior.log_joint_gradient(points)[1]
    factor = reference.second_order.gaussian.factor

    def loss(rows: Columns, weight: Tensor) -> Tensor:
        at = points.detach().clone().requires_grad_(True)
        likelihood = student.log_likelihood(rows, at) @ weight
        (slope,) = torch.autograd.grad(likelihood.sum(), at, create_graph=True)
        nats: Tensor = 0.5 * weights @ (((full - slope) @ factor) ** 2).sum(1)
        return nats

    return loss
