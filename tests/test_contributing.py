"""What CONTRIBUTING promises of additions: one new file, at most one line elsewhere, and it works."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

TASK = """
import pyro, pyro.distributions as dist, torch, bayesdd
torch.set_num_threads(1)
def model(x):
    theta = pyro.sample("theta", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(theta, 1.0).to_event(1), obs=x)
ROWS = 1.0 + torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
task = bayesdd.Task(model, {"x": ROWS})
"""

OBJECTIVE = '''
"""A toy: twice the half-variance."""
from torch import Tensor
from bayesdd.objectives._half_variance import half_variance
def toy(log_ratio: Tensor, log_weight: Tensor) -> Tensor:
    """Twice the half-variance, nats."""
    return 2 * half_variance(log_ratio, log_weight)
'''
USE_OBJECTIVE = """
found = bayesdd.distill(task, size=3, objective=bayesdd.objectives.toy, progress=False)
assert found.certificate.ok and found.provenance["objective"] == "toy"
"""

BASELINE = '''
"""A toy: the first rows."""
import torch
from bayesdd.baselines._parts import checked, weighted_rows
from bayesdd.data.distilled import Distilled
from bayesdd.task.task import Task
def toy(task: Task, size: int, *, seed: int) -> Distilled:
    """The first rows, each with an equal share."""
    weight = torch.zeros(task.size, dtype=torch.float64)
    weight[: checked(task, size)] = task.size / size
    return weighted_rows(task, task.data, weight, seed, "toy")
'''
USE_BASELINE = """
found = bayesdd.baselines.toy(task, 5, seed=0)
assert torch.equal(found.data["x"], task.data["x"][:5]) and float(found.weight.sum()) == 50.0
"""

METHOD = '''
"""A toy: the prior, whatever the rows are."""
from bayesdd.density.density import Density
from bayesdd.inference.draws import Draws
def toy(density: Density, *, draws: int, chains: int, seed: int) -> Draws:
    """Prior draws."""
    return Draws(density.parts[0].task.prior_draws(draws * chains, seed).reshape(chains, draws, -1))
'''
USE_METHOD = """
idata = bayesdd.sample(task, method=bayesdd.inference.toy, draws=10, chains=2)
assert idata.posterior["theta"].shape == (2, 10, 2)
"""

KIND = '''
"""A toy: a column that moves within a quarter of its unit."""
import torch
from bayesdd.task.kinds import Kind
near_one = Kind("near_one", lambda value: torch.atanh((value - 1) * 0.2), lambda free: 1 + 5 * torch.tanh(free))
'''
USE_KIND = """
from toy_kind import near_one
bounded = bayesdd.Task(model, {"x": ROWS}, kinds={"x": near_one})
found = bayesdd.distill(bounded, size=3, progress=False)
assert bounded.column_kinds["x"] is near_one and float((found.data["x"] - 1).abs().max()) < 5
"""

FORMAT = '''
"""A toy: one number a line."""
from pathlib import Path
from typing import Any
def read(path: Path) -> dict[str, Any]:
    """One column, ``x``."""
    return {"x": [[float(n) for n in line.split()] for line in path.read_text().splitlines()]}
'''
USE_FORMAT = """
open("rows.toy", "w").write("1.0 2.0\\n3.0 4.0\\n")
assert bayesdd.Task(model, "rows.toy").data["x"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
"""

ADDITIONS = {
    "objective": (
        "bayesdd/objectives/_toy.py",
        OBJECTIVE,
        ("bayesdd/objectives/__init__.py", "", "from bayesdd.objectives._toy import toy as toy\n"),
        USE_OBJECTIVE,
    ),
    "baseline": (
        "bayesdd/baselines/_toy.py",
        BASELINE,
        ("bayesdd/baselines/__init__.py", "", "from bayesdd.baselines._toy import toy as toy\n"),
        USE_BASELINE,
    ),
    "inference method": (
        "bayesdd/inference/_toy.py",
        METHOD,
        ("bayesdd/inference/__init__.py", "", "from bayesdd.inference._toy import toy as toy\n"),
        USE_METHOD,
    ),
    "kind": ("toy_kind.py", KIND, None, USE_KIND),
    "file format": (
        "bayesdd/data/_toy.py",
        FORMAT,
        ("bayesdd/data/formats.py", "READERS", '    ".toy": ("bayesdd.data._toy", "a toy table"),\n'),
        USE_FORMAT,
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("what", ADDITIONS)
def test_an_addition_is_one_file_and_at_most_one_line(what, tmp_path):
    shutil.copytree(ROOT / "bayesdd", tmp_path / "bayesdd", ignore=shutil.ignore_patterns("__pycache__"))
    new, text, elsewhere, use = ADDITIONS[what]
    assert not (tmp_path / new).exists()
    (tmp_path / new).write_text(text)
    if elsewhere is not None:
        file, table, line = elsewhere
        path = tmp_path / file
        lines = path.read_text().splitlines(keepends=True)
        at = next((i + 1 for i, old in enumerate(lines) if table and old.startswith(table)), len(lines))
        path.write_text("".join([*lines[:at], line, *lines[at:]]))
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    (tmp_path / "use.py").write_text(TASK + use + f"assert bayesdd.__file__.startswith({str(tmp_path)!r})\n")
    line = [sys.executable, "use.py"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
