"""One cell of ``dbn_settings``: a setting's simulated merges, by every method."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch

from bayesdd.dbn import merge
from bayesdd.dbn.inference import pooled
from bayesdd.dbn.inference.drawing import diagnostics
from bayesdd.dbn.likelihood.parameters import simulated
from studies.dbn_course import maximised
from studies.dbn_merge import baselines
from studies.dbn_merge.cases import Problem, gaussian
from studies.dbn_merge.records import JUDGED, Records
from studies.dbn_settings import lume, rivals
from studies.shared import cells

SLICES, TEST = 5, 1000
SIZES = (5, 20)
SETS = 5  # of simulated rows, whose mean is taken
DRAWS = 2000
FULL, EM, ROWS = "all sources", "expectation maximisation, plug-in", "rows simulated from it"
WHOLE, PAIRS = "imputation of sequences", "imputation of pairs, noise taken off"
MICE, LUME, LUME_NOISE = "MICE of pairs, noise taken off", "LUME-DBN", "LUME-DBN, noise modelled"


class Setting(NamedTuple):
    """A merge: what ``cases.gaussian`` takes, the sources' sizes if they differ, and whether their noise is known."""

    name: str
    of: dict[str, Any]
    sizes: tuple[int, ...] = ()
    known: bool = True


SETTINGS = (
    Setting("four of 100, noise 0.3", {}),
    Setting("three sources", {"sources": 3}),
    Setting("ten sources", {"sources": 10}),
    Setting("of 20, 50, 100 and 400", {"rows": 400}, sizes=(20, 50, 100, 400)),
    Setting("noise 0.1", {"noise": 0.1}),
    Setting("noise 1", {"noise": 1.0}),
    Setting("noise unknown", {}, known=False),
    Setting("10 variables", {"variables": 10, "hidden": 3}),
    Setting("20 variables", {"variables": 20, "hidden": 6}),
)


def measure(number: str | int, seeds: str | int, draws: int = DRAWS) -> dict[str, Any]:
    """One cell.

    Args:
        number: Place of the setting in ``SETTINGS``.
        seeds: Simulated networks.
        draws: Draws of the posteriors.

    Returns:
        What goes into the cell's file: ``records``, ``seconds`` of processor time of all.
    """
    cells.set_threads()
    begin, setting = time.process_time(), SETTINGS[int(number)]
    found = []
    for seed in range(int(seeds)):
        found += [{"setting": setting.name, "seed": seed} | record for record in _measured(setting, seed, draws).found]
    return {"records": found, "seconds": time.process_time() - begin}


def _measured(setting: Setting, seed: int, draws: int) -> Records:
    """One simulated merge."""
    problem = _made(setting, seed)
    records, sources = Records(problem, problem.test[:TEST]), problem.sources
    if not setting.known:
        sources = [replace(some, noise=0.0, noise_site=f"noise_{k}") for k, some in enumerate(sources)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pairs that no source sees together are part of the setting
        full, seconds = _timed(partial(pooled, problem.template, sources, draws=draws, seed=seed))
        records.add(FULL, 0, "given", problem.template, full.draws, rhat=full.rhat, seconds=seconds)
        for size in SIZES:
            made = partial(merge, full.template, sources, size=size, seed=seed, complete=True, full=full)
            rows, seconds = _timed(partial(made, certificate=False))
            records.rows("distilled", size, rows.data["x"], rows.weight, learned=False, seconds=seconds)
        fitted, seconds = _timed(partial(maximised, full, seed))
        records.add(EM, 0, "given", problem.template, fitted, seconds=seconds)
    for number in range(SETS):
        make = partial(simulated, full.template, fitted, SIZES[0], SLICES, seed=1000 * seed + number)
        (x, _), more = _timed(make)
        weight = torch.full((SIZES[0],), full.count / SIZES[0], dtype=torch.float64)
        records.rows(ROWS, SIZES[0], x, weight, learned=False, seconds=seconds + more)
    filled, seconds = _timed(partial(baselines.imputed, problem, seed=seed))
    records.rows(WHOLE, 0, filled, learned=False, seconds=seconds)
    taken_off = problem if setting.known else replace(problem, noise=0.0)
    pairs, seconds = _timed(partial(rivals.paired, taken_off, seed=seed))
    records.add(PAIRS, 0, "given", problem.template, pairs.draw(JUDGED, seed), seconds=seconds)
    sets, seconds = _timed(partial(rivals.mice, taken_off, seed=seed))
    records.add(MICE, 0, "given", problem.template, rivals.rubin(sets, draws=JUDGED, seed=seed), seconds=seconds)
    for name, noise in ((LUME, 0.0), *([(LUME_NOISE, problem.noise)] if setting.known else [])):
        chains, seconds = _timed(partial(lume.draws, problem, count=draws, seed=seed, noise=noise))
        values = {site: value.flatten(0, 1) for site, value in chains.items()}
        rhat, _ = diagnostics(chains)
        records.add(name, 0, "given", problem.template, values, rhat=rhat, seconds=seconds)
    return records


def _made(setting: Setting, seed: int) -> Problem:
    problem = gaussian(seed=seed, slices=SLICES, **setting.of)
    if not setting.sizes:
        return problem
    parts = [
        [part[:size] for part, size in zip(some.split(problem.sizes), setting.sizes, strict=True)]
        for some in (problem.clean, problem.seen)
    ]
    clean, seen = map(torch.cat, parts)
    return replace(problem, clean=clean, seen=seen, sizes=setting.sizes)


def _timed(do: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.process_time()
    return do(), time.process_time() - begin
