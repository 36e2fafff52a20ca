"""Pairs of verbs in two threads of one process, against the same verbs alone.

Claim: both give, to the last bit, what they give alone, and leave nothing of the process changed: default dtype, random
numbers, validation, gradient mode, Pyro's handlers and parameters, warnings.
How it could fail: state that torch and Pyro share between threads.
Cost: half a second of processor time a pair.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyro
import torch

import bayesdd
from studies.trust.contents import equal
from studies.trust.tasks import classes, regression

TITLE = "Two threads"
NOTE = (
    "Pairs of distill, certify, sample, predict, log_likelihood and summary on two tasks, in random order, half of "
    "them under inference_mode. Right: both results are those of the same verbs alone, to the last bit. State: "
    "default dtype, generators of torch and NumPy, validation, gradient mode, Pyro's handlers and parameters are as "
    "before."
)
PAIRS, CHUNK, ROWS = 200, 50, 40
LONGEST = 120.0  # seconds that a pair may take


def parts(smoke: bool) -> dict[str, list[str]]:
    """Cell -> words for :func:`cell`."""
    return {"smoke": ["0", "2"]} if smoke else {f"pairs_{k}": [str(k), str(k + CHUNK)] for k in range(0, PAIRS, CHUNK)}


def cell(first: str, end: str) -> dict[str, Any]:
    """How many pairs were right and left the state as it was."""
    verbs = _verbs()
    names = list(verbs)
    for name in names:  # the second run of a task may differ from its first in the last digit: its model is recorded
        verbs[name]()
    alone = {name: verbs[name]() for name in names}
    right, restored, bad = 0, 0, []
    for at in range(int(first), int(end)):
        pair = [names[k] for k in np.random.default_rng(at).integers(len(names), size=2)]
        before = _state()
        found = _together([verbs[name] for name in pair], inference=bool(at % 2))
        good = all(equal(one, alone[name]) for one, name in zip(found, pair, strict=True))
        right += good
        restored += _state() == before
        if not good:
            bad.append(f"{at}: {pair}: {[type(one).__name__ for one in found]}")
    return {"pairs": int(end) - int(first), "right": right, "restored": restored, "bad": bad[:10]}


def table(found: list[dict[str, Any]]) -> pd.DataFrame:
    """Pairs, right ones, those that left the state as it was."""
    pairs, right, restored = (sum(one[name] for one in found) for name in ("pairs", "right", "restored"))
    met = right == restored == pairs
    return pd.DataFrame([{"pairs": pairs, "right": right, "state restored": restored, "met": met}])


def _verbs() -> dict[str, Callable[[], Any]]:
    """Verb and task -> a call of it."""
    made: dict[str, Callable[[], Any]] = {}
    for name, task in (("linear", regression(ROWS)), ("logistic", classes(ROWS))):
        rows = bayesdd.distill(task, 3, 1e3, progress=False)
        idata = bayesdd.sample(task, rows, draws=50, chains=2, method=bayesdd.inference.laplace)
        for verb in (
            lambda task, rows, idata: bayesdd.distill(task, 3, 1e3, progress=False),
            lambda task, rows, idata: bayesdd.certify(task, rows),
            lambda task, rows, idata: bayesdd.sample(task, rows, draws=20, chains=2),
            lambda task, rows, idata: bayesdd.predict(task, idata, task.data),
            lambda task, rows, idata: bayesdd.log_likelihood(task, idata),
            lambda task, rows, idata: bayesdd.summary(task),
        ):
            made[f"{name} {len(made)}"] = partial(verb, task, rows, idata)
    return made


def _together(verbs: list[Callable[[], Any]], inference: bool) -> list[Any]:
    """What two verbs return, begun at once; an exception in place of a result."""
    found: list[Any] = [TimeoutError("hangs")] * len(verbs)
    gate = threading.Barrier(len(verbs))

    def go(at: int) -> None:
        gate.wait()
        try:
            with torch.inference_mode(inference):
                found[at] = verbs[at]()
        except BaseException as error:  # any failure is what is looked for
            found[at] = error

    threads = [threading.Thread(target=go, args=(at,), daemon=True) for at in range(len(verbs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONGEST)
    return found


def _state() -> tuple[Any, ...]:
    """What a process shares between its threads, and could be left changed."""
    return (
        torch.get_default_dtype(),
        torch.random.get_rng_state().numpy().tobytes(),
        np.random.get_state()[1].tobytes(),  # type: ignore[index]  # of the legacy generator
        torch.distributions.Distribution._validate_args,
        pyro.distributions.util.is_validation_enabled(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        tuple(map(type, pyro.poutine.runtime._PYRO_STACK)),
        tuple(pyro.get_param_store().keys()),
        torch.get_num_threads(),
        tuple(map(str, warnings.filters)),
    )
