r"""A surrogate's posterior as Pyro models, and the plain networks that its rows teach.

The target is a list of tasks over the same sites: measurements, the equation, conditions, each with the noise scale
that the fit has found,

.. math:: y_n \sim N(u(x_n), \sigma^2), \qquad 0 \sim N(R[u](x_c), \sigma_r^2), \qquad 0 \sim N(B[u](x_k), \sigma_b^2).

Sites are ``weight_0``, ``bias_0``, ... of the fields' network, the same with the function's name in front, and unknown
constants by their names. The student is the network of the fields alone, on rows of points and values.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesdd.networks import mlp
from bayesdd.networks.mlp import Network
from bayesdd.pinn.problem import Problem
from bayesdd.pinn.residuals import Evaluation, Networks
from bayesdd.pinn.terms import Columns, Term
from bayesdd.task import kinds
from bayesdd.task.task import Task

FIELD, VALUE = "output", "value"  # columns of a student of several outputs: which of them a row is of, and its value


def task(networks: Networks, term: Term, noise: Tensor) -> Task:
    """A term as a Pyro model; its noise scales ``(E,)`` are known."""
    observed = {} if term.observed is None else {f"observed_{at}": y for at, y in enumerate(term.observed.T)}
    model = partial(residual_model, _networks=networks, _term=term, _noise=tuple(noise.tolist()))
    return Task(model, {**term.points, **observed})


def residual_model(*, _networks: Networks, _term: Term, _noise: tuple[float, ...], **columns: Tensor) -> None:
    """Residuals of a term at its points, seen as observations of zero or of what was measured."""
    problem = _networks.problem
    layers = {"": _layers(_networks.fields)}
    layers |= {name: _layers(network, f"{name}_") for name, network in _networks.functions.items()}
    constants = [torch.zeros(0, dtype=torch.float64, device=layers[""][0][0].device)]
    for name in problem.names.unknown:
        mean, sd = problem.unknown[name]  # type: ignore[misc]  # functions are not among these names
        constants.append(((pyro.sample(name, dist.Normal(mean, sd)) - mean) / sd).reshape(1))
    points = {name: columns[name] for name in _term.points}
    here = Term(_term.names, _term.function, points, _term.asked, twin=_term.twin)
    found = Evaluation(_networks, here, torch.cat(constants)[None], layers=layers).residuals()[0]
    with pyro.plate("data", here.count):
        for at, (residual, sd) in enumerate(zip(found, _noise, strict=True)):
            seen = columns.get(f"observed_{at}", torch.zeros_like(residual))
            pyro.sample(f"residual_{at}", dist.Normal(residual, sd), obs=seen)


def _layers(network: Network, prefix: str = "") -> mlp.Layers:
    return [(weight[None], bias[None]) for weight, bias in mlp.sample(network, prefix)]


def student(problem: Problem, network: Network, rows: Columns, noise: float) -> Task:
    """The fields' network on rows of points and values: a column of its name; of several, ``output`` and ``value``."""
    names, outputs = problem.names.inputs, problem.names.outputs
    domain = {name: kinds.interval(low, high) for name, (low, high) in problem.ranges.items()}
    labels = {FIELD: outputs} if len(outputs) > 1 else {}
    model = partial(student_model, _network=network, _inputs=names, _outputs=outputs, _noise=noise)
    return Task(model, rows, kinds={**domain, **({FIELD: kinds.fixed} if labels else {})}, labels=labels)


def student_model(
    *, _network: Network, _inputs: tuple[str, ...], _outputs: tuple[str, ...], _noise: float, **columns: Tensor
) -> Tensor:
    """The network of the fields with no equation in sight."""
    z = torch.stack([columns[name] for name in _inputs], 1)
    u, outcome = mlp.value(_network, mlp.sample(_network), z), _outputs[0]
    if len(_outputs) > 1:
        outcome, u = VALUE, u.gather(1, columns[FIELD].long()[:, None])[:, 0]
    with pyro.plate("data", len(z)):
        return pyro.sample(outcome, dist.Normal(u, _noise), obs=columns.get(outcome))


def outcomes(problem: Problem, points: Columns, values: Tensor) -> dict[str, Any]:
    """Points and values ``(N, outputs)`` as rows of a student."""
    names = problem.names.outputs
    if len(names) == 1:
        return {**points, names[0]: values[:, 0]}
    count = len(values)
    repeated = {name: column.repeat(len(names)) for name, column in points.items()}
    codes = torch.arange(len(names)).repeat_interleave(count)
    return {**repeated, FIELD: codes, VALUE: values.T.reshape(-1)}
