"""The target of a distillation: the posterior that the student's synthetic rows must stand for.

Its log-likelihood at draws of the shared sites is a sweep over the rows. Sites that only the target has (nuisances,
such as a source's noise scale) are integrated out (``bayesdd.target.nuisances``), so that every functional of the
log-ratio works with and without them.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bayesdd.data.certificate import TOLERANCE
from bayesdd.data.columns import separated
from bayesdd.density.checkpoint import Checkpoint
from bayesdd.density.control_variate import ERROR, ControlVariate, control_variate_of
from bayesdd.density.density import MEMORY, Density
from bayesdd.inference.mode import climb, climb_many, fit, newton, scattered
from bayesdd.numerics.gaussian import Gaussian, marginal
from bayesdd.numerics.refusal import Refusal
from bayesdd.target.nuisances import integrated
from bayesdd.task.starts import BLOCK, first_missing
from bayesdd.task.task import Task

PRIOR_POINTS = 5
TOO_LARGE = 3.3  # times the standard error aimed at: a draw at which it is larger is swept over all rows
ROWS_FOR_SEARCH, ROWS_FOR_CURVATURE = 2048, 16_384  # powers of two: fewer shapes of graphs to record
LARGE = 100_000  # rows from which modes are first sought on few rows, and sweeps may use a control variate


class Target:
    """A list of tasks whose log-likelihoods add, seen through the student's latent sites; no attribute changes.

    Args:
        tasks: The target tasks; sites of equal name are one site.
        student: The task that people will fit to the synthetic rows.
        device: Where the rows live.
        seed: Seed of the nuisance draws.
        memory: Bytes that intermediate tensors of one block may take.
        exact: Never sweep by a control variate.
        checkpoint: Where passes over the real rows are kept.
        tolerance: KL, nats, that is aimed at: sweeps by a control variate may blur a tenth of it.

    Attributes:
        joint: The posterior of all the target's sites; it also counts the sweeps and gradients so far.
        prior: The prior of the student's sites.
        index: Where the student's sites stand in the joint flat vector.
        nuisance: Where the target's own sites stand there.
        exact: Whether sweeps go over all rows whatever the draws.
        control: Control variate that sweeps use; see ``with_control_variate``.

    Raises:
        Refusal: The student has a latent site that no target task has, or shapes or prior densities differ.
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
        tolerance: float = TOLERANCE,
    ) -> None:
        self.tasks, self.student, self.seed = list(tasks), student, seed
        parts = [(task, task.rows, None) for task in tasks]
        self.joint = Density(parts, device, memory, spread=True, checkpoint=checkpoint)
        for site in student.structure.sites:
            if site.name not in self.joint.starts:
                raise Refusal(
                    f"the student {student.name} has latent site {site.name!r} of shape {site.shape}, but the target "
                    f"has only {sorted(self.joint.starts)}, so that its rows say nothing about it. Drop it or fix its "
                    "value."
                )
        self.index = self.joint.index_of(student, "the target")
        shared = torch.zeros(self.joint.dim, dtype=torch.bool).to(self.index.device).index_fill(0, self.index, True)
        self.nuisance = (~shared).nonzero()[:, 0]
        one = {name: column[:1] for name, column in student.data.items()}
        self.prior = Density([(student, one, torch.zeros(1, dtype=torch.float64))], device)
        self._check_priors()
        self.exact = exact or self.joint.size < LARGE or bool(len(self.nuisance))
        self.control: ControlVariate | None = None
        # Noise of sd e in the log-ratio adds at most e^2 / 2 to a KL.
        self._error = min(ERROR, math.sqrt(0.2 * tolerance))

    @property
    def draw_divisor(self) -> int:
        """Divisor of all numbers of draws: 10 where a model can only be run draw by draw, else 1."""
        return 10 if any(task.backend == "loop" for task in [*self.tasks, self.student]) else 1

    @property
    def rows(self) -> int:
        """Number N of real rows of all tasks."""
        return self.joint.size

    def _check_priors(self) -> None:
        """Refuses shared sites with unequal prior densities, compared at draws."""
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
                    raise Refusal(
                        f"site {name!r} has another prior density in {self.student.name} than in {part.task.name}: "
                        "shared sites need equal priors, since the prior cancels."
                    )

    @functools.cached_property
    def laplace(self) -> Gaussian | None:
        """Laplace fit of the joint posterior, None where there is none; of many rows by Newton from the mode of few."""
        if self.joint.size < LARGE:
            start = scattered(self.joint, 1, self.seed)[0]
            found = fit(self.joint, start=start)
        else:
            thinned = self.thinned()
            start = climb(thinned, scattered(thinned, 1, self.seed)[0])
            found = self.mode_near(start)
            self.joint.count(thinned)
        if found is None:
            refuse_bad_rows(self.tasks, self.joint, start)
        return found if found or self.joint.size < LARGE else fit(self.joint, seed=self.seed)

    def gaussian(self) -> Gaussian | None:
        """Laplace fit of the shared latents' full posterior (the marginal of the joint fit), or None."""
        return None if self.laplace is None else marginal(self.laplace, self.index)

    def mode_near(self, start: Tensor) -> Gaussian | None:
        """Mode and curvature of many rows, near a mode ``(P,)`` of few; None where there is no Gaussian fit."""
        some = self.thinned(ROWS_FOR_CURVATURE)
        near = newton(some, start)
        found = climb_many(self.joint, some, start if near is None else near.mean)
        self.joint.count(some)
        return found

    def with_control_variate(self, draws: Tensor) -> Target:
        """The same target with sweeps by a control variate; itself where it has one or may not.

        Where that would not be cheap at draws ``(S, P)`` like the given ones, the returned target sweeps all rows.
        """
        if self.exact or self.control is not None:
            return self
        control = None
        if self.laplace is not None:
            like, near = self.joint_order(draws), self.laplace
            control = control_variate_of(self.joint, near.mean, like, self.seed, axes=near.factor, error=self._error)
        found = copy.copy(self)
        found.control, found.exact = control, control is None
        return found

    def log_likelihood(self, draws: Tensor) -> tuple[Tensor, float]:
        """l_D at draws of the shared latents ``(S, P)``; one sweep (times 32 with nuisances).

        Returns:
            Nats, ``(S,)``, and the largest standard error of these values, 0 where all rows were swept.
        """
        if len(self.nuisance):
            if self.laplace is None:
                raise Refusal(
                    "the target's own sites (beyond the student's) cannot be integrated out: the joint posterior has "
                    f"no Laplace fit. Give {self.student.name} these sites too."
                )
            index = self.index, self.nuisance
            return integrated(self.joint, self.prior, index, self.laplace, draws, self.seed), 0.0
        draws = self.joint_order(draws)
        if self.control is None:
            return self.joint.sweep(draws), 0.0
        value, error = self.control.log_likelihood(draws)
        poor = ~(error <= TOO_LARGE * self._error)
        if bool(poor.any()):
            value = value.masked_scatter(poor, self.joint.sweep(draws[poor]))
        return value, float(error.masked_fill(poor, 0.0).max())

    def joint_order(self, draws: Tensor) -> Tensor:
        """Draws of the shared latents ``(S, P)`` in the order of the joint flat vector; no nuisances."""
        full = torch.empty_like(draws)
        full[:, self.index] = draws
        return full

    def thinned(self, most: int = ROWS_FOR_SEARCH, *, weighted: bool = True) -> Density:
        """The joint posterior on at most ``most`` rows of each task, weighted N / n: searches begin on it.

        Not weighted, it is the wider posterior of these rows alone.
        """
        parts = []
        for task in self.tasks:
            here = len(next(iter(task.data.values())))
            count = min(here, most)
            picked = torch.arange(count) * here // count  # spread over all rows, which may be sorted
            rows = {name: column[picked] for name, column in task.data.items()}
            weight = torch.full((count,), task.size / count if weighted else 1.0, dtype=torch.float64)
            own = task.rows.sample_weight
            parts.append((task, rows, weight if own is None else weight * own[picked]))
        return Density(parts, self.joint.device, self.joint.memory)


