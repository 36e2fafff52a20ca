r"""Coefficients of steps given completed rows: probit regressions, by proposals that follow the posterior.

The posterior of a step's coefficients, :math:`\prod_i \Phi(s_i x_i' \beta)\, N(\beta; 0, s^2 I)`, is log-concave. Its
mode by Newton's method and the curvature there give a multivariate t of few degrees of freedom, from which a
Metropolis-Hastings step proposes, whatever the coefficients are now. Utilities are integrated out: drawn along with the
coefficients they would make chains of rare events slow. Source: Zellner & Rossi, "Bayesian analysis of dichotomous
quantal response models", Journal of Econometrics 1984 (the proposal).
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdd.dbn.likelihood.probit import log_ndtr, with_utilities
from bayesdd.dbn.template.columns import Rows, groups
from bayesdd.dbn.template.mixture import Mixture
from bayesdd.dbn.template.structure import Values

FREEDOM = 6.0  # degrees of freedom of the proposal: tails heavier than the posterior's, whose prior is normal
STEPS, STILL = 30, 1e-6  # of Newton's method, which takes six or so, and where it ends
LOG_ROOT_2PI = 0.9189385332046727


def steps_drawn(mixture: Mixture, numbers: Rows, signs: Rows, now: Values, generator: torch.Generator) -> Values:
    """Site of each categorical variable with linear-Gaussian parents -> coefficients ``(steps, k)``.

    Args:
        mixture: The template's parts.
        numbers: Completed rows of the continuous part.
        signs: Of their utilities (``probit.signs``), 0 in slices that do not count.
        now: The coefficients of the draw before; of the first draw nothing.
        generator: Random numbers.
    """
    part, template = mixture.augmented, mixture.template
    own = {one: name for name, some in mixture.utilities.items() for one in some}
    found: dict[str, list[Tensor]] = {}
    columns = with_utilities(mixture, numbers, signs)
    for families, of in groups(part, *columns):
        for family in (family for family in families if family.variable in own):
            sign = of((family.variable, 0))
            parents = [of(node).expand_as(sign) for node in family.parents]
            counted = sign != 0
            design = torch.stack([torch.ones_like(sign), *parents], -1)[counted]
            site = own[family.variable] + family.site.removeprefix(family.variable)
            before = now[site][len(found.get(site, []))] if site in now else None
            drawn = _drawn(design * sign[counted][:, None], template.coefficient_scale, before, generator)
            found.setdefault(site, []).append(drawn)
    return {site: torch.stack(some) for site, some in found.items()}


def _drawn(design: Tensor, scale: float, now: Tensor | None, generator: torch.Generator) -> Tensor:
    """One step from ``now``; ``design`` has the rows' signs in it ``(rows, k)``."""
    mode, root = _mode(design, scale)
    size = len(mode)
    normal = torch.randn(size, generator=generator, dtype=mode.dtype)
    spread = 2 * torch._standard_gamma(mode.new_tensor(FREEDOM / 2), generator=generator) / FREEDOM
    proposed: Tensor = (
        mode + torch.linalg.solve_triangular(root.mT, (normal / spread.sqrt())[:, None], upper=True)[:, 0]
    )
    if now is None:
        return proposed

    def log_ratio(slopes: Tensor) -> Tensor:
        target = log_ndtr(design @ slopes).sum() - 0.5 * (slopes / scale).square().sum()
        square = (root.mT @ (slopes - mode)).square().sum()
        return target + 0.5 * (FREEDOM + size) * torch.log1p(square / FREEDOM)

    uniform = torch.rand((), generator=generator, dtype=mode.dtype)
    return proposed if bool(uniform.log() < log_ratio(proposed) - log_ratio(now)) else now


def _mode(design: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The mode ``(k,)`` and a lower factor of minus the Hessian there."""
    slopes = design.new_zeros(design.shape[1])
    before = torch.eye(design.shape[1], dtype=design.dtype) / scale**2
    for _ in range(STEPS):
        mean = design @ slopes
        hazard = (-0.5 * mean.square() - LOG_ROOT_2PI - log_ndtr(mean)).exp()
        precision = before + design.mT @ ((hazard * (hazard + mean)).clamp_min(0)[:, None] * design)
        root, _ = torch.linalg.cholesky_ex(precision)
        move = torch.cholesky_solve((design.mT @ hazard - slopes / scale**2)[:, None], root)[:, 0]
        slopes = slopes + move
        if float(move.abs().max()) < STILL:
            break
    return slopes, root
