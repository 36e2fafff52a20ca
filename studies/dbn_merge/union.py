"""Cell ``union`` of ``dbn_merge``: sources that share no rows, and how far their united sets are from pooling them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bayesdd.dbn import federated
from bayesdd.dbn.likelihood.gaussian import entries
from bayesdd.dbn.likelihood.source import gathered
from bayesdd.dbn.merging import united_draws
from bayesdd.dbn.merging.moments import Joint, moments
from studies.dbn_merge.records import Records, Settings, simulated


def measured(slices: int, seed: int, s: Settings) -> Records:
    """Sets that the sources distilled where their rows lie, united; one and more rounds of common draws."""
    records = simulated(slices, seed, s, s.rows)
    template, sources = records.problem.template, records.problem.sources
    rows = gathered(template, sources)
    for keep, rounds in ((keep, rounds) for keep in (False, True) for rounds in s.rounds):
        found = federated(template, sources, s.union_rows, rounds=rounds, seed=seed, keep_noise=keep)
        student = replace(template, noise=sources[0].noise) if keep else template
        flat = entries(template, found.data["x"], found.data["x"].new_zeros(len(found), 0))
        draws, log_weight = united_draws(student, [(flat, found.weight)], slices, draws=2000, seed=seed + 77)
        # Fresh draws of the union's posterior; both log-likelihoods there give the KL, with nothing else in common.
        joint = Joint.of(template, draws, slices)
        full = [
            joint.log_likelihood(replace(template, noise=source.noise), entries(template, *own))
            for source, own in zip(sources, rows, strict=True)
        ]
        own = [joint.coefficients(student, at) @ moments(y, w) for at, y, w in _weighted(flat, found.weight)]
        kl, error = _reverse_kl(torch.stack(full).sum(0) - torch.stack(own).sum(0), log_weight)
        generator = torch.Generator().manual_seed(seed)
        even = torch.multinomial(log_weight.exp(), len(log_weight), replacement=True, generator=generator)
        picked = {site: value[even] for site, value in draws.items()}
        method = "union, noise kept" if keep else "union"
        records.add(method, len(found), "given", template, picked, rounds=rounds, kl_reverse=kl, kl_reverse_se=error)
    return records


def _weighted(flat: Tensor, weight: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Pattern by pattern: places of the entries seen, the rows that have them, their weights."""
    kinds, which = torch.unique(~flat.isnan(), dim=0, return_inverse=True)
    places = [kind.nonzero()[:, 0] for kind in kinds]
    return [(at, flat[which == k][:, at], weight[which == k]) for k, at in enumerate(places)]


def _reverse_kl(log_ratio: Tensor, log_weight: Tensor, batches: int = 8) -> tuple[float, float]:
    """KL from draws of the distilled posterior and its standard error by batches (chains stand one after the other)."""
    parts = zip(log_ratio.tensor_split(batches), log_weight.tensor_split(batches), strict=True)

    def kl(ratio: Tensor, logs: Tensor) -> float:
        logs = logs - logs.logsumexp(0)
        return float((ratio + logs).logsumexp(0) - logs.exp() @ ratio)

    each = torch.tensor([kl(ratio, logs) for ratio, logs in parts])
    return kl(log_ratio, log_weight), float(each.std() / batches**0.5)
