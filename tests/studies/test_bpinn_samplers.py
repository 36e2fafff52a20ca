"""Samplers of Bayesian networks: the same density in JAX, the seconds until chains agree, rows of the table."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from studies import bpinn_samplers
from studies.bpinn.cell import PROBLEMS, SMOKE, setting
from studies.bpinn_samplers import rivals
from studies.bpinn_samplers.chains import Budget, Chains, diagnostics


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("problem", PROBLEMS, ids=[problem.name for problem in PROBLEMS])
def test_the_density_in_jax_is_bayesdds(problem):
    pytest.importorskip("jax")
    made = setting(problem, SMOKE)
    function = rivals.log_density(made)  # raises where they differ
    start = made.start[0]
    assert float(function(start.numpy())) == pytest.approx(float(made.density.log_joint(start[None])[0]), rel=1e-10)


class Function:
    """A setting whose function is the flat vector itself, without an unknown constant."""

    density = SimpleNamespace(starts={})

    def u(self, draws):
        return draws


def drawn(u, seconds):
    """The chains ``(4, draws, points)``, one draw after another, each in the seconds that the clock then says."""
    chains = Chains(Function(), Budget(seconds=1e9, warmup=0), compilation=100.0, adaptation=5.0)
    for at in range(u.shape[1]):
        if not chains.more():
            break
        chains.keep(u[:, at : at + 1], 50.0)
        chains.sampling = (at + 1) * seconds
    return chains


def noise(draws, points=3):
    return torch.randn(4, draws, points, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_chains_that_agree_end_when_they_have_agreed_for_the_last_third_of_their_seconds():
    chains = drawn(noise(4000), seconds=1.0)
    draws = chains.u.shape[1]
    assert draws < 2000
    assert chains.steps == 50.0 * draws
    assert chains.reached is not None
    assert 1.5 * chains.reached <= 5.0 + draws < 1.5 * chains.reached + 2.0
    assert float(diagnostics(chains.u).rhat.max()) <= 1.01


def test_chains_at_different_places_or_at_rest_spend_everything_and_never_reach_it():
    apart = drawn(noise(400) + torch.arange(4.0)[:, None, None], seconds=1.0)
    still = drawn(torch.zeros(4, 400, 3, dtype=torch.float64), seconds=1.0)
    for chains in (apart, still):
        assert chains.u.shape[1] == 400
        assert chains.reached is None


def test_seconds_count_from_where_chains_agree_for_good():
    """One chain is elsewhere between its draws 1,000 and 1,500, after all have agreed."""
    u = noise(5000, points=1)
    u[0, 1000:1500] += 4.0
    seconds = 1e-4  # adaptation is most of them, so that no chain ends before its last draw
    first, chains = drawn(u[:, :1000], seconds), drawn(u, seconds)
    assert first.reached == pytest.approx(5.0, abs=0.1)
    assert chains.u.shape[1] == 5000
    assert chains.reached is None or chains.reached > 5.0 + seconds * 1500


def test_a_budget_ends_chains_that_do_not_agree():
    chains = Chains(Function(), Budget(seconds=0.0, warmup=0, least=8), compilation=0.0, adaptation=1.0)
    while chains.more():
        chains.keep(noise(2), 1.0)
    assert chains.u.shape[1] == 8


def test_means_that_differ_by_chance_alone_are_about_one_error_apart():
    rng = np.random.default_rng(0)
    one, other = ({"mean": rng.normal(size=500) * 0.1, "se": np.full(500, 0.1)} for _ in range(2))
    assert bpinn_samplers._apart(one, other) == pytest.approx(1.0, abs=0.15)


def test_a_report_takes_the_cell_of_most_seconds_of_each_problem_and_method(tmp_path, capsys):
    """And no other problem's, whose name ends as its own."""
    folder = tmp_path / "bpinn_samplers"
    folder.mkdir()
    own = "linear, noise 0.01 by Pyro HMC"
    for name, rhat in ((f"{own}, 900 s", 1.1), (f"{own}, 2400 s", 1.05), (f"non{own}, 3600 s", 1.2)):
        cell = {"rhat": rhat, "ess": 10.0, "median_ess": 20.0, "mean": [0.0], "se": [1.0], "error": 0.1, "draws": 50}
        seconds = {"compilation": 1.0, "adaptation": 2.0, "sampling": 5.0, "steps": 100.0, "reached": None}
        (folder / f"{name}.json").write_text(json.dumps(cell | seconds))
    table = bpinn_samplers.main(results=tmp_path, report=True).set_index("problem")
    assert table["at most"].to_dict() == {"linear, noise 0.01": 2400.0, "nonlinear, noise 0.01": 3600.0}
    assert table["R-hat u"].to_dict() == {"linear, noise 0.01": 1.05, "nonlinear, noise 0.01": 1.2}
    assert (tmp_path / "bpinn_samplers.md").read_text() in capsys.readouterr().out
