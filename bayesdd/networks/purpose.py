"""The purpose of distilled predictions: inputs at which the target's predictive mean and spread are to be met."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from bayesdd.data.columns import Columns
from bayesdd.inference.network_modes import around, climb
from bayesdd.networks.regression import Regression
from bayesdd.networks.target_check import disagreement, missed, smooth
from bayesdd.numerics.refusal import Refusal
from bayesdd.posterior import arviz
from bayesdd.target.target import Target
from bayesdd.task.new_rows import new_rows
from bayesdd.task.program import running, unconstrained
from bayesdd.task.task import Task

LEAST_DRAWS, TARGET_DRAWS = 8, 1000
LABEL_DRAWS = 256  # draws whose mean gives moving rows their outcomes
SEARCHES, NEAR = 4, 10.0  # searches for modes, and nats below the best mode within which others count
STEPS = 200  # of a search
MEDIANS = 101  # prior draws that a scale's median is taken from
CELLS = 2**20  # draws x rows evaluated at once
SMALLEST_SD = 1e-6  # of the outcome's spread: keeps errors in sds finite where the target is certain

Label = Callable[[Columns], Tensor]


@dataclass(frozen=True, eq=False)
class Purpose:
    """Inputs of the declared distribution, and what the target predicts there.

    Attributes:
        inputs: Columns ``(K, ...)`` of the student without its outcome.
        mean: Predictive mean of the regression function, ``(K,)``, in the outcome's units.
        sd: Its predictive standard deviation (without the noise of an outcome), ``(K,)``.
        draws: Number of independent draws behind them; infinite where they are exact.
        label: The predictive mean at any inputs, differentiable in them: columns ``(K, ...)`` -> ``(K,)``; if known.
        doubt: What speaks against the target's predictive, one line; empty if nothing.
    """

    inputs: Columns
    mean: Tensor
    sd: Tensor
    draws: float = math.inf
    label: Label | None = None
    doubt: str = ""

    def labelled(self, regression: Regression) -> Task:
        """The student's task on these inputs with the predictive mean as outcome: starting rows are chosen from it."""
        return regression.task.with_data({**self.inputs, regression.outcome: self.mean})

    def some(self, index: Tensor) -> Purpose:
        """A few of them."""
        inputs = {name: column[index] for name, column in self.inputs.items()}
        return replace(self, inputs=inputs, mean=self.mean[index], sd=self.sd[index])


