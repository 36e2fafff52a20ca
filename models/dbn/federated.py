r"""Sources that may not share rows: each distils its own, only distilled sets travel, and their union is the result.

A set that stands for its source under the source's own posterior need not do so where all sources together put the
posterior. Therefore, in a few rounds: the server unites the sets, draws from the posterior of the union and sends the
draws; every source fits its set anew, so that its log-likelihood follows that of its rows at these draws (half the
variance of the difference, by least squares, ``masked``).

The first message of a source needs no posterior: for every pattern of missing entries the rows' mean and scatter, freed
of the noise's share, as one weighted row more than there are entries, which is exact for sources without noise.
Nothing is standardised source by source.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bayesdd import Distilled, union
from bayesdd.columns import fingerprint
from models.dbn.augmentation import augmented
from models.dbn.gaussian import entries
from models.dbn.masked import Match, as_rows, patterns, simulated
from models.dbn.missing import noise_of_entries
from models.dbn.pooled import BURN, CHAINS, KEPT
from models.dbn.quadratic import Joint, by_pattern, moments
from models.dbn.source import Source, as_columns, gathered
from models.dbn.template import Template

DRAWS = 3000
LEAST_SPREAD = 0.05  # share of its variance that a denoised direction keeps
GRID = 33  # points over +- 8 deviations of an unknown noise's logarithm
ZOOMS = 4

Set = tuple[Tensor, Tensor]  # entries (M, n), NaN where missing, and weights (M,)


def federated(
    template: Template,
    sources: Sequence[Source],
    sizes: int | Sequence[int],
    *,
    rounds: int = 3,
    draws: int = DRAWS,
    seed: int = 0,
) -> Distilled:
    """The union of the sources' distilled sets, after a few rounds of fitting at common draws.

    Args:
        template: A linear-Gaussian template, without noise.
        sources: The sources. An unknown noise belongs to one source alone.
        sizes: Rows of every source's set.
        rounds: Times that the server sends draws.
        draws: Draws that it sends.
        seed: Seed.

    Returns:
        Masked rows and weights; the sources' own sets stand one after the other, their numbers of rows in the
        provenance. No certificate: ask ``bayesdd.certify(template.target(sources), rows,
        student=template.student(T, sources))``, for which a source sends one number a draw.

    Raises:
        ValueError: Sources, sizes or rounds do not fit.
    """
    if template.states:
        raise ValueError("federated is for linear-Gaussian templates: merge() serves categorical sources.")
    each = [sizes] * len(sources) if isinstance(sizes, int) else list(sizes)
    if len(each) != len(sources) or min(each, default=1) < 1 or rounds < 1:
        raise ValueError(
            f"federated needs a positive size for each of {len(sources)} sources and at least one round, got "
            f"sizes={sizes}, rounds={rounds}."
        )
    named = [source.noise_site for source in sources if source.noise_site]
    if len(set(named)) < len(named):
        raise ValueError(
            "federated: sources that share an unknown noise must share rows: give each a noise_site= of its own."
        )
    rows = gathered(template, sources)
    slices = rows[0][0].shape[1]
    holders = [
        _Holder(replace(template, noise=s.noise, noise_site=s.noise_site), entries(template, *some), slices)
        for s, some in zip(sources, rows, strict=True)
    ]
    sets = [holder.first() for holder in holders]
    for turn in range(rounds):
        sent, log_weight = united_draws(template, sets, slices, draws=draws, seed=seed + turn)
        joint = Joint.of(template, sent, slices)
        sets = [
            holder.fitted(joint, log_weight, size, seed + k, None if turn == 0 else own)
            for k, (holder, size, own) in enumerate(zip(holders, each, sets, strict=True))
        ]
    return union([holder.distilled(own, seed) for holder, own in zip(holders, sets, strict=True)])


def united_draws(
    template: Template, sets: Sequence[Set], slices: int, *, draws: int, seed: int
) -> tuple[dict[str, Tensor], Tensor]:
    """The server's part: draws of the posterior of united sets, from the sets alone.

    Weighted rows of one pattern are, as far as their likelihood goes, as many rows of weight 1 as their weights sum to,
    with the same mean and scatter. Data augmentation runs on those; what rounding their number changes, the draws'
    importance weights take back.

    Returns:
        Latent site -> ``(S, *shape)``, and normalised log weights ``(S,)``.
    """
    flat, weight = (torch.cat(part) for part in zip(*sets, strict=True))
    kinds, which = torch.unique(~flat.isnan(), dim=0, return_inverse=True)
    places = [kind.nonzero()[:, 0] for kind in kinds]
    pieces, changed = [], []
    for k, at in enumerate(places):
        rows, own = flat[which == k][:, at], weight[which == k]
        evened = _evened(rows, own)
        pieces.append(
            torch.full((len(evened), flat.shape[1]), torch.nan, dtype=torch.float64).index_copy(1, at, evened)
        )
        changed.append(moments(rows, own) - moments(evened, evened.new_ones(len(evened))))
    found, _ = augmented(
        [template],
        [as_rows(template, torch.cat(pieces), slices)],
        draws=KEPT * math.ceil(draws / CHAINS),
        burn=BURN,
        chains=CHAINS,
        thin=KEPT,
        generator=torch.Generator().manual_seed(seed),
    )
    values = {site: value.flatten(0, 1) for site, value in found.items()}
    joint = Joint.of(template, values, slices)
    log_weight = torch.stack(
        [joint.coefficients(template, at) @ by for at, by in zip(places, changed, strict=True)]
    ).sum(0)
    return values, log_weight - log_weight.logsumexp(0)


def _evened(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows of weight 1 with the mean and scatter, a row, of weighted rows ``(m, r)``, about as many as these count."""
    mean = weight @ rows / weight.sum()
    scatter = (weight.sqrt()[:, None] * (rows - mean)).mT @ (weight.sqrt()[:, None] * (rows - mean)) / weight.sum()
    values, vectors = torch.linalg.eigh(scatter)
    kept = values > 1e-12 * values[-1].clamp_min(1e-300)
    half = vectors[:, kept] * values[kept].sqrt()
    count = max(round(float(weight.sum())), half.shape[1] + 1)
    return mean + _simplex(count)[:, : half.shape[1]] * math.sqrt(count) @ half.mT


