r"""Forward KL from draws alone: no likelihood of the full data is evaluated.

.. math:: \mathrm{KL}(p, p_U) = -\mathrm{E}_p[\log \pi + l_U - \log g] + \log \mathrm{E}_g[e^{\log\pi + l_U - \log g}]
          + \mathrm{KL}(p, g)

with prior pi and g the Gaussian that has the draws' mean and covariance. The last term does not depend on the synthetic
rows and is left out: the value is the KL where the full posterior is Gaussian. For targets whose likelihood is
intractable and whose posterior was sampled by other means.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.numerics.gaussian import moment_matched
from bayesdd.numerics.refusal import Refusal
from bayesdd.target.particles import trusted
from bayesdd.target.reference import Reference

PARTICLES = 2000
FEWEST = 10  # draws for each coordinate of the posterior below which their covariance says too little


def draws_forward_kl(
    reference: Reference, *, draws: Tensor | None = None, seed: int = 0
) -> Callable[[Columns, Tensor], Tensor]:
    """Loss: KL(full, distilled) up to a constant, from draws of the full posterior only; nats.

    Args:
        reference: The full posterior; of it only its particles are used, and nothing if ``draws`` are given.
        draws: Unconstrained draws of the full posterior, ``(S, P)``.
        seed: Seed of the draws of g.

    Returns:
        ``(rows, weight) -> nats``, differentiable in both; NaN where the distilled posterior is too far from g to say.

    Raises:
        Refusal: ``draws`` has another number of coordinates, or too few rows for a covariance.

    Source: Kim et al., "On divergence measures for Bayesian pseudocoresets", NeurIPS 2022 (the divergence, by
    contrastive divergence around trajectories of SGD); the normaliser by importance sampling is ours.
    """
    student, prior = reference.target.student, reference.target.prior
    if draws is None:
        draws, log_weight = reference.particles.draws, reference.particles.log_weight
    else:
        log_weight = torch.full((len(draws),), -math.log(max(1, len(draws))), dtype=torch.float64)
    dim = student.dim
    if draws.dim() != 2 or draws.shape[1] != dim or len(draws) < FEWEST * dim:
        raise Refusal(
            f"draws_forward_kl needs unconstrained draws of shape (S, {dim}) with S at least {FEWEST * dim} for "
            f"{student.name}, got {tuple(draws.shape)}."
        )
    device = reference.target.joint.device
    draws, mass = draws.to(device, torch.float64), log_weight.exp().to(device)
    gaussian = moment_matched(draws, mass)
    particles = gaussian.draw(PARTICLES, torch.Generator().manual_seed(seed + 1))
    at = torch.cat([draws, particles])
    with torch.no_grad():
        base = prior.log_prior(at) - gaussian.log_prob(at)
    policy = reference.policy

    def loss(rows: Columns, weight: Tensor) -> Tensor:
        ratio = base + student.log_likelihood(rows, at) @ weight
        expected = mass @ ratio[: len(draws)]
        if policy is None:
            terms = ratio[len(draws) :] - math.log(PARTICLES)
        else:
            # log Z_U relative to that of the earlier rows, whose posterior the draws are from.
            terms = policy.log_weight + student.log_likelihood(rows, policy.draws) @ weight - policy.own
        normaliser = terms.logsumexp(0)
        return trusted(terms - normaliser, normaliser - expected)

    return loss
