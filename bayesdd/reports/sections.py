"""What stands on a report's page, section by section: plain values, tables as lists, figures as SVG."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from bayesdd.data.certificate import Certificate
from bayesdd.data.distilled import Distilled
from bayesdd.data.predictive import PredictiveCertificate
from bayesdd.distillation.advice import far_values, remedy
from bayesdd.reports._plot_certificate import plot_certificate
from bayesdd.reports._plot_field import field_of, plot_field
from bayesdd.reports._plot_network import plot_network
from bayesdd.reports._plot_posteriors import plot_posteriors
from bayesdd.reports._plot_rounds import plot_rounds
from bayesdd.reports._plot_rows import plot_rows
from bayesdd.reports._plot_sequences import plot_sequences, sequences
from bayesdd.reports._plot_weights import plot_weights
from bayesdd.reports.elements import elements, template_of
from bayesdd.reports.style import vector, vectors
from bayesdd.task.task import Task

PARAMETERS, ROWS, WIDTH = 40, 50, 24  # most lines of the tables, and most columns of the rows' one
PANELS = 12


def head(task: Task, distilled: Distilled) -> dict[str, Any]:
    """The verdict: in words, in numbers, as a picture, and what to do where it is not certified."""
    certificate = distilled.certificate
    assert certificate is not None
    said = certificate.verdict.partition(": ")[2]
    notes = (
        []
        if _same_rows(task, distilled)
        else [
            "The real rows given to this report are not those that the set was distilled from; the certificate is of "
            "the rows that it was made with. bayesdd.certify(task, distilled) makes one for these."
        ]
    )
    predicts = isinstance(certificate, PredictiveCertificate)
    return {
        "title": task.name,
        "ok": certificate.ok,
        "state": "Certified" if certificate.ok else "Not certified",
        "said": said,
        "reasons": certificate.reasons,
        "predicts": predicts,
        "limit": certificate.limit,
        "numbers": {name: said.replace("+-", "\N{PLUS-MINUS SIGN}") for name, said in certificate.numbers.items()},
        "facts": [
            (f"{task.size:,}", "real rows"),
            (f"{len(distilled):,}", "synthetic rows"),
            (f"{task.dim:,}", "parameters"),
            (f"{float(distilled.weight.sum()):,.6g}", "total weight"),
        ],
        "notes": notes + far_values(distilled, {k: v for k, v in task.data.items() if k not in task.kinds}),
        "remedy": "" if certificate.ok else remedy(certificate, len(distilled), None),
        "certificate": vector(plot_certificate(certificate), f"Certificate: {certificate.verdict}"),
        "parameters": None,
    }


def posteriors(full: Any, small: Any, table: pd.DataFrame, log_ratio: Any, notes: list[str]) -> dict[str, Any]:
    """Both posteriors: densities of the parameters that differ most, the table, the tail of the weights."""
    shown = list(table.index[:PANELS])
    labels = [f"Density of {name} given all rows and given the synthetic rows" for name in shown]
    lines = [
        {
            "name": str(name),
            "full": f"{row.full_mean:.4g} \N{PLUS-MINUS SIGN} {row.full_sd:.2g}",
            "distilled": f"{row.distilled_mean:.4g} \N{PLUS-MINUS SIGN} {row.distilled_sd:.2g}",
            "shift": _number(row["shift"], "+.3f"),
            "ratio": _number(row.sd_ratio, ".3f"),
            "rhat": f"{_number(row.full_rhat, '.3f')} / {_number(row.distilled_rhat, '.3f')}",
            "ess": f"{_number(row.full_ess, '.0f')} / {_number(row.distilled_ess, '.0f')}",
        }
        for name, row in table.iloc[:PARAMETERS].iterrows()
    ]
    return {
        "parameters": lines,
        "more_parameters": max(0, len(table) - PARAMETERS),
        "densities": vectors(plot_posteriors(full, small, most=PANELS), labels),
        "weights": vector(plot_weights(log_ratio), "Largest importance weights over their ranks, and the Pareto fit"),
        "draw_notes": notes,
    }


def rows(task: Task, distilled: Distilled) -> dict[str, Any]:
    """The rows: beside real ones, as sequences, as a field, as a table; the network's graph."""
    found: dict[str, Any] = {"pairs": [], "sequences": [], "field": None, "network": None, "rounds": None}
    if any(float(value[value == value].std() if (value == value).any() else 0) > 0 for value in _flat(task).values()):
        figure = plot_rows(task, distilled, most=PANELS)
        labels = [f"{a.get_ylabel()} over {a.get_xlabel()}: real and synthetic rows" for a in figure.axes]
        found["pairs"] = vectors(figure, labels)
    if sequences(task):
        figure = plot_sequences(task, distilled, most=PANELS)
        found["sequences"] = vectors(figure, [f"Sequences of {a.get_title('left')}" for a in figure.axes])
    if field_of(task):
        found["field"] = vector(plot_field(task, distilled), "The outcome over both inputs: real and synthetic rows")
    if (template := template_of(task)) is not None:
        found["network"] = vector(plot_network(template), "Graph of the network: edges within and between slices")
    if any(math.isfinite(one["nats"]) for one in distilled.provenance.get("rounds", ())):
        found["rounds"] = vector(plot_rounds(distilled), "Half-variance by start and round, in nats")
    frame = distilled.to_frame()
    weight = frame.columns[-1]
    frame = frame.sort_values(weight, ascending=False, kind="stable")
    columns = [*frame.columns[: WIDTH - 1], weight] if len(frame.columns) > WIDTH else list(frame.columns)
    cells = [[_cell(value) for value in row] for row in frame[columns].head(ROWS).itertuples(index=False)]
    more = max(0, len(frame) - ROWS), max(0, len(frame.columns) - len(columns))
    return found | {"columns": [str(c) for c in columns], "table": cells, "more_rows": more[0], "more_columns": more[1]}


