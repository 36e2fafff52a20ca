r"""Bilevel ELBO: the guide that the synthetic rows fit best, judged by the full data.

.. math:: \phi^*(U) = \arg\max_\phi \mathrm{ELBO}_U(q_\phi), \qquad \max_U \mathrm{ELBO}_D(q_{\phi^*(U)})

which minimises KL(q, full) over the guides that synthetic rows can lead to. With a delta guide it is classic bilevel
distillation: the full data's loss at the mode of the synthetic ones. It then fixes P numbers (the mode) and leaves the
width of the posterior free; a mean-field or full-rank guide matches that too. Differentiated implicitly at the inner
optimum, whose noise is fixed (sample average approximation).

Cost of one evaluation: a few Newton steps on M rows, and S gradients of all rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from pyro.infer.autoguide import AutoDelta
from torch import Tensor

from bayesdd.data.certificate import CertificateWarning
from bayesdd.data.columns import Columns
from bayesdd.density.density import derivatives
from bayesdd.numerics.newton_cg import adjoint, minimum
from bayesdd.numerics.optimise import lbfgs
from bayesdd.numerics.refusal import Refusal
from bayesdd.objectives.guides import Guide
from bayesdd.target.reference import Reference

LEFT = 1e-6  # nats left to gain at an inner optimum above which it counts as not converged
LARGEST_PRECONDITIONER = 600  # parameters of the guide; above, conjugate gradients run without
FIT = 500  # L-BFGS iterations that fit the guide to the full data


def bilevel(
    reference: Reference, *, guide: Callable[[Any], Any] = AutoDelta, draws: int = 16, seed: int = 0
) -> Callable[[Columns, Tensor], Tensor]:
    """Loss: ELBO of the full data lost by fitting the guide to the synthetic rows instead; nats, at least 0.

    Args:
        reference: The full posterior.
        guide: A Pyro autoguide class (or a ``partial`` of one).
        draws: Draws from the guide that stand for its expectation.
        seed: Seed of their noise.

    Raises:
        Refusal: The guide has no parameters or does not work on the model; the target has sites that the student
            lacks, or lives on another device than the CPU.

    Warns:
        CertificateWarning: An inner optimum was not reached: the gradient there is not that of the loss.

    Source: Wang, Zhu, Torralba & Efros, "Dataset distillation", 2018 (delta guide, unrolled); Manousakas, Ritter &
    Karaletsos, "Black-box coreset variational inference", NeurIPS 2022 (variational inner problem).
    """
    target, student = reference.target, reference.target.student
    if len(target.nuisance):
        raise Refusal(
            f"bilevel needs a target whose sites are all sites of {student.name}: use half_variance, or give the "
            "student these sites."
        )
    if target.joint.device.type != "cpu":
        raise Refusal("bilevel runs on the CPU, where Pyro makes its guides: pass distill(..., device='cpu').")
    family = Guide(student, guide, draws=draws, seed=seed)

    def outer(phi: Tensor) -> Tensor:
        """Minus ELBO of the full data; one backward deep."""
        theta, log_density = family(phi)
        value, slope = target.joint.log_joint_gradient(target.joint_order(theta.detach()))
        along = (slope[:, target.index] * (theta - theta.detach())).sum(1)
        return (log_density - value - along).mean()

    best, least = lbfgs(outer, family.start, FIT, stalled=1e-9)
    curvature = -reference.second_order.prior_hessian
    warm = best

    def loss(rows: Columns, weight: Tensor) -> Tensor:
        nonlocal warm
        fixed = {name: column.detach() for name, column in rows.items()}, weight.detach()

        def inner(phi: Tensor, rows: Columns, weight: Tensor) -> Tensor:
            theta, log_density = family(phi)
            likelihood = student.log_likelihood(rows, theta) @ weight
            return (log_density - student.log_prior(theta) - likelihood).mean()

        def precision(mean: Tensor) -> Tensor:
            return curvature - derivatives(student, *fixed, mean, torch.arange(len(mean)))[2]

        def settled(phi: Tensor) -> Tensor:
            return inner(phi, *fixed)

        precondition = _gauss_newton(family, warm, precision)
        phi, left = minimum(settled, warm, precondition)
        if not left < LEFT:
            warnings.warn(
                f"bilevel: an inner optimum was not reached ({left:.2g} nats were left to gain): its gradient is off. "
                "Use a simpler guide or more rows.",
                CertificateWarning,
                stacklevel=2,
            )
        else:
            warm = phi
        at = phi.clone().requires_grad_(True)
        value = outer(at)
        (upward,) = torch.autograd.grad(value, at)
        answer = adjoint(settled, phi, upward, precondition)
        (slope,) = torch.autograd.grad(inner(at, rows, weight), at, create_graph=True)
        moved = -(answer @ slope)
        return value.detach() - least + moved - moved.detach()

    return loss


def _gauss_newton(family: Guide, phi: Tensor, precision: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Inverse of J' A J averaged over the guide's draws, with A the posterior's precision at their mean."""
    if len(phi) > LARGEST_PRECONDITIONER:
        return lambda vector: vector
    at = phi.clone().requires_grad_(True)
    theta, _ = family(at)
    count, dim = theta.shape
    basis = torch.eye(count * dim, dtype=theta.dtype).reshape(-1, count, dim)
    (jacobian,) = torch.autograd.grad(theta, at, basis, is_grads_batched=True)
    values, vectors = torch.linalg.eigh(precision(theta.detach().mean(0)))
    # Models that are not log-concave: curvature counts by its size.
    root = vectors * values.abs().clamp_min(1e-6 * float(values.abs().max())).sqrt()
    parts = torch.einsum("sdn,dk->skn", jacobian.reshape(count, dim, -1), root).reshape(count * dim, -1)
    matrix = parts.T @ parts / count
    # Scales enter the entropy by their logarithm, which Gauss-Newton does not see: one nat for each.
    matrix = matrix + 1e-3 * matrix.diagonal().mean() * torch.eye(len(phi), dtype=matrix.dtype)
    lower = torch.linalg.cholesky(matrix)
    return lambda vector: torch.cholesky_solve(vector[:, None], lower)[:, 0]
