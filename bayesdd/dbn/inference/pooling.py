"""The joint posterior of several sources: draws, and what distillation needs of it. Computed once, used for every M."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bayesdd.dbn.inference._gibbs import gibbs
from bayesdd.dbn.inference.arviz import inference_data
from bayesdd.dbn.inference.drawing import RHAT, diagnostics, drawn
from bayesdd.dbn.inference.mixed import mixed_draws
from bayesdd.dbn.inference.patterns import patterns_of
from bayesdd.dbn.inference.prediction import Prediction, predicted
from bayesdd.dbn.inference.regressions import Layout
from bayesdd.dbn.inference.statistics import Statistics, of_draws
from bayesdd.dbn.likelihood.parameters import log_likelihood
from bayesdd.dbn.likelihood.source import Source, gathered, rows_of, with_noise
from bayesdd.dbn.template.columns import Rows, as_columns
from bayesdd.dbn.template.mixture import Mixture
from bayesdd.dbn.template.template import Template
from bayesdd.numerics import words
from bayesdd.numerics.exclusive import exclusive
from bayesdd.numerics.refusal import Refusal

TABLE_CHAINS, BURN = 4, 300  # of categorical sources; every chain has a burn-in of its own
MIXED_CHAINS, MIXED_BURN = 4, 100  # given all else, whole rows of numbers and all parameters are drawn at once


@dataclass(frozen=True, eq=False, repr=False)
class Pooled(words.Described):
    """Draws of the posterior given all sources.

    Attributes:
        template: The template.
        sources: The sources.
        rows: Their rows, padded to one number of slices.
        draws: Latent site -> ``(S, *shape)``; unknown noise scales are among them.
        statistics: Means of the families' sufficient statistics; for tables E[log theta] of all cells, side by side; of
            a mixed template those of its continuous part (``bayesdd.dbn.template.mixture``).
        rhat: Largest split R-hat by ranks of any parameter (ArviZ); NaN of a single chain, or of fewer than four draws.
        ess: Effective number of independent draws, of the parameter that has least; NaN where R-hat is.
        chains: Number of chains, or of independent batches, that stand one after the other in ``draws``.
    """

    template: Template
    sources: tuple[Source, ...]
    rows: list[Rows]
    draws: dict[str, Tensor]
    statistics: Statistics | Tensor
    rhat: float
    ess: float = math.nan
    chains: int = 1

    @property
    def _said(self) -> tuple[str, dict[str, str]]:
        """What it is in a line, and its sources and sites."""
        draws = len(next(iter(self.draws.values())))
        return f"Pooled: {draws:,} draws of the posterior of {len(self.sources)} sources", {
            "rows": f"{self.count:,} of up to {self.slices} slices",
            "variables": words.listed([*self.template.static, *self.template.variables]),
            "sites": words.listed(words.sized(name, value.shape[1:]) for name, value in self.draws.items()),
            "R-hat": "not known" if math.isnan(self.rhat) else f"at most {self.rhat:.3f}",
            "effective draws": "not known" if math.isnan(self.ess) else f"at least {self.ess:,.0f}",
        }

    def to_arviz(self) -> Any:
        """The draws as ArviZ inference data: axes carry the names of variables, chains are kept apart."""
        return inference_data(self.template, self.draws, chains=self.chains)

    def smooth(self, patients: Any, *, mass: float = 0.9) -> Prediction:
        """True values of all entries of patients, measured and missing, given all that is seen of them.

        Args:
            patients: Columns, or a :class:`bayesdd.dbn.Source` that says what is seen and how noisy it is; patients of
                whom nothing is seen are left out.
            mass: Probability of the intervals.

        Raises:
            Refusal: Variables are categorical, or patients do not fit.

        Example:
            >>> course = full.smooth({"x": [[[0.4, float("nan")], [float("nan"), 0.2]]]})
            >>> tuple(course.mean.shape), float(course.sd[0, 0, 0]) < 1e-6
            ((1, 2, 2), True)
        """
        return predicted(self.template, self.draws, patients, mass=mass, along=self.sources)

    def impute(self, patients: Any, *, mass: float = 0.9) -> Prediction:
        """As :meth:`smooth`, but what was measured stays as it was measured, noise and all.

        Example:
            >>> filled = full.impute({"x": [[[0.4, float("nan")], [float("nan"), 0.2]]]})
            >>> filled.to_frame()["sd"].eq(0).tolist()
            [True, False, False, True]
        """
        found = self.smooth(patients, mass=mass)
        source = patients if isinstance(patients, Source) else Source(patients)
        (x, _), _, _ = rows_of(self.template, source, self.sources)
        seen = ~x.isnan()
        mean, low, high = (torch.where(seen, x, part) for part in (found.mean, found.low, found.high))
        return replace(found, mean=mean, sd=torch.where(seen, 0.0, found.sd), low=low, high=high)

    def forecast(self, patients: Any, steps: int, *, mass: float = 0.9) -> Prediction:
        """True values of ``steps`` slices after the last of patients, given all that is seen of them.

        Raises:
            Refusal: As for :meth:`smooth`, or there is no step.

        Example:
            >>> ahead = full.forecast({"x": [[[0.4, float("nan")], [float("nan"), 0.2]]]}, 3)
            >>> tuple(ahead.mean.shape), ahead.to_frame().index[0]
            ((1, 3, 2), (0, 2, 'a'))
        """
        return self._ahead(patients, steps, {}, mass)

    def do(
        self, patients: Any, steps: int, values: Mapping[str, float | Sequence[float]], *, mass: float = 0.9
    ) -> Prediction:
        """As :meth:`forecast`, with variables set from outside in the slices to come, whatever their parents are.

        It is what would happen if edges are causes and no common cause is missing from the template; the template
        cannot say whether they are.

        Args:
            patients: As for :meth:`smooth`.
            steps: Slices to come.
            values: Variable -> the value that it is set to, or one for each slice to come.
            mass: Probability of the intervals.

        Example:
            >>> treated = full.do({"x": [[[0.4, float("nan")], [float("nan"), 0.2]]]}, 2, {"a": 1.0})
            >>> treated.mean[0, :, 0].tolist(), float(treated.sd[0, 0, 0]) < 1e-6
            ([1.0, 1.0], True)
        """
        return self._ahead(patients, steps, values, mass)

    def _ahead(
        self, patients: Any, steps: int, values: Mapping[str, float | Sequence[float]], mass: float
    ) -> Prediction:
        if steps < 1:
            raise Refusal(f"a forecast needs steps= of at least one slice, got {steps}.")
        found = predicted(self.template, self.draws, patients, steps=steps, do=values, mass=mass, along=self.sources)
        mean, sd, low, high = (part[:, -steps:] for part in (found.mean, found.sd, found.low, found.high))
        return replace(found, first=found.mean.shape[1] - steps, mean=mean, sd=sd, low=low, high=high)

    @property
    def slices(self) -> int:
        """Number T of slices of the longest sequence."""
        return self.rows[0][0].shape[1]

    @property
    def count(self) -> int:
        """Number N of rows."""
        return sum(len(x) for x, _ in self.rows)

    @property
    def noisy(self) -> list[Template]:
        """The template with every source's noise."""
        return with_noise(self.template, self.sources)


