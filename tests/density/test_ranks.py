"""Ranks as their users meet them: real processes that share the rows, die, come back, or differ."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.long

TOY = """
import os
import pathlib
import pyro
import pyro.distributions as dist
import torch
from bayesdd import Task
from bayesdd.density import passes

passes.BLOCK = 100  # 700 rows: seven groups
pathlib.Path("pid" + os.environ.get("RANK", "0")).write_text(str(os.getpid()))

def model(x):
    theta = pyro.sample("theta", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(theta, 1.0).to_event(1), obs=x)

def task():
    return Task(model, {"x": torch.randn(700, 2, generator=torch.Generator().manual_seed(0))})
"""

SCRIPT = """
import os
import torch
from bayesdd.density.density import Density
from bayesdd.density.ranks import joined
from toy import task

given = task()
draws = torch.randn(6, given.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
with joined("cpu") as ranks:
    alone, shared = (Density([(given, given.rows, None)], spread=spread) for spread in (False, True))
    assert ranks.count == 2 and torch.equal(alone.sweep(draws), shared.sweep(draws))
    for one, other in zip(alone.log_joint_gradient(draws), shared.log_joint_gradient(draws), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(alone.likelihood_derivatives(draws), shared.likelihood_derivatives(draws), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(ranks.each(5, lambda k: draws[:, 0] * k, draws), torch.arange(5)[:, None] * draws[:, 0])
    try:
        shared.sweep(draws + ranks.rank * 1e-15)
        raise AssertionError("ranks differ")
    except ValueError as error:
        assert "has other numbers than another rank" in str(error)
    try:
        ranks.agreed(lambda: ranks.same({"models": 0, "rows": ranks.rank}), (ValueError,))
        raise AssertionError("rows differ")
    except ValueError as error:
        assert ranks.rank == 0 and "rank 1 has other rows than rank 0" in str(error)
    except SystemExit as silent:
        assert ranks.rank == 1 and silent.code == 2
    os.write(1, f"rank {ranks.rank} is fine{os.linesep}".encode())  # one piece: ranks share the pipe, unbuffered
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "toy.py").write_text(TOY)
    (folder / "script.py").write_text(SCRIPT)
    return folder


def started(folder, *line, **environment):
    paths = os.pathsep.join([str(ROOT), str(folder)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **environment}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *line], cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def torchrun(folder, *line):
    at = ("--master-addr", "127.0.0.1", "--master-port", free_port())
    return started(folder, "-m", "torch.distributed.run", "--nproc-per-node=2", *at, *line)


def ended(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_ranks_share_a_pass_bit_for_bit_and_see_where_they_differ(folder):
    code, out, err = ended(torchrun(folder, "script.py"))
    assert code == 0, err
    assert sorted(out.splitlines()) == ["rank 0 is fine", "rank 1 is fine"]


def test_a_killed_rank_ends_the_run_which_goes_on_to_the_result_of_one_rank(folder):
    command = ("-m", "bayesdd", "distill", "toy:task", "--size", "2", "--quiet", "--out")
    code, told, err = ended(started(folder, *command, "one.nc"))
    assert code == 0, err
    assert not (folder / "one.nc.resume").exists()
    run = torchrun(folder, *command, "two.nc")
    deadline = time.monotonic() + 200
    while not (folder / "two.nc.resume").exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(int((folder / "pid1").read_text()), signal.SIGKILL)
    code, out, err = ended(run)
    assert code != 0 and out == "" and "SIGKILL" in err, (code, out, err)
    assert (folder / "two.nc.resume").exists() and not (folder / "two.nc").exists()
    code, out, err = ended(torchrun(folder, *command, "two.nc"))
    assert code == 0, err
    assert out == told.replace("one.nc", "two.nc")  # said once, by the first rank
    assert (folder / "one.nc").read_bytes() == (folder / "two.nc").read_bytes()
    assert not (folder / "two.nc.resume").exists()


def test_an_unreachable_rendezvous_is_one_line(folder):
    alone = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    command = ("-m", "bayesdd", "distill", "toy:task", "--size", "2", "--patience", "1", "--out", "d.nc")
    code, out, err = ended(started(folder, *command, **alone))
    lines = [line for line in err.splitlines() if line.startswith("bayesdd:")]
    assert (code, out, len(lines)) == (2, "", 1), err
    assert "rank 1: error: the other ranks cannot be reached at 127.0.0.1:" in lines[0]
