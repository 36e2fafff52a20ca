"""What a certificate says in words, of posteriors and of predictions, and when one may be asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bayesdd.checks import stands_alone
from bayesdd.estimates import KHAT_LIMIT

if TYPE_CHECKING:
    from bayesdd.certificate import Certificate


def reasons(certificate: Certificate) -> list[str]:
    """Why it is not ok, one line each; empty if it is."""
    if not math.isnan(certificate.mean_error):
        return _of_predictions(certificate)
    found = []
    for name in ("kl_reverse", "kl_forward"):
        value, error = getattr(certificate, name), getattr(certificate, f"{name}_se")
        if not value + 2 * error <= certificate.tolerance:
            found.append(f"{name} {_nats(value, error)} exceeds the tolerance of {certificate.tolerance:g} nats")
    if not certificate.khat < KHAT_LIMIT:
        found.append(f"k-hat {certificate.khat:.2f} is not below {KHAT_LIMIT}")
    if certificate.better_mode:
        found.append("the full posterior has a mode that the distilled posterior does not cover")
    return found


def text(certificate: Certificate) -> str:
    """The verdict and its numbers."""
    said = "certified" if certificate.ok else "NOT certified: " + "; ".join(certificate.reasons)
    if not math.isnan(certificate.mean_error):
        return f"{said}\n{_predictions(certificate)}"
    return (
        f"{said}\n"
        f"  KL(distilled, full) {_nats(certificate.kl_reverse, certificate.kl_reverse_se)}\n"
        f"  KL(full, distilled) {_nats(certificate.kl_forward, certificate.kl_forward_se)}\n"
        f"  half-variance       {_nats(certificate.half_variance, certificate.half_variance_se)}\n"
        f"  k-hat {certificate.khat:.2f}, effective draws {certificate.ess:.0f} of {certificate.draws}\n"
        f"  sweeps {certificate.sweeps:.0f}, gradient sweeps {certificate.gradients:.0f}"
    )


def _nats(value: float, error: float) -> str:
    if math.isinf(error):
        return f"at least {value:.3g} nats"
    return f"{value:.3g} +- {error:.1g} nats"


def _of_predictions(certificate: Certificate) -> list[str]:
    error, error_se = certificate.mean_error, certificate.mean_error_se
    ratio, ratio_se = certificate.spread_ratio, certificate.spread_ratio_se
    limit, found = certificate.tolerance, []
    if not error + 2 * error_se <= limit:
        found.append(f"predictive means are off by {error:.3g} +- {error_se:.1g} sds, more than {limit:g}")
    if not abs(math.log(ratio)) + 2 * ratio_se / ratio <= limit:
        low, high = math.exp(-limit), math.exp(limit)
        found.append(
            f"spreads are {ratio:.3g} +- {ratio_se:.1g} times the target's, not within {low:.2g} to {high:.2g}"
        )
    return found


def _predictions(certificate: Certificate) -> str:
    """The numbers."""
    return (
        f"  error of predictive means {certificate.mean_error:.3g} +- {certificate.mean_error_se:.1g} predictive sds\n"
        f"  ratio of spreads          {certificate.spread_ratio:.3g} +- {certificate.spread_ratio_se:.1g}\n"
        f"  {certificate.draws} students from scratch; nothing is said of the posterior of the parameters"
    )


def refuse_unnamed(provenance: Mapping[str, Any], objective: Callable[..., Any] | None) -> None:
    """A set that matches predictions has no KL; its certificate needs to know the purpose.

    Raises:
        ValueError: Such a set without its objective, or an objective that certifies nothing of its own.
    """
    if objective is not None and not stands_alone(objective):
        raise ValueError(
            "certify(objective=...) is for partial(bayesdd.matching.function_space, ...): of all others leave it out."
        )
    if objective is None and str(provenance.get("objective", "")).startswith("function_space"):
        raise ValueError(
            "certify: this set matches predictions, not the posterior of the parameters, so that no KL can certify it: "
            "pass objective=partial(bayesdd.matching.function_space, purpose=...)."
        )


def silent(_: str) -> None:
    """Where progress goes that nobody watches."""
