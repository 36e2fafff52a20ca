"""Deaths beside the laboratory: three hospitals' long tables, with ends, to one table that predicts held-out patients.

Question: the visits of the Mayo Clinic's trial in primary biliary cholangitis as three hospitals hold them: other
names, other units, each without one laboratory value, sex and stage as categories, and transplantation or death as the
end of a course. Does the table that ``from_long``, ``merge`` and ``to_long`` make of them predict held-out patients as
well as all hospitals together do?
Claim: 160 weighted rows are certified, within 0.1 nats a held-out patient of all hospitals' posterior, and no worse
than the expectation-maximisation estimate from all hospitals.
How it could fail: few rows cannot stand for sixty parameters; hazards are no probits of last year's values.
Cost: about four minutes on one thread. The hazard of a year depends on the values of the year before, its own missing
ones integrated out; the mode that expectation maximisation ends at is found by L-BFGS on the exact log-likelihood.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.distributions import biject_to

from bayesdd import CertificateWarning, DataNote, Distilled
from bayesdd.dbn import Source, Template, log_likelihood, merge, pooled
from bayesdd.dbn.inference import Pooled
from bayesdd.dbn.likelihood import unconstrain
from bayesdd.dbn.likelihood.source import rows_of
from bayesdd.dbn.template.columns import as_columns
from bayesdd.numerics.optimise import lbfgs
from studies.pbc_merge.pbc import DAYS, frame
from studies.shared import commands, stamps
from studies.shared.cells import RESULTS
from studies.shared.tables import report

LABS = ("bili", "albumin", "platelet", "protime")
TEMPLATE = Template(
    variables=(*LABS, "end"),
    static=("age", "sex", "stage"),
    states={"sex": ("f", "m"), "stage": (1, 2, 3, 4), "end": ("alive", "transplant", "death")},
    terminal="end",
    intra=(
        ("stage", "bili"),
        ("bili", "albumin"),
        ("age", "albumin"),
        ("bili", "platelet"),
        ("bili", "protime"),
        ("sex", "bili"),
    ),
    inter=(*((lab, lab) for lab in LABS), *((lab, "end") for lab in ("bili", "albumin", "protime"))),
    initial=(
        ("stage", "bili"),
        ("stage", "albumin"),
        ("stage", "platelet"),
        ("bili", "albumin"),
        ("age", "albumin"),
        ("bili", "protime"),
        ("sex", "bili"),
    ),
)
HELD_OUT = 7  # every seventh patient is held out
SLICES, DRAWS, SIZES = 5, 600, (40, 80, 160)
WITHIN = 0.1  # nats a patient


def main(*, smoke: bool = False, results: str | Path = RESULTS, seed: int = 0) -> pd.DataFrame:
    """Merges the hospitals, scores held-out patients and writes ``results/pbc_ends.md``.

    Args:
        smoke: Three slices, few draws, one size; nothing is written.
        results: Folder of the table.
        seed: Of the posterior's draws.

    Returns:
        One row a claim: ``claim``, ``measured``, ``met``; ``attrs`` holds ``records`` and ``hazard``.
    """
    torch.set_num_threads(1)
    slices, draws, sizes = (3, 100, (40,)) if smoke else (SLICES, DRAWS, SIZES)
    begin = time.process_time()
    visits = tables()
    held = visits["id"] % HELD_OUT == 0
    sources = hospitals(visits[~held], slices)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # R-hat and nats are in the table
        warnings.simplefilter("ignore", CertificateWarning)
        warnings.simplefilter("ignore", DataNote)  # each hospital's third laboratory value is withheld on purpose
        full = pooled(TEMPLATE, sources, draws=draws, seed=seed)
        found = {size: merge(TEMPLATE, sources, size=size, full=full) for size in sizes}
        patients, _, _ = rows_of(TEMPLATE, read(visits[held], slices), sources)
    judged = _Judge.of(full, as_columns(TEMPLATE, patients))
    records = [{"method": "all hospitals", "M": full.count, "nats": judged.nats(judged.draws)}]
    if not smoke:
        plug_in = judged.nats(mode(full))
        records.append({"method": "all hospitals, expectation maximisation", "M": full.count, "nats": plug_in})
    for size, rows in found.items():
        gap, nats = rows.provenance["gap"], judged.of_rows(rows)
        assert rows.certificate is not None
        records.append(
            {
                "method": "distilled",
                "M": size,
                "nats": nats,
                "KL to all hospitals": gap["kl_forward"],
                "certified": "yes" if rows.certificate.ok else "no",
            }
        )
    table = pd.DataFrame(_claims(records, smoke=smoke))
    hazard = _hazard(full)
    table.attrs = {"records": pd.DataFrame(records), "hazard": hazard}
    notes = [
        f"{full.count} patients in three hospitals, every {HELD_OUT}th of the trial held out ({len(patients[0])}); "
        f"{slices} yearly slices; the first hospital lacks platelets, the second albumin, the third prothrombin time. "
        "Nats: log of the posterior predictive of all that was measured of a held-out patient, the end of the course "
        "included, mean over patients. distilled: weighted rows of the hospitals (masked), whose posterior is that of "
        "all hospitals' draws reweighted; KL: nats, as `merge` reports it, whose draws it has not seen.",
        f"{len(next(iter(full.draws.values())))} draws, R-hat at most {full.rhat:.2f}, at least {full.ess:.0f} "
        f"effective; {(time.process_time() - begin) / 60:.1f} minutes of processor time.",
        stamps.last_line(stamps.machine(1), [] if smoke else [stamps.source_hash("studies.pbc_ends")]),
    ]
    report(
        None if smoke else Path(results) / "pbc_ends.md",
        "# Three hospitals' tables with deaths",
        "## Claims",
        table,
        "## Held-out patients",
        table.attrs["records"],
        "## The hazard of a year",
        hazard,
        notes=notes,
        floats=".4g",
    )
    return table


def _claims(records: list[dict[str, Any]], *, smoke: bool) -> Iterator[dict[str, Any]]:
    full, most = records[0]["nats"], records[-1]
    slack = 1.0 if smoke else WITHIN
    yield {
        "claim": f"M = {most['M']}: held-out patients within {slack:g} nats of all hospitals' posterior",
        "measured": f"{most['nats'] - full:+.3f} nats a patient",
        "met": bool(most["nats"] >= full - slack),
    }
    if not smoke:
        yield {
            "claim": f"M = {most['M']}: no worse than all hospitals' expectation maximisation",
            "measured": f"{most['nats'] - records[1]['nats']:+.3f} nats a patient",
            "met": bool(most["nats"] >= records[1]["nats"]),
        }
        yield {
            "claim": f"M = {most['M']}: certified",
            "measured": f"{most['KL to all hospitals']:.2g} nats from all hospitals' posterior",
            "met": most["certified"] == "yes",
        }


def _hazard(full: Pooled) -> pd.DataFrame:
    """Coefficients of the probits of an end and of its kind."""
    steps, terms = TEMPLATE.coords["end_step"], TEMPLATE.coords["end_term"]
    draws = full.draws["end"]
    text = [
        [f"{float(draws[:, i, j].mean()):+.2f} ({float(draws[:, i, j].std()):.2f})" for j in range(len(terms))]
        for i in range(len(steps))
    ]
    return pd.DataFrame(text, columns=list(terms)).assign(step=steps)[["step", *terms]]


@dataclass(frozen=True, eq=False)
class _Judge:
    """Draws of all hospitals' posterior, their log-likelihoods of all rows, and the patients that judge."""

    draws: dict[str, Tensor]
    of_all: Tensor
    patients: Mapping[str, Tensor]

    @classmethod
    def of(cls, full: Pooled, patients: Mapping[str, Tensor]) -> _Judge:
        x, static = (torch.cat(part) for part in zip(*full.rows, strict=True))
        step = max(1, len(next(iter(full.draws.values()))) // 200)
        draws = {site: value[::step] for site, value in full.draws.items()}
        return cls(draws, log_likelihood(TEMPLATE, draws, as_columns(TEMPLATE, (x, static))).sum(1), patients)

    def nats(self, draws: dict[str, Tensor], log_weight: Tensor | None = None) -> float:
        """Mean log predictive density of a patient."""
        found = log_likelihood(TEMPLATE, draws, self.patients).detach()
        even = torch.full((len(found),), -math.log(len(found)), dtype=torch.float64)
        return float((found + (even if log_weight is None else log_weight)[:, None]).logsumexp(0).mean())

    def of_rows(self, rows: Distilled) -> float:
        """The same under the rows' posterior: all hospitals' draws, reweighted."""
        ratio = log_likelihood(TEMPLATE, self.draws, rows.data) @ rows.weight - self.of_all
        return self.nats(self.draws, torch.log_softmax(ratio, 0))


def tables() -> pd.DataFrame:
    """The visits, the stage of a patient's first one throughout, outcomes as words."""
    visits = frame().sort_values(["id", "day"])
    visits["stage"] = visits.groupby("id")["stage"].transform("first")
    return visits.assign(status=visits["status"].map({0: "alive", 1: "transplant", 2: "death"}))


def read(visits: pd.DataFrame, slices: int, **own: Any) -> Source:
    """Visits as a hospital has them, yearly."""
    names = own.pop("variables", list(LABS))
    ours = list(names.values()) if isinstance(names, dict) else names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataNote)  # a year holds the visit nearest to it
        return Source.from_long(
            visits,
            patient="id",
            time="day",
            every=DAYS,
            slices=slices,
            static=["age", "sex", "stage"],
            ends={"end": ("futime", "status", "alive")},
            transform=dict.fromkeys(ours, "log"),
            variables=names,
            **own,
        )


