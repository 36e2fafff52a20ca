r"""Unknowns learn from measurements, not from what networks find easy: fields answer them as the equation says.

What a network leaves of the equation is no noise. Taken as noise, at a thousand points, it speaks of the unknowns: a
source is flattened until networks of this size meet the equation with it, with an interval as narrow as a thousand
measurements would make it. So the posterior is that of a model in two parts. Given unknowns :math:`\phi`, the equation
and conditions, with rows :math:`J_u, J_\phi` over their scales, say where the weights of the fields lie,

.. math:: u \mid \phi \sim N(\hat u + T (\phi - \hat\phi), A^{-1}), \qquad A = I + J_u^\top J_u, \qquad
          T = -A^{-1} J_u^\top J_\phi;

the unknowns have their prior; measurements inform both. In coordinates :math:`v = u - T(\phi - \hat\phi)` and
:math:`\phi` that is least squares again, with unit ridges: rows of the equation have no columns of :math:`\phi`, and a
slope :math:`(s_u, s_\phi)` of anything becomes :math:`(s_u, s_\phi + s_u T)`, by which the unknowns enter its variance.
Where the equation is linear and the networks are wide it is the posterior of the inverse problem itself.
Where it is not linear, fields meet it again behind every step of the unknowns, with the Jacobian of the step's
beginning, and measurements and the priors of the unknowns alone say whether the step was good: second-order terms of
the equation, over its sharp scale, would stop it.

An unknown that fields cannot follow is determined by equation and conditions: an eigenvalue, a flux that a condition
reads off. It keeps its columns as they are.

Sources: Liu, Bayarri & Berger, "Modularization in Bayesian analysis, with emphasis on analysis of computer models",
Bayesian Analysis 2009; Plummer, "Cuts in Bayesian graphical models", Statistics and Computing 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.networks.students import GaussNewton
from bayesdd.pinn.residuals import Networks, linearised, residuals
from bayesdd.pinn.terms import Term

FOLLOWED = 0.1  # share of what an unknown changes of equation and conditions that fields may leave if they follow it
PROBES = 8  # draws of an unknown function's weights by which that is seen
ROUNDS = 8  # most Gauss-Newton steps, with the noise found anew after each
MET = 4  # chord steps by which fields meet the equation again behind a step of the unknowns
HALVED = 6  # times that a step is halved before it is given up
SETTLED, CONVERGED = 0.01, 0.01  # relative change of scales and nats to gain that end the rounds


@dataclass(frozen=True, eq=False)
class _Rows:
    """All rows of networks, over the scales that they have during one step ``(S, R)``."""

    networks: Networks
    terms: Sequence[Term]
    scale: Tensor

    def left(self, theta: Tensor) -> Tensor:
        """What parameters ``(S, P)`` leave of every row over its scale, ``(S, R)``."""
        with torch.no_grad():
            return torch.cat(residuals(self.networks, self.terms, theta), 1) / self.scale


@dataclass(frozen=True, eq=False)
class Response:
    """How the fields of S searches answer the unknowns.

    Attributes:
        turn: -T, by which the F weights of the fields answer all further parameters, zero for those that they do not
            follow, ``(S, F, P - F)``.
        zero: Which rows are the equation's and conditions', ``(N,)``.
        followed: Which of the further parameters the fields follow, ``(P - F,)``.
    """

    turn: Tensor
    zero: Tensor
    followed: Tensor

    def along(self, slopes: Tensor) -> Tensor:
        """Slopes ``(S, K, P)`` of anything in weights and unknowns, turned to v and the unknowns: ``(S, K, P)``."""
        own, rest = slopes.split(list(self.turn.shape[1:]), 2)
        return torch.cat([own, rest - own @ self.turn], 2)

    def rows(self, white: Tensor) -> Tensor:
        """Slopes of all rows over their scales ``(S, N, P)``, turned to v and the unknowns: ``(S, N, P)``."""
        found, width = white.clone(), self.turn.shape[1]
        found[:, ~self.zero] = self.along(white[:, ~self.zero])
        found[:, self.zero, width:] *= ~self.followed
        return found

    def moves(self, steps: Tensor) -> Tensor:
        """Steps ``(S, P)`` in v and the unknowns as steps of the weights and unknowns themselves: ``(S, P)``."""
        width = self.turn.shape[1]
        moved = (self.turn @ steps[:, width:, None])[..., 0]
        return torch.cat([steps[:, :width] - moved, steps[:, width:]], 1)


def response(networks: Networks, terms: Sequence[Term], white: Tensor) -> Response | None:
    """How fields answer unknowns where all rows have these slopes over their scales ``(S, N, P)``; None without any."""
    if networks.dim == networks.fields.dim:
        return None
    return _answered(networks, terms, white)[0]


def _answered(networks: Networks, terms: Sequence[Term], white: Tensor) -> tuple[Response, GaussNewton]:
    """The same, and the model of the fields that equation and conditions determine."""
    width = networks.fields.dim
    zero = torch.cat([torch.full((t.count * len(t.names),), t.observed is None) for t in terms]).to(white.device)
    fields, unknowns = white[:, zero].split([width, networks.dim - width], 2)
    model = GaussNewton(fields, white.new_ones(fields.shape[1]), white.new_ones(len(white), width))
    followed = torch.zeros_like(zero[:1]).repeat(unknowns.shape[2])
    for part in networks.unknowns():
        changed = unknowns[:, :, part] @ _probes(part.stop - part.start, white)
        left = model.unexplained(changed)
        followed[part] = bool(left.norm() <= FOLLOWED * changed.norm())
    return Response(model.regressions(unknowns * followed), zero, followed), model


def unheld(networks: Networks, terms: Sequence[Term], theta: Tensor, noise: Tensor) -> Tensor:
    """Zero for parameters of unknowns that fields follow, one for all others, ``(P,)``.

    What is left of the equation at sharp scales says nothing of those, and steps there are short: they are held
    where measurements have them.
    """
    found, width = torch.ones_like(theta[0]), networks.fields.dim
    if networks.dim == width:
        return found
    _, slopes = linearised(networks, terms, theta)
    white = torch.cat([part / noise[:, at, None, None] for at, part in enumerate(slopes)], 1)
    answer = response(networks, terms, white)
    if answer is not None:
        found[width:] = (~answer.followed).to(found)
    return found


def evident_scales(counts: list[int], squares: Tensor, free: Tensor, floor: Tensor) -> Tensor:
    """Scales of groups of rows by their evidence ``(S, G)``, in the units of the rows.

    Args:
        counts: Rows of each of the G groups.
        squares: Squared residuals of all rows ``(S, R)``.
        free: One less the leverage of each row ``(S, R)``.
        floor: Scale of one row more of each group ``(G,)``.

    Source: MacKay, "Bayesian interpolation", Neural Computation 1992.
    """
    left, unused = (torch.stack([part.sum(1) for part in some.split(counts, 1)], 1) for some in (squares, free))
    found: Tensor = ((left + floor**2) / (unused + 1)).sqrt()
    return found


def informed(
    networks: Networks, terms: Sequence[Term], theta: Tensor, noise: Tensor, known: Tensor, floor: Tensor
) -> tuple[Tensor, Tensor]:
    """Modes ``(S, P)`` at which measurements inform the unknowns, and the scales of all groups ``(S, G)``.

    Args:
        networks: Networks that are linear around what searches found.
        terms: All rows.
        theta: Where to begin.
        noise: Scales of all groups; those of measurements are found anew, by their evidence.
        known: Known scales, NaN of those to be found, ``(G,)``.
        floor: What counts as one more row of each group, ``(G,)``.
    """
    counts = [term.count for term in terms for _ in term.names]
    repeats = torch.tensor(counts, device=theta.device)
    measured = torch.tensor([term.observed is not None for term in terms for _ in term.names], device=theta.device)
    if networks.dim == networks.fields.dim:
        return theta, noise
    for _ in range(ROUNDS):
        scale = noise.repeat_interleave(repeats, 1)
        values, slopes = linearised(networks, terms, theta)
        white, off = torch.cat(slopes, 1) / scale[..., None], torch.cat(values, 1) / scale
        answer, fields = _answered(networks, terms, white)
        if not bool(answer.followed.any()):
            break
        turned = answer.rows(white)
        model = GaussNewton(turned, turned.new_ones(turned.shape[1]), torch.ones_like(theta))
        gradient = (off[:, None] @ turned)[:, 0] + theta
        steps = -model.solve(gradient)
        rows = _Rows(networks, terms, scale)
        theta, share = _moved(rows, theta, steps, answer, fields, white, off)
        left = torch.cat(residuals(networks, terms, theta), 1).square()
        used = model.variance(turned).clamp(0, 1)
        evident = evident_scales(counts, left, 1 - used, floor)
        found = torch.where(measured & known.isnan(), evident, noise)
        change, noise = (found / noise).log().abs().max(), found
        promised = -(gradient * steps)[:, networks.fields.dim :].sum(1) / 2
        if not bool(share.any()) or (change < SETTLED and bool((promised.abs() < CONVERGED).all())):
            break
    return theta, noise


def _moved(
    rows: _Rows, theta: Tensor, steps: Tensor, answer: Response, fields: GaussNewton, white: Tensor, off: Tensor
) -> tuple[Tensor, Tensor]:
    """Where steps lead, halved until measurements are met better, and the share of each that was taken ``(S,)``.

    Behind every step fields meet the equation again, where it is not linear; a step is too long where they leave more
    of it than they may of what unknowns change.
    """
    moves, unknown, zero, width = answer.moves(steps), steps.clone(), answer.zero, rows.networks.fields.dim
    unknown[:, :width] = 0.0
    unknown[:, width:] *= answer.followed
    changed = _size((white @ unknown[..., None])[..., 0] * zero)

    def cost(at: Tensor, left: Tensor) -> Tensor:
        return (left * ~zero).square().sum(1) + at[:, width:].square().sum(1)

    unmoved, left = _met(rows, theta, answer, fields)
    closer = (_size(left * zero) <= _size(off * zero))[:, None]  # not where what is left is not finite
    unmoved, left = torch.where(closer, unmoved, theta), torch.where(closer, left, off)
    before, share = cost(theta, left), torch.ones_like(theta[:, 0])
    for _ in range(HALVED):
        found, after = _met(rows, theta + share[:, None] * moves, answer, fields)
        met = _size(after * zero) <= _size(off * zero) + FOLLOWED * share * changed
        worse = ~(met & (cost(theta + share[:, None] * steps, after) <= before))
        if not bool(worse.any()):
            break
        share = torch.where(worse, share / 2, share)
    else:
        share = torch.where(worse, 0.0, share)
    return torch.where(share[:, None] > 0, found, unmoved), share


def _met(rows: _Rows, theta: Tensor, answer: Response, fields: GaussNewton) -> tuple[Tensor, Tensor]:
    """Weights that meet equation and conditions with the unknowns as they are ``(S, P)``, and what is left ``(S, R)``.

    ``fields`` is the model of the step's beginning.
    """
    held = torch.zeros_like(theta[:, rows.networks.fields.dim :])
    off = rows.left(theta)
    for _ in range(MET):
        theta = theta - torch.cat([fields.regression(off[:, answer.zero]), held], 1)
        off = rows.left(theta)
    return theta, off


def _size(values: Tensor) -> Tensor:
    """Root of the sum of squares of every row, ``(S,)``."""
    return values.square().sum(1).sqrt()


def _probes(count: int, like: Tensor) -> Tensor:
    """Steps of an unknown's parameters, one a column: one of a constant, draws of a function's weights."""
    if count == 1:
        return like.new_ones(1, 1)
    return torch.randn(count, PROBES, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(like)
