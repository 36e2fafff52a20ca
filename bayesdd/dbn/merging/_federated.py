r"""Sources that may not share rows: each distils its own, only distilled sets travel, and their union is the result.

A set that matches its source under the source's own posterior need not match it where the joint posterior lies.
Therefore, in a few rounds: the server unites the sets, draws from the posterior of the union and sends the draws; every
source fits its set anew, so that its log-likelihood follows that of its rows at these draws (half the variance of the
difference, by least squares, ``masked``).

The first message of a source needs no posterior: for every pattern of missing entries it holds the rows' mean and
scatter, less the share of the noise, as one weighted row more than there are entries. This is exact for sources without
noise. Nothing is standardised source by source.

Rows without noise stand for noisy ones only approximately, whatever their number (``studies.dbn_merge``). Where all
sources have the same known noise, ``keep_noise`` leaves it in the rows: the mean and scatter of a pattern are then
sufficient, and the union is as good as the pooled rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bayesdd.data import Distilled, union
from bayesdd.dbn.inference.drawing import LARGEST, drawn
from bayesdd.dbn.inference.patterns import patterns_of
from bayesdd.dbn.likelihood.gaussian import as_rows, entries, grouped
from bayesdd.dbn.likelihood.source import Source, described, gathered, with_noise
from bayesdd.dbn.merging.holder import Holder, Set, simplex
from bayesdd.dbn.merging.moments import Joint, moments
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.exclusive import exclusive
from bayesdd.numerics.refusal import Refusal

DRAWS = 3000


@exclusive
def federated(
    template: Template,
    sources: Sequence[Source],
    sizes: int | Sequence[int],
    *,
    rounds: int = 3,
    draws: int = DRAWS,
    seed: int = 0,
    keep_noise: bool = False,
) -> Distilled:
    """The union of the sources' distilled sets, after a few rounds of fitting at common draws.

    Args:
        template: A linear-Gaussian template, without noise.
        sources: The sources. An unknown noise belongs to one source alone.
        sizes: Rows of every source's set.
        rounds: Number of times that the server sends draws.
        draws: Number of draws that it sends each time.
        seed: Seed.
        keep_noise: Whether rows keep their sources' noise, which must be known and the same for all.

    Returns:
        Masked rows and weights; the sources' own sets stand one after the other, their numbers of rows in the
        provenance. No certificate: ask ``bayesdd.certify(dbn.target(template, sources), rows, student=student)``, for
        which a source sends one number a draw. The student is ``dbn.student(template, T, sources)``, or for rows that
        keep their noise ``dbn.task(dataclasses.replace(template, noise=noise), rows.data)``.

    Raises:
        Refusal: Sources, sizes or rounds do not fit.
    """
    if template.states:
        raise Refusal("federated is for linear-Gaussian templates: merge() serves categorical sources.")
    each = [sizes] * len(sources) if isinstance(sizes, int) else list(sizes)
    if len(each) != len(sources) or min(each, default=1) < 1 or rounds < 1:
        raise Refusal(
            f"federated needs a positive size for each of {len(sources)} sources and at least one round, got "
            f"sizes={sizes}, rounds={rounds}."
        )
    if any(isinstance(source.noise_site, Mapping) for source in sources):
        raise Refusal("federated takes one unknown noise a source: give noise_site= as a name, or merge() the sources.")
    named = [source.noise_site for source in sources if source.noise_site]
    if len(set(named)) < len(named):
        raise Refusal(
            "federated: sources that share an unknown noise must share rows: give each a noise_site= of its own."
        )
    if keep_noise and (named or any(source.noise != sources[0].noise for source in sources)):
        raise Refusal(
            f"federated(keep_noise=True) needs one known noise, the same for all sources, got "
            f"{[source.noise_site or source.noise for source in sources]}."
        )
    rows = gathered(template, sources)
    slices = rows[0][0].shape[1]
    student = replace(template, noise=sources[0].noise) if keep_noise else template
    holders = [
        Holder(noisy, student, entries(template, *some), slices)
        for noisy, some in zip(with_noise(template, sources), rows, strict=True)
    ]
    sets = [holder.first() for holder in holders]
    for turn in range(rounds):
        sent, log_weight = united_draws(student, sets, slices, draws=draws, seed=seed + turn)
        joint = Joint.of(template, sent, slices)
        sets = [
            holder.fitted(joint, log_weight, size, seed + k, None if turn == 0 else own)
            for k, (holder, size, own) in enumerate(zip(holders, each, sets, strict=True))
        ]
    found = union([holder.distilled(own, seed) for holder, own in zip(holders, sets, strict=True)])
    return replace(found, provenance=found.provenance | {"sequences": described(template, sources)})


def united_draws(
    template: Template, sets: Sequence[Set], slices: int, *, draws: int, seed: int
) -> tuple[dict[str, Tensor], Tensor]:
    """The server's part: draws of the posterior of united sets, from the sets alone.

    Weighted rows have sufficient statistics as others have. Data augmentation, which serves many parameters, takes
    whole rows only: there weighted rows of one pattern are replaced by as many rows of weight 1 as their weights sum
    to, with the same mean and scatter, and importance weights of the draws correct for the rounding.

    Returns:
        Latent site -> ``(S, *shape)``, and normalised log weights ``(S,)``.
    """
    flat, weight = (torch.cat(part) for part in zip(*sets, strict=True))
    if sum(map(math.prod, template.sites.values())) <= LARGEST:
        patterns = patterns_of(template, [as_rows(template, flat, slices)], [weight])
        chains = drawn([template], patterns, slices, draws=draws, seed=seed).chains
        found = {site: value.flatten(0, 1) for site, value in chains.items()}
        count = len(next(iter(found.values())))
        return found, torch.full((count,), -math.log(count), dtype=torch.float64)
    pieces, changed = [], []
    for mine, at in grouped(~flat.isnan()):
        rows, own = flat[mine][:, at], weight[mine]
        evened = _evened(rows, own)
        pieces.append(flat.new_full((len(evened), flat.shape[1]), torch.nan).index_copy(1, at, evened))
        changed.append((at, moments(rows, own) - moments(evened, evened.new_ones(len(evened)))))
    every = [as_rows(template, torch.cat(pieces), slices)]
    chains = drawn([template], patterns_of(template, every), slices, draws=draws, seed=seed).chains
    values = {site: value.flatten(0, 1) for site, value in chains.items()}
    joint = Joint.of(template, values, slices)
    log_weight = torch.stack([joint.coefficients(template, at) @ by for at, by in changed]).sum(0)
    return values, log_weight - log_weight.logsumexp(0)


def _evened(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows of weight 1 with the mean and covariance of weighted rows ``(m, r)``, about as many as these weigh."""
    mean = weight @ rows / weight.sum()
    scatter = (weight.sqrt()[:, None] * (rows - mean)).mT @ (weight.sqrt()[:, None] * (rows - mean)) / weight.sum()
    values, vectors = torch.linalg.eigh(scatter)
    kept = values > 1e-12 * values[-1].clamp_min(1e-300)
    half: Tensor = vectors[:, kept] * values[kept].sqrt()
    count = max(round(float(weight.sum())), half.shape[1] + 1)
    return simplex(mean, half, count)
