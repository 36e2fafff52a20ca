"""What is said of a result besides its certificate: values far outside the data, and what to try where it failed."""

from __future__ import annotations

import math

import torch

from bayesdd.data.certificate import Certificate, PredictiveCertificate
from bayesdd.data.columns import Columns
from bayesdd.data.distilled import Distilled

# Share of a column's range by which synthetic values may leave it unremarked: certified sets of 36 regressions went at
# most 0.28 beyond.
BEYOND = 0.5
LOST = 1.0  # nats of reverse KL from which rows have usually lost something that the model tells apart


def far_values(distilled: Distilled, real: Columns) -> list[str]:
    """One line for each column with synthetic values far outside the real ones.

    Args:
        distilled: The result.
        real: Real rows to compare with, column -> ``(n, ...)``.
    """
    found = []
    for name, values in distilled.data.items():
        if name in distilled.soft or name not in real or not values.is_floating_point():
            continue
        seen = real[name].double()
        low = torch.where(seen.isnan(), math.inf, seen).amin(0)
        high = torch.where(seen.isnan(), -math.inf, seen).amax(0)
        reach = BEYOND * (high - low)
        far = (values < low - reach) | (values > high + reach)
        if bool(far.any()):
            place = tuple(int(i) for i in far.nonzero()[0])
            element, at = name + (f"[{','.join(map(str, place[1:]))}]" if place[1:] else ""), place[1:]
            found.append(
                f"column {element!r} of the synthetic rows is {float(values[place]):.4g}, but the data lie between "
                f"{float(low[at]):.4g} and {float(high[at]):.4g}: kinds={{{name!r}: bayesdd.kinds.observed}} keeps it "
                "there"
            )
    return found


def remedy(certificate: Certificate | PredictiveCertificate, size: int, ample: int | None) -> str:
    """What to try where a certificate is not ok for so many rows; ``ample`` rows have room for third order."""
    if isinstance(certificate, Certificate) and certificate.kl_reverse > LOST:
        return (
            "so large a divergence usually means that the rows have lost what the model tells apart (a branch on a "
            "column's value, a rare group): hold such a column by kinds={column: bayesdd.kinds.fixed}, or give "
            "more rows (size=)"
        )
    return "more rows (size=) come closer" + (
        f"; size={ample} has room for third order" if ample and ample > size else ""
    )
