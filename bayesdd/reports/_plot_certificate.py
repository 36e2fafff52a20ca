"""A certificate against its tolerance."""

from __future__ import annotations

import math
from typing import Any

from bayesdd.data.accuracy import WORST
from bayesdd.data.certificate import Certificate
from bayesdd.data.predictive import PredictiveCertificate
from bayesdd.numerics.refusal import WrongType
from bayesdd.reports.style import DISTILLED, FAINT, INK, logarithmic, panels, styled

LEAST = 1e-12  # nats, or sds: where the axis may end, since zero has no logarithm


@styled
def plot_certificate(certificate: Certificate | PredictiveCertificate) -> Any:
    """What is certified, each with two standard errors, on a logarithmic axis with the tolerance.

    Both KLs in nats; of predictions, the error of the means in sds and the log ratio of the spreads, or the errors in
    the outcome's own terms where it is judged in those. An infinite standard error is an arrow: the value is a lower
    bound.

    Args:
        certificate: ``distilled.certificate``, or what ``bayesdd.certify`` returned.

    Raises:
        WrongType: Anything else, such as None of a set that nobody has certified.
        MissingPackage: matplotlib is not installed.

    Example:
        >>> bayesdd.plot_certificate(distilled.certificate).savefig("certificate.svg")
    """
    values, unit = _values(certificate)
    limit = certificate.tolerance
    figure, (axis,) = panels(1, size=(3.8, 1.5))
    ends = [limit]
    for place, (_, value, error) in enumerate(reversed(values)):
        shown = max(value, LEAST)
        if math.isinf(error):
            axis.annotate("", (6 * shown, place), (shown, place), arrowprops={"arrowstyle": "->", "color": DISTILLED})
            ends.append(6 * shown)
        else:
            low, high = max(value - 2 * error, shown / 10), max(value + 2 * error, LEAST)
            axis.plot([low, high], [place, place], color=DISTILLED, lw=2.2, solid_capstyle="round")
            ends += [low, high]
        axis.plot([shown], [place], "o", color=DISTILLED, ms=5)
        ends.append(shown)
    axis.set_xscale("log")
    logarithmic(axis.xaxis)
    axis.set_xlim(min(ends) / 2, max(ends) * 3)
    axis.set_ylim(-0.6, len(values) - 0.4)
    axis.set_yticks(range(len(values)), [name for name, _, _ in reversed(values)])
    axis.tick_params(axis="y", length=0)
    axis.axvspan(axis.get_xlim()[0], limit, color=FAINT, alpha=0.35, lw=0, zorder=0)
    axis.axvline(limit, color=INK, lw=1)
    axis.set_title(f"certified left of the tolerance of {limit:g} {unit}")
    axis.set_xlabel(unit)
    axis.spines["left"].set_visible(False)
    return figure


def _values(certificate: Any) -> tuple[list[tuple[str, float, float]], str]:
    """Name, value and standard error of what must stay within the tolerance, and their unit."""
    if isinstance(certificate, Certificate):
        kls = (("KL(distilled, full)", "kl_reverse"), ("KL(full, distilled)", "kl_forward"))
        found = [(said, getattr(certificate, name), getattr(certificate, f"{name}_se")) for said, name in kls]
        return found, "nats"
    if isinstance(certificate, PredictiveCertificate) and certificate.own_terms and certificate.accuracy is not None:
        accuracy = certificate.accuracy
        worst, wide = accuracy.worst_error / WORST, accuracy.too_wide / WORST
        errors = [("error of means", accuracy.error, accuracy.error_se), ("half the worst tenth", worst, 0.0)]
        return [*errors, ("half of too wide", wide, 0.0)], "of the range" if accuracy.of_range else "in its own units"
    if isinstance(certificate, PredictiveCertificate):
        ratio = certificate.spread_ratio
        spread = ("log ratio of spreads", abs(math.log(ratio)), certificate.spread_ratio_se / ratio)
        return [("error of means", certificate.mean_error, certificate.mean_error_se), spread], "sds"
    raise WrongType(
        f"plot_certificate needs a certificate, got {type(certificate).__name__}: bayesdd.certify(task, distilled) "
        "makes one"
    )
