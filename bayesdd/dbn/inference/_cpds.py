"""The network of the posterior mean as other packages take it: conditional distributions, one an entry, by name."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch

from bayesdd.dbn.template.structure import Node
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal


def cpds(template: Template, draws: Mapping[str, Any], slices: int) -> list[dict[str, Any]]:
    """Conditional distributions of the posterior mean, unrolled over slices, parents first.

    Each is a dictionary of plain Python values, the arguments by name of pgmpy's ``LinearGaussianCPD`` or
    ``TabularCPD``. Variables are called ``NAME_0``, ``NAME_1``, ...; static ones keep their names.

    Args:
        template: A linear-Gaussian or a categorical template.
        draws: Latent site -> ``(S, *shape)``, such as ``Pooled.draws``.
        slices: Number of slices.

    Raises:
        Refusal: The template has variables of both kinds, or there is no slice.

    Example:
        >>> course = Template(("a", "b"), intra=(("a", "b"),), inter=(("a", "a"),))
        >>> found = cpds(course, full.draws, 2)
        >>> [cpd["variable"] for cpd in found], found[2]["evidence"]
        (['a_0', 'b_0', 'a_1', 'b_1'], ['a_0'])
    """
    if template.mixed:
        raise Refusal(
            "cpds: other packages take networks of one kind of variables, but this template has both: leave "
            f"{next(iter(template.states))!r} and the other categorical variables out."
        )
    if slices < 1:
        raise Refusal(f"cpds need slices= of at least one, got {slices}.")
    mean = {site: torch.as_tensor(draws[site]).double().mean(0) for site in template.sites}
    found = []
    for (variable, t), family in template.structure.entries(slices):
        names = [_name(template, node, t) for node in family.parents]
        cpd: dict[str, Any] = {"variable": _name(template, (variable, 0), t)}
        if template.states:
            own, parents = template.states[variable], [template.states[name] for name, _ in family.parents]
            table = mean[family.site].reshape(-1, own).mT  # columns: the parents' states, the last one fastest
            labels = {
                name: [str(label) for label in template.labels.get(plain) or range(template.states[plain])]
                for name, plain in zip(
                    [cpd["variable"], *names], [variable, *(a for a, _ in family.parents)], strict=True
                )
            }
            cpd |= {"variable_card": own, "values": table.tolist(), "evidence": names, "evidence_card": parents}
            cpd |= {"state_names": labels}
        else:
            deviation = float(mean[f"{family.site}_variance"].sqrt())
            cpd |= {"beta": mean[family.site].tolist(), "std": deviation, "evidence": names}
        found.append(cpd)
    return found


def to_bif(template: Template, draws: Mapping[str, Any], slices: int, *, name: str = "course") -> str:
    """The categorical network of the posterior mean in the Bayesian Interchange Format, which most packages read.

    Arguments and errors are those of :func:`cpds`; a linear-Gaussian template is refused.

    Example:
        >>> weather = Template(("rain",), inter=(("rain", "rain"),), states={"rain": ("no", "yes")})
        >>> tables = {"rain_initial": np.array([[0.8, 0.2]]), "rain": np.array([[[0.9, 0.1], [0.4, 0.6]]])}
        >>> print(to_bif(weather, tables, 2).splitlines()[-2])
          (yes) 0.4, 0.6;
    """
    if not template.states:
        raise Refusal("to_bif: the format is for categorical variables: take cpds() for linear-Gaussian ones.")
    found = cpds(template, draws, slices)
    lines = [f"network {name} {{", "}"]
    for cpd in found:
        states = ", ".join(cpd["state_names"][cpd["variable"]])
        lines += [f"variable {cpd['variable']} {{", f"  type discrete [ {cpd['variable_card']} ] {{ {states} }};", "}"]
    for cpd in found:
        columns = [", ".join(map(repr, column)) for column in zip(*cpd["values"], strict=True)]
        if not cpd["evidence"]:
            lines += [f"probability ( {cpd['variable']} ) {{", f"  table {columns[0]};", "}"]
            continue
        lines.append(f"probability ( {cpd['variable']} | {', '.join(cpd['evidence'])} ) {{")
        joint = itertools.product(*(cpd["state_names"][parent] for parent in cpd["evidence"]))
        lines += [f"  ({', '.join(states)}) {column};" for states, column in zip(joint, columns, strict=True)]
        lines.append("}")
    return "\n".join(lines) + "\n"


def _name(template: Template, node: Node, t: int) -> str:
    name, lag = node
    return name if name in template.static else f"{name}_{t - lag}"
