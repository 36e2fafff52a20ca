r"""Wide networks: linear around narrow ones that were searched, with scales by the evidence of the linear model.

A network of 10,000 weights has more of them than there are rows. Followed as it is, the prior draws the weights of its
new units to zero before anything reads them, and scales that the narrow network has left hold it where that one was.
Near the draws of the prior with which new units begin, a wide network is linear in its weights (neural tangent
features), and there the evidence is that of a Gaussian: with :math:`\theta` the step from the anchor, r the residuals
and J their slopes at it, both over their scales,

.. math:: \theta \leftarrow A^{-1} J^\top (J \theta - r), \qquad
          \sigma_g^2 \leftarrow \frac{|r_g|^2 + f_g^2}{N_g - \gamma_g + 1}, \qquad A = I + J^\top J .

With more weights than rows :math:`\gamma_g` goes to :math:`N_g` as the residuals go to zero, so that scales say what
lies between the points too. Each round costs R^2 P for R rows: everything is solved in the rows' dimension, in the form
:math:`J^\top (I + J J^\top)^{-1}`, which subtracts no large numbers and loses nothing where scales are small. Scales of
what is to be zero only fall. Where an equation is nonlinear, a step that does not descend is halved. Unknowns that
fields follow are held: what is left of the equation says nothing of them (:mod:`bayesdd.pinn.response`).

Sources: MacKay, "Bayesian interpolation", Neural Computation 1992; Jacot, Gabriel & Hongler, "Neural tangent kernel",
NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bayesdd.networks.students import GaussNewton
from bayesdd.pinn.residuals import Networks, linearised, residuals
from bayesdd.pinn.response import evident_scales, unheld
from bayesdd.pinn.terms import Term

ROUNDS = 8  # most of them; the error of a reaction and diffusion falls 2.3e-3, 1.6e-4, 5.9e-5, 3.8e-5, 2.2e-5, 1.7e-5
SETTLED = 0.1  # relative change of all scales that ends them
HALVED = 6  # times that a step is halved before it is given up


def sharpened(
    networks: Networks, terms: Sequence[Term], theta: Tensor, noise: Tensor, known: Tensor, floor: Tensor
) -> tuple[Tensor, Tensor]:
    """Steps and constants ``(S, P)`` after the last round, and the scales of all groups ``(S, G)``.

    Args:
        networks: Networks that are linear around what searches found.
        terms: All rows.
        theta: Steps and constants to begin with ``(S, P)``.
        noise: Scales that the searches ended with ``(S, G)``, in the units of the residuals.
        known: Known scales of the groups, NaN of those to be found, ``(G,)``.
        floor: What counts as one more row of each group, ``(G,)``.
    """
    counts = [term.count for term in terms for _ in term.names]
    rows = torch.tensor(counts, device=theta.device)
    zero = torch.tensor([term.observed is None for term in terms for _ in term.names], device=theta.device)
    moving = unheld(networks, terms, theta, noise)
    for _ in range(ROUNDS):
        scale = noise.repeat_interleave(rows, 1)
        theta, free = _step(networks, terms, theta, scale, moving)
        squares = torch.cat(residuals(networks, terms, theta), 1).square()
        evident = evident_scales(counts, squares, free, floor)
        found = torch.where(known.isnan(), torch.where(zero, torch.minimum(evident, noise), evident), noise)
        change, noise = (found / noise).log().abs().max(), found
        if change < SETTLED:
            break
    return _step(networks, terms, theta, noise.repeat_interleave(rows, 1), moving)[0], noise


def _step(
    networks: Networks, terms: Sequence[Term], theta: Tensor, scale: Tensor, moving: Tensor
) -> tuple[Tensor, Tensor]:
    """A Gauss-Newton step with scales held, and what no parameter determines of each row ``(S, R)``."""
    values, slopes = linearised(networks, terms, theta)
    white, jacobian = torch.cat(values, 1) / scale, torch.cat(slopes, 1)
    del slopes  # as large again
    jacobian /= scale[..., None]
    jacobian *= moving
    model = GaussNewton(jacobian, torch.ones_like(white[0]), torch.ones_like(theta))
    step = model.regression((jacobian @ theta[..., None])[..., 0] - white) - moving * theta
    before, share = white.square().sum(1) + theta.square().sum(1), torch.ones_like(theta[:, 0])
    for _ in range(HALVED):
        moved = theta + share[:, None] * step
        after = torch.cat(residuals(networks, terms, moved), 1) / scale
        worse = ~(after.square().sum(1) + moved.square().sum(1) <= before)
        if not bool(worse.any()):
            break
        share = torch.where(worse, share / 2, share)
    share = torch.where(worse, 0.0, share)
    return theta + share[:, None] * step, model.free()
