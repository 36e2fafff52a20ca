r"""A last correction of the fields, at points that no fit has seen, by random features of the inputs.

What corrected networks leave of an equation is larger between the points of the fit than there, and nothing that was
fitted knows. So the fields of every network get the sum of random features that solves for the residuals r at new
points, linearised, by least squares with the scales :math:`\sigma` of the fit,

.. math:: \hat w = \arg\min_w |(r + J w) / \sigma|^2 + |w|^2 .

Unknowns that fields follow are held meanwhile, and then respond to the corrected fields as measurements ask; others, an
eigenvalue, are part of the solution.

Source: Chen, Chi, E & Yang, "Bridging traditional and machine learning-based algorithms for solving PDEs: the random
feature method", Journal of Machine Learning 2022.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bayesdd.pinn.features import Features
from bayesdd.pinn.left import zeros
from bayesdd.pinn.remainder import mean_size, over_scales
from bayesdd.pinn.residuals import Evaluation, Networks
from bayesdd.pinn.terms import Term

FEATURES, POINTS, CONDITION = 1500, 4096, 4.0  # of all fields together; of the equation; times a condition's of the fit
SPOILT, UNFIT = 2.0, 5.0  # times a group may grow, and its scale; scales that corrections may leave, if one does
BLOCK = 512  # points of which derivatives are held at once
APART = 1000  # between the seeds of the fit and of its last correction


def polished(surrogate: Any) -> Any:
    """The surrogate after a last correction of its fields, for every mode of which it leaves less at new points."""
    answer, width = surrogate.response, surrogate.networks.fields.dim
    free = torch.zeros(surrogate.networks.dim - width, dtype=torch.bool) if answer is None else ~answer.followed
    bare, noise = surrogate.networks, surrogate.zero_noise
    networks, theta = corrected(bare, surrogate.theta, noise, free, surrogate.seed + APART)
    better = improved(surrogate, networks, theta)
    assert networks.added is not None
    out = torch.where(better[..., None], networks.added.out, 0.0)  # what is not finite is not better
    networks = replace(networks, added=replace(networks.added, out=out))
    theta = torch.where(better, theta, surrogate.theta)
    found = replace(surrogate, networks=networks, theta=theta)
    if answer is None:
        return found
    return replace(found, theta=theta + answer.moves(found.remainder.moved(theta) * _followed(answer, width)))


def improved(surrogate: Any, networks: Networks, theta: Tensor) -> Tensor:
    """Which modes corrected networks describe better at new points, ``(K, 1)``.

    Least squares that leave many times the scales of a group do not know how to weigh groups: a layer that features do
    not resolve is then met at the cost of the conditions, and fields are farther off than before. Such a correction is
    not made, whatever it leaves in all.
    """
    terms, noise = surrogate.zeros(None, 2), surrogate.zero_noise
    before = over_scales(surrogate.networks, terms, surrogate.theta, noise)
    after = over_scales(networks, terms, theta, noise)
    was, left = mean_size(torch.cat(before, 1)), mean_size(torch.cat(after, 1))
    each = zip(after, before, strict=True)
    grown = torch.cat([mean_size(one) > SPOILT * mean_size(other).clamp_min(1.0) for one, other in each], 1)
    return (left < was) & ~(grown.any(1, keepdim=True) & (left > UNFIT))


def corrected(networks: Networks, theta: Tensor, noise: Tensor, free: Tensor, seed: int) -> tuple[Networks, Tensor]:
    """The networks with a correction of their fields by random features, and theta with that of free unknowns.

    Args:
        networks: Linear around what searches found.
        theta: Steps and constants, ``(K, P)``.
        noise: Scales of the equation's and conditions' residuals, ``(K, G)``.
        free: Which parameters behind the F weights of the fields are part of the solution, ``(P - F,)``.
        seed: Of the features and of new points.
    """
    generator = torch.Generator().manual_seed(seed)
    count = max(1, FEATURES // len(networks.fields.outputs))
    features = Features.drawn(networks.fields, len(theta), count, generator).to(theta.device)
    terms = [term.to(theta.device) for term in zeros(networks.problem, None, seed, points=POINTS, share=CONDITION)]
    found = torch.stack([_solved(networks, terms, theta, noise, features, free, k) for k in range(len(theta))])
    moved, size = theta.clone(), features.out[0].numel()
    moved[:, networks.fields.dim :][:, free] += found[:, size:]
    return replace(networks, added=replace(features, out=found[:, :size].reshape(features.out.shape))), moved


def _solved(
    networks: Networks,
    terms: Sequence[Term],
    theta: Tensor,
    noise: Tensor,
    features: Features,
    free: Tensor,
    mode: int,
) -> Tensor:
    """One mode's weights of features and steps of free unknowns: squared, a fourth derivative would have no digits."""
    assert networks.anchor is not None  # a surrogate's networks have one
    own, at, width = replace(networks, anchor=networks.anchor[mode : mode + 1]), theta[mode], networks.fields.dim
    rows, right, scales = [], [], iter(noise[mode])
    for term in terms:
        scale = torch.stack([next(scales) for _ in term.names])[:, None]
        for block in _blocks(term):
            evaluation = Evaluation(own, block, at[None].detach().requires_grad_(True), taped=True)
            slopes = evaluation.of_features(features)[0]
            if bool(free.any()):
                slopes = torch.cat([slopes, evaluation.jacobian().detach()[0, :, :, width:][..., free]], 2)
            rows.append((slopes / scale[..., None]).flatten(0, 1))
            right.append((-evaluation.residuals().detach()[0] / scale).flatten())
    ridge = torch.eye(rows[0].shape[1]).to(at)
    right += [at.new_zeros(features.out[0].numel()), -at[width:][free]]
    slopes, values = torch.cat([*rows, ridge]), torch.cat(right)
    if not bool(slopes.isfinite().all() and values.isfinite().all()):
        return torch.zeros_like(slopes[0])  # a solver would end in an error of its own
    found: Tensor = torch.linalg.lstsq(slopes, values[:, None], driver="gels").solution
    return found[:, 0].contiguous()


def _followed(answer: Any, width: int) -> Tensor:
    found: Tensor = torch.cat([answer.followed.new_ones(width), answer.followed])
    return found


def _blocks(term: Term) -> Iterator[Term]:
    """A term in parts, of which the derivatives of few points are held at once."""
    for at in range(0, term.count, BLOCK):
        yield replace(term, points={name: column[at : at + BLOCK] for name, column in term.points.items()}, late=None)
