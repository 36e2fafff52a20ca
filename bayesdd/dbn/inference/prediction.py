r"""What a posterior says of patients: their true values, past and to come, with and without an intervention.

At each draw all entries of a row are jointly normal (``missing.unrolled``), so that given what is seen each is
:math:`N(m_s, v_s)`, by conditioning; over draws it is the mixture of these normals, whose mean, deviation and quantiles
are given, exact for the draws at hand. An intervention at later slices cuts the edges into a variable there and sets
it; what went before is conditioned on as it was seen. Source: Pearl, "Causality", 2009, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.func import vmap
from torch.nn.functional import pad

from bayesdd.data.measures import Measure
from bayesdd.dbn.likelihood.gaussian import Equations, entries, grouped, own_order
from bayesdd.dbn.likelihood.missing import noise_of_entries, unrolled
from bayesdd.dbn.likelihood.source import Source, rows_of
from bayesdd.dbn.template.structure import Values
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal

DRAWS = 500  # of the parameters, evenly chosen: 0.05 deviations are left of Monte Carlo error
NUMBERS = 2**22  # of a chunk of rows at all draws: 32 MB
HALVINGS = 40  # of the interval that holds a quantile: 12 digits of ten deviations


@dataclass(frozen=True, eq=False)
class Prediction:
    """True values of patients' variables: means, deviations and central intervals.

    Attributes:
        variables: Names, the last axis of ``x``.
        first: Number of the first slice, 0 where the course is told from its beginning.
        mean: ``(rows, T, V)``.
        sd: Standard deviations, of the parameters' uncertainty and the residuals together.
        low: Lower ends of the intervals.
        high: Upper ends.
        mass: Probability of an interval.
        measures: Variable -> how its numbers read in the user's own terms, where sources are raw tables.
    """

    variables: tuple[str, ...]
    first: int
    mean: Tensor
    sd: Tensor
    low: Tensor
    high: Tensor
    mass: float
    measures: Mapping[str, Measure] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """One line a patient, slice and variable: ``mean``, ``sd``, ``low``, ``high``, in the user's own terms.

        Of transformed variables (``transform=``) the ends of the interval are given, and NaN for mean and deviation,
        which those of the transformed values do not tell.
        """
        rows, slices, _ = self.mean.shape
        axes = [range(rows), range(self.first, self.first + slices), self.variables]
        index = pd.MultiIndex.from_product(axes, names=["patient", "slice", "variable"])
        found = {name: getattr(self, name).clone() for name in ("mean", "sd", "low", "high")}
        for v, measure in ((v, self.measures[name]) for v, name in enumerate(self.variables) if name in self.measures):
            for name in ("mean", "low", "high"):
                found[name][..., v] = torch.as_tensor(measure.outside(found[name][..., v].numpy()))
            found["sd"][..., v] *= measure.scale
            if measure.transform is not None:
                found["mean"][..., v] = found["sd"][..., v] = torch.nan
        return pd.DataFrame({name: part.flatten() for name, part in found.items()}, index)


def predicted(
    template: Template,
    draws: Mapping[str, Tensor],
    patients: Any,
    *,
    steps: int = 0,
    do: Mapping[str, float | Sequence[float]] | None = None,
    mass: float = 0.9,
    along: Sequence[Source] = (),
) -> Prediction:
    """True values of all entries of patients given what is seen of them, and of ``steps`` slices more.

    Args:
        template: The template.
        draws: Its latent sites ``(S, *shape)``, noise sites among them where patients have unknown noise.
        patients: Columns, or a :class:`bayesdd.dbn.Source` that says what is seen and how noisy it is. Patients of
            whom nothing is seen are left out.
        steps: Slices after the last.
        do: Variable -> the value that it is set to in these slices, or one value for each of them.
        mass: Probability of an interval.
        along: The sources that the draws are given: raw patients take on their scale.

    Raises:
        Refusal: Variables are categorical, patients do not fit, or an intervention has no slice or variable.
    """
    if template.states:
        raise Refusal("predictions are for linear-Gaussian variables: this template has states.")
    if not 0 < mass < 1:
        raise Refusal(f"an interval needs a mass= between 0 and 1, got {mass}.")
    source = patients if isinstance(patients, Source) else Source(patients)
    (x, static), noisy, measures = rows_of(template, source, along)
    inside = {name: _inside(measures.get(name), value) for name, value in (do or {}).items()}
    fixed = _interventions(template, inside, steps)
    x = pad(x, (0, 0, 0, steps), value=torch.nan)
    flat, slices, count = entries(template, x, static), x.shape[1], len(template.static)
    few = _thinned(noisy, draws)
    known = slices - len(fixed)

    def changed(t: int, form: Equations) -> Equations:
        return _set(template, form, fixed[t - known] if t >= known else {})

    mean, factor = vmap(lambda v: unrolled(template, v, slices, changed))({s: few[s] for s in template.sites})
    covariance = factor @ factor.mT
    noise = noise_of_entries(noisy, few, slices).expand(len(mean), -1)
    parts = [torch.empty_like(flat) for _ in range(4)]
    for rows, found in _conditioned(flat, mean, covariance, noise, mass):
        for part, some in zip(parts, found, strict=True):
            part[rows] = some
    courses = [own_order(template, part[:, count:].unflatten(1, (slices, -1)), part[:, :count])[0] for part in parts]
    mean, sd, low, high = courses
    return Prediction(template.variables, 0, mean, sd, low, high, mass, measures)


def _inside(measure: Measure | None, value: float | Sequence[float]) -> Any:
    """What an intervention sets, given in the user's own terms, as the template has it."""
    return value if measure is None else measure.inside(np.asarray(value, dtype=np.float64))


