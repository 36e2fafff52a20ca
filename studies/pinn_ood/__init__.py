"""Rows that carry a physics-informed network's knowledge: does a plain network learn beyond its training boundaries?

Question: 200 noisy measurements lie where the boundary parameter alpha is in the upper tail of its distribution; the
equation and the boundary values over the whole range of alpha are known. A target of three tasks (measurements,
residual, boundary values) is distilled to M weighted rows (x, alpha, y). What does a plain network, trained from
scratch on those rows with no equation in sight, predict in the lower tail?
Claim: reaction-diffusion, median over students trained from scratch: relative L2 error out of distribution at most 0.10
with 20 rows, 0.035 with 50, 0.02 with 100; below rows labelled by the target at random or Sobol inputs; 20 times below
all measurements without the equation at M = 50; 90% intervals cover 80 to 97%.
How it could fail: boundary values do more than the distillation (the target without them stands beside it); labelled
rows at well-spread inputs do as well (random, Sobol, greedy and optimised inputs stand beside it); rows serve only the
students they grew up with (every number is of students from scratch); intervals that are as wide as the solution
(their width is shown).
Cost: about ten minutes a family and seed on one thread: each target and each (family, seed, M) is a process and a
JSON file, and an interrupted run goes on where it stopped.

The equations, the network and the numbers are this project's own choice: alpha normal, cut off at three standard
deviations, tails from half a standard deviation on; two hidden layers of 16; noise 0.1.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd

from studies.pinn_ood import table
from studies.shared import cells

SIZES = (10, 20, 50, 100)
FIRST = ("reaction-diffusion",)
MOST = 201  # seeds and sizes that a report looks for


def main(
    *,
    smoke: bool = False,
    results: str | Path = cells.ROOT / "studies" / "results",
    families: tuple[str, ...] = FIRST,
    sizes: tuple[int, ...] = SIZES,
    seeds: int = 3,
    report: bool = False,
    threads: int = 1,
    jobs: int = 1,
) -> pd.DataFrame:
    """Measures what is not measured yet, prints the table and writes it to ``results/pinn_ood.md``.

    Args:
        smoke: A tiny network, target and distillation, one family, size and seed, in this process; nothing is written.
        results: Folder of the table and the figures; the cells lie in ``pinn_ood/`` in it.
        families: Names in ``studies.pinn_ood.parts.FAMILIES``.
        sizes: Numbers M of rows.
        seeds: Sets of measurements a family.
        report: Measure nothing: the table of all cells on disk, whatever families, sizes and seeds they are.
        threads: Threads a process.
        jobs: Processes at a time.

    Returns:
        The table, a row for each family, size and method; ``met`` says whether the claim holds, where one is made.
    """
    from studies.pinn_ood.parts import FAMILIES

    if unknown := sorted(set(families) - set(FAMILIES)):
        raise ValueError(f"pinn_ood has no family {unknown[0]!r}; there are {', '.join(FAMILIES)}.")
    if smoke:
        teacher = target(FIRST[0], 0, smoke=True)
        cells = {(FIRST[0], 0, 8): measure(FIRST[0], 0, 8, teacher, smoke=True)}
        table = table.table({(FIRST[0], 0): teacher}, cells, smoke=True)
        print(table.markdown(table))
        return table
    folder = Path(results) / "pinn_ood"
    if report:
        teachers = _kept({(f, s) for f in FAMILIES for s in range(MOST)}, folder)
        cells = _kept({(*key, m) for key in teachers for m in range(1, MOST)}, folder)
    else:
        teachers = _run(
            {(f, s): ["--family", f, "--seed", str(s)] for f in families for s in range(seeds)}, folder, threads, jobs
        )
        wanted = {
            (f, s, m): ["--family", f, "--seed", str(s), "--size", str(m), "--teacher", str(folder / f"{f}-{s}.json")]
            for f, s in teachers
            for m in sizes
        }
        cells = _run(wanted, folder, threads, jobs)
    table = table.table(teachers, cells)
    sources = ", ".join(sorted({cell["stamp"]["source"] for cell in cells.values()}))
    counts = {
        family: len({key[1] for key in cells if key[0] == family}) for family in dict.fromkeys(k[0] for k in cells)
    }
    said = "Sets of measurements: " + ", ".join(f"{family} {count}" for family, count in counts.items()) + "."
    notes = [*table.LEGEND, said, cells.machine(threads) + f"; source {sources}."]
    text = table.markdown(table) + "\n" + "\n".join(f"- {note}" for note in notes) + "\n"
    print(text)
    out = Path(results) / "pinn_ood.md"
    cells.write(out, text)
    table.figure(teachers, cells, Path(results) / "pinn_ood.png")
    print(f"wrote {out}")
    return table


def _kept(keys: set[Any], folder: Path) -> dict[Any, dict[str, Any]]:
    """Cells on disk, in the order of families, seeds and sizes."""
    paths = {key: folder / f"{'-'.join(map(str, key))}.json" for key in sorted(keys)}
    return {key: json.loads(path.read_text()) for key, path in paths.items() if path.exists()}


def _run(arguments: dict[Any, list[str]], folder: Path, threads: int, jobs: int) -> dict[Any, dict[str, Any]]:
    """Cells that were measured; those that failed are said and left out."""
    names = {key: "-".join(map(str, key)) for key in arguments}
    commands = {names[key]: ["-m", "studies.pinn_ood", "--cell", *given] for key, given in arguments.items()}
    found = cells.run(commands, folder, "pinn_ood", threads=threads, jobs=jobs)
    return {key: found[name] for key, name in names.items() if "error" not in found[name]}


def target(family: str, seed: int, *, smoke: bool = False) -> dict[str, Any]:
    """A target's cell: its predictive at the purpose and at the tests, with and without boundary values."""
    from studies.pinn_ood import parts as parts

    return parts.teach(parts.FAMILIES[family], seed, smoke=smoke)