def origin(task: Task, distilled: Distilled, draws: int, seed: int) -> dict[str, Any]:
    """Where the set came from, and the lines that make it again."""
    known = distilled.provenance
    tolerance = distilled.certificate.tolerance if distilled.certificate else None
    made = {
        "model": known.get("task", task.name),
        "real rows": f"{known['rows']:,}" if "rows" in known else None,
        "synthetic rows": f"{len(distilled):,}",
        "objective": known.get("objective"),
        "seed": known.get("seed"),
        "hash of the model": known.get("model_hash"),
        "fingerprint of the rows": ", ".join(map(str, known.get("fingerprint", []))),
        "versions": ", ".join(f"{name} {version}" for name, version in known.get("versions", {}).items()),
        "this page": f"{4 * draws:,} draws of each posterior, seed {seed}",
    }
    lines = ["import bayesdd", "", f"# task: the bayesdd.Task of {task.name} on its real rows"]
    if isinstance(distilled.certificate, Certificate):
        half, seed_known = known.get("objective") == "half_variance", int(known.get("seed", 0))
        objective = "" if half else f"  # objective={known.get('objective')}"
        lines += [
            f"distilled = bayesdd.distill(task, size={known.get('size', len(distilled))}, tolerance={tolerance:g}, "
            f"seed={seed_known}){objective}",
            f"certificate = bayesdd.certify(task, distilled, tolerance={tolerance:g}, seed={seed_known + 1})",
            "idata = bayesdd.sample(task, distilled, seed=0)",
        ]
    else:
        lines += [
            f"# distilled: by bayesdd.distill(task, size={len(distilled)}, objective=...) of {known.get('objective')}"
        ]
    lines += [f'bayesdd.report(task, distilled, "report.html", draws={draws}, seed={seed})']
    return {
        "origin": {name: str(value) for name, value in made.items() if value not in (None, "")},
        "code": "\n".join(lines),
    }


def _same_rows(task: Task, distilled: Distilled) -> bool:
    known = distilled.provenance.get("fingerprint")
    return known is None or task.rows.fingerprint() in known


def _flat(task: Task) -> dict[str, Any]:
    return elements(task, task.data)


def _number(value: Any, form: str) -> str:
    return format(float(value), form) if math.isfinite(float(value)) else "\N{EN DASH}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "\N{EN DASH}"
    return str(value)