def _interventions(template: Template, do: Mapping[str, float | Sequence[float]], steps: int) -> list[dict[str, float]]:
    """Variable -> value, for each of the slices to come."""
    found: list[dict[str, float]] = [{} for _ in range(steps)]
    for name, value in do.items():
        if name not in template.variables:
            raise Refusal(f"do: {name!r} is none of the variables of a slice, {list(template.variables)}.")
        values = torch.as_tensor(value, dtype=torch.float64)
        if steps < 1 or values.dim() > 1 or (values.dim() and len(values) != steps):
            raise Refusal(f"do: {name!r} needs one value, or one for each of {steps} slices to come, got {value!r}.")
        for one, at in zip(found, values.expand(steps).tolist(), strict=True):
            one[name] = at
    return found


def _thinned(noisy: Template, draws: Mapping[str, Tensor]) -> Values:
    if missing := [site for site in noisy.sites if site not in draws]:
        raise Refusal(f"predictions need draws of the site {missing[0]!r}, got those of {sorted(draws)}.")
    count = len(next(iter(draws.values())))
    at = torch.linspace(0, count - 1, min(count, DRAWS)).long()
    return {site: draws[site][at] for site in noisy.sites}


def _set(template: Template, form: Equations, values: Mapping[str, float]) -> Equations:
    """Equations without edges into some variables, which have given values instead."""
    order = template.structure.order
    free = torch.tensor([name not in values for name in order]).double()
    shift = torch.tensor([values.get(name, 0.0) for name in order], dtype=torch.float64)
    return Equations(
        free[:, None] * form.own, free[:, None] * form.before, free * form.shift + shift, free * form.variance
    )


def _conditioned(
    flat: Tensor, mean: Tensor, covariance: Tensor, noise: Tensor, mass: float
) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """Rows, pattern after pattern, with the mean, deviation and interval of each of their entries."""
    for every, at in grouped(~flat.isnan()):
        across = covariance[:, at]
        root = torch.linalg.cholesky(across[:, :, at] + torch.diag_embed(noise[:, at]))
        gain = torch.cholesky_solve(across, root)  # (S, r, n)
        variance = covariance.diagonal(dim1=1, dim2=2) - (across * gain).sum(1)
        for rows in every.split(max(1, NUMBERS // mean.numel())):
            centre = mean[:, None] + (flat[rows][:, at] - mean[:, None, at]) @ gain
            yield rows, _mixture(centre, variance.clamp_min(0)[:, None], mass)


def _mixture(mean: Tensor, variance: Tensor, mass: float) -> tuple[Tensor, ...]:
    """Mean, deviation and ends of the central interval of a mixture of normals along the first axis."""
    centre = mean.mean(0)
    spread = (variance.mean(0) + mean.var(0, correction=0)).sqrt()
    scale = variance.sqrt().clamp_min(1e-12 * (1 + centre.abs()))
    reach = (2 / (1 - mass)) ** 0.5  # by Cantelli's inequality less than (1 - mass) / 2 lies beyond
    ends = []
    for share in ((1 - mass) / 2, (1 + mass) / 2):
        low, high = centre - reach * spread, centre + reach * spread
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            below = torch.special.ndtr((middle - mean) / scale).mean(0) < share
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        ends.append(0.5 * (low + high))
    return centre, spread, *ends
