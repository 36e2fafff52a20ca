"""What a cell of ``dbn_merge`` measures: its sizes, its simulated merge, and one record a method and number of rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from bayesdd import dbn
from bayesdd.dbn import Template
from bayesdd.dbn.inference import predictive
from bayesdd.dbn.learning import bdeu, bge, learn, recovered
from studies.dbn_merge.cases import Problem, gaussian

JUDGED = 250  # draws of a posterior that predict the test sequences


@dataclass(frozen=True)
class Settings:
    """How large a cell is.

    Attributes:
        sizes: Numbers M of rows.
        draws: Draws of the joint posterior.
        sweeps: Sweeps that draw edges.
        burn: Sweeps before them.
        rows: Sequences of each linear-Gaussian source; four times as many in the cells ``large``.
        sources: Number K of linear-Gaussian sources.
        hidden: Variables that each hides.
        noise: Standard deviation of their noise.
        states_rows: Sequences of each categorical source.
        states_variables: Variables of the categorical sources.
        steps: Steps of the perturbation algorithm.
        test: Test sequences.
        union_rows: Rows of each source's own distilled set.
        rounds: Numbers of rounds of common draws.
        fallback: Whether HMC replaces chains that disagree.
    """

    sizes: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)
    draws: int = 1000
    sweeps: int = 200
    burn: int = 210
    rows: int = 100
    sources: int = 4
    hidden: int = 2
    noise: float = 0.3
    states_rows: int = 300
    states_variables: int = 10
    steps: int = 200
    test: int = 1000
    union_rows: int = 25
    rounds: tuple[int, ...] = (1, 3)
    fallback: bool = True


@dataclass(eq=False)
class Records:
    """What a cell measures: one record a method, number of rows and structure.

    Attributes:
        problem: The merge.
        test: Test sequences.
        found: The records: nats a sequence of the posterior predictive and at the posterior mean, edges.
    """

    problem: Problem
    test: Tensor
    found: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, method: str, size: int, structure: str, template: Template, draws: dict[str, Tensor], **more: Any
    ) -> None:
        """Judges draws ``(S, *shape)``."""
        mean = {site: draws[site].mean(0, keepdim=True) for site in template.sites}
        few = {site: draws[site][:: max(1, len(draws[site]) // JUDGED)][:JUDGED] for site in template.sites}
        self.found.append(
            {"method": method, "M": size, "structure": structure}
            | {"predictive": float(predictive(template, few, {"x": self.test}).mean())}
            | {"plugin": float(dbn.log_likelihood(template, mean, {"x": self.test}).mean())}
            | more
        )

    def rows(
        self, method: str, size: int, x: Tensor, weight: Tensor | None = None, *, learned: bool, **more: Any
    ) -> None:
        """Judges complete rows by their exact posterior, under the true edges or those learned from the rows."""
        template, score = self.problem.template, bdeu if self.problem.template.states else bge
        if learned:
            template = learn(template, {"x": x}, weight, score=score)
            more = more | recovered(template, self.problem.template)._asdict()
        draws = dbn.conjugate(template, {"x": x}, weight).draw(JUDGED, seed=0)
        self.add(method, size, "learned" if learned else "given", template, draws, **more)


def simulated(slices: int, seed: int, s: Settings, rows: int, *, first: bool = False) -> Records:
    """A linear-Gaussian merge of the settings, not yet judged; ``first`` as for ``cases.gaussian``."""
    problem = gaussian(
        seed=seed, slices=slices, rows=rows, sources=s.sources, hidden=s.hidden, noise=s.noise, first=first
    )
    return Records(problem, problem.test[: s.test])
