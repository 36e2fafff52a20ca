"""The outer loop: second order in closed form, fixed particles, then on-policy rounds until fresh draws say stop."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from bayesdd.data.certificate import TOLERANCE, CertificateWarning
from bayesdd.data.columns import DataNote
from bayesdd.data.distilled import Distilled, needed
from bayesdd.data.names import closest
from bayesdd.data.whole import drawn, splits
from bayesdd.density.checkpoint import Checkpoint
from bayesdd.density.density import MEMORY
from bayesdd.density.ranks import current
from bayesdd.distillation.advice import far_values, remedy
from bayesdd.distillation.first_stage import Run, resized, third_order_size
from bayesdd.distillation.problem import Problem
from bayesdd.distillation.progress import Pace, shown
from bayesdd.distillation.search import smallest, solved
from bayesdd.numerics import arguments
from bayesdd.numerics.devices import resolve
from bayesdd.numerics.exclusive import exclusive
from bayesdd.numerics.refusal import Refusal
from bayesdd.objectives import half_variance
from bayesdd.objectives.sorts import Solver, Standalone, name_of, sort_of
from bayesdd.summaries import Summary
from bayesdd.summaries.posterior import allowing, summed
from bayesdd.target.reference import build
from bayesdd.target.target import Target, student_of
from bayesdd.task.given import task_of, tasks_of
from bayesdd.task.provenance import check, provenance_of
from bayesdd.task.task import Task


@exclusive
def distill(
    target: Task | Sequence[Task] | Summary,
    size: int | str | None = None,
    tolerance: float | None = None,
    *,
    seed: int = 0,
    objective: Callable[..., Any] = half_variance,
    student: Task | None = None,
    init: Distilled | None = None,
    device: str = "auto",
    progress: bool = True,
    equal_weights: bool = False,
    move_rows: bool = True,
    whole_outcomes: bool = False,
    stratify: str | None = None,
    memory: int = MEMORY,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Distilled:
    """Distils the rows of a task into a few weighted synthetic rows with the same posterior.

    Args:
        target: The task, or several whose log-likelihoods add and whose prior counts once; or a summary of sources
            whose rows are elsewhere (``bayesdd.combine``), with ``student`` a task of the same model and own rows.
        size: Number M of synthetic rows, or ``"third"``: as many as can match the posterior to third order, which comes
            some hundred times closer (10 latents: about 34).
        tolerance: KL in nats within which the certificate must stay; default 0.05. The search ends where a tenth of it
            is reached: a smaller one comes closer and takes longer. Without ``size``: the smallest size that does so.
        seed: Seed; equal seeds give equal results.
        objective: What to minimise, one of ``bayesdd.objectives`` or of your own: a functional of the log-ratio
            (``half_variance``, ``reverse_kl``, ``forward_kl``, a ``partial`` of ``renyi``), or of rows and draws
            (``fisher``, ``draws_forward_kl``, ``bilevel``, a ``partial`` of ``predictive_risk``). The certificate is
            the same. Networks: a ``partial`` of ``networks.function_space``, which needs ``size`` and certifies
            predictions; certificate and tolerance are then in sds, or in the outcome's own terms (``error=``).
        student: The task that people will fit to the synthetic rows; default the target itself.
        init: An earlier distilled set to start from (new data arriving).
        device: ``auto`` (CUDA where there is one), ``cpu`` or ``cuda``.
        progress: Whether to show a progress bar.
        equal_weights: One common weight: for tools that take no weights. Their posteriors are then too wide unless
            rows are repeated; point estimates agree up to the prior.
        move_rows: False keeps real rows and optimises weights only (a coreset).
        whole_outcomes: Discrete outcomes stay values that occur: chosen with the starting rows and held, while
            covariates and weights move. For tools whose densities truncate fractions or refuse them, whatever the
            family (for Bernoulli, binomial and Poisson ``to_frame(whole=True)`` splits fractions exactly instead).
        stratify: A column of few values, such as an outcome or a group: the starting rows have each of its values,
            however rare among all rows, as far as ``size`` goes. Only where the search starts depends on it. Default:
            strata of labels, fixed columns and patterns of missing entries, among the rows looked at.
        memory: Bytes that the intermediate tensors of one block of rows and draws may take.
        checkpoint: A file for the sums of passes over the rows: a run that was cut short, given the same file, resumes
            there with the same result. It is left in place, and ignored with other data, models or versions.

    Returns:
        Rows, weights and a certificate from fresh draws.

    Raises:
        Refusal: Sizes, tasks, objective or device do not fit (the message says which and what to do).
        TypeError: ``objective`` is no such function.

    Warns:
        CertificateWarning: The result is returned but not certified, or M is below what any M rows can reach.
        DataNote: Synthetic values lie far outside the data.

    Example:
        >>> distilled = bayesdd.distill(task, size=6, seed=0, progress=False)
        >>> len(distilled), distilled.certificate.ok
        (6, True)
    """
    given = None if student is None else task_of(student, "distill: student=")
    tasks = [summed(target, given, "distill")] if isinstance(target, Summary) else tasks_of(target, "distill")
    alone = sort_of(objective) is Standalone
    student = student_of(tasks, given)
    # Rows start as real ones: of a summary's the student has its own.
    size, tolerance = sizes([student] if isinstance(target, Summary) else tasks, size, tolerance)
    if stratify is not None and stratify not in student.data:
        near = closest(stratify, student.data)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(sorted(student.data))}"
        raise Refusal(f"distill: stratify= names {stratify!r}, which is no column of the model: {hint}")
    seed, memory = arguments.seed(seed, "distill"), int(arguments.positive(memory, "distill: memory= (bytes)"))
    if init is not None:
        init = check(needed(init, "distill(init=...)"), student)
    _refuse_networks([*tasks, student], objective)
    if whole_outcomes:
        held = student.with_whole_outcomes()
        tasks, student = [held if task is student else task for task in tasks], held
        init = None if init is None else with_whole_outcomes(init, student, seed)
    # Networks that a few rows can teach are small: objectives that stand alone run on the CPU, where they are faster.
    where, ample = resolve("cpu" if alone else device), None
    kept = None if checkpoint is None else Checkpoint(checkpoint, tasks)
    limit = TOLERANCE if tolerance is None else tolerance
    goal = Target(tasks, student, where, seed, memory, checkpoint=kept, tolerance=limit)
    silent = not progress or current().rank > 0
    with shown(silent) as bar:
        say = bar.set_postfix_str
        if alone and stratify is not None:
            raise Refusal(f"distill(objective={name_of(objective)}) starts from rows of its own: leave stratify= out.")
        if alone:
            settings = {"equal_weights": equal_weights, "move_rows": move_rows}
            result = _alone(goal, objective, size, tolerance, seed, init, say, **settings)
        else:
            goal.joint.watch(None if silent else Pace(bar.set_description_str, "bayesdd"))
            say("Laplace fit and particles of the full posterior")
            reference = build(goal, seed)
            run = Run(reference, objective, seed, limit, say, equal_weights, move_rows, stratify)
            ample = third_order_size(run)
            rows = _third(ample, student) if isinstance(size, str) else size
            # Said before the search, which may take long.
            if rows is not None and (too_few := reference.bound.warning(rows, limit)):
                more = f" size={ample} has room for third order." if ample and ample > (rows or 0) else ""
                warnings.warn(too_few + more, CertificateWarning, stacklevel=3)
            found, certificate = smallest(run, init) if rows is None else solved(run, rows, init)
            details = provenance_of(
                student, tasks, seed, found.problem.coordinates.size, objective=name_of(objective)
            ) | {"rounds": run.rounds, **({"stratify": stratify} if stratify else {})}
            if isinstance(target, Summary):
                certificate, details = allowing(certificate, target.error), details | {"rows": target.rows}
            result = replace(found.problem.distilled(found.vector, details), certificate=certificate)
    splitting = splits(student, result.hard()[0])
    result = replace(result, provenance=result.provenance | {"splits": splitting})
    # Columns whose kinds the user has given may go where these allow.
    far = far_values(result, {name: column for name, column in student.data.items() if name not in student.kinds})
    if result.certificate and (reasons := result.certificate.reasons):
        said = f"not certified: {'; '.join([*reasons, *far])}: {remedy(result.certificate, len(result), ample)}"
        warnings.warn(said, CertificateWarning, stacklevel=3)
    elif far:
        warnings.warn("; ".join(far), DataNote, stacklevel=3)
    return result


def _alone(
    target: Target,
    objective: Callable[..., Any],
    size: int | str | None,
    tolerance: float | None,
    seed: int,
    init: Distilled | None,
    say: Callable[[str], None],
    **settings: bool,
) -> Distilled:
    """The result of an objective that brings its own solver and certificate.

    Raises:
        Refusal: No size is given; the objective's own refusals.
    """
    if not isinstance(size, int):
        raise Refusal(f"distill(objective={name_of(objective)}) needs size= as a number: it searches none.")
    found: Solver = objective(target, seed, say)
    limit = found.limit(tolerance)
    rows, weight = found.choose(size)
    if init is not None:
        rows, weight = resized(found.pool, init, size, torch.Generator().manual_seed(seed))
    problem = Problem.from_rows(found.pool, rows, weight, target.joint.device, **settings)
    vector = found.solve(problem)
    details = provenance_of(target.student, target.tasks, seed, size, name_of(objective), certifies="predictions")
    result = problem.distilled(vector, details)
    say("certificate")
    return replace(result, certificate=found.certificate(result.data, result.weight, limit, seed + 1))


def _third(size: int | None, student: Task) -> int:
    """The size that has room for third order.

    Raises:
        Refusal: None has.
    """
    if size is None:
        raise Refusal(
            f'distill(size="third"): no number of rows of {student.name} can match its posterior to third order (too '
            "many latents, rows or weights that do not move, or too few rows): give size= as a number."
        )
    return size


def with_whole_outcomes(init: Distilled, student: Task, seed: int) -> Distilled:
    """An earlier set as hard rows, each fractional outcome drawn as one of the whole numbers beside it."""
    rows, weight = init.hard()
    return Distilled(drawn(rows, student.discrete, torch.Generator().manual_seed(seed)), weight)


def sizes(tasks: Sequence[Task], size: Any, tolerance: Any) -> tuple[int | str | None, float | None]:
    """Checks of what ``distill`` aims at."""
    if size is None and tolerance is None:
        raise Refusal("distill needs size= (number of synthetic rows) or tolerance= (nats), got neither.")
    rows = sum(task.size for task in tasks)
    if size is not None and size != "third":
        hint = " (distill(task, tolerance=...) takes nats)" if isinstance(size, float) else ""
        hint = hint or ("" if isinstance(size, int) else ": bayesdd.Task(model, data) takes the rows")
        size = arguments.whole(size, "distill: size=", 1, rows, hint)
    if tolerance is not None:
        tolerance = arguments.positive(tolerance, "distill: tolerance= (nats, the third argument)")
    return size, tolerance


def _refuse_networks(tasks: Sequence[Task], objective: Callable[..., Any]) -> None:
    """Refuses the default objective for networks, whose search would end uncertified after a long time."""
    if objective is half_variance and (found := next((task for task in tasks if task.unidentified), None)):
        raise Refusal(
            f"distill: the weights of the network in {found.name} are not identified, so that no few rows have its "
            "posterior: match predictions by objective=functools.partial(bayesdd.networks.function_space, purpose=...)"
        )
