"""Which edges does a dynamic network have, given incomplete and noisy sources: the posterior beside simple methods.

Question: three sources of 50 sequences, each without one variable and with noise on every entry, of simulated networks
of 6, 12 and 24 variables. Are the edges that ``dbn.edges`` calls probable the true ones, are its probabilities right,
and how do the lasso and hill climbing do on rows that are completed once?
Claim: 24 variables take less than five minutes on one thread; the edges of probability above 1/2 are nearer to the true
ones (F1) than those of every other method, with edges within a slice and without; of these edges as many are true as
their probabilities say, to 0.05; the chain of orders gives every edge the probability that enumeration of all orders
gives it, to 0.06; two runs with different seeds give every edge of 24 variables the same to 0.1 (``--again``).
How it could fail: a chain of orders that stays where it began agrees with itself and not with enumeration; where edges
within a slice can only be turned at a price in other edges, chains disagree; edges from slice to slice alone
(``within=False``) must stand for paths within a slice too, where there are any; and where there are none the lasso has
its best case.
Cost: half an hour on one thread. Each cell is a process and a JSON file: an interrupted run continues where it stopped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from studies.edges import baselines, orders, posterior, unknown
from studies.edges.cases import LAGS, WITHIN, Settings
from studies.edges.posterior import AGAIN, ALL, BETWEEN
from studies.shared import cells, stamps, tables

VARIABLES, SEEDS = (6, 12, 24), 3
ENUMERATED = (10, 12, 14)  # variables; 2^14 sets take a few seconds
DEAREST = 6  # variables of networks without edges within a slice that are searched for these all the same
SMOKE = Settings(rows=30, slices=4, draws=40, burn=14)
SECONDS, STATED, CHAIN, AGREE = 300.0, 0.05, 0.06, 0.1
UNKNOWN = "unknown"  # all edges, the noise of each source unknown
FEW = 6  # variables of networks for which this is asked, for its cost
NAMES = {
    ALL: "`dbn.edges`",
    BETWEEN: "`dbn.edges`, within=False",
    UNKNOWN: "`dbn.edges`, noise unknown",
    AGAIN: AGAIN,
}
TITLES = {WITHIN: "Networks with edges within a slice", LAGS: "Networks with edges from slice to slice only"}
BINS = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]


class Cell(NamedTuple):
    """What one process asks of one network."""

    asked: str
    network: str
    variables: int
    seed: int

    @property
    def name(self) -> str:
        """File name."""
        return "-".join(map(str, self))


def main(
    *, smoke: bool = False, results: str | Path = cells.RESULTS, seeds: int = SEEDS, again: bool = False
) -> pd.DataFrame:
    """Measures what is not measured yet, prints claims and tables and writes them to ``results/edges.md``.

    Args:
        smoke: One network of each kind of four variables, in this process; nothing is written.
        results: Folder of the table; the cells lie in ``edges/`` in it.
        seeds: Simulated networks of each kind and size.
        again: Run the chains of one network of the largest size a second time, with another seed, and compare.

    Returns:
        One row a claim: ``claim``, ``bound``, ``measured``, ``met``; ``attrs`` holds ``records``, one row an edge,
        method and network.
    """
    settings, sizes, seeds = (SMOKE, (4,), 1) if smoke else (Settings(), VARIABLES, seeds)
    networks = [(network, v, seed) for seed in range(seeds) for network in (WITHIN, LAGS) for v in sizes]
    asked = [
        Cell(some, *network)
        for network in networks
        for some in (ALL, BETWEEN)
        if some == BETWEEN or network[0] == WITHIN or network[1] <= DEAREST
    ]
    asked += [Cell(AGAIN, WITHIN, max(sizes), 0)] if again or smoke else []
    blind = [Cell(UNKNOWN, *network) for network in networks if network[0] == WITHIN and network[1] <= FEW]
    others = [Cell("others", *network) for network in networks]
    chains = [Cell("orders", WITHIN, v, seed) for seed in range(seeds) for v in (sizes if smoke else ENUMERATED)]
    found: dict[Cell, dict[str, Any]] = {}
    if smoke:
        found |= {cell: posterior.measure(*cell, settings) for cell in asked}
        found |= {cell: unknown.measure(*cell[1:], settings) for cell in blind}
        found |= {cell: baselines.measure(*cell[1:], settings) for cell in others}
        found |= {cell: orders.measure(*cell[2:], settings) for cell in chains}
    else:
        kinds = ((asked, posterior, 0), (others, baselines, 1), (chains, orders, 2), (blind, unknown, 1))
        for wanted, part, skipped in kinds:
            found |= _measured(wanted, part.__name__, Path(results) / "edges", skipped)
    records = pd.DataFrame([record for cell, one in found.items() for record in _records(cell, one)])
    by_network = _by_network(records)
    compared = pd.DataFrame([_compared(cell, found[cell]) for cell in chains if "exact" in found[cell]])
    table = pd.DataFrame(_claims(records, by_network, compared, smoke=smoke))
    table.attrs = {"records": records}
    where = stamps.machine(1) if smoke else stamps.machines(found.values())
    sources = [] if smoke else [stamps.source_hash(part.__name__) for part in (posterior, baselines, orders, unknown)]
    tables.report(
        None if smoke else Path(results) / "edges.md",
        "# Edges of dynamic networks",
        "## Claims",
        table,
        *_parts(by_network),
        "## Of the edges of a stated probability, how many are there",
        _stated(records),
        "## The chain of orders beside enumeration of all orders",
        compared.groupby("V")
        .agg({"uncertain": "mean", "largest difference": "max", "in standard errors": "max", "seconds": "mean"})
        .reset_index(),
        notes=[*_legend(settings, seeds), stamps.last_line(where, sources)],
        floats=".3g",
    )
    return table


def _measured(wanted: list[Cell], module: str, folder: Path, skipped: int) -> dict[Cell, dict[str, Any]]:
    """Cells of one kind, each in a process of its own; ``skipped`` words of a cell are not for it."""
    kind = module.rpartition(".")[2]
    commands = {cell.name: ["-m", "studies.edges", f"--{kind}", *map(str, cell[skipped:])] for cell in wanted}
    found = cells.run(commands, folder / kind, module, threads=1, jobs=1)
    return {cell: found[cell.name] for cell in wanted}


def _records(cell: Cell, found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row an edge and method: whether it is within a slice, whether it is there, its probability."""
    methods = found.get("methods", {NAMES.get(cell.asked): found} if "probability" in found else {})
    for method, one in methods.items():
        true, probability = np.array(found["true"]), np.array(one["probability"])
        for place in np.argwhere(~np.isnan(probability)):
            yield {
                "network": cell.network,
                "V": cell.variables,
                "seed": cell.seed,
                "method": method,
                "within": bool(place[0] < cell.variables),
                "true": bool(true[tuple(place)]),
                "probability": float(probability[tuple(place)]),
                "seconds": one["seconds"],
            }


