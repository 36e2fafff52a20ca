"""The target of a distillation: what the student's synthetic rows must stand for.

Its log-likelihood at draws of the shared sites is a sweep; sites of its own (nuisances: a source's noise scale) are
integrated out (``bayesdd.target.nuisances``). Every functional of the log-ratio then serves both cases.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bayesdd.density.checkpoint import Checkpoint
from bayesdd.density.control_variate import ControlVariate, control_variate_of
from bayesdd.density.density import MEMORY, Density
from bayesdd.inference.mode import climb, climb_many, fit, newton, scattered
from bayesdd.numerics.gaussian import Gaussian, marginal
from bayesdd.target.nuisances import integrated
from bayesdd.task.starts import BLOCK, first_missing
from bayesdd.task.task import Task

PRIOR_POINTS = 5
TOO_LARGE = 0.01  # nats of error at one draw above which it is swept over all rows
ROWS_FOR_SEARCH, ROWS_FOR_CURVATURE = 2048, 16_384  # whole blocks: fewer shapes to record
LARGE = 100_000  # rows above which a mode is first sought on few rows, and sweeps go by a control variate


class Target:
    """A list of tasks whose log-likelihoods add, seen through the student's latent sites.

    Args:
        tasks: The target tasks; sites of equal name are one site.
        student: The task that people will fit to the synthetic rows.
        device: Where the rows live.
        seed: Seed of the nuisance draws.
        memory: Bytes that intermediate tensors of one block may take.
        exact: Every sweep goes over all rows; else those of 100,000 rows or more go over few where that is good.
        checkpoint: Where passes over the real rows are kept.

    Attributes:
        sweep_error: Largest standard error of a log-likelihood that was swept over few rows, nats.

    Raises:
        ValueError: The student has a latent site that no target task has, or shapes or prior densities differ.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        student: Task,
        device: torch.device | str,
        seed: int,
        memory: int = MEMORY,
        *,
        exact: bool = False,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.tasks, self.student, self.seed = list(tasks), student, seed
        parts = [(task, task.rows, None) for task in tasks]
        self.joint = Density(parts, device, memory, spread=True, checkpoint=checkpoint)
        self.index = self._shared().to(self.joint.device)
        self.nuisance = torch.tensor(
            [i for i in range(self.joint.dim) if i not in set(self.index.tolist())],
            dtype=torch.int64,
            device=self.joint.device,
        )
        self.prior = Density([(student, _one_row(student), torch.zeros(1, dtype=torch.float64))], device)
        self._check_priors()
        self.gaussian_joint: Gaussian | None = None
        self.exact = exact or self.joint.size < LARGE or bool(len(self.nuisance))
        self.sweep_error = 0.0
        self._control: ControlVariate | None = None

    @property
    def draw_divisor(self) -> int:
        """What draws are divided by: 10 where a model can only be run draw by draw, else 1."""
        return 10 if any(task.backend == "loop" for task in [*self.tasks, self.student]) else 1

    @property
    def noise(self) -> float:
        """The most that errors of sweeps over few rows may add to the sum of both KL divergences, nats."""
        return self.sweep_error**2

    @property
    def rows(self) -> int:
        """Number N of real rows of all tasks."""
        return self.joint.size

    def _shared(self) -> Tensor:
        index: list[int] = []
        for site in self.student.structure.sites:
            if site.name not in self.joint.starts:
                raise ValueError(
                    f"the student {self.student.name} has latent site {site.name!r} of shape {site.shape}, but the "
                    f"target has only {sorted(self.joint.starts)}: a student learns nothing about it. Drop it or fix "
                    "its value."
                )
            start, shape, width = self.joint.starts[site.name]
            if shape != site.shape:
                raise ValueError(
                    f"site {site.name!r} has shape {site.shape} in the student {self.student.name} but {shape} in the "
                    "target: shared sites need equal shapes."
                )
            index.extend(range(start, start + width))
        return torch.tensor(index, dtype=torch.int64)

    def _check_priors(self) -> None:
        """Shared sites have equal prior densities, checked at draws."""
        draws = self.student.prior_draws(PRIOR_POINTS, self.seed).to(self.joint.device)
        mine = self.student.log_prior_by_site(draws)
        own = dict(zip(self.student.sites, mine.T, strict=False))
        for part in self.joint.parts:
            if part.task is self.student:
                continue
            joint = scattered(self.joint, PRIOR_POINTS, self.seed)
            joint[:, self.index] = draws
            theirs = dict(zip(part.task.sites, part.task.log_prior_by_site(joint[:, part.index]).T, strict=False))
            for name in own.keys() & theirs.keys():
                if not torch.allclose(own[name], theirs[name], rtol=1e-6, atol=1e-8):
                    raise ValueError(
                        f"site {name!r} has another prior density in {self.student.name} than in {part.task.name}: "
                        "shared sites need equal priors, since the prior cancels."
                    )

    def gaussian(self) -> Gaussian | None:
        """Laplace fit of the shared latents' full posterior (the marginal of the joint fit), or None."""
        self.gaussian_joint = self._fit()
        return None if self.gaussian_joint is None else marginal(self.gaussian_joint, self.index)

    def _fit(self) -> Gaussian | None:
        """Laplace fit of the joint posterior; of many rows by Newton's method from the mode of few."""
        if self.joint.size < LARGE:
            start = scattered(self.joint, 1, self.seed)[0]
            found = fit(self.joint, start=start)
        else:
            thinned = self.thinned()
            start = climb(thinned, scattered(thinned, 1, self.seed)[0])
            found = self.mode_near(start)
            self.count(thinned)
        if found is None:
            refuse_bad_rows(self.tasks, self.joint, start)
        return found if found or self.joint.size < LARGE else fit(self.joint, seed=self.seed)

    def mode_near(self, start: Tensor) -> Gaussian | None:
        """Mode and curvature of many rows, near a mode ``(P,)`` of few; None where there is no Gaussian fit."""
        some = self.thinned(ROWS_FOR_CURVATURE)
        near = newton(some, start)
        found = climb_many(self.joint, some, start if near is None else near.mean)
        self.count(some)
        return found

    def count(self, few: Density) -> None:
        """Adds what was computed on few of the rows to the count of the whole."""
        self.joint.evaluations += few.evaluations * few.size / self.joint.size
        self.joint.gradients += few.gradients * few.size / self.joint.size

    def log_likelihood(self, draws: Tensor) -> Tensor:
        """l_D at draws of the shared latents, nats: ``(S, P)`` -> ``(S,)``; one sweep (times 32 with nuisances)."""
        if not len(self.nuisance):
            full = torch.empty_like(draws)
            full[:, self.index] = draws
            return self.joint.sweep(full) if self.exact else self._controlled(full)
        if self.gaussian_joint is None:
            self.gaussian_joint = fit(self.joint, seed=self.seed)
        if self.gaussian_joint is None:
            raise ValueError(
                "the target's own sites (beyond the student's) cannot be integrated out: the joint posterior has no "
                f"Laplace fit. Give {self.student.name} these sites too."
            )
        return integrated(self.joint, self.prior, (self.index, self.nuisance), self.gaussian_joint, draws, self.seed)

    def _controlled(self, draws: Tensor) -> Tensor:
        """A sweep by the control variate; of all rows at draws where its error is too large, or without one."""
        if self._control is None:
            self.gaussian_joint = self.gaussian_joint or self._fit()
            if self.gaussian_joint is not None:
                self._control = control_variate_of(self.joint, self.gaussian_joint.mean, draws, self.seed)
            if self._control is None:
                self.exact = True
                return self.joint.sweep(draws)
        value, error = self._control.log_likelihood(draws)
        poor = ~(error <= TOO_LARGE)
        if bool(poor.any()):
            value = value.masked_scatter(poor, self.joint.sweep(draws[poor]))
        if not bool(poor.all()):
            self.sweep_error = max(self.sweep_error, float(error[~poor].max()))
        return value

    def thinned(self, most: int = ROWS_FOR_SEARCH) -> Density:
        """The joint posterior on at most that many rows a task, weighted N / n: for searches that end on all rows."""
        parts = []
        for task in self.tasks:
            here = len(next(iter(task.data.values())))
            count = min(here, most)
            picked = torch.arange(count) * here // count  # spread over all rows, which may be sorted
            rows = {name: column[picked] for name, column in task.data.items()}
            parts.append((task, rows, torch.full((count,), task.size / count, dtype=torch.float64)))
        return Density(parts, self.joint.device, self.joint.memory)


