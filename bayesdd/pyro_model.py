"""Reading a Pyro model: the only file that runs one.

A Messenger of our own is the outermost handler around the user's model. It feeds every latent site from one flat
unconstrained vector (the transform is built inside the run, so that ``Uniform(0, b)`` with a latent ``b`` works),
collects the log prior site by site with its Jacobian, and the log-likelihood row by row with the site's scale and mask.
Everything else in the package sees only plain functions of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.distributions import Delta, ImproperUniform, Unit
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import biject_to

Columns = dict[str, Tensor]
Message = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """A latent site: its constrained and unconstrained shapes and its place in the flat vector."""

    name: str
    shape: tuple[int, ...]
    free_shape: tuple[int, ...]
    start: int

    @property
    def stop(self) -> int:
        """End of the site's slice of the flat unconstrained vector."""
        return self.start + torch.Size(self.free_shape).numel()


@dataclass(frozen=True)
class Observation:
    """An observed site of the row plate: its support and the data column it observes (None: computed inside)."""

    name: str
    support: Any
    column: str | None
    distribution: str


@dataclass(frozen=True)
class Structure:
    """What one run of a model shows: latent sites in order, observed sites, global deterministic sites."""

    sites: tuple[Site, ...]
    observed: tuple[Observation, ...]
    deterministic: tuple[str, ...]

    @property
    def dim(self) -> int:
        """Length P of the flat unconstrained vector."""
        return self.sites[-1].stop if self.sites else 0


@contextmanager
def running() -> Iterator[None]:
    """Float64 default and no validation while a model runs; both are restored."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        torch.set_default_dtype(before)


def is_deterministic(msg: Message) -> bool:
    """Whether a message is ``pyro.deterministic`` or a Delta written by hand."""
    return bool(msg["infer"] and msg["infer"].get("_deterministic")) or isinstance(base(msg["fn"]), Delta)


def base(fn: Any) -> Any:
    """The distribution under ``to_event``, ``expand`` and ``mask``."""
    while hasattr(fn, "base_dist") and type(fn).__name__ in {
        "Independent",
        "ExpandedDistribution",
        "MaskedDistribution",
    }:
        fn = fn.base_dist
    return fn


def row_frame(msg: Message, plate: str) -> Any | None:
    """The row plate's frame at a site, or None outside it."""
    return next((frame for frame in msg["cond_indep_stack"] if frame.name == plate), None)


class Inspector(Messenger):
    """Draws from the prior once and records the sites; refuses at the site what bayesdd cannot distil."""

    def __init__(self, plate: str, rows: int, refuse: Callable[[Message, str, int], None]) -> None:
        super().__init__()
        self.plate, self.rows, self.refuse = plate, rows, refuse
        self.messages: list[Message] = []

    def _pyro_sample(self, msg: Message) -> None:
        if isinstance(msg["fn"], _Subsample):
            return
        if isinstance(base(msg["fn"]), ImproperUniform):
            raise ValueError(
                f"the prior of site {msg['name']!r} is improper: the posterior of a few rows may then not exist. "
                "Give it a proper prior, for example Normal(0, 100) in the parameter's units."
            )

    def _pyro_param(self, msg: Message) -> None:
        raise ValueError(
            f"pyro.param {msg['name']!r} has no prior: write pyro.sample({msg['name']!r}, <prior>) instead."
        )

    def _pyro_post_sample(self, msg: Message) -> None:
        self.refuse(msg, self.plate, self.rows)
        if not isinstance(msg["fn"], _Subsample):
            self.messages.append(dict(msg))


def inspect(
    model: Callable[..., Any], columns: Columns, plate: str, seed: int, refuse: Callable[[Message, str, int], None]
) -> tuple[Structure, list[Message]]:
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
                observed.append(_observation(msg, columns))
        else:
            with running():
                free = biject_to(msg["fn"].support).inv(msg["value"])
            start = sites[-1].stop if sites else 0
            sites.append(Site(msg["name"], tuple(msg["value"].shape), tuple(free.shape), start))
    return Structure(tuple(sites), tuple(observed), tuple(deterministic)), inspector.messages


def _observation(msg: Message, columns: Columns) -> Observation:
    value = msg["value"]
    support = None if isinstance(msg["fn"], Unit) else msg["fn"].support
    found = None
    for name, column in columns.items():
        if isinstance(value, Tensor) and column.shape == value.shape:
            here = ~torch.isnan(column) if column.is_floating_point() else torch.ones_like(column, dtype=torch.bool)
            if bool(here.any()) and torch.equal(column[here].double(), value[here].double()):
                found = name
                break
    return Observation(msg["name"], support, found, type(base(msg["fn"])).__name__)


