"""bayesdd's surrogate among its peers: plain torch, an ensemble, Laplace, DeepXDE, all for the same seconds.

Question: 200 noisy measurements lie in one tail of the boundary parameter, the equation and both sides are known
everywhere (``studies.pinn_ood``). Who comes closest to the solution in either tail, and whose intervals hold it, when
every method has the processor for as long as ``bayesdd.pinn.fit`` took?
Claim: in every family the surrogate errs least in both tails, and its 90% intervals hold at least 80% of the truth
in both.
How it could fail: a peer in the hands of who knows it well (its points, weights of the terms and learning rates are
those of its manual, not tuned for each family); a rival given more time. An ensemble shares the seconds of one fit.
Cost: five times the surrogate's seconds a family, a few minutes each on one thread; a cell is a family and a set of
measurements, a process and a JSON file, kept between runs. DeepXDE and laplace-torch need the extra ``bench``; without
it they are left out. Neither gives what the other does: DeepXDE has no intervals of its own, laplace-torch no training.

Plain torch: as in ``studies.surrogates``, at each of two learning rates for half of the seconds, the lower loss taken.
Ensemble: five of these at that rate, other starts and points, a fifth of the seconds each; mean and spread are theirs.
laplace-torch: all weights, full curvature, around plain torch's network; residuals and sides are rows whose noise is
what training left of them; its own seconds come on top. DeepXDE: Adam, then L-BFGS, half of the seconds each.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from studies.peers.cell import FULL, OURS, lacking, measure
from studies.shared import cells, stamps, tables
from studies.shared.commands import named
from studies.surrogates import EQUATIONS

HELD = 0.8  # share of the truth that intervals of 90% hold at least


def main(
    *,
    smoke: bool = False,
    results: str | Path = cells.RESULTS,
    only: str = "",
    seeds: int = 1,
    threads: int = 1,
) -> pd.DataFrame:
    """Measures what is not measured yet, prints the table and writes it to ``results/peers.md``.

    Args:
        smoke: One tiny network a method in this process; nothing is written.
        results: Folder of the table; the cells lie in ``peers/`` in it.
        only: Only families whose name contains this; the table is then printed, not written.
        seeds: Sets of measurements a family.
        threads: Threads of torch.

    Returns:
        One row a family, set and method; ``met``, in the surrogate's rows, says whether the claim holds.
    """
    families = named(only, EQUATIONS, "family")
    names = {f"{family}-{seed}": (family, str(seed)) for family in families for seed in range(seeds)}
    if smoke:
        found = {name: measure(*names[name], smoke=True) for name in list(names)[:1]}
    else:
        commands = {name: ["-m", "studies.peers", "--cell", *one] for name, one in names.items()}
        found = cells.run(commands, Path(results) / "peers", "studies.peers.cell", threads=threads, jobs=1)
    table = pd.DataFrame([row for name, cell in found.items() for row in _rows(*names[name], cell, smoke)])
    missing = lacking()
    left = [f"Left out, not installed: {', '.join(missing)} (pip install 'bayesdd[bench]')."] if missing else []
    versions = "" if missing else "".join(f", {name} {version(name)}" for name in ("deepxde", "laplace-torch"))
    tables.report(
        None if smoke or only else Path(results) / "peers.md",
        table,
        notes=[
            "error: relative L2 at 576 points of a tail of the parameter, in: the one that was measured, out: the "
            "other one; held: share of the truth in 90% intervals, where a method has them. best: errs least of its "
            "family in that tail.",
            "seconds: of the processor. Networks of "
            f"{len(FULL['hidden'])} x {FULL['hidden'][0]} tanh throughout. The ensemble's five members share the "
            "seconds; laplace-torch's are those of plain torch and its own.",
            *left,
            stamps.last_line(
                stamps.machine(threads) + versions, [] if smoke else [stamps.source_hash("studies.peers.cell")]
            ),
        ],
    )
    return table


def _rows(family: str, seed: str, cell: dict[str, Any], smoke: bool) -> list[dict[str, Any]]:
    """A cell's methods as they are printed."""
    head = {"family": family, "set": seed}
    if "error" in cell:
        return [head | {"method": OURS, "error in": f"failed: {cell['error']}", "met": False}]
    methods, rows = cell["methods"], []
    least = {place: min(one[place]["error"] for one in methods.values()) for place in ("in", "out")}
    for method, one in methods.items():
        row: dict[str, Any] = head | {"method": method}
        for place in least:
            row[f"error {place}"] = f"{one[place]['error']:.1e}"
            row[f"held {place}"] = "" if one[place]["held"] is None else f"{one[place]['held']:.2f}"
        best = [place for place in least if one[place]["error"] == least[place]]
        met = len(best) == len(least) and all(one[place]["held"] >= HELD for place in least) if method == OURS else None
        rows.append(
            row
            | {
                "best": ", ".join(best),
                "seconds": f"{one['seconds']:.0f}",
                "met": True if smoke and met is not None else met,
            }
        )
    return rows
