"""A source that keeps its rows, and what it sends instead: their moments at first, then sets fitted at common draws."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesdd.data import Distilled
from bayesdd.data.columns import fingerprint
from bayesdd.dbn.likelihood.gaussian import as_rows, entries, grouped
from bayesdd.dbn.likelihood.missing import noise_of_entries
from bayesdd.dbn.likelihood.parameters import simulated
from bayesdd.dbn.merging.masked import Match, patterns
from bayesdd.dbn.merging.moments import Joint
from bayesdd.dbn.template.columns import as_columns
from bayesdd.dbn.template.template import Template

LEAST_SPREAD = 0.05  # share of its variance that a denoised direction keeps
GRID = 33  # points over +- 8 deviations of an unknown noise's logarithm
ZOOMS = 4

Set = tuple[Tensor, Tensor]  # entries (M, n), NaN where missing, and weights (M,)


@dataclass(frozen=True, eq=False)
class Holder:
    """A source and its rows' entries ``(rows, n)``: what it does where they lie.

    ``template`` has the source's noise, ``student`` that of the rows that it sends, if any.
    """

    template: Template
    student: Template
    flat: Tensor
    slices: int

    def first(self) -> Set:
        """Mean and scatter of every pattern, freed of known noise, as weighted rows."""
        rows, weights, keeps = [], [], self.student.noisy
        noise = noise_of_entries(replace(self.template, noise_site=None), {"": self.flat}, self.slices)
        for mine, at in grouped(~self.flat.isnan()):
            seen = self.flat[mine][:, at]
            count, size = seen.shape
            mean, centred = seen.mean(0), seen - seen.mean(0)
            scatter = centred.mT @ centred / count
            shrink = 0.0 if keeps else size / (size + count)  # few rows say little about their correlations
            scatter = (1 - shrink) * scatter + shrink * scatter.diagonal().diag() + 1e-9 * torch.eye(size).double()
            values, vectors = torch.linalg.eigh(scatter)
            share = ((vectors.square().mT @ noise[at]) / values).clamp_max(1 - LEAST_SPREAD)
            half = vectors * (values * (1.0 if keeps else 1 - share)).sqrt()
            placed = torch.full((size + 1, self.flat.shape[1]), torch.nan, dtype=torch.float64)
            placed[:, at] = simplex(mean, half, size + 1)
            rows.append(placed)
            weights.append(torch.full((size + 1,), count / (size + 1), dtype=torch.float64))
        return torch.cat(rows), torch.cat(weights)

    def fitted(self, joint: Joint, log_weight: Tensor, size: int, seed: int, own: Set | None) -> Set:
        """A set whose log-likelihood follows that of the rows at the server's draws."""
        if own is None:
            generator = torch.Generator().manual_seed(seed)
            thinned = self.template.noisy and not self.student.noisy
            seen, weight = patterns(self.template, self.flat, size, self.slices, generator, noisy=thinned)
            start = entries(joint.template, *simulated(joint.template, joint.draws, size, self.slices, seed))
        else:
            start, weight = own
            seen, start = ~start.isnan(), start.nan_to_num()
        match = Match.of(joint, self.student, self.log_likelihood(joint), seen, log_weight)
        return match.solved(start, weight)

    def log_likelihood(self, joint: Joint) -> Tensor:
        """Of all rows at the draws ``(S,)``, an unknown noise integrated out on a grid of its logarithm."""
        site = self.template.noise_site
        if site is None:
            return joint.log_likelihood(self.template, self.flat)
        few = {name: value[:: max(1, len(value) // 16)] for name, value in joint.draws.items()}
        small = Joint.of(self.template, few, self.slices)
        prior = torch.distributions.HalfNormal(self.template.noise_scale)

        def at(where: Joint, logs: Tensor) -> Tensor:
            known = [replace(self.template, noise=float(v.exp()), noise_site=None) for v in logs]
            scores = torch.stack([where.log_likelihood(noisy, self.flat) for noisy in known])
            found: Tensor = scores + (prior.log_prob(logs.exp()) + logs)[:, None]
            return found

        low, high = math.log(1e-3 * self.template.noise_scale), math.log(5 * self.template.noise_scale)
        centre, spread = 0.5 * (low + high), 0.0
        for _ in range(ZOOMS):
            logs = torch.linspace(low, high, 2 * GRID, dtype=torch.float64)
            step = (high - low) / (2 * GRID - 1)
            share = torch.softmax(at(small, logs).mean(1), 0)
            centre = float(share @ logs)
            spread = float((share @ (logs - centre).square()).sqrt())
            if spread > step:
                break
            spread, low, high = step, centre - 4 * step, centre + 4 * step
        logs = torch.linspace(centre - 8 * spread, centre + 8 * spread, GRID, dtype=torch.float64)
        return at(joint, logs).logsumexp(0) + math.log(float(logs[1] - logs[0]))

    def distilled(self, own: Set, seed: int) -> Distilled:
        """What the source sends."""
        flat, weight = own
        details = {
            "sites": {site: list(shape) for site, shape in self.student.sites.items()},
            "fingerprint": fingerprint({"row": self.flat}),
            "seed": seed,
            "rows": len(self.flat),
            "size": len(flat),
            "objective": "half-variance at common draws",
        }
        rows = as_columns(self.template, as_rows(self.template, flat, self.slices))
        return Distilled(rows, weight, provenance=details)


def simplex(mean: Tensor, half: Tensor, corners: int) -> Tensor:
    """As many rows ``(corners, r)`` as asked for, of this mean ``(r,)`` and of scatter half half'."""
    basis = torch.cat([torch.ones(corners, 1), torch.eye(corners)[:, :-1]], 1).double()
    directions: Tensor = torch.linalg.qr(basis).Q[:, 1 : 1 + half.shape[1]]  # orthogonal to the constant one
    return mean + directions * math.sqrt(corners) @ half.mT