def student_of(tasks: list[Task], student: Task | None) -> Task:
    """The student: given, or the only target task."""
    if not tasks:
        raise Refusal("the target is an empty list: give a Task, or several.")
    if student is None and len(tasks) > 1:
        raise Refusal(
            f"a target of {len(tasks)} tasks needs student=: the Task that people will fit to the synthetic rows."
        )
    return tasks[0] if student is None else student


def refuse_bad_rows(tasks: Sequence[Task], density: Density, point: Tensor) -> None:
    """Names the first row on disk whose log-likelihood is not finite at a point ``(P,)``, after a fit has failed.

    Rows in memory were all checked when the task was made.

    Raises:
        Refusal: There is such a row.
    """
    if all(len(next(iter(task.data.values()))) == task.size for task in tasks):
        return
    for part in density.parts:
        step = min(BLOCK, part.rows.most)
        blocks = part.rows.blocks(0, part.rows.size, step, pin=False)
        for start, block in zip(range(0, part.rows.size, step), blocks, strict=True):
            rows, _ = separated(block)
            with torch.no_grad():
                found = part.task.log_likelihood(rows, point[None, part.index].cpu())[0]
            if not bool(torch.isfinite(found).all()):
                place = int((~torch.isfinite(found)).nonzero()[0])
                missing = first_missing(rows, place)
                cause = f", with column {missing!r} missing: fill it with nan_to_num under a mask" if missing else ""
                raise Refusal(
                    f"{part.task.name}: the log-likelihood of row {start + place} is not finite{cause}; or drop it."
                )
