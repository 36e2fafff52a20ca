r"""Certificates of merged rows: how far their posterior is from the joint posterior of the sources, in nats.

Both need the log-ratio :math:`\Delta = l_D - l_U` at draws. Complete rows have a posterior in closed form, from which
fresh draws come; masked rows are judged at draws of the joint posterior that their fit has not seen, reweighted by
:math:`e^{-\Delta}`. Unknown noise scales, which the rows do not have, are integrated out at each draw by
quasi-random importance sampling about a regression of their logarithms on the parameters at the joint posterior's
draws.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdd.certificate.estimates import estimate
from bayesdd.data import Certificate, Distilled
from bayesdd.dbn.inference import Dirichlet, Pooled, conjugate
from bayesdd.dbn.inference.marginal import Marginal
from bayesdd.dbn.inference.patterns import patterns_of
from bayesdd.dbn.likelihood import log_likelihood
from bayesdd.dbn.template.columns import as_columns, shaped
from bayesdd.inference.draws import Draws
from bayesdd.numerics.pareto import khat

DRAWS, TABLE_DRAWS = 2000, 400  # of complete rows' posterior; log-likelihoods of tables with gaps cost more
BATCHES = 40  # whose spread gives standard errors
SCALES, WIDER = 64, 3.0  # points of the noise scales at each draw, and their spread in conditional deviations


def of_complete_rows(full: Pooled, distilled: Distilled, tolerance: float, seed: int) -> Certificate:
    """The certificate of complete rows, at fresh draws of their posterior."""
    template = full.template
    posterior = conjugate(template, distilled.data, distilled.weight)
    draws = posterior.draw(TABLE_DRAWS if template.states else DRAWS, seed + 1)
    if template.mixed:
        sources = zip(full.noisy, full.rows, strict=True)
        by_source = [log_likelihood(noisy, draws, as_columns(noisy, rows)).sum(1) for noisy, rows in sources]
        theirs = torch.stack(by_source).sum(0)
        ours = log_likelihood(template, draws, distilled.data) @ distilled.weight
    elif template.states:
        x, static = (torch.cat(part) for part in zip(*full.rows, strict=True))
        theirs = log_likelihood(template, draws, as_columns(template, (x, static))).sum(1)
        ours = torch.zeros_like(theirs)
        for site, family in posterior.families.items():
            assert isinstance(family, Dirichlet)
            counts = family.concentration - template.pseudo_count
            ours = ours + (counts * draws[site].log()).flatten(1).sum(1)
    else:
        rows = shaped(template, distilled.data)
        student = Marginal([template], patterns_of(template, [rows], [distilled.weight]), rows[0].shape[1])
        points = student.points(draws)
        ours, theirs = student.log_joint(points), _with_noise_integrated(full, points, seed)
    batches = Draws(torch.zeros(BATCHES, len(theirs) // BATCHES, 1, dtype=torch.float64))
    return _certificate(theirs - ours, batches, tolerance, float(theirs.abs().max()))


def of_masked_rows(ratio: Tensor, tolerance: float) -> Certificate:
    """The certificate of rows from their log-ratio at draws of the joint posterior ``(S,)``."""
    ratio = ratio[: len(ratio) - len(ratio) % BATCHES] if len(ratio) > BATCHES else ratio
    batches = BATCHES if len(ratio) % BATCHES == 0 else 1
    values = torch.zeros(batches, len(ratio) // batches, 1, dtype=torch.float64)
    draws = Draws(values, (ratio.mean() - ratio).reshape(batches, -1))
    return _certificate(ratio, draws, tolerance, float(ratio.abs().max()), khat(-ratio))


def _certificate(
    ratio: Tensor, draws: Draws, tolerance: float, scale: float, tail: tuple[float, float] | None = None
) -> Certificate:
    found = estimate(ratio, draws, scale)
    if tail is not None:
        found |= {"khat": tail[0], "khat_se": tail[1]}
    return Certificate(**found, sweeps=float(len(ratio)), gradients=0.0, tolerance=tolerance)


def _with_noise_integrated(full: Pooled, points: Tensor, seed: int) -> Tensor:
    """Log joint density of the sources at points of the template ``(S, P)``, up to a constant: ``(S,)``."""
    marginal = Marginal(full.noisy, patterns_of(full.template, full.rows), full.slices)
    every = marginal.points(full.draws)
    count = points.shape[1]
    order = torch.cat([torch.arange(marginal.dim)[marginal.places[site]] for site in full.template.sites])
    sites = [site for site in marginal.sites if site not in full.template.sites]
    at = torch.cat([torch.arange(marginal.dim)[marginal.places[site]] for site in sites]) if sites else order[:0]
    placed = points.new_zeros(len(points), marginal.dim)
    placed[:, order] = points
    if not sites:
        return marginal.log_joint(placed)
    design = torch.cat([torch.ones(len(every), 1, dtype=torch.float64), every[:, order]], 1)
    slopes = torch.linalg.lstsq(design, every[:, at]).solution
    left = every[:, at] - design @ slopes
    root = WIDER * torch.linalg.cholesky(left.mT @ left / (len(left) - count - 1))
    centre = torch.cat([torch.ones(len(points), 1, dtype=torch.float64), points], 1) @ slopes
    # The same scattered points at every draw: what error they leave is nearly a constant, which the log-ratio forgets.
    even = torch.quasirandom.SobolEngine(len(at), scramble=True, seed=seed).draw(SCALES, dtype=torch.float64)
    found = []
    for noise in torch.special.ndtri(even.clamp(1e-6, 1 - 1e-6)):
        there = placed.index_copy(1, at, centre + root @ noise)
        found.append(marginal.log_joint(there) + 0.5 * noise @ noise)
    return torch.stack(found).logsumexp(0)
