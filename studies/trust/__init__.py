"""Can the certificate be trusted: do its intervals hold, and is it ever ok where the truth is far?

Question: what do certificates say of sets whose KL divergences are known by quadrature: regressions, exponential and
heavy tails, several modes, mass that is no mode?
Claim: in each of ten families the intervals (two standard errors) of sets that are ok hold in at least 90 % of cases,
and no certificate is ok where either divergence exceeds twice the tolerance, asked at the tolerance at which that would
be easiest (a third of the truth); of sets with three times the tolerance that the truth needs at least eight in ten are
ok, also where there are several modes.
How it could fail: a mode, a slab or a tail that no draw and no search meets; caution that refuses everything.
Cost: about one second a set; 1,000 sets take twenty minutes on one thread.
"""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp

import bayesdd
from bayesdd.density.density import Density
from studies.shared import cells, stamps, tables
from studies.shared.cells import RESULTS
from studies.trust.families import NAMES, Family, family

SETS = 100  # of each family
SETS_OF_ROWS = 10  # data sets of each family
POINTS = {1: (60_001, 20_000), 2: (701, 150)}  # of the dense part of the grid, and of each tail; by latents


def main(
    *, smoke: bool = False, results: str | Path = RESULTS, threads: int = 1, jobs: int = 1, sets: int = SETS
) -> pd.DataFrame:
    """Certifies sets of known KL and writes ``results/trust.md``.

    Args:
        smoke: Two families, a set of each; nothing is written.
        results: Folder of the table and its cells.
        threads: Threads of each process.
        jobs: Processes at a time.
        sets: Sets of each family.

    Returns:
        One row a family: sets, share of intervals that hold, ok beyond twice the tolerance, share of sound sets ok;
        ``met`` says whether the claims hold.
    """
    names = ("normal_location", "mirrored") if smoke else NAMES
    if smoke:
        found = {name: {"sets": measured(name, 1)} for name in names}
    else:
        commands = {name: ["-m", "studies.trust", "--cell", name, str(sets)] for name in names}
        found = cells.run(commands, Path(results) / "trust", "studies.trust.families", threads=threads, jobs=jobs)
    rows = [_summary(name, pd.DataFrame(found[name]["sets"])) for name in names if "sets" in found[name]]
    table = pd.DataFrame(rows)
    stamp = stamps.last_line(stamps.machine(threads), [stamps.source_hash("studies.trust.families")])
    tables.report(
        None if smoke else Path(results) / "trust.md",
        "# Certificates against quadrature",
        table,
        floats=".3g",
        notes=[
            "Intervals: of both divergences, two standard errors, where the certificate is ok. Far: the larger "
            "divergence above twice the tolerance. Sound: asked at three times the larger divergence.",
            stamp,
        ],
    )
    return table


def measured(name: str, sets: int) -> list[dict[str, Any]]:
    """Certificates and the truth of some sets of a family."""
    found = []
    for at in range(sets):
        one = family(name, at * SETS_OF_ROWS // max(sets, SETS_OF_ROWS))
        rows, weight = one.some(np.random.default_rng(10_000 + at))
        distilled = bayesdd.Distilled(rows, weight)
        reverse, forward = divergences(one, distilled)
        worst = max(reverse, forward)
        record: dict[str, Any] = {"reverse": reverse, "forward": forward}
        begin = time.process_time()
        for asked, tolerance in (("far", worst / 3), ("sound", 3 * worst)):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                said = bayesdd.certify(one.task, distilled, seed=at, tolerance=min(max(tolerance, 1e-3), 1.0))
            assert isinstance(said, bayesdd.Certificate)
            record[asked] = {
                "ok": said.ok,
                "tolerance": said.tolerance,
                "said": [said.kl_reverse, said.kl_reverse_se, said.kl_forward, said.kl_forward_se],
                "why": said.reasons[:2],
            }
        record["seconds"] = (time.process_time() - begin) / 2
        found.append(record)
    return found


def divergences(one: Family, distilled: bayesdd.Distilled) -> tuple[float, float]:
    """KL(distilled, full) and KL(full, distilled) by quadrature, nats."""
    fine, coarse = POINTS[len(one.box)]
    axes, widths = [], []
    for (low, high), (left, right) in zip(one.box, one.fine, strict=True):
        inner = np.linspace(left, right, fine)
        parts = [np.linspace(low, left, coarse)[:-1]] if low < left else []
        parts += [inner, *([np.linspace(right, high, coarse)[1:]] if high > right else [])]
        axis = np.concatenate(parts)
        axes.append(torch.tensor(axis))
        widths.append(torch.tensor(np.gradient(axis)))
    grid = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    log_width = sum(
        torch.meshgrid(*[w.log() for w in widths], indexing="ij"), start=torch.zeros((), dtype=torch.float64)
    ).flatten()
    full = Density([(one.task, one.task.rows, None)])
    few = Density([(one.task, *distilled.hard())])
    p, q = (
        torch.cat([density.log_joint(some) for some in grid.split(20_000)]).numpy() + log_width.numpy()
        for density in (full, few)
    )
    ratio = p - q
    p, q = p - logsumexp(p), q - logsumexp(q)
    return float(np.exp(q) @ (q - p)), float(np.exp(p) @ (p - q)) if np.isfinite(ratio).all() else math.inf


def _summary(name: str, sets: pd.DataFrame) -> dict[str, Any]:
    held, asked, far, sound, several = [], 0, 0, [], 0
    for record in sets.to_dict("records"):
        worst = max(record["reverse"], record["forward"])
        for kind in ("far", "sound"):
            said = record[kind]
            several += worst > 2 * said["tolerance"]
            far += said["ok"] and worst > 2 * said["tolerance"]
            if said["ok"]:
                truth = record["reverse"], record["forward"]
                for value, error, true in zip(said["said"][::2], said["said"][1::2], truth, strict=True):
                    held.append(abs(value - true) <= 2 * error + 1e-9)
        asked += 1
        if worst < record["sound"]["tolerance"] / 2:
            sound.append(record["sound"]["ok"])
    share = float(np.mean(held)) if held else float("nan")
    passed = float(np.mean(sound)) if sound else float("nan")
    return {
        "family": name.replace("_", " "),
        "sets": asked,
        "intervals that hold": share,
        "asked too much": several,
        "ok though far": far,
        "sound sets": len(sound),
        "sound and ok": passed,
        "seconds a set": float(np.median(sets["seconds"])),
        "met": bool(far == 0 and share >= 0.9 and passed >= 0.8),
    }


def cell(name: str, sets: str) -> dict[str, Any]:
    """What one process measures: a family."""
    cells.set_threads()
    begin = time.perf_counter()
    return {"sets": measured(name, int(sets)), "seconds": time.perf_counter() - begin}