class Feeder(Messenger):
    """Feeds latent sites from a flat vector; collects log prior by site and log-likelihood by row."""

    def __init__(self, structure: Structure, flat: Tensor, plate: str) -> None:
        super().__init__()
        self.sites = {site.name: site for site in structure.sites}
        self.flat, self.plate = flat, plate
        self.values: dict[str, Tensor] = {}
        self.log_prior: dict[str, Tensor] = {}
        self.extra_prior: list[Tensor] = []
        self.log_likelihood: list[Tensor] = []
        self._jacobian: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Message) -> None:
        site = self.sites.get(msg["name"])
        if site is None or msg["is_observed"]:
            return
        free = self.flat[site.start : site.stop].reshape(site.free_shape)
        transform = biject_to(msg["fn"].support)
        msg["value"] = transform(free)
        msg["done"] = True
        self._jacobian[site.name] = transform.log_abs_det_jacobian(free, msg["value"]).sum()

    def _pyro_post_sample(self, msg: Message) -> None:
        name, fn = msg["name"], msg["fn"]
        if isinstance(fn, _Subsample):
            return
        if is_deterministic(msg):
            self.values[name] = msg["value"]
        elif name in self.sites:
            self.values[name] = msg["value"]
            self.log_prior[name] = site_log_prob(msg).sum() + self._jacobian[name]
        elif msg["is_observed"]:
            frame = row_frame(msg, self.plate)
            log_prob = site_log_prob(msg)
            if frame is None:
                self.extra_prior.append(log_prob.sum())
            else:
                self.log_likelihood.append(_by_row(log_prob, frame.dim))


def site_log_prob(msg: Message) -> Tensor:
    """Log density of a site before any sum, with its scale and mask, in its full batch shape."""
    fn = msg["fn"]
    log_prob = fn.log_prob(msg["value"], *msg["args"], **msg["kwargs"])
    log_prob = log_prob.expand(torch.broadcast_shapes(log_prob.shape, fn.batch_shape))
    return scale_and_mask(log_prob, msg["scale"], msg["mask"])


def _by_row(log_prob: Tensor, row_dim: int) -> Tensor:
    """Sums every axis but the rows'."""
    rows_first = log_prob.movedim(row_dim, 0)
    return rows_first.reshape(len(rows_first), -1).sum(1)


def evaluate(
    model: Callable[..., Any], structure: Structure, plate: str, flat: Tensor, columns: Columns
) -> tuple[Tensor, Tensor]:
    """Log prior by site, shape ``(sites + 1,)`` (last: ``pyro.factor`` outside the plate), and log-likelihood by row."""
    with Feeder(structure, flat, plate) as feeder:
        model(**columns)
    by_site = [feeder.log_prior[site.name] for site in structure.sites]
    zero = flat.new_zeros(())
    extra = torch.stack(feeder.extra_prior).sum() if feeder.extra_prior else zero
    rows = torch.stack(feeder.log_likelihood).sum(0) if feeder.log_likelihood else flat.new_zeros(0)
    return torch.stack([*by_site, extra]), rows


def values(model: Callable[..., Any], structure: Structure, plate: str, flat: Tensor, columns: Columns) -> Columns:
    """Constrained latents and global deterministic sites at one flat draw."""
    with Feeder(structure, flat, plate) as feeder:
        model(**columns)
    names = [*(site.name for site in structure.sites), *structure.deterministic]
    return {name: feeder.values[name] for name in names}


def simulate(model: Callable[..., Any], structure: Structure, values: Columns, columns: Columns) -> Columns:
    """Draws of the observed sites whose columns were left out, given constrained latents; inside ``running()``."""
    with Inspector("", 0, lambda *_: None) as inspector, pyro.poutine.condition(data=values):
        model(**columns)
    wanted = {observation.name for observation in structure.observed}
    return {m["name"]: m["value"] for m in inspector.messages if m["name"] in wanted and not m["is_observed"]}


class RowScale(Messenger):
    """Multiplies the scale of every observed site in the row plate by the rows' weights; the prior stays as it is."""

    def __init__(self, weight: Tensor, plate: str) -> None:
        super().__init__()
        self.weight, self.plate = weight, plate

    def _pyro_sample(self, msg: Message) -> None:
        frame = row_frame(msg, self.plate)
        if frame is None or not msg["is_observed"] or is_deterministic(msg):
            return
        weight = self.weight.reshape(-1, *[1] * (-frame.dim - 1))
        msg["scale"] = weight if msg["scale"] is None else msg["scale"] * weight
        # Soft observations (0.3 of a success) lie outside the declared support: only this site's check is switched off.
        fn = msg["fn"]
        while fn is not None:
            fn._validate_args = False
            fn = getattr(fn, "base_dist", None)


def weighted_model(
    model: Callable[..., Any], columns: Mapping[str, Tensor], weight: Tensor, plate: str
) -> Callable[[], Any]:
    """A model of no arguments on the given rows, weights inside, in the process's default dtype."""

    def run() -> Any:
        dtype = torch.get_default_dtype()
        cast = {name: column.to(dtype) if column.is_floating_point() else column for name, column in columns.items()}
        with RowScale(weight.to(dtype), plate):
            return model(**cast)

    return run


def prior_draw(model: Callable[..., Any], columns: Columns, structure: Structure, seed: int) -> Tensor:
    """One unconstrained draw from the prior, shape ``(P,)``."""
    with running(), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        with Inspector("", 0, lambda *_: None) as inspector:
            model(**columns)
        drawn = {msg["name"]: msg for msg in inspector.messages}
        free = [biject_to(drawn[s.name]["fn"].support).inv(drawn[s.name]["value"]).flatten() for s in structure.sites]
    return torch.cat(free) if free else torch.zeros(0, dtype=torch.float64)