def _by_network(records: pd.DataFrame) -> pd.DataFrame:
    """One row a network and method: precision and recall of both kinds of edges, mean probabilities, seconds."""
    keys = ["network", "V", "method", "seed"]
    rows = []
    for key, some in records[records["method"] != AGAIN].groupby(keys, sort=False):
        row = dict(zip(keys, key, strict=True))
        kinds = (("between", some[~some["within"]]), ("within", some[some["within"]]), ("all", some))
        for kind, part in kinds:
            row |= {f"{what}, {kind}": value for what, value in _agreement(part).items()}
        for what, part in (("true", some[some["true"]]), ("absent", some[~some["true"]])):
            row[f"mean P, {what}"] = part["probability"].mean()
        row["found within"] = (kinds[1][1]["probability"] > 0.5).sum() if len(kinds[1][1]) else float("nan")
        rows.append(row | {"seconds": some["seconds"].iloc[0]})
    return pd.DataFrame(rows)


def _agreement(part: pd.DataFrame) -> dict[str, float]:
    """Precision, recall and F1 of the edges of probability above 1/2; NaN where there is none to count."""
    found, true = part["probability"] > 0.5, part["true"]
    hits, either = int((found & true).sum()), int(found.sum() + true.sum())
    return {
        "precision": hits / int(found.sum()) if found.any() else float("nan"),
        "recall": hits / int(true.sum()) if true.any() else float("nan"),
        "F1": 2 * hits / either if either else float("nan"),
    }


