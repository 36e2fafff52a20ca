"""What speaks against a surrogate: searches that disagree, an equation that is not met, measurements outside intervals.

Rows that are certified against a surrogate that is wrong are wrong with it, so the same lines stand in the warnings of
a fit and in the certificates of its rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from bayesdd.networks.target_check import missed
from bayesdd.pinn.left import sizes
from bayesdd.pinn.measurements import measured
from bayesdd.pinn.remainder import MOST
from bayesdd.pinn.residuals import residuals
from bayesdd.pinn.spread import widening
from bayesdd.pinn.terms import equation_term, field_term, sobol

UNMOVED = 0.9  # of a prior's sd: a posterior that is no narrower has learned nothing
UNMET = 0.2  # of what constant fields leave of an equation: a search that leaves more has not solved it
OWN = 0.8  # share of an unknown's variance that is between modes: what each says of itself explains the rest
LEAST_APART = 0.01  # of a constant's sd a priori: searches that differ by less have found the same
DISAGREE = 0.05  # of a field's range: modes that differ by more are said
LEAST_HELD, FEWEST = 0.7, 20  # share of measurements in their own 90 % intervals that is doubted, from so many on
MUTUAL = 1.6  # one, and the share of nearest neighbours that are each other's
REGULAR, ALIKE = 4.0, 0.3  # standard deviations by which residuals of neighbours correlate, and how much, at least
POINTS = 256  # at which predictions are looked at


def unlearned(surrogate: Any) -> list[str]:
    """Unknowns whose posterior is as wide as their prior; predictions may be right all the same."""
    found = []
    for name, (mean, sd) in surrogate.constants.items():
        prior: Any = surrogate.problem.unknown[name]
        if sd > UNMOVED * prior[1]:
            before = f"{prior[0]:g} +- {prior[1]:g}"
            found.append(f"the unknown {name!r} is not identified: posterior {mean:.3g} +- {sd:.2g}, prior {before}")
    predicted = surrogate.predict(_everywhere(surrogate)) if surrogate.networks.functions else {}
    for name in surrogate.networks.functions:
        prior = surrogate.problem.unknown[name]
        if (predicted[name][1] ** 2).mean() ** 0.5 > UNMOVED * prior.sd:
            found.append(f"the unknown function {name!r} is not identified: its posterior is as wide as its prior")
    return found


def doubts(surrogate: Any) -> list[str]:
    """What makes predictions doubtful, one line each."""
    return [
        *_unknowns_apart(surrogate),
        *_searches_apart(surrogate),
        *_unmet(surrogate),
        *_uncorrected(surrogate),
        *_outside(surrogate),
        *_regular(surrogate),
    ]


def unheld(surrogate: Any, data: Any) -> list[str]:
    """Outputs of which 90 % intervals, noise included, hold fewer measurements than chance explains.

    ``data`` are measurements that the fit has not seen, as :func:`bayesdd.pinn.fit` takes them.
    """
    found = []
    for name, (points, values) in measured(surrogate.problem, data, "objective(held_out=...)").items():
        mean, sd = (torch.from_numpy(one) for one in surrogate.predict(points)[name])
        noise = surrogate.measurement_noise.get(name, 0.0)
        if said := missed(mean, (sd**2 + noise**2).sqrt(), values):
            found.append(f"of {name!r} {said}")
    return found


def _everywhere(surrogate: Any) -> Any:
    return sobol(surrogate.problem.ranges, POINTS, surrogate.seed + 1)


def _unknowns_apart(surrogate: Any) -> list[str]:
    found, networks, priors = [], surrogate.networks, surrogate.problem.unknown
    constants, functions = surrogate.constants, _functions(surrogate) if networks.functions else {}
    each = [
        (name, values, constants[name][1], LEAST_APART * priors[name][1])
        for name, values in networks.constants(surrogate.theta).items()
    ]
    each += [(name, values, sd, 0.0) for name, (values, sd) in functions.items()]
    for name, values, sd, least in each:
        between = float(values.var(0, correction=0).mean()) * widening(len(values)) ** 2
        if between > max(OWN * float(np.mean(sd**2)), least**2):
            found.append(
                f"searches end in different {name!r}, each far surer of itself: intervals of {name!r} and of the "
                "fields that it moves may be too narrow: more steps=, modes= or measurements"
            )
    return found


def _functions(surrogate: Any) -> dict[str, tuple[torch.Tensor, Any]]:
    """Unknown functions by every mode ``(K, N)``, and their sds ``(N,)``."""
    everywhere, found = _everywhere(surrogate), {}
    predicted = surrogate.predict(everywhere)
    for name in surrogate.networks.functions:
        with torch.no_grad():
            term = field_term(surrogate.problem, [name], everywhere).to(surrogate.theta.device)
            found[name] = residuals(surrogate.networks, [term], surrogate.theta)[0], predicted[name][1]
    return found


def _searches_apart(surrogate: Any) -> list[str]:
    return [
        f"searches disagree on {name!r} by {apart:.0%} of its range: more steps=, hidden= or points="
        for name, apart in surrogate.disagreement(_everywhere(surrogate)).items()
        if apart > DISAGREE
    ]


def _unmet(surrogate: Any) -> list[str]:
    """Where the equation leaves a good part of what constant fields leave of it: the search has not solved it."""
    rows = sobol(surrogate.problem.ranges, 1024, surrogate.seed + 1)
    term = equation_term(surrogate.problem, rows).to(surrogate.theta.device)
    found = sizes(surrogate.networks, [term], surrogate.theta)
    flat = sizes(surrogate.plain, [term], surrogate.theta.new_zeros(1, surrogate.plain.dim))
    return [
        f"the {name} is not met: constant fields leave {of / one:.2g} times as much: more steps= or hidden="
        for name, one, of in zip(term.names, found, flat, strict=True)
        if of > 0 and one > UNMET * of
    ]


def _uncorrected(surrogate: Any) -> list[str]:
    """Where corrections hardly help; what they do not see moves no interval."""
    return [
        f"corrections still leave {share:.0%} of the residuals of {name}: intervals are a guess and may be too narrow: "
        "more hidden=, points= or steps="
        for name, share in surrogate.remainder.left.items()
        if share > MOST
    ]


def _outside(surrogate: Any) -> list[str]:
    rows = {term.names: term.count for term in surrogate.terms if term.observed is not None}
    return [
        f"{share:.0%} of the measurements of {name!r} lie in their 90% intervals: equation or noise are wrong"
        for name, share in surrogate.held.items()
        if share < LEAST_HELD and rows[(name,)] >= FEWEST
    ]


def _regular(surrogate: Any) -> list[str]:
    """Outputs whose measurements lie off the fields in a regular way: what is called noise there is something else.

    Of noise, products of the residuals of nearest neighbours have mean zero; three of five points are each other's.
    """
    found, ranges = [], surrogate.problem.ranges
    for term in surrogate.terms:
        if term.observed is None or term.count < FEWEST:
            continue
        with torch.no_grad():
            off = residuals(surrogate.networks, [term], surrogate.theta)[0].mean(0).cpu().numpy()
        places = [(term.points[name].cpu().numpy() - low) / (high - low) for name, (low, high) in ranges.items()]
        nearest = cKDTree(np.stack(places, 1)).query(np.stack(places, 1), 2)[1]
        other = np.where(nearest[:, 1] == np.arange(len(off)), nearest[:, 0], nearest[:, 1])
        alike = float(np.mean(off * off[other]) / np.mean(off**2))
        if alike > max(ALIKE, REGULAR * np.sqrt(MUTUAL / term.count)):
            found.append(
                f"the measurements of {term.names[0]!r} lie off its field in a regular way (neighbours correlate by "
                f"{alike:.2f}): equation, conditions or constants are wrong: more steps= or modes=, or another equation"
            )
    return found
