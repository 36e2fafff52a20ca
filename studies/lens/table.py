"""The tables of ``lens``: one row a task, size and method; who wins where."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from studies.lens.cases import Case
from studies.lens.cell import Cell
from studies.lens.methods import OURS, UNIFORM, Method

Cells = Mapping[Cell, dict[str, Any]]
TOLERANCE = 0.05  # nats within which the certificate says ok
LEAST = 1e-12  # differences between log-likelihoods of some 1e4 nats are rounded at about this
KEYS = ["task", "M", "method"]


def summary(cases: Sequence[Case], methods: Mapping[str, Method], cells: Cells) -> pd.DataFrame:
    """One row a task, size and method, numbers as numbers; every measure's median and worst seed.

    Columns ``reverse``, ``forward`` (nats), ``mean_error``, ``sd_ratio``, ``held_out``, ``seconds``, ``sweeps`` and
    their ``_worst``; ``bound`` (in some seed the KLs are the certificate's, hence lower bounds), ``rough`` (the
    standard error of some seed's reverse KL is above half of it), ``certified``, ``met``, ``seeds``, ``line`` (why it
    was refused or failed).
    """
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for cell, found in cells.items():
        groups.setdefault((cell.task, cell.size, cell.method), []).append(found)
    titles = {case.name: case.title for case in cases}
    rows = [
        {"task": titles[task], "M": size, "method": method, "family": methods[method].family}
        | {"published": methods[method].published}
        | _over_seeds(seeds)
        for (task, size, method), seeds in groups.items()
    ]
    table = pd.DataFrame(rows)
    uniform = table[table.method == UNIFORM].set_index(["task", "M"])["reverse"]
    table["uniform"] = [uniform.get((row.task, row.M), math.nan) for row in table.itertuples()]
    order = {case.title: place for place, case in enumerate(cases)}
    table["place"] = table.task.map(order)
    # The whole order of the last key: refused methods, then failed ones, at the end.
    return table.sort_values(["place", "M", "reverse", "method"], ignore_index=True).drop(columns="place")


def _over_seeds(cells: list[dict[str, Any]]) -> dict[str, Any]:
    good = [cell for cell in cells if "kl" in cell]
    lines = [cell.get("refused") or cell.get("error") or "" for cell in cells if "kl" not in cell]
    failed = any("error" in cell for cell in cells)
    found: dict[str, Any] = {"seeds": f"{len(good)}/{len(cells)}", "line": lines[0] if lines else "", "met": not failed}
    if not good:
        return found
    measures: dict[str, list[float]] = {
        "reverse": [_number(cell["kl"]["reverse"]) for cell in good],
        "forward": [_number(cell["kl"]["forward"]) for cell in good],
        "mean_error": [_number(cell["mean_error"]) for cell in good],
        "sd_ratio": [_number(cell["sd_ratio"]) for cell in good],
        "held_out": [-_number(None if cell["held_out"] is None else -cell["held_out"]) for cell in good],
        "seconds": [cell["seconds"] for cell in good],
        "sweeps": [cell["sweeps"]["values"] + 2 * cell["sweeps"]["gradients"] for cell in good],
        "rows": [cell["kept"] for cell in good],
        "stored": [cell["stored"] for cell in good],
        "bound": [cell["bound"] for cell in good],
    }
    worse: dict[str, Callable[[float], float]] = {"sd_ratio": lambda r: abs(math.log(r)), "held_out": lambda h: -h}
    for name, values in measures.items():
        found[name] = float(np.median(values))
        found[f"{name}_worst"] = max(values, key=worse.get(name, float))
    asked = [cell["ok"] for cell in good if cell["ok"] is not None]
    errors = [_number(cell["kl"]["reverse_se"]) for cell in good]
    return found | {
        "bound": any(cell["how"] == "certificate" for cell in good),
        "rough": any(se > value / 2 + LEAST for se, value in zip(errors, measures["reverse"], strict=True)),
        "certified": f"{sum(asked)}/{len(asked)}",
        "met": not failed and all(_honest(cell) for cell in good),
    }


def _honest(cell: dict[str, Any]) -> bool:
    """What was certified is within the tolerance, two standard errors of the true KL aside, and above the bound."""
    if not cell["ok"] or cell["how"] == "certificate":
        return True
    kl = {name: _number(value) for name, value in cell["kl"].items()}
    near = all(kl[way] - 2 * kl[f"{way}_se"] <= TOLERANCE for way in ("reverse", "forward"))
    return near and cell["bound_kept"] <= TOLERANCE


def _number(value: float | None) -> float:
    return math.inf if value is None else value


def winners(table: pd.DataFrame) -> pd.DataFrame:
    """The best published method by task and size, beside the project's default; lower bounds do not win."""
    rows = []
    for (task, size), group in table.groupby(["task", "M"], sort=False):
        fit = group[group.reverse.notna() & (group.bound == False)]  # noqa: E712  NaN where it was refused
        published, ours = fit[fit.published == True], fit[fit.method == OURS]  # noqa: E712
        if not len(published):
            continue
        best = published.loc[published.reverse.idxmin()]
        row = {"task": task, "M": size, "best published": best.method, "its KL": kl(best.reverse)}
        row["best published held out"] = published.loc[published.held_out.idxmax()].method
        if len(ours):
            mine = float(ours.reverse.iloc[0])
            row |= {OURS: kl(mine), "ratio": f"{max(best.reverse, LEAST) / max(mine, LEAST):.3g}"}
        row["best of all"] = fit.loc[fit.reverse.idxmin()].method
        rows.append(row)
    return pd.DataFrame(rows)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table as it is printed: median (worst seed)."""

    def pair(row: Any, name: str, form: Callable[[float], str], sign: str = "") -> str:
        return f"{sign}{form(getattr(row, name))} ({form(getattr(row, f'{name}_worst'))})"

    rows = []
    for row in table.itertuples():
        base = {"task": row.task, "M": row.M, "method": row.method, "family": row.family}
        if not isinstance(row.certified, str):
            rows.append(base | {"reverse KL": row.line, "seeds": row.seeds, "met": row.met})
            continue
        sign = ">= " if row.bound else "~ " if row.rough else ""
        rows.append(
            base
            | {
                "rows": f"{row.rows:.0f}",
                "numbers": f"{row.stored:.0f}",
                "reverse KL": pair(row, "reverse", kl, sign),
                "forward KL": pair(row, "forward", kl, sign if row.bound else ""),
                "uniform": kl(row.uniform),
                "mean error": pair(row, "mean_error", lambda v: f"{v:.2g}"),
                "sd ratio": pair(row, "sd_ratio", lambda v: f"{v:.3g}"),
                "held out": pair(row, "held_out", lambda v: f"{v:+.1e}"),
                "seconds": pair(row, "seconds", lambda v: f"{v:.1f}"),
                "sweeps": f"{row.sweeps:,.0f}",
                "certified": row.certified,
                "seeds": row.seeds,
                "met": row.met,
            }
        )
    return pd.DataFrame(rows).fillna("")


def kl(value: float) -> str:
    """A KL as it is printed."""
    return "" if math.isnan(value) else f"<{LEAST:g}" if value < LEAST else f"{value:.2g}"


def legend() -> list[str]:
    """What the columns are."""
    return [
        "KLs in nats, median over seeds (worst seed); reverse: KL(distilled, full), forward: KL(full, distilled). "
        "Gaussian mean and linear regression: exact; others: importance sampling, 4,000 draws, standard errors of a "
        "few percent (~: of more than half). >=: in some seed importance sampling failed and the certificate's numbers "
        "stand in, lower bounds where its draws miss the full posterior. uniform: the reverse KL of uniform rows.",
        "rows: rows kept of the M asked for. numbers: rows times the elements that differ between real rows (a group's "
        "index is one), plus the weights unless all are equal: what must be stored.",
        "mean error: largest error of a posterior mean, in the full posterior's sds. sd ratio: distilled over full, "
        "the coordinate where it is farthest from 1. Unconstrained coordinates.",
        "held out: log predictive density of held-out rows, distilled minus full, nats per row. Half of the held-out "
        "rows are scored; the other half is the purpose of distill_predictive_risk.",
        "seconds: the method's processor time; those of distill include its certificate. sweeps: log-likelihoods of "
        "data rows, in units of N; an evaluation with a gradient counts two, those of the M rows (calls on at most M "
        "rows) nothing.",
        "certified: seeds that bayesdd.certify says ok to, of those asked; beyond 1 nat none is. met: "
        f"whatever is certified is truly within {TOLERANCE:g} nats, two standard errors aside, and kept enough rows "
        "for the bound of the theory, and no cell failed.",
        "Methods at their defaults; nothing is cut off.",
    ]