def hospitals(visits: pd.DataFrame, slices: int) -> list[Source]:
    """Three hospitals of a third of the patients each."""
    north, south, west = (visits[visits["id"] % 3 == k] for k in range(3))
    return [
        read(
            north.rename(columns={"bili": "bilirubin_mgdl", "protime": "PT"}),
            slices,
            variables={"bilirubin_mgdl": "bili", "albumin": "albumin", "PT": "protime"},
        ),
        read(
            south.assign(bili=17.1 * south["bili"]),
            slices,
            variables=["bili", "platelet", "protime"],
            units={"bili": ("umol/l", "mg/dl")},
        ),
        read(west, slices, variables=["bili", "albumin", "platelet"]),
    ]


def mode(full: Pooled) -> dict[str, Tensor]:
    """Where expectation maximisation ends: the mode of the posterior of coefficients and log variances."""
    sites = {site: biject_to(TEMPLATE.space(site, shape)) for site, shape in TEMPLATE.sites.items()}
    start = unconstrain(TEMPLATE, {site: value.mean(0, keepdim=True) for site, value in full.draws.items()})[0]
    x, static = (torch.cat(part) for part in zip(*full.rows, strict=True))
    rows = as_columns(TEMPLATE, (x, static))

    def values(vector: Tensor) -> dict[str, Tensor]:
        found, at = {}, 0
        for site, space in sites.items():
            shape = space.inverse_shape(TEMPLATE.sites[site])
            found[site] = space(vector[at : at + math.prod(shape)].reshape(1, *shape))
            at += math.prod(shape)
        return found

    def loss(vector: Tensor) -> Tensor:
        here = values(vector)
        return -(log_likelihood(TEMPLATE, here, rows).sum() + _log_prior(here))

    found, _ = lbfgs(loss, start, 60)
    return values(found)


def _log_prior(values: dict[str, Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for site, value in values.items():
        name = site.removesuffix("_initial")
        if site.endswith("_variance"):
            a, b = TEMPLATE.variance_shape, TEMPLATE.variance_scale
            total = total - (a * value.log() + b / value).sum()
        elif name in TEMPLATE.probits:
            total = total - 0.5 * (value / TEMPLATE.coefficient_scale).square().sum()
        elif name not in TEMPLATE.states:
            variance = values[f"{site}_variance"]
            total = total - 0.5 * (value.square().sum() / variance / TEMPLATE.coefficient_scale**2).sum()
            total = total - 0.5 * value.numel() * variance.log().sum()
    return total


if __name__ == "__main__":
    commands.run(main)
