"""Every public verb has an example in its docstring, and these run, in order, on one task and one distilled set."""

import doctest
import inspect
import io
import re
from pathlib import Path

import arviz  # noqa: F401  here, where its FutureWarning is the collector's and not an example's
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr

import bayesdd

STUB = (Path(bayesdd.__file__).with_suffix(".pyi")).read_text()
ORDER = ["Task", "distill", "certify", "sample", "predict", "log_likelihood"]  # each uses what those before have made
PUBLIC = [name for _, name in re.findall(r"^from \.(\w+) import (\w+) as", STUB, re.MULTILINE)]
VERBS = [name for name in PUBLIC if inspect.isfunction(getattr(bayesdd, name)) or name in ("Task", "Distilled")]


def model(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def test_every_verb_has_an_example():
    assert len(VERBS) >= 12
    assert [name for name in VERBS if ">>>" not in (getattr(bayesdd, name).__doc__ or "")] == []


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(200), rng.normal(size=200)])
    y = rng.uniform(size=200) < 1 / (1 + np.exp(-x @ [-0.5, 1.0]))
    names = {"bayesdd": bayesdd, "model": model, "x": x, "y": y, "dist": dist, "torch": torch, "xr": xr}
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    said = io.StringIO()
    for name in [*ORDER, *(name for name in VERBS if name not in ORDER)]:
        example = doctest.DocTestParser().get_doctest(getattr(bayesdd, name).__doc__, names, name, None, None)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found = runner.run(example, out=said.write, clear_globs=False)
        names = example.globs
        assert found.attempted > 0 and found.failed == 0, said.getvalue()