class _Holder:
    """A source: what it does where its rows lie."""

    def __init__(self, template: Template, flat: Tensor, slices: int) -> None:
        self.template, self.flat, self.slices = template, flat, slices

    def first(self) -> Set:
        """Mean and scatter of every pattern, freed of known noise, as weighted rows."""
        rows, weights = [], []
        noise = noise_of_entries(replace(self.template, noise_site=None), {"": self.flat}, self.slices)
        for at, seen in by_pattern(self.flat):
            count, size = seen.shape
            mean, centred = seen.mean(0), seen - seen.mean(0)
            scatter = centred.mT @ centred / count
            shrink = size / (size + count)  # few rows say little about their correlations
            scatter = (1 - shrink) * scatter + shrink * scatter.diagonal().diag() + 1e-9 * torch.eye(size).double()
            values, vectors = torch.linalg.eigh(scatter)
            share = ((vectors.square().mT @ noise[at]) / values).clamp_max(1 - LEAST_SPREAD)
            half = vectors * (values * (1 - share)).sqrt()
            corner = _simplex(size + 1) * math.sqrt(size + 1)
            placed = torch.full((size + 1, self.flat.shape[1]), torch.nan, dtype=torch.float64)
            placed[:, at] = mean + corner @ half.mT
            rows.append(placed)
            weights.append(torch.full((size + 1,), count / (size + 1), dtype=torch.float64))
        return torch.cat(rows), torch.cat(weights)

    def fitted(self, joint: Joint, log_weight: Tensor, size: int, seed: int, own: Set | None) -> Set:
        """A set whose log-likelihood follows that of the rows at the server's draws."""
        if own is None:
            generator = torch.Generator().manual_seed(seed)
            seen, weight = patterns(self.template, self.flat, size, self.slices, generator, noisy=self.template.noisy)
            start = simulated(joint.template, joint.draws, size, self.slices, seed)
        else:
            start, weight = own
            seen, start = ~start.isnan(), start.nan_to_num()
        match = Match.of(joint, self.log_likelihood(joint), seen, log_weight)
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
            scores = [
                where.log_likelihood(replace(self.template, noise=float(v.exp()), noise_site=None), self.flat)
                for v in logs
            ]
            return torch.stack(scores) + (prior.log_prob(logs.exp()) + logs)[:, None]

        low, high = math.log(1e-3 * self.template.noise_scale), math.log(5 * self.template.noise_scale)
        centre, spread = 0.5 * (low + high), 0.0
        for _ in range(ZOOMS):
            logs = torch.linspace(low, high, 2 * GRID, dtype=torch.float64)
            step = (high - low) / (2 * GRID - 1)
            mass = torch.softmax(at(small, logs).mean(1), 0)
            centre = float(mass @ logs)
            spread = float((mass @ (logs - centre).square()).sqrt())
            if spread > step:
                break
            spread, low, high = step, centre - 4 * step, centre + 4 * step
        logs = torch.linspace(centre - 8 * spread, centre + 8 * spread, GRID, dtype=torch.float64)
        return at(joint, logs).logsumexp(0) + math.log(float(logs[1] - logs[0]))

    def distilled(self, own: Set, seed: int) -> Distilled:
        """What the source sends."""
        flat, weight = own
        details = {
            "sites": {
                site: list(shape) for site, shape in replace(self.template, noise=0.0, noise_site=None).sites.items()
            },
            "fingerprint": fingerprint({"row": self.flat}),
            "seed": seed,
            "rows": len(self.flat),
            "size": len(flat),
            "objective": "half-variance at common draws",
        }
        return Distilled(
            as_columns(self.template, as_rows(self.template, flat, self.slices)), weight, provenance=details
        )


def _simplex(corners: int) -> Tensor:
    """Orthonormal columns ``(corners, corners - 1)``, each orthogonal to the constant one."""
    basis = torch.cat([torch.ones(corners, 1), torch.eye(corners)[:, :-1]], 1).double()
    return torch.linalg.qr(basis).Q[:, 1:]