def _one_row(task: Task) -> dict[str, Tensor]:
    return {name: column[:1] for name, column in task.data.items()}


def student_of(tasks: list[Task], student: Task | None) -> Task:
    """The student: given, or the only target task."""
    if not tasks:
        raise ValueError("the target is an empty list: give a Task, or several.")
    if student is None and len(tasks) > 1:
        raise ValueError(
            f"a target of {len(tasks)} tasks needs student=: the Task that people will fit to the synthetic rows."
        )
    return tasks[0] if student is None else student


def refuse_bad_rows(tasks: Sequence[Task], density: Density, point: Tensor) -> None:
    """Names the first row on disk whose log-likelihood is not finite at a point ``(P,)``; one pass, for failures only.

    Rows in memory were all looked at when the task was made.

    Raises:
        ValueError: There is such a row.
    """
    if all(len(next(iter(task.data.values()))) == task.size for task in tasks):
        return
    for part in density.parts:
        step = min(BLOCK, part.rows.most)
        blocks = part.rows.blocks(0, part.rows.size, step, pin=False)
        for start, rows in zip(range(0, part.rows.size, step), blocks, strict=True):
            with torch.no_grad():
                found = part.task.log_likelihood(rows, point[None, part.index].cpu())[0]
            if not bool(torch.isfinite(found).all()):
                place = int((~torch.isfinite(found)).nonzero()[0])
                missing = first_missing(rows, place)
                cause = f", with column {missing!r} missing: fill it with nan_to_num under a mask" if missing else ""
                raise ValueError(
                    f"{part.task.name}: the log-likelihood of row {start + place} is not finite{cause}; or drop it."
                )
