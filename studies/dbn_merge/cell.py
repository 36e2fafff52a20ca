"""One cell of ``dbn_merge``: a simulated merge of one kind, number of slices and seed, everything measured on it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bayesdd import Distilled, dbn
from bayesdd.dbn import harden, merge
from bayesdd.dbn.inference import Pooled, pooled
from bayesdd.dbn.learning import edges, recovered
from bayesdd.dbn.merging.complete import complete_rows
from studies.dbn_merge import baselines, union
from studies.dbn_merge.cases import categorical, gaussian
from studies.dbn_merge.records import JUDGED, Records, Settings, simulated


def measure(kind: str, slices: int, seed: int, settings: Settings) -> dict[str, Any]:
    """Measures one cell.

    Args:
        kind: One of ``KINDS``.
        slices: Slices T.
        seed: Seed of everything.
        settings: Sizes.

    Returns:
        ``records`` and ``seconds``.
    """
    begin = time.process_time()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        # Pairs that no source sees together are part of the setting; R-hats are in the records.
        warnings.simplefilter("ignore", UserWarning)
        records = KINDS[kind](slices, seed, settings)
    return {"records": records.found, "seconds": time.process_time() - begin}


def _given(slices: int, seed: int, s: Settings) -> Records:
    """Edges given: distilled rows, clean subsamples, the ceiling and the complete clean set."""
    records = simulated(slices, seed, s, s.rows)
    full = _ceiling(records, s, seed)
    for size in s.sizes:
        records.rows("distilled", size, *_distilled(full, size, seed), learned=False)
        records.rows("clean subsample", size, baselines.subsample(records.problem, size), learned=False)
    return records


def _first(slices: int, seed: int, s: Settings) -> Records:
    """The same where the first slice has the edges of later ones: regressions of its own, that few rows cannot hold."""
    records = simulated(slices, seed, s, s.rows, first=True)
    full = _ceiling(records, s, seed)
    for size in (size for size in s.sizes if size <= 10):
        records.rows("distilled", size, *_distilled(full, size, seed), learned=False)
        records.rows("clean subsample", size, baselines.subsample(records.problem, size), learned=False)
    return records


def _learned(slices: int, seed: int, s: Settings) -> Records:
    """Edges learned from each dataset; those of distilled rows were learned from the sources."""
    records = simulated(slices, seed, s, s.rows)
    problem = records.problem
    found = edges(problem.template, problem.sources, draws=s.sweeps, burn=s.burn, seed=seed).template
    full = pooled(found, problem.sources, draws=s.draws, seed=seed, fallback=s.fallback)
    shares = recovered(found, problem.template)._asdict()
    records.add("all sources", 0, "learned", found, full.draws, rhat=full.rhat, **shares)
    for size in s.sizes:
        settings = {"complete": True, "learn_edges": True, "certificate": False}
        rows = merge(found, full.sources, size=size, seed=seed, full=full, **settings)
        records.rows("distilled", size, rows.data["x"], rows.weight, learned=True)
        records.rows("clean subsample", size, baselines.subsample(problem, size), learned=True)
    records.rows("complete clean set", 0, problem.clean, learned=True)
    return records


def _large(slices: int, seed: int, s: Settings) -> Records:
    """Sources four times as large."""
    records = simulated(slices, seed, s, 4 * s.rows)
    full = _ceiling(records, s, seed)
    for size in (size for size in s.sizes if size in (10, 100)):
        records.rows("distilled", size, *_distilled(full, size, seed), learned=False)
    return records


def _baselines(slices: int, seed: int, s: Settings) -> Records:
    """Other ways to learn from incomplete, noisy sources, and the course of two optimisations."""
    records = simulated(slices, seed, s, s.rows)
    problem, template = records.problem, records.problem.template
    full = _ceiling(records, s, seed)
    noiseless = [replace(source, noise=0.0) for source in problem.sources]
    plain = pooled(template, noiseless, draws=s.draws, seed=seed, fallback=False)
    records.add("augmentation, noise ignored", 0, "given", template, plain.draws)
    records.add("available moments", 0, "given", template, baselines.available(problem).draw(JUDGED, seed))
    for learned in (False, True):
        records.rows("iterative imputation", 0, baselines.imputed(problem, seed=seed), learned=learned)
    every = max(1, s.steps // 10)
    for size in (size for size in s.sizes if size in (10, 50)):
        for step, x in enumerate(baselines.perturbed(problem, size, seed=seed, iterations=s.steps), start=1):
            if step % every == 0:
                records.rows("perturbation", size, x, learned=False, step=step)
        records.rows("perturbation", size, x, learned=True, step=step)
        for steps in (1, 3, 10, 30, 100, 300):
            found = complete_rows(full, size, slices, seed=seed, equal_weights=False, iterations=steps)
            records.rows("distilled", size, found[0], found[2], learned=False, step=steps)
    return records


def _categorical(slices: int, seed: int, s: Settings) -> Records:
    """Categorical sources that see every family whole somewhere."""
    count, hidden = s.states_variables, max(1, s.states_variables * 3 // 10)
    problem = categorical(seed=seed, slices=slices, rows=s.states_rows, variables=count, hidden=hidden)
    records = Records(problem, problem.test[: s.test])
    full = _ceiling(records, s, seed)
    sizes = [size for size in s.sizes if size >= 10]
    for size in (*sizes, s.states_rows):
        records.rows("clean subsample", size, baselines.subsample(problem, size), learned=False)
    for size in sizes:
        found = _merged(full, size, seed)
        records.rows("distilled", size, found.data["x"], found.weight, learned=False)
        if size in (10, 50):
            found = harden(full, found, size=size, seed=seed)
            records.rows("distilled, hard states", size, found.data["x"], found.weight, learned=False)
    records.add("available counts", 0, "given", problem.template, baselines.available(problem).draw(JUDGED, seed))
    records.rows("iterative imputation", 0, baselines.imputed(problem, seed=seed), learned=False)
    return records


def _coverage(slices: int, seed: int, s: Settings) -> Records:
    """Whether central 90% intervals of the distilled posterior hold the true parameters."""
    problem = gaussian(seed=seed, slices=slices, rows=s.rows, variables=4, hidden=1, sources=s.sources, noise=s.noise)
    records = Records(problem, problem.test[: s.test])
    full = pooled(problem.template, problem.sources, draws=s.draws, seed=seed, fallback=s.fallback)
    x, weight = _distilled(full, 20, seed)
    of_rows = dbn.conjugate(problem.template, {"x": x}, weight).draw(2000, seed=seed)
    for method, draws in (("all sources", full.draws), ("distilled", of_rows)):
        inside = total = 0
        for site, truth in problem.truth.items():
            low, high = torch.quantile(draws[site], torch.tensor([0.05, 0.95], dtype=torch.float64), 0)
            inside += int(((low <= truth) & (truth <= high)).sum())
            total += truth.numel()
        records.found.append({"method": method, "M": 20, "structure": "given", "inside": inside, "of": total})
    return records


KINDS: dict[str, Callable[[int, int, Settings], Records]] = {
    "given": _given,
    "first": _first,
    "learned": _learned,
    "large": _large,
    "baselines": _baselines,
    "categorical": _categorical,
    "union": union.measured,
    "coverage": _coverage,
}


def _ceiling(records: Records, s: Settings, seed: int) -> Pooled:
    """The joint posterior of all sources under the true edges, judged; with it the truth and the complete clean set."""
    problem = records.problem
    full = pooled(problem.template, problem.sources, draws=s.draws, seed=seed, fallback=s.fallback)
    truth = {site: value[None] for site, value in problem.truth.items()}
    records.add("truth", 0, "given", problem.template, truth)
    records.rows("complete clean set", 0, problem.clean, learned=False)
    records.add("all sources", 0, "given", problem.template, full.draws, rhat=full.rhat)
    return full


def _distilled(full: Pooled, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Complete rows and weights."""
    found = _merged(full, size, seed)
    return found.data["x"], found.weight


def _merged(full: Pooled, size: int, seed: int) -> Distilled:
    return merge(full.template, full.sources, size=size, seed=seed, complete=True, full=full, certificate=False)