@exclusive
def pooled(
    template: Template, sources: Sequence[Source], *, draws: int = 4000, seed: int = 0, fallback: bool = True
) -> Pooled:
    """Draws of the joint posterior of several sources.

    Linear-Gaussian: from the sufficient statistics of each pattern of missing entries, so that rows cost nothing once
    their patterns are known: importance sampling at the modes that expectation maximisation leads to, chains of data
    augmentation where that does not serve, and HMC where these disagree (``drawing``). Categorical: four chains of data
    augmentation (``gibbs``), and of mixed templates likewise.

    Args:
        template: The template, without noise.
        sources: The sources.
        draws: Draws that are kept.
        seed: Seed.
        fallback: Whether chains that disagree are drawn again, longer, and then by HMC, minutes for their seconds.

    Raises:
        ValueError: As for :func:`bayesdd.dbn.target`.

    Warns:
        UserWarning: The chains disagree.

    Example:
        >>> import torch
        >>> from bayesdd.dbn import Source, Template, pooled
        >>> template = Template(("a", "b"), intra=(("a", "b"),), inter=(("a", "a"),))
        >>> x = torch.randn(60, 3, 2, generator=torch.Generator().manual_seed(0))
        >>> full = pooled(template, [Source({"x": x[:30]}), Source({"x": x[30:]}, ("a",))], draws=400)
        >>> full.draws["b"].shape, full.rhat < 1.05
        (torch.Size([400, 2]), True)
    """
    rows, noisy = gathered(template, sources), with_noise(template, sources)
    statistics: Statistics | Tensor
    if template.mixed:
        chains = mixed_draws(
            noisy,
            rows,
            draws=math.ceil(draws / MIXED_CHAINS),
            burn=MIXED_BURN,
            chains=MIXED_CHAINS,
            generator=torch.Generator().manual_seed(seed),
        )
        mixture = Mixture.of(template)
        every = {site: value.flatten(0, 1) for site, value in chains.items()}
        statistics = of_draws(*Layout.of(mixture.continuous).stacked(mixture.values(every)))
        rhat, ess = diagnostics(chains)
    elif template.states:
        chains, (rhat, ess) = _tables(template, rows, draws, seed)
        flat = {site: value.flatten(0, 1)[:draws] for site, value in chains.items()}
        statistics = torch.cat([flat[site].log().mean(0).flatten() for site in template.sites])
    else:
        found = drawn(
            noisy, patterns_of(template, rows), rows[0][0].shape[1], draws=draws, seed=seed, fallback=fallback
        )
        chains, statistics, rhat, ess = found
    if rhat > RHAT:
        warnings.warn(
            f"pooled: the chains of the joint posterior disagree (R-hat {rhat:.2f}): ask for more draws= than {draws}, "
            "or inspect what no source identifies.",
            UserWarning,
            stacklevel=3,
        )
    count, length = next(iter(chains.values())).shape[:2]
    each = math.ceil(draws / count)
    kept = torch.linspace(0, length - 1, each).long()
    flat = {site: value[:, kept].flatten(0, 1)[:draws] for site, value in chains.items()}
    whole = count if count * each == draws else 1
    return Pooled(template, tuple(sources), rows, flat, statistics, rhat, min(ess, float(draws)), whole)


def _tables(
    template: Template, rows: list[Rows], draws: int, seed: int
) -> tuple[dict[str, Tensor], tuple[float, float]]:
    """Chains of tables, site -> ``(chains, draws, *shape)``, their largest R-hat and least effective sample size."""
    x, static = (torch.cat(part) for part in zip(*rows, strict=True))
    data, each = as_columns(template, (x, static)), math.ceil(draws / TABLE_CHAINS)
    parts = [gibbs(template, data, draws=each, burn=BURN, seed=seed + k) for k in range(TABLE_CHAINS)]
    chains = {site: torch.stack([part[site] for part in parts]) for site in template.sites}
    return chains, diagnostics(chains)


def predictive(template: Template, draws: Mapping[str, Any], data: Any) -> Tensor:
    """Log posterior predictive density of every row, log mean_s p(row | theta_s), nats: ``(rows,)``.

    Takes draws ``(S, *shape)`` of every latent site, and columns as for :func:`bayesdd.dbn.task`.
    """
    by_draw = log_likelihood(template, draws, data)
    return by_draw.logsumexp(0) - math.log(len(by_draw))