def _parts(by_network: pd.DataFrame) -> Iterator[str | pd.DataFrame]:
    """A heading and a table for each kind of network, means over networks and their standard errors."""
    for network, title in TITLES.items():
        some = by_network[by_network["network"] == network].drop(columns=["network", "seed"])
        some = some.drop(columns=[column for column in some if column.endswith(", all")])
        order = [*NAMES.values(), *baselines.METHODS]
        grouped = some.sort_values(["V", "method"], key=lambda c: c.map(order.index) if c.name == "method" else c)
        grouped = grouped.groupby(["V", "method"], sort=False)
        mean, error = grouped.mean(), grouped.sem()
        gone = ["found within"] if network == WITHIN else ["precision, within", "recall, within"]
        shown = mean.drop(columns=["F1, between", "F1, within", *gone])
        for column in shown.columns.drop("seconds"):
            shown[column] = [
                "" if np.isnan(m) else f"{m:.3f}" if np.isnan(e) else f"{m:.3f} ± {e:.3f}"
                for m, e in zip(mean[column], error[column], strict=True)
            ]
        yield f"## {title}"
        yield shown.reset_index()


def _stated(records: pd.DataFrame) -> pd.DataFrame:
    """Edges by their stated probability: how many, its mean, and the share that are there."""
    some = records[records["method"] == NAMES[ALL]]
    labels = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(BINS)]
    between = pd.cut(some["probability"], BINS, labels=labels, include_lowest=True)
    grouped = some.groupby(["network", between], observed=True)
    found = grouped.agg(
        edges=("true", "size"), stated=("probability", "mean"), there=("true", "mean"), within=("within", "mean")
    )
    found.index.names = ["network", "probability"]
    names = {"stated": "mean stated", "there": "share there", "within": "share within a slice"}
    return found.rename(columns=names).reset_index()


def _compared(cell: Cell, found: dict[str, Any]) -> dict[str, Any]:
    """How far shares of a chain are from the exact probabilities."""
    exact, drawn = np.array(found["exact"]), np.array(found["drawn"])
    away = np.abs(drawn - exact)
    # A share of draws is a multiple of 1 / draws: nearer to 0 and 1 a difference is no number of standard errors.
    near = np.minimum(exact, 1 - exact) * found["draws"] >= 5
    errors = away[near] / np.sqrt(exact * (1 - exact) / found["draws"])[near]
    return {
        "V": cell.variables,
        "uncertain": float(((exact > 0.1) & (exact < 0.9)).sum()),
        "largest difference": float(away.max()),
        "in standard errors": float(errors.max()) if near.any() else float("nan"),
        "seconds": found["seconds"],
    }


