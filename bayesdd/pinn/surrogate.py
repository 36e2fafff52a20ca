"""A fitted problem: predictions with their spread, how well the equation holds, and the network itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesdd.data.accuracy import Z90
from bayesdd.data.distilled import Distilled, needed
from bayesdd.networks import function_space, students
from bayesdd.networks.judging import HELD, Terms
from bayesdd.networks.regression import Regression
from bayesdd.networks.students import GaussNewton
from bayesdd.numerics import arguments
from bayesdd.numerics.exclusive import exclusive
from bayesdd.pinn import modes as searches
from bayesdd.pinn import tasks, written
from bayesdd.pinn.doubts import doubts, unheld
from bayesdd.pinn.left import left, sizes, taught, zeros
from bayesdd.pinn.measurements import points_of
from bayesdd.pinn.plain import Plain
from bayesdd.pinn.problem import Problem
from bayesdd.pinn.remainder import Remainder
from bayesdd.pinn.residuals import Networks, linearised, residuals
from bayesdd.pinn.response import Response, response
from bayesdd.pinn.spread import Field, pooled, widening
from bayesdd.pinn.students import Taught
from bayesdd.pinn.terms import Columns, Term, field_term, sobol
from bayesdd.posterior import arviz
from bayesdd.task.provenance import fitting
from bayesdd.task.task import Task

CELLS = 2**25  # numbers of a Jacobian that are held at once
ROWS, STEPS, STUDENTS, TRAINING = 256, 400, 4, 400  # of objective() and student_fit()
SMALLEST = 0.01  # of a field's range: the noise of a student where nothing was measured


class FitWarning(UserWarning):
    """A surrogate was returned, but something about it may be wrong."""


@dataclass(frozen=True, eq=False)
class Surrogate:
    """What :func:`bayesdd.pinn.fit` returns.

    Attributes:
        networks: The networks, and the problem; linear around what the searches found.
        hidden: Widths of the hidden layers that were asked for: those of students.
        terms: All rows: measurements, the equation, conditions.
        theta: Modes, the best first, ``(K, P)``: steps from the networks' anchors, and unknown constants.
        noise: Noise scales of every group of rows by mode, ``(K, G)``.
        seed: Seed of the fit.
        steps: Steps that the searches took.
    """

    networks: Networks
    hidden: tuple[int, ...]
    terms: tuple[Term, ...]
    theta: Tensor
    noise: Tensor
    seed: int
    steps: int

    def __repr__(self) -> str:
        outputs, dim = list(self.problem.names.outputs), self.networks.dim
        return f"Surrogate of {outputs}: {len(self.theta)} modes of {dim:,} weights, {self.steps} steps"

    @property
    def problem(self) -> Problem:
        """The problem."""
        return self.networks.problem

    @cached_property
    def plain(self) -> Networks:
        """Networks as wide as asked for, theta their weights: those of the searches and of students."""
        return Networks.of(self.problem, self.hidden, self.networks.fields.outputs)

    @property
    def measurement_noise(self) -> dict[str, float]:
        """Standard deviation of a measurement, by output that was measured."""
        groups = [(term, name) for term in self.terms for name in term.names]
        scales = self.noise.mean(0).tolist()
        return {name: scale for (term, name), scale in zip(groups, scales, strict=True) if term.observed is not None}

    @property
    def constants(self) -> dict[str, tuple[float, float]]:
        """Unknown constants: posterior mean and standard deviation."""
        found, names = {}, self.problem.names.unknown
        for at, (name, each) in enumerate(self.networks.constants(self.theta).items()):
            unit = torch.zeros_like(self.theta)[:, None]
            unit[:, 0, self.networks.dim - len(names) + at] = self.problem.unknown[name][1]  # type: ignore[index]
            mean, sd = pooled(each[:, None], self.curvature.variance(unit) + self.remainder.of_unknowns(unit) ** 2)
            found[name] = (float(mean), float(sd))
        return found

    def predict(self, points: Any) -> dict[str, Field]:
        """Fields and unknown functions at points, each with the standard deviation of its own value.

        Measurement noise is no part of it. Across modes the spread is that of a t distribution: plus or minus 1.645 of
        it holds 90 % where the truth differs from the modes as they differ from one another.

        Args:
            points: A column ``(N,)`` for every input and parameter.

        Returns:
            Name -> mean and sd, float64 arrays ``(N,)`` on the CPU.

        Raises:
            Refusal: A column is missing or strange, or a point lies outside the domain.
        """
        columns = self._at(points, "predict")
        names = [*self.problem.names.outputs, *self.networks.functions]
        count = len(next(iter(columns.values())))
        step = max(1, CELLS // (self.theta.numel() * len(names)))
        each = [{name: column[at : at + step] for name, column in columns.items()} for at in range(0, count, step)]
        found = [self._predicted(names, some) for some in each]
        joined = (
            [torch.cat(some).cpu().numpy() for some in zip(*part, strict=True)] for part in zip(*found, strict=True)
        )
        return {name: (mean, sd) for name, (mean, sd) in zip(names, joined, strict=True)}

    def draws(self, points: Any, draws: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
        """Joint draws of fields and unknown functions at points: name -> ``(draws, N)``; see :meth:`predict`."""
        columns, draws = self._at(points, "draws"), arguments.whole(draws, "Surrogate.draws: draws=", 1)
        seed = arguments.seed(seed, "Surrogate.draws")
        names = [*self.problem.names.outputs, *self.networks.functions]
        generator = torch.Generator().manual_seed(seed)
        term = field_term(self.problem, names, columns)
        values, slopes = linearised(self.networks, [term], self.theta)
        shift, pick = self._shifts(draws, generator)
        lack = torch.randn(draws, 1, generator=generator, dtype=torch.float64).to(shift.device)
        found = {}
        for name, value, slope, lacking in zip(names, values, slopes, self.remainder.of(term, slopes), strict=True):
            middle = value.mean(0)
            apart = widening(len(value)) * (value - middle)
            turned = self._along(slope)
            along = torch.stack([turned[mode] @ own for mode, own in zip(pick.tolist(), shift, strict=True)])
            found[name] = (middle + apart[pick] + along + lack * lacking).cpu().numpy()
        return found

    def disagreement(self, points: Columns) -> dict[str, float]:
        """Spread between modes, root mean square, as a share of each field's range over the points."""
        names = self.problem.names.outputs
        with torch.no_grad():
            values = residuals(self.networks, [field_term(self.problem, names, _on(points, self.theta))], self.theta)
        spread = [float(value.var(0, correction=0).mean().sqrt()) for value in values]
        return {
            name: apart / max(float(value.max() - value.min()), 1e-300)
            for name, apart, value in zip(names, spread, values, strict=True)
        }

    @cached_property
    def remainder(self) -> Remainder:
        """How far predictions may still be off, by what the last correction has left."""
        return Remainder(self)

    @property
    def shares(self) -> dict[str, float]:
        """Share of the residuals that the last correction leaves at new points, by what matters of the problem.

        What :meth:`predict` adds to its spread grows with that of all (:mod:`bayesdd.pinn.remainder`).
        """
        return self.remainder.shares

    @cached_property
    def held(self) -> dict[str, float]:
        """Share of the measurements of each output inside the 90 % interval that the others give (leave one out).

        By the linearised model: a row of leverage h and residual r is missed by r / (1 - h), with the variance
        noise^2 / (1 - h).
        """
        found, at = {}, 0
        for term in self.terms:
            if term.observed is not None:
                (value,), (slope,) = linearised(self.networks, [term], self.theta)
                noise = self.noise[:, at, None]
                leverage = self.curvature.variance(self._along(slope) / noise[..., None]).clamp(0, 1 - 1e-9)
                off = (value / (1 - leverage)).mean(0).abs()
                found[term.names[0]] = float((off <= Z90 * (noise / (1 - leverage).sqrt()).mean(0)).double().mean())
            at += len(term.names)
        return found

    def errors(self, points: Any = None, seed: int = 1) -> dict[str, float]:
        """Root mean square of what is to be zero, at points that the fit has not seen: the equation, every condition.

        Args:
            points: Where the equation is looked at; default 1,024 points of the whole domain.
            seed: Seed of new points; conditions are always looked at where they hold.

        Returns:
            Name -> mean over the modes, in the units of the equation or field.
        """
        seed = arguments.seed(seed, "Surrogate.errors")
        terms = self.zeros(None if points is None else self._at(points, "errors"), seed)
        names = [name for term in terms for name in term.names]
        return dict(zip(names, sizes(self.networks, terms, self.theta), strict=True))

    @cached_property
    def target(self) -> list[Task]:
        """The posterior of networks as wide as asked for, as Pyro models: measurements, the equation and conditions.

        Noise scales are as they were found; what :meth:`predict` says comes from corrected networks around its modes.
        """
        found, at = [], 0
        for term in self.terms:
            noise = self.noise[0, at : at + len(term.names)]
            found.append(tasks.task(self.plain, term.to(torch.device("cpu")), noise.cpu()))
            at += len(term.names)
        return found

    @cached_property
    def student(self) -> Task:
        """A plain network on rows of points and values: what distilled rows are for."""
        points = sobol(self.problem.ranges, ROWS, self.seed)
        rows = tasks.outcomes(self.problem, points, self.mean(points).detach())
        return tasks.student(self.problem, self.plain.fields, rows, self._student_noise)

    def objective(
        self,
        *,
        points: Any = None,
        steps: int = STEPS,
        error: float | None = None,
        held: float = HELD,
        unit: float | None = None,
        held_out: Any = None,
    ) -> Callable[..., Any]:
        """What ``bayesdd.distill`` minimises: students of the rows predict what this surrogate predicts.

        Its certificate says what students leave of the equation and of every condition, and is not ok where the
        surrogate itself is in doubt (:attr:`doubts`).

        Args:
            points: Where they shall; default 256 points of the whole domain.
            steps: Steps of the rows, which bound the work: 400 take half a minute with 50 rows.
            error: Judge in the outcome's own terms: the share of each field's range that errors of means must stay
                within, 0.01 for 1 %; at conditions that fix a field within twice that. None: in the surrogate's sds.
            held: With ``error``: 90 % intervals must hold 90 % of the surrogate's predictive, give or take this.
            unit: What ``error`` is in, if not each field's range: 1.0 for the fields' own units.
            held_out: Measurements that the fit has not seen, as for ``fit``: a doubt where intervals hold too few.
        """
        columns = (
            sobol(self.problem.ranges, ROWS, self.seed + 1)
            if points is None
            else points_of(self.problem, points, "objective")
        )
        Terms(error, held, unit)  # refuses what says nothing before anything is computed
        steps = arguments.whole(steps, "Surrogate.objective: steps=", 1)
        found, names = self.predict(columns), self.problem.names.outputs
        mean, sd = (torch.from_numpy(np.stack([found[name][at] for name in names], 1)) for at in (0, 1))
        asked = tasks.outcomes(self.problem, columns, mean)
        outcome = names[0] if len(names) == 1 else tasks.VALUE
        ranges = (mean.amax(0) - mean.amin(0)).repeat_interleave(len(mean))
        doubts = [*self.doubts, *([] if held_out is None else unheld(self, held_out))]
        return partial(
            function_space,
            purpose=asked,
            predictive=(asked.pop(outcome), sd.T.reshape(-1)),
            label=self._label,
            error=error,
            held=held,
            unit=ranges if unit is None else unit,
            residuals=partial(left, self.networks, self.plain, self.theta, self.seed + 2),
            doubt="; ".join(doubts),
            steps=steps,
        )

    @cached_property
    def doubts(self) -> list[str]:
        """What speaks against these predictions, one line each; :func:`bayesdd.pinn.fit` warns of it."""
        return doubts(self)

    @exclusive
    def student_fit(self, rows: Distilled, seed: int = 0, *, count: int = STUDENTS) -> Taught:
        """Plain networks trained from scratch on distilled rows.

        Args:
            rows: What ``bayesdd.distill`` gave.
            seed: Seed of their first weights.
            count: Networks.
        """
        rows = fitting(needed(rows, "student_fit"), self.student)
        count, seed = arguments.whole(count, "student_fit: count=", 1), arguments.seed(seed, "student_fit")
        regression = Regression(self.student, "student_fit")
        precision = rows.weight / regression.noise**2
        fits = students.from_scratch(regression, rows.data, precision, count, seed, TRAINING)
        networks, theta = taught(self.networks, self.plain, self.theta, fits.latents)
        return Taught(regression, rows.data, precision, fits, networks, theta, self.seed)

    def to_netcdf(self, path: str | os.PathLike[str]) -> None:
        """Writes weights, scales and measurements, with a content hash; :func:`bayesdd.pinn.load` reads them."""
        written.write(self, path)

    def to_arviz(self, points: Any, draws: int = 1000, seed: int = 0) -> Any:
        """Draws at points as ArviZ's groups ``predictions`` and ``predictions_constant_data``, dimension ``row``."""
        drawn = {name: values[None] for name, values in self.draws(points, draws, seed).items()}
        columns = {name: column.cpu().numpy() for name, column in self._at(points, "to_arviz").items()}
        predictions = arviz.dataset(drawn, dims={name: ["row"] for name in drawn}, attrs={"seed": seed})
        constant = arviz.dataset(columns, lead=("row",))
        return arviz.to_arviz({"predictions": predictions, "predictions_constant_data": constant})

    def to_torch(self) -> torch.nn.Module:
        """The mean as a plain module: ``(N, inputs and parameters)`` -> ``(N, outputs)``, float64, differentiable."""
        return Plain(self.networks, self.theta)

    @cached_property
    def curvature(self) -> GaussNewton:
        """Gauss-Newton matrices of the modes, in the coordinates of :attr:`response`."""
        rows = self._rows()
        return GaussNewton(rows, rows.new_ones(rows.shape[1]), torch.ones_like(self.theta))

    @cached_property
    def response(self) -> Response | None:
        """How fields answer unknowns at the modes; None where nothing is unknown."""
        if self.networks.dim == self.networks.fields.dim:
            return None
        return response(self.networks, self.terms, self.white())

    def white(self) -> Tensor:
        """Slopes of all rows of the fit over their scales, ``(K, N, P)``."""
        return searches.whitened(self.networks, self.terms, self.theta, self.noise)

    def _rows(self) -> Tensor:
        """All rows over their scales, in the coordinates of the curvature."""
        white = self.white()
        zero = torch.cat([torch.full((t.count * len(t.names),), t.observed is None) for t in self.terms])
        white = torch.where(zero.to(white.device)[:, None], white / self.remainder.surer[..., None], white)
        return white if self.response is None else self.response.rows(white)

    def _along(self, slopes: Tensor) -> Tensor:
        """Slopes ``(K, N, P)`` in the coordinates of the curvature."""
        return slopes if self.response is None else self.response.along(slopes)

    def mean(self, points: Columns) -> Tensor:
        """Mean of the fields at points, differentiable in them: ``(N, outputs)``."""
        z = torch.stack([points[name] for name in self.problem.names.inputs], 1)
        found: Tensor = Plain(self.networks, self.theta).to(z.device)(z)
        return found

    @property
    def _student_noise(self) -> float:
        """The mean noise of measurements; where there are none, a share of the fields' unit."""
        scales = list(self.measurement_noise.values()) or [SMALLEST * unit for _, unit in self.networks.fields.outputs]
        return sum(scales) / len(scales)

    def _label(self, rows: Columns) -> Tensor:
        """The mean at rows of a student."""
        values = self.mean(rows)
        return values.gather(1, rows[tasks.FIELD].long()[:, None])[:, 0] if values.shape[1] > 1 else values[:, 0]

    @property
    def zero_noise(self) -> Tensor:
        """Scales of the equation's and conditions' residuals, ``(K, G)``."""
        return self.noise[:, self.zero]

    @property
    def zero(self) -> Tensor:
        """Which groups of rows are the equation's and conditions', ``(G,)``."""
        known = [term.observed is not None for term in self.terms for _ in term.names]
        return ~torch.tensor(known, device=self.theta.device)

    def zeros(self, points: Columns | None, seed: int) -> list[Term]:
        """The equation and conditions at points that the fit has not seen, by default new ones."""
        return [term.to(self.theta.device) for term in zeros(self.problem, points, self.seed + seed)]

    def _at(self, points: Any, who: str) -> Columns:
        return _on(points_of(self.problem, points, f"Surrogate.{who}"), self.theta)

    def _predicted(self, names: list[str], points: Columns) -> list[tuple[Tensor, Tensor]]:
        term = field_term(self.problem, names, points)
        values, slopes = linearised(self.networks, [term], self.theta)
        lacking = self.remainder.of(term, slopes)
        own = [self.curvature.variance(self._along(slope)) + one**2 for slope, one in zip(slopes, lacking, strict=True)]
        return [pooled(value, variance) for value, variance in zip(values, own, strict=True)]

    def _shifts(self, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws of N(0, A^-1) ``(draws, P)``, each of a mode drawn at random ``(draws,)``: A^-1 (z + J' e)."""
        pick = torch.randint(len(self.theta), (draws,), generator=generator)
        white = self._rows()
        found = self.theta.new_empty(draws, self.networks.dim)
        own = torch.randn(draws, self.networks.dim, generator=generator, dtype=torch.float64).to(self.theta.device)
        rows = torch.randn(draws, white.shape[1], generator=generator, dtype=torch.float64).to(self.theta.device)
        for mode in range(len(self.theta)):
            mine = (pick == mode).nonzero()[:, 0]
            right = own[mine] + rows[mine] @ white[mode]
            model = GaussNewton(white[mode : mode + 1], white.new_ones(white.shape[1]), torch.ones_like(self.theta[:1]))
            found[mine] = torch.stack([model.solve(one[None])[0] for one in right]) if len(mine) else right
        return found, pick


def _on(points: Mapping[str, Tensor], like: Tensor) -> Columns:
    return {name: column.to(like.device) for name, column in points.items()}