def purpose_of(
    regression: Regression,
    target: Target,
    inputs: Any,
    draws: Any,
    predictive: tuple[Tensor, Tensor] | None,
    label: Label | None,
    seed: int,
    held_out: Any = None,
) -> Purpose:
    """Checks the inputs and evaluates the target's predictive there, by the student's own regression function.

    Arguments are those of :func:`function_space`. ``seed`` is that of the searches for modes, around which the target
    is approximated where neither draws nor a predictive are given.

    Raises:
        ValueError: Inputs, draws, predictive or rows held out do not fit (one line that says which).
    """
    columns = checked(regression, inputs)
    if label is not None and predictive is None:
        raise Refusal("function_space(label=...) goes with predictive=: of draws or modes the mean is known.")
    if predictive is not None:
        if held_out is not None:
            raise Refusal(
                "function_space(held_out=...) goes with draws= or the searches: a predictive= is known at the purpose "
                "rows alone, so compare it with measurements yourself and say what is wrong by doubt=."
            )
        return _given(columns, predictive, draws, label)
    seen = None if held_out is None else checked(regression, held_out, also=(regression.outcome,), who="held_out")
    doubts = []
    if draws is None:
        found = modes(target, seed)
        means = found[:, target.index]

        def predicted(at: Columns) -> Tensor:
            return linearised(regression, target, found, at, seed)
    else:
        drawn = latents(regression.task, draws)
        means = drawn[:: math.ceil(len(drawn) / LABEL_DRAWS)]

        def predicted(at: Columns) -> Tensor:
            step = max(1, CELLS // len(next(iter(at.values()))))
            with torch.no_grad():
                return torch.cat([regression.mean(some, at) for some in drawn.split(step)])

    values = predicted(columns)
    if not bool(torch.isfinite(values).all()):
        raise Refusal(
            f"function_space: the mean of {regression.task.name} is not finite at some purpose inputs and draws: check "
            "the model there."
        )
    if draws is None:
        doubts += [disagreement(values.unflatten(0, (len(found), -1))), smooth(target, found[0])]
    if seen is not None:
        there = predicted({name: seen[name] for name in regression.inputs})
        sd_there = (there.var(0) + regression.noise**2).sqrt()
        doubts.append(missed(there.mean(0), sd_there, seen[regression.outcome]))
    mean = values.mean(0)
    least = SMALLEST_SD * float(mean.std().clamp_min(1e-300))
    sd = values.std(0).clamp_min(least)
    return Purpose(
        columns,
        mean,
        sd,
        float(len(values)),
        lambda rows: regression.mean(means, rows).mean(0),
        "; ".join(filter(None, doubts)),
    )


def _given(columns: Columns, predictive: tuple[Tensor, Tensor], draws: Any, label: Label | None) -> Purpose:
    count = len(next(iter(columns.values())))
    mean, sd = (torch.as_tensor(value).detach().double().cpu() for value in predictive)
    if draws is not None:
        raise Refusal("function_space got draws= and predictive=: give one of them.")
    if mean.shape != (count,) or sd.shape != (count,) or not bool((mean.isfinite() & sd.isfinite() & (sd > 0)).all()):
        raise Refusal(
            f"function_space(predictive=...) needs finite means and positive sds at the {count} purpose rows, got "
            f"shapes {tuple(mean.shape)} and {tuple(sd.shape)}, least sd {float(sd.min()):.3g}."
        )
    came = None if label is None else tuple(label(columns).shape)
    if came not in (None, (count,)):
        raise Refusal(f"function_space(label=...) must map {count} inputs to shape {(count,)}, got {came}.")
    return Purpose(columns, mean, sd, math.inf, label)


def modes(target: Target, seed: int, *, searches: int = SEARCHES, steps: int = STEPS) -> Tensor:
    """The best of several modes of a target and those nearly as good, ``(C, P of the target)``.

    Searches start at draws of the prior. Noise scales of several terms are first held at their prior medians: free, the
    scale of a term that a random network fits badly grows, and the term is lost. ``steps`` is the most of a search with
    scales held, and again of one without.
    """
    joint = target.joint
    starts = torch.zeros(searches, joint.dim, dtype=torch.float64)
    held: set[str] = set()
    for part in reversed(joint.parts):
        drawn = part.task.prior_draws(MEDIANS, seed)
        scales = [] if len(joint.parts) == 1 else [n for n, v in part.task.constrain(drawn).items() if _is_scale(v)]
        for site in part.task.structure.sites:
            if site.name in scales:
                drawn[:, site.start : site.stop] = drawn[:, site.start : site.stop].median(0).values
        starts[:, part.index.cpu()] = drawn[:searches]
        held.update(scales)
    starts = starts.to(joint.device)
    first = climb(joint, starts, steps=steps, hold=sorted(held)).points if held else starts
    found = climb(joint, first, steps=steps)
    return found.points[found.log_joint >= found.log_joint[0] - NEAR]


def _is_scale(values: Tensor) -> bool:
    """Whether a site is one positive number, by draws of its prior."""
    return values[0].numel() == 1 and bool((values > 0).all())


def linearised(regression: Regression, target: Target, modes: Tensor, inputs: Columns, seed: int) -> Tensor:
    """Predictions of the tangents at modes of the target, at draws of the Gauss-Newton Laplace approximations there.

    ``modes`` are unconstrained, of all sites of the target, ``(C, P)``, and count alike. Returns about a thousand draws
    at the K inputs, ``(draws, K)``.
    """
    draws = around(target.joint, modes, draws=math.ceil(TARGET_DRAWS / len(modes)), seed=seed).values
    index = target.index
    with torch.no_grad():
        mean, slopes = regression.jacobian(modes[:, index], inputs)
    off = draws[..., index] - modes[:, None, index]
    found: Tensor = (mean[:, None] + off @ slopes.mT).flatten(0, 1)
    return found


def checked(regression: Regression, inputs: Any, also: tuple[str, ...] = (), who: str = "purpose") -> Columns:
    """Purpose inputs as columns: the student's own, finite, inside the domain that their kinds declare."""
    student = regression.task
    columns = new_rows(student, inputs, [*regression.inputs, *also], f"function_space({who}=...)")
    for name, column in columns.items():
        kind = student.column_kinds[name]
        if not column.is_floating_point() or kind.from_free is None:
            continue
        if bool(column.isnan().any()):
            raise Refusal(f"function_space: {who} column {name!r} is NaN in some rows: leave such rows out.")
        low, high = (kind.from_free(torch.full_like(column[:1], end)) for end in (-torch.inf, torch.inf))
        if bool(((column < low) | (column > high)).any()):
            raise Refusal(
                f"function_space: {who} column {name!r} runs from {float(column.min()):g} to "
                f"{float(column.max()):g}, outside its declared domain {kind!r} of {student.name}."
            )
    return columns


def latents(student: Task, draws: Any) -> Tensor:
    """Unconstrained draws of the student's latents ``(S, P)`` from draws of the target's.

    Raises:
        ValueError: A site is missing, has another shape, or is not finite; fewer than 8 draws.
    """
    values = _values(student, draws)
    counts = {len(value) for value in values.values()}
    if len(counts) > 1 or min(counts) < LEAST_DRAWS:
        raise Refusal(
            f"function_space(draws=...) needs at least {LEAST_DRAWS} draws of every site, as many of each, got "
            f"{sorted(counts)}."
        )
    row = {name: column[:1] for name, column in student.data.items()}

    def single(one: Columns) -> Tensor:
        return unconstrained(student.program, one, row)[0]

    with torch.no_grad(), running():
        flat: Tensor = vmap(single)(values)
    if not bool(torch.isfinite(flat).all()):
        raise Refusal("function_space(draws=...): some draws are not finite or lie outside their site's support.")
    return flat


def _values(student: Task, draws: Any) -> Columns:
    if not isinstance(draws, Mapping) or hasattr(draws, "posterior"):
        return arviz.draws_from(draws, student.sites)
    found = {}
    for name, shape in student.sites.items():
        if name not in draws:
            raise Refusal(
                f"function_space(draws=...) lacks site {name!r} of {student.name}; it has {sorted(map(str, draws))}."
            )
        value = torch.as_tensor(draws[name]).detach().double().cpu()
        if tuple(value.shape[1:]) != tuple(shape):
            raise Refusal(
                f"function_space(draws=...): site {name!r} has shape {tuple(value.shape[1:])} a draw, but "
                f"{tuple(shape)} in {student.name}."
            )
        found[name] = value
    return found