def _claims(
    records: pd.DataFrame, by_network: pd.DataFrame, compared: pd.DataFrame, *, smoke: bool
) -> Iterator[dict[str, Any]]:
    def claim(what: str, bound: str, measured: str, met: bool) -> dict[str, Any]:
        return {"claim": what, "bound": bound, "measured": measured, "met": bool(met)}

    most = by_network["V"].max()
    longest = by_network[(by_network["V"] == most) & (by_network["method"] == NAMES[ALL])]["seconds"].max()
    yield claim(
        f"{most} variables: processor seconds of {NAMES[ALL]}, slowest network",
        f"at most {SECONDS:.0f}",
        f"{longest:.0f}",
        longest <= SECONDS,
    )
    slack = 0.3 if smoke else 0.0  # few draws
    apart = compared["largest difference"].max()
    yield claim(
        "chain of orders: largest difference of an edge's probability from enumeration",
        f"at most {CHAIN:g}",
        f"{apart:.3f}",
        apart <= CHAIN + slack,
    )
    if smoke:
        return  # nothing is claimed of so few sequences
    asked = (("all", WITHIN, ALL), ("all", WITHIN, UNKNOWN), ("between", WITHIN, ALL), ("between", LAGS, BETWEEN))
    for kind, network, ours in asked:
        some = by_network[by_network["network"] == network]
        if kind == "all":  # the lasso says nothing of edges within a slice
            some = some[some["precision, within"].notna() | some["recall, within"].notna()]
        for v, one in some.groupby("V"):
            mean = one.groupby("method")[f"F1, {kind}"].mean()
            if NAMES[ours] not in mean:
                continue
            rest = mean.drop([name for name in NAMES.values() if name in mean])
            gain = mean[NAMES[ours]] - rest.max()
            what = "all edges" if kind == "all" else "edges from slice to slice"
            yield claim(
                f"{TITLES[network].lower()}, V = {v}: F1 of {what}, {NAMES[ours]} less the best other method's",
                "at least 0",
                f"{mean[NAMES[ours]]:.3f} - {rest.max():.3f} = {gain:+.3f} ({rest.idxmax()})",
                gain >= 0,
            )
    likely = records[(records["method"] == NAMES[ALL]) & (records["probability"] > 0.5)]
    for v, one in likely.groupby("V"):
        stated, there = one["probability"].mean(), one["true"].mean()
        yield claim(
            f"V = {v}: edges of probability above 1/2, their mean probability against the share that is there",
            f"within {STATED:g}",
            f"{stated:.3f} against {there:.3f}",
            abs(stated - there) <= STATED,
        )
    two = records[(records["network"] == WITHIN) & (records["V"] == most) & (records["seed"] == 0)]
    runs = [two[two["method"] == name]["probability"].to_numpy() for name in (NAMES[ALL], AGAIN)]
    if len(runs[0]) == len(runs[1]):
        away = np.abs(runs[0] - runs[1])
        yield claim(
            f"{most} variables, two runs with different seeds: largest difference of an edge's probability",
            f"at most {AGREE:g}",
            f"{away.max():.3f} ({(away > AGREE).sum()} of {len(away)} edges beyond)",
            away.max() <= AGREE,
        )


def _legend(settings: Settings, seeds: int) -> list[str]:
    s = settings
    return [
        f"{s.sources} sources of {s.rows} sequences of {s.slices} slices, each source without {s.hidden} variable, "
        f"noise sd {s.noise:g} on every entry, which `dbn.edges` knows. Networks of each kind and size: {seeds}; "
        "±: standard error over networks. Every variable depends on itself and another of the slice before, and most "
        "on a third, of the slice, where there are such edges.",
        "precision, recall: of directed edges of probability above 1/2, from slice to slice (between) and within a "
        "slice. mean P: mean probability of the edges that are there, and of the absent ones, of all of which the "
        "method says something; the other methods say 0 or 1. found within: edges found within a slice where there "
        "are none. Seconds: of the processor, completion included.",
        "lasso: every variable on the slice before, penalty by cross-validation over sequences; means: missing entries "
        "are their variable's mean, else completed by scikit-learn's IterativeImputer on three slices; one standard "
        "error: the largest penalty within one of the best; slice too: the other variables of the slice are covariates "
        "too. max-min hill climbing: Trabelsi et al., 2013; hill climbing: the same search among all edges.",
        "Where there are edges within a slice, `within=False` and the lasso on the slice before find edges from slice "
        "to slice that stand for paths through the slice: counted as wrong here, though right as predictions. "
        "Beyond twelve variables `dbn.edges` gives a variable at most three parents, too few for all such paths.",
        f"Where there are none, `dbn.edges` is asked for all edges of at most {DEAREST} variables, for its cost; the "
        f"noise of each source is unknown to it where there are such edges and at most {FEW} variables.",
        f"Chain of orders: scores of {orders.ROWS * s.sources} complete sequences without noise, {orders.CHAINS} "
        f"chains of {s.draws} draws after {orders.BURN}; largest over networks. uncertain: edges of probability 0.1 to "
        "0.9. Standard errors: those of as many independent draws.",
    ]
