r"""The certificate: how far the distilled posterior is from the full one, in nats, with standard errors.

With draws of the distilled posterior and the log-ratio at them, both KL divergences, the half-variance, k-hat and
moments corrected to the full posterior are averages; their standard errors come from the influence function of each,
averaged chain by chain (HMC) or draw by draw (importance-corrected Laplace). The full data enter through one sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bayesdd.certificate.verdict import certificate_of
from bayesdd.data.certificate import TOLERANCE, Certificate, PredictiveCertificate
from bayesdd.data.distilled import Distilled, needed
from bayesdd.density.density import MEMORY, density_of
from bayesdd.numerics import arguments
from bayesdd.numerics.devices import resolve
from bayesdd.numerics.exclusive import exclusive
from bayesdd.numerics.refusal import Refusal
from bayesdd.objectives.sorts import Solver, Standalone, sort_of
from bayesdd.summaries import Summary
from bayesdd.summaries.posterior import allowing, summed
from bayesdd.target.target import Target, student_of
from bayesdd.task.given import task_of, tasks_of
from bayesdd.task.provenance import fitting
from bayesdd.task.task import Task


@exclusive
def certify(
    target: Task | Sequence[Task] | Summary,
    distilled: Distilled,
    *,
    seed: int = 1,
    student: Task | None = None,
    tolerance: float | None = None,
    device: str = "auto",
    memory: int = MEMORY,
    exact: bool = False,
    objective: Callable[..., Any] | None = None,
) -> Certificate | PredictiveCertificate:
    """Says in nats how far a distilled posterior is from the full one, from fresh draws and one sweep of the full data.

    Args:
        target: The task, or several whose log-likelihoods add, or a summary of sources (with ``student``). Another
            task than the one distilled for will do, if the set's columns fit it by name, shape and support; columns
            that it does not take are left out. What bound ``distill`` (kinds, constant and fixed columns) binds nothing
            here.
        distilled: The distilled set, or one made by hand: ``Distilled({"y": array}, weights)``.
        seed: Seed of the draws.
        student: The task that the distilled rows belong to; default the target itself.
        tolerance: KL in nats that counts as certified; default 0.05.
        device: ``auto``, ``cpu`` or ``cuda``.
        memory: Bytes that the intermediate tensors of one block of rows and draws may take.
        exact: Sweep all rows at all draws. Without it, sweeps over 100,000 rows or more take few of them where the rest
            is a second-order expansion with an error below a hundredth of a nat (``bayesdd.density.control_variate``).
        objective: ``partial(networks.function_space, ...)`` for a set that matches predictions; tolerance in sds then.

    Returns:
        The certificate, of predictions if ``objective`` is given; nothing warns, ask ``.ok``.

    Raises:
        Refusal: The set's columns do not fit the task, or it matches predictions and no objective says which.

    Example:
        >>> bayesdd.certify(task, distilled, seed=1).ok
        True
    """
    given = None if student is None else task_of(student, "certify: student=")
    tasks = [summed(target, given, "certify")] if isinstance(target, Summary) else tasks_of(target, "certify")
    distilled = needed(distilled, "certify")
    _refuse_wrong_objective(distilled.provenance, objective)
    student = student_of(tasks, given)
    distilled = fitting(distilled, student)
    seed, memory = arguments.seed(seed, "certify"), int(arguments.positive(memory, "certify: memory= (bytes)"))
    if tolerance is not None:
        tolerance = arguments.positive(tolerance, "certify: tolerance=")
    where = resolve(device if objective is None else "cpu")
    limit = TOLERANCE if tolerance is None else tolerance
    goal = Target(tasks, student, where, seed, memory, exact=exact, tolerance=limit)
    if objective is not None:
        solver: Solver = objective(goal, seed, lambda _: None)
        return solver.certificate(*distilled.hard(), solver.limit(tolerance), seed)
    found = certificate_of(goal, density_of(student, distilled, where), limit, seed)
    return allowing(found, target.error) if isinstance(target, Summary) else found


def _refuse_wrong_objective(provenance: Mapping[str, Any], objective: Callable[..., Any] | None) -> None:
    """A set that matches predictions has no KL and needs its objective; any other set needs none."""
    if objective is not None and sort_of(objective) is not Standalone:
        raise Refusal(
            "certify(objective=...) is for partial(bayesdd.networks.function_space, ...): of all others leave it out."
        )
    # Earlier files lack the key "certifies": the one objective that matched predictions tells them apart.
    named = str(provenance.get("objective", "")).startswith("function_space")
    certifies = provenance.get("certifies", "predictions" if named else "posterior")
    if objective is None and certifies == "predictions":
        raise Refusal(
            "certify: this set matches predictions, not the posterior of the parameters, so that no KL can certify it: "
            "pass objective=partial(bayesdd.networks.function_space, purpose=...)."
        )
