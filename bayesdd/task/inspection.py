"""Looking at a Pyro model once: its sites, and the column that each observed site observes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from pyro.distributions import ImproperUniform, Unit
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
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
            frame = row_frame(msg, plate)
            if frame is not None:
                observed.append(_observation(msg, frame.dim, columns))
        else:
            with running():
                free = biject_to(msg["fn"].support).inv(msg["value"])
            start = sites[-1].stop if sites else 0
            sites.append(Site(msg["name"], tuple(msg["value"].shape), tuple(free.shape), start))
    return Structure(tuple(sites), tuple(observed), tuple(deterministic)), inspector.messages


def _observation(msg: Message, row_dim: int, columns: Columns) -> Observation:
    fn, value = msg["fn"], msg["value"]
    if isinstance(fn, Unit):
        return Observation(msg["name"], None, None, "Unit")
    return Observation(msg["name"], fn.support, _column(fn, value, row_dim, columns), type(base(fn)).__name__)


def _column(fn: torch.distributions.Distribution, value: Tensor, row_dim: int, columns: Columns) -> str | None:
    """The column that a site observes: by its memory (a view, a slice), else by equal values (nan_to_num, a cast)."""
    for name, column in columns.items():
        if column.untyped_storage().data_ptr() == value.untyped_storage().data_ptr():
            return name
    rows_first = value.movedim(row_dim - len(fn.event_shape), 0)
    for name, column in columns.items():
        if any(_same(view, rows_first) for view in _views(column, rows_first.dim())):
            return name
    return None


def _views(column: Tensor, dim: int) -> Iterator[Tensor]:
    """The column itself, or its slices along the second axis (one site a time step)."""
    if column.dim() == dim:
        yield column
    elif column.dim() == dim + 1:
        yield from column.unbind(1)


def _same(column: Tensor, value: Tensor) -> bool:
    if column.shape != value.shape:
        return False
    here = ~torch.isnan(column) if column.is_floating_point() else torch.ones_like(column, dtype=torch.bool)
    return bool(here.any()) and torch.equal(column[here].double(), value[here].double())
