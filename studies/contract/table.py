"""The table of ``contract``: one row a model form."""

from __future__ import annotations

import math
from typing import Any

from studies.contract.form import Form
from studies.contract.truth import RHAT

SLOWEST = 60.0  # processor seconds that a form may take
DENSITY = 1e-8  # relative difference of log-likelihoods that rounding explains, hundreds of thousands of ulps
ROUNDING = 1e-6  # nats: what the certificate may round below


def row(form: Form, cell: dict[str, Any]) -> dict[str, Any]:
    """One row of the table; ``met`` says whether the form is right or refused, and fast enough."""
    shown = {"form": form.title}
    if "true" not in cell:
        line = f"refused: {cell['refused']}" if "refused" in cell else f"fault: {cell.get('fault', cell.get('error'))}"
        return shown | {"verdict": line, "met": "refused" in cell}
    said, true = cell["said"], cell["true"]
    found = verdict(cell)
    return shown | {
        "N": f"{cell['rows']:,}",  # as text: refused forms have none
        "P": f"{cell['dim']}",
        "M": f"{cell['size']}",
        "seconds": f"{cell['seconds']:.1f}",
        "KL said, reverse": nats(float(said["kl_reverse"]), float(said["kl_reverse_se"])),
        "true, reverse": nats(true["reverse"], true.get("reverse_se", 0.0)),
        "KL said, forward": nats(float(said["kl_forward"]), float(said["kl_forward_se"])),
        "true, forward": nats(true["forward"], true.get("forward_se", 0.0)),
        "how": true["how"],
        "verdict": found,
        "met": found == "right" and cell["seconds"] <= SLOWEST,
    }


def verdict(cell: dict[str, Any]) -> str:
    """In words: right, not certified (which the certificate says, rightly), wrong, or not known.

    Right: certified, and both true KLs are within the tolerance and agree with the certificate's, each to three
    standard errors. Wrong: certified and not so, or the certificate's KLs are too low.
    """
    true, said, tolerance = cell["true"], cell["said"], cell["tolerance"]
    if cell["density_error"] > DENSITY:
        return f"wrong: bayesdd's log-likelihoods differ from Pyro's by {cell['density_error']:.1g} of their size"
    if true.get("rhat", 1.0) > RHAT:
        return f"not known: R-hat {true['rhat']:.2f} of the draws that judge"
    for way in ("reverse", "forward"):
        value, error = true[way], true.get(f"{way}_se", 0.0)
        claimed, claimed_error = float(said[f"kl_{way}"]), float(said[f"kl_{way}_se"])
        within = value - 3 * math.hypot(error, claimed_error) <= claimed + ROUNDING
        if cell["ok"] and (value - 3 * error > tolerance or not within):
            return f"wrong: certified, {way} KL truly {nats(value, error)}"
    return "right" if cell["ok"] else f"not certified{': ' + cell['warned'][0] if cell['warned'] else ''}"


def nats(value: float, error: float) -> str:
    """A KL with its standard error."""
    shown = "<1e-12" if value < 1e-12 else f"{value:.2g}"
    if math.isinf(error):
        return f">= {shown}"
    return shown if error == 0 else f"{shown} ± {error:.1g}"


def legend() -> list[str]:
    """What the columns are."""
    return [
        "KLs in nats with one standard error. reverse: KL(distilled, full); forward: KL(full, distilled); said: by the "
        "certificate, which holds both to 0.05 nats.",
        "true: closed form for conjugate models; on a grid for one or two parameters; else from draws of both "
        "posteriors by Bennett's acceptance ratio, with densities by Pyro alone. M: 2 P + 4, more for groups.",
        f"right: certified, and both true KLs within the tolerance and not above the certificate's, each to three "
        f"standard errors. met: right or refused, and within {SLOWEST:.0f} s of processor time, with the task's checks "
        "and the certificate.",
    ]
