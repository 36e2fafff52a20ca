"""Looking at a Pyro model once: its sites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import ImproperUniform, Unit
from pyro.poutine.subsample_messenger import _Subsample
from torch.distributions import biject_to

from bayesdd.data.columns import Columns
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.program import (
    Message,
    Model,
    Observation,
    Recorder,
    Site,
    Structure,
    base,
    is_deterministic,
    row_frame,
    running,
)

Refuse = Callable[[Message, str, int], None]


class Inspector(Recorder):
    """Draws latents from the prior and records the sites; refuses at the site what bayesdd cannot distil."""

    def __init__(self, plate: str, rows: int, refuse: Refuse) -> None:
        super().__init__()
        self.plate, self.rows, self.refuse = plate, rows, refuse

    def _pyro_sample(self, msg: Message) -> None:
        if not isinstance(msg["fn"], _Subsample) and isinstance(base(msg["fn"]), ImproperUniform):
            raise Refusal(
                f"the prior of site {msg['name']!r} is improper: the posterior of a few rows may then not exist. "
                "Give it a proper prior, for example Normal(0, 100) in the parameter's units."
            )

    def _pyro_param(self, msg: Message) -> None:
        name = msg["name"]
        raise Refusal(f"pyro.param {name!r} has no prior: write pyro.sample({name!r}, <prior>) instead.")

    def _pyro_post_sample(self, msg: Message) -> None:
        self.refuse(msg, self.plate, self.rows)
        if any(msg["name"] == other["name"] for other in self.messages):
            raise Refusal(f"two sites are called {msg['name']!r}: give each a name of its own.")
        super()._pyro_post_sample(msg)


def inspect(model: Model, columns: Columns, plate: str, seed: int, refuse: Refuse) -> tuple[Structure, list[Message]]:
    """Runs the model once with latents drawn from the prior.

    Returns:
        The structure and the raw messages of the run (for the checks at construction).
    """
    rows = len(next(iter(columns.values())))
    with running(), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        with Inspector(plate, rows, refuse) as inspector:
            model(**columns)
    sites: list[Site] = []
    observed: list[Observation] = []
    deterministic: list[str] = []
    for msg in inspector.messages:
        if is_deterministic(msg):
            if row_frame(msg, plate) is None:
                deterministic.append(msg["name"])
        elif msg["is_observed"]:
            if row_frame(msg, plate) is not None:
                observed.append(_observation(msg))
        else:
            with running():
                free = biject_to(msg["fn"].support).inv(msg["value"])
            start = sites[-1].stop if sites else 0
            sites.append(Site(msg["name"], tuple(msg["value"].shape), tuple(free.shape), start))
    return Structure(tuple(sites), tuple(observed), tuple(deterministic)), inspector.messages


def plates(model: Model, columns: Columns) -> list[tuple[Any, ...]]:
    """The plates around each observed site of one run, as Pyro's frames; of the sites before it fails, if it does."""
    with running(), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        inspector = Inspector("", 0, lambda *_: None)
        try:
            with inspector:
                model(**columns)
        except Exception:  # the run that follows raises it again, where it is explained
            pass
    seen = (msg for msg in inspector.messages if msg["is_observed"] and not is_deterministic(msg))
    return [tuple(msg["cond_indep_stack"]) for msg in seen]


def _observation(msg: Message) -> Observation:
    fn = msg["fn"]
    support = None if isinstance(fn, Unit) else fn.support
    return Observation(msg["name"], support, None, type(base(fn)).__name__)