def measure(family: str, seed: int, size: int, teacher: dict[str, Any], *, smoke: bool = False) -> dict[str, Any]:
    """One cell: every method's rows, and what students from scratch make of them.

    Args:
        family: Name of the family.
        seed: Seed of the measurements and of the distillation.
        size: Number M of rows.
        teacher: The target's cell.
        smoke: The tiny version.
    """
    import torch

    from studies.pinn_ood import methods as methods
    from studies.pinn_ood import parts as parts

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    begin = time.process_time()
    setting = methods.Setting(parts.FAMILIES[family], seed, teacher, smoke)
    rows, weight, said = methods.distilled(setting, size)
    found = {"distilled": parts.judge(setting.family, setting.learner, rows, weight, smoke=smoke) | said}
    found["distilled"]["rows"] = {name: column.tolist() for name, column in rows.items()} | {"weight": weight.tolist()}
    for name, method in {**methods.METHODS, "no physics": methods.no_physics}.items():
        found[name] = parts.judge(setting.family, setting.learner, *method(setting, size), smoke=smoke)
    return {"methods": found, "seconds": time.process_time() - begin}


def _cell(arguments: argparse.Namespace) -> None:
    if arguments.size is None:
        print(json.dumps(target(arguments.family, arguments.seed)))
        return
    teacher = json.loads(Path(arguments.teacher).read_text())
    print(json.dumps(measure(arguments.family, arguments.seed, arguments.size, teacher)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m studies.pinn_ood", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny network and target: seconds")
    parser.add_argument("--families", nargs="+", default=list(FIRST), help="default: reaction-diffusion")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="default: 10 20 50 100")
    parser.add_argument("--seeds", type=int, default=3, help="sets of measurements a family; default: 3")
    parser.add_argument("--report", action="store_true", help="measure nothing: the table of all cells on disk")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--results", default=str(cells.ROOT / "studies" / "results"), help="folder of the table")
    parser.add_argument("--cell", action="store_true", help=argparse.SUPPRESS)
    for hidden, kind in (("--family", str), ("--seed", int), ("--size", int), ("--teacher", str)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cell:
        _cell(given)
    else:
        main(
            smoke=given.smoke,
            results=given.results,
            families=tuple(given.families),
            sizes=tuple(given.sizes),
            seeds=given.seeds,
            report=given.report,
            jobs=given.jobs,
        )
