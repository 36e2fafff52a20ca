"""What plain networks leave of a problem that they were taught by rows alone: the equation and every condition.

Nothing of it needs a truth, or trusts the surrogate: at a condition that fixes a field the truth is known.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bayesdd.data.accuracy import Residual
from bayesdd.pinn.problem import Condition, Problem, asked_by
from bayesdd.pinn.residuals import Networks, residuals
from bayesdd.pinn.terms import Columns, Term, condition_terms, equation_term, sobol

FRESH = 1024  # new points of the equation
DRAWS = 8  # of the prior, in place of constant fields where those leave nothing


def zeros(
    problem: Problem, places: Columns | None, seed: int, *, points: int = FRESH, share: float = 1.0
) -> list[Term]:
    """The equation at places, by default so many new ``points``, and the conditions at new ones of their own.

    ``share`` multiplies the number of a condition's points.
    """
    terms = [equation_term(problem, sobol(problem.ranges, points, seed) if places is None else places)]
    for at, condition in enumerate(problem.conditions):
        terms += condition_terms(problem, condition, seed + 101 + at, share)
    return terms


def taught(networks: Networks, plain: Networks, theta: Tensor, latents: Tensor) -> tuple[Networks, Tensor]:
    """Plain networks of the fields, weights ``(S, P)``, beside a surrogate's constants and unknown functions.

    Returns:
        Networks that are linear around those of the students, and steps of zero for their fields.
    """
    assert networks.anchor is not None  # a surrogate's networks have one
    latents = latents.to(theta)
    mode, rest = torch.arange(len(latents)) % len(theta), networks.fields.dim
    anchor = torch.cat([latents, networks.anchor[mode, rest:]], 1)
    steps = torch.cat([torch.zeros_like(latents), theta[mode, rest:]], 1)
    return Networks(networks.problem, plain.fields, networks.functions, anchor), steps


def sizes(networks: Networks, terms: Sequence[Term], theta: Tensor) -> list[float]:
    """Root mean square of every residual, over points and networks."""
    with torch.no_grad():
        return [float(part.square().mean().sqrt()) for part in residuals(networks, terms, theta)]


def of_constants(plain: Networks, terms: Sequence[Term], theta: Tensor) -> list[float]:
    """The same of constant fields, and of draws of the prior where those leave nothing; ``theta`` names the device."""
    drawn = torch.randn(DRAWS, plain.dim, generator=torch.Generator().manual_seed(0)).to(theta)
    flat = sizes(plain, terms, theta.new_zeros(1, plain.dim))
    return [constant or prior for constant, prior in zip(flat, sizes(plain, terms, drawn), strict=True)]


def left(
    networks: Networks, plain: Networks, theta: Tensor, seed: int, latents: Tensor, unit: Tensor
) -> tuple[Residual, ...]:
    """What students and a surrogate leave, each as a share of what constant fields leave.

    Args:
        networks: The surrogate's, linear around what its searches found.
        plain: Networks of the students' shape.
        theta: The surrogate's steps and constants, ``(K, P)``.
        seed: Of the points.
        latents: Weights of the students, ``(S, P)``.
        unit: What errors of fields are measured in, for all or for each row of the objective's purpose.
    """
    problem = networks.problem
    terms = [term.to(theta.device) for term in zeros(problem, None, seed)]
    students, steps = taught(networks, plain, theta, latents)
    own, target = sizes(students, terms, steps), sizes(networks, terms, theta)
    constant, found = of_constants(plain, terms, theta), []
    names, fixed = [name for term in terms for name in term.names], _fixed(problem)
    for name, one, other, of in zip(names, own, target, constant, strict=True):
        field = fixed.get(name)
        off = None if field is None else one / _unit(problem, unit, field)
        found.append(Residual(name, one / of, other / of, off))
    return tuple(found)


def _unit(problem: Problem, unit: Tensor, field: str) -> float:
    """The unit of a field: rows of the purpose hold one field after the other."""
    if not unit.dim():
        return float(unit)
    outputs = problem.names.outputs
    return float(unit.reshape(len(outputs), -1)[outputs.index(field), 0])


def _fixed(problem: Problem) -> dict[str, str]:
    """Residuals that are a field less what it is known to be, by name: the field."""
    found = {}
    for condition in problem.conditions:
        for name, value in problem.split(condition)[1].items():
            asked = asked_by(problem, Condition({name: value}))
            itself = asked.by_name == {name: {(0,) * len(problem.ranges)}} and asked.constants <= set(problem.constants)
            if itself and (callable(value) or isinstance(value, int | float)):
                found[f"{condition}: {name}"] = name
    return found
