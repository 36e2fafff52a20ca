"""Pyro's automatic guides as plain functions of one flat parameter vector."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.func import functional_call, vmap

from bayesdd.numerics.refusal import Refusal
from bayesdd.task.program import running, unconstrained
from bayesdd.task.task import Task


class Guide:
    """q_phi: draws of the latent sites from fixed noise, and their log density.

    Args:
        task: The task whose latent sites the guide is for.
        family: A Pyro autoguide, called with the model (``AutoDelta``, ``AutoNormal``, a ``partial`` of
            ``AutoLowRankMultivariateNormal``).
        draws: Draws S that stand for the expectation under q; 1 is enough for a guide without noise.
        seed: Seed of the noise, which is the same in every call.

    Attributes:
        start: The guide's own starting parameters, flat ``(n,)``.

    Raises:
        Refusal: The guide has no parameters, or does not work on the model.
    """

    def __init__(self, task: Task, family: Callable[[Any], Any], *, draws: int, seed: int) -> None:
        self.task, self.seed, self.count = task, seed, draws
        self._row = {name: column[:1] for name, column in task.data.items()}
        name = getattr(family, "__name__", type(family).__name__)
        with _quiet(self.seed):
            try:
                self._module = family(task.model)
                self._module(**self._row)
            except Exception as error:  # whatever Pyro or the guide raises on this model
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise Refusal(f"bilevel: the guide {name} does not work on {task.name}: {reason}") from error
        parameters = dict(self._module.named_parameters())
        if not parameters:
            raise Refusal(
                f"bilevel: the guide {name} has no parameters on {task.name}: there is nothing to optimise. "
                "Use an autoguide such as pyro.infer.autoguide.AutoNormal."
            )
        self._shapes = {key: value.shape for key, value in parameters.items()}
        self.start = torch.cat([value.detach().double().reshape(-1) for value in parameters.values()])
        if draws > 1 and bool((self(self.start)[0].std(0) == 0).all()):
            self.count = 1

    def __call__(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Draws of the latents, unconstrained ``(S, P)``, and their log densities ``(S,)``; differentiable in phi.

        A point mass keeps its place and counts with density 1 in the model's own units, as in Pyro's ELBO.
        """
        parameters, used = {}, 0
        for key, shape in self._shapes.items():
            parameters[key] = flat[used : used + shape.numel()].reshape(shape)
            used += shape.numel()

        def single(_: Tensor) -> tuple[Tensor, Tensor]:
            trace = pyro.poutine.trace(lambda: functional_call(self._module, parameters, (), self._row)).get_trace()
            nodes: dict[str, Any] = dict(trace.nodes)
            sites = {site.name: nodes[site.name]["value"] for site in self.task.structure.sites}
            # Not trace.log_prob_sum(), which keeps every site's own sum on the trace and warns about each.
            drawn = [node for node in nodes.values() if node["type"] == "sample" and not node["is_observed"]]
            log_density = torch.stack([node["fn"].log_prob(node["value"]).sum() for node in drawn]).sum()
            free, log_jacobian = unconstrained(self.task.program, sites, self._row)
            return free, log_density + log_jacobian

        with _quiet(self.seed):
            found: tuple[Tensor, Tensor] = vmap(single, randomness="different")(torch.zeros(self.count))
        return found


@contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """Fixed noise, float64, no validation, no warnings of Pyro's, and nothing left in its parameter store."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(running())
        stack.enter_context(pyro.settings.context(module_local_params=True))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        yield
