"""Surrogates: right solutions, honest intervals, unknowns, and rows that teach what they know."""

import dataclasses
import functools
import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import bayesdd
from bayesdd import pinn
from bayesdd.data.seal import sealed
from bayesdd.density.density import Density
from bayesdd.networks import judging, row_search
from bayesdd.numerics.refusal import Refusal, WrongType
from bayesdd.pinn._fit import _kept
from bayesdd.pinn.measurements import measured
from bayesdd.pinn.modes import search
from bayesdd.pinn.residuals import Networks, residuals
from bayesdd.pinn.terms import all_terms

SMALL = {"hidden": (8,), "modes": 3, "steps": 120}
RATE = 1.3


def decay(**changed):
    given = {
        "inputs": {"t": (0.0, 2.0)},
        "parameters": {"start": (0.5, 2.0)},
        "outputs": ("u",),
        "equation": lambda s, p: s.u_t + p.rate * s.u,
        "conditions": [pinn.at(t=0.0, u=lambda s, p: s.start)],
        "unknown": {"rate": (1.0, 0.5)},
    }
    return pinn.Problem(**{**given, **changed})


def points(count, seed, low=0.5):
    rng = np.random.default_rng(seed)
    return {"t": rng.uniform(0, 2, count), "start": rng.uniform(low, 2.0, count)}


def truth(at):
    return at["start"] * np.exp(-RATE * at["t"])


@functools.cache
def fitted():
    at = points(40, 0, low=1.25)
    y = truth(at) + 0.05 * np.random.default_rng(1).normal(size=40)
    y[3] = np.nan
    return pinn.fit(decay(), {**at, "u": y}, seed=0, **SMALL)


def test_a_solution_its_rate_and_the_noise_are_found():
    """The rate's posterior sd is at least that of the exact model's information, sum of squared slopes / sigma^2."""
    surrogate, new = fitted(), points(300, 5)
    mean, sd = surrogate.predict(new)["u"]
    assert mean.shape == sd.shape == (300,) and mean.dtype == sd.dtype == np.float64
    assert np.sqrt(np.mean((mean - truth(new)) ** 2)) < 0.02
    rate, wide = surrogate.constants["rate"]
    assert abs(rate - RATE) < 4 * wide
    measured = {key: np.delete(column, 3) for key, column in points(40, 0, low=1.25).items()}
    slope = measured["t"] * truth(measured)
    noise = surrogate.measurement_noise["u"]
    assert abs(math.log(noise / 0.05)) < 4 / math.sqrt(2 * 38)
    assert 0.8 < wide / (noise / np.sqrt((slope**2).sum())) < 2
    assert surrogate.errors()["equation"] < 0.02


def test_equal_seeds_give_equal_results_and_the_module_is_the_mean():
    again = pinn.fit(decay(unknown={}, constants={"rate": RATE}), seed=3, hidden=(6,), modes=2, steps=40)
    same = pinn.fit(decay(unknown={}, constants={"rate": RATE}), seed=3, hidden=(6,), modes=2, steps=40)
    assert torch.equal(again.theta, same.theta)
    new = points(9, 2)
    z = torch.tensor(np.stack([new["t"], new["start"]], 1))
    np.testing.assert_allclose(again.to_torch()(z)[:, 0].detach().numpy(), again.predict(new)["u"][0], rtol=1e-12)


def test_draws_have_the_spread_that_predict_states():
    surrogate, new = fitted(), points(12, 6)
    drawn = surrogate.draws(new, 4000, seed=1)["u"]
    mean, sd = surrogate.predict(new)["u"]
    assert float(np.abs(drawn.mean(0) - mean).max() / sd.max()) < 4.5 / math.sqrt(4000)
    assert float(np.abs(np.log(drawn.std(0) / sd)).max()) < 4.5 * math.sqrt(2 / 4000)


@pytest.mark.long
def test_a_fourth_derivative_periodic_sides_and_a_system():
    """w'''' = 24: w = x^4 - 4 x^3 + 6 x^2 for a cantilever; u = sin(2 pi x) is periodic, and v its derivative."""
    beam = pinn.Problem(
        inputs={"x": (0.0, 1.0)},
        outputs={"w": (0.0, 3.0)},
        equation=lambda s, p: s.w_xxxx - 24.0,
        conditions=[pinn.at(x=0.0, w=0.0, w_x=0.0), pinn.at(x=1.0, w_xx=0.0, w_xxx=0.0)],
    )
    x = np.linspace(0, 1, 21)
    mean, _ = pinn.fit(beam, seed=0, hidden=(8,), modes=2, steps=300).predict({"x": x})["w"]
    assert np.abs(mean - (x**4 - 4 * x**3 + 6 * x**2)).max() < 0.02
    ring = pinn.Problem(
        inputs={"x": (0.0, 1.0)},
        outputs=("u", "v"),
        equation=lambda s, p: (s.v - s.u_x / 6, s.v_x + (2 * math.pi) ** 2 / 6 * s.u),
        conditions=[pinn.at(x=(0.0, 1.0), u=pinn.periodic, v=pinn.periodic), pinn.at(x=0.25, u=1.0, v=0.0)],
    )
    found = pinn.fit(ring, seed=0, hidden=(12,), modes=2, steps=120).predict({"x": x})
    assert np.abs(found["u"][0] - np.sin(2 * math.pi * x)).max() < 0.05
    assert np.abs(found["v"][0] - 2 * math.pi / 6 * np.cos(2 * math.pi * x)).max() < 0.05


def test_what_nothing_identifies_is_said():
    """The rate acts only beside a field that is zero everywhere."""
    problem = decay(conditions=[pinn.at(t=0.0, u=0.0)], outputs={"u": (-1.0, 1.0)})
    with pytest.warns(pinn.FitWarning, match="the unknown 'rate' is not identified: posterior .*, prior 1 .- 0.5"):
        surrogate = pinn.fit(problem, seed=0, hidden=(4,), modes=1, steps=40)
    assert surrogate.constants["rate"][1] == pytest.approx(0.5, rel=0.1)


AT = points(5, 1)
BAD = {
    r"data has a column 'w'": {"data": {**AT, "w": np.ones(5)}},
    r"none of the outputs \['u'\]": {"data": AT},
    r"'t' = 7 in row 0 lies outside its range \[0, 2\]": {"data": {**AT, "t": np.full(5, 7.0), "u": np.ones(5)}},
    r"lacks the column 'start'": {"data": {"t": AT["t"], "u": np.ones(5)}},
    r"needs the shape \(N,\), got \(5, 1\)": {"data": {**AT, "u": np.ones((5, 1))}},
    r"noise= names 'v'": {"data": {**AT, "u": np.ones(5)}, "noise": {"v": 0.1}},
    r"device= ?'?cuda|torch finds no CUDA": {"device": "cuda"},
    r"GiB free: take fewer points=": {"points": 10**9},
    r"hidden= needs the widths of the hidden layers": {"hidden": 8},
    r"each width of hidden= must be a whole number": {"hidden": (4.5,)},
    r"column 'u' has every value missing": {"data": {**AT, "u": np.full(5, np.nan)}},
    r"column 'u' holds values that are not real numbers": {"data": {**AT, "u": 1j * np.ones(5)}},
    r"column 't' .*text": {"data": {**AT, "t": list("abcde"), "u": np.ones(5)}},
    r"Series with the same index in different orders": {
        "data": {**AT, "t": pd.Series(AT["t"]), "u": pd.Series(np.arange(5.0)).sort_values(ascending=False)}
    },
    r"differ in their number of rows": {"data": {**AT, "u": np.ones(4)}},
    r"no rows": {"data": {name: np.ones(0) for name in (*AT, "u")}},
    r"noise= is that of measurements, but there are no data": {"noise": 0.1},
}


@pytest.mark.parametrize("said", BAD)
def test_mistakes_are_named_in_one_line(said):
    if "device" in BAD[said] and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises((Refusal, WrongType), match=said) as caught:
        pinn.fit(decay(), **BAD[said])
    assert "\n" not in str(caught.value)


def test_masked_values_are_missing_and_equations_finite_where_searches_begin():
    masked = np.ma.masked_array(np.ones(5), [True, True, False, False, False])
    assert len(measured(decay(), {**AT, "u": masked})["u"][1]) == 3
    with pytest.raises(Refusal, match="equation is not finite at draws of the prior"):
        pinn.fit(decay(equation=lambda s, p: torch.log(s.u_t) + p.rate * s.u), {**AT, "u": np.ones(5)}, hidden=(4,))


def test_measurements_come_as_a_table_or_a_file(tmp_path):
    frame = pd.DataFrame({**AT, "u": [1.0, math.nan, 2.0, 3.0, 4.0]})
    frame.to_csv(tmp_path / "measured.csv", index=False)
    xr.Dataset.from_dataframe(frame).to_netcdf(tmp_path / "measured.nc", engine="netcdf4")
    frame.to_parquet(tmp_path / "measured.parquet")
    paths = [tmp_path / f"measured{ending}" for ending in (".csv", ".nc", ".parquet")]
    for given in (frame, {**AT, "u": torch.tensor(frame.u)}, str(paths[0]), *paths):
        points, values = measured(decay(), given)["u"]
        assert values.tolist() == [1, 2, 3, 4] and points["start"].tolist() == AT["start"][[0, 2, 3, 4]].tolist()


def test_rows_that_count_several_times_are_refused(tmp_path):
    frame = pd.DataFrame({"t": [0.5, 0.5, 1.0], "start": 1.0, "u": [0.6, 0.6, 0.4]})
    frame.to_parquet(tmp_path / "measured.parquet")
    with pytest.raises(Refusal, match="grouped rows count several times"):
        measured(decay(), bayesdd.grouped(tmp_path / "measured.parquet"))


def test_what_is_asked_of_a_surrogate_is_checked():
    surrogate, rows = fitted(), bayesdd.Distilled({"z": np.ones(3)}, np.ones(3))
    for said, asked in {
        "draws= must be a whole number": lambda: surrogate.draws(AT, draws=0),
        "Surrogate.errors: seed=": lambda: surrogate.errors(seed="a"),
        "student_fit needs a distilled set": lambda: surrogate.student_fit(None),
        "lacks column 't'": lambda: surrogate.student_fit(rows),
        "share of the outcome's range": lambda: surrogate.objective(error=5.0),
        "steps= must be a whole number": lambda: surrogate.objective(steps=0),
        "pinn.load needs the pinn.Problem": lambda: pinn.load("decay.nc", None),
    }.items():
        with pytest.raises((Refusal, WrongType), match=said):
            asked()


def test_an_output_that_nothing_fixes_is_refused():
    problem = decay(outputs=("u", "v"), equation=lambda s, p: (s.u_t + p.rate * s.v, s.v_t + s.u))
    with pytest.raises(Refusal, match="no condition fixes the output 'v' and nothing of it is measured"):
        pinn.fit(problem, {**AT, "u": np.ones(5)})


@pytest.mark.long
def test_rows_teach_a_plain_network(monkeypatch):
    monkeypatch.setattr(judging, "JUDGE_STEPS", 40)
    monkeypatch.setattr(row_search, "JUDGED", 40)
    surrogate = fitted()
    assert [task.size for task in surrogate.target] == [39, 512, 64]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bayesdd.CertificateWarning)
        rows = bayesdd.distill(
            surrogate.target,
            size=12,
            student=surrogate.student,
            objective=surrogate.objective(steps=4),
            seed=0,
            progress=False,
        )
    assert set(rows.data) == {"t", "start", "u"} and len(rows) == 12
    new = points(100, 8)
    taught = surrogate.student_fit(rows, seed=0)
    mean, sd = taught.predict(new)["u"]
    assert np.sqrt(np.mean((mean - truth(new)) ** 2)) < 0.1 and bool((sd > 0).all())


def test_the_target_is_the_posterior_that_was_fitted():
    """The Pyro models' log joint density is minus the cost that the searches minimise, up to a constant."""
    surrogate = fitted()
    density = Density([(task, task.data, None) for task in surrogate.target])
    theta = torch.randn(4, density.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points, used = torch.empty_like(theta), 0
    for name in ("weight_0", "bias_0", "weight_1", "bias_1"):
        start, _, width = density.starts[name]
        points[:, start : start + width] = theta[:, used : used + width]
        used += width
    points[:, density.starts["rate"][0]] = 1.0 + 0.5 * theta[:, -1]
    left = residuals(surrogate.plain, surrogate.terms, theta)
    costs = [(part / noise).square().sum(1) for part, noise in zip(left, surrogate.noise[0], strict=True)]
    cost = 0.5 * (torch.stack(costs).sum(0) + theta.square().sum(1))
    found = density.log_joint(points)
    torch.testing.assert_close(found - found[0], cost[0] - cost, rtol=1e-9, atol=1e-6)


def test_a_file_gives_the_surrogate_back_and_knows_its_equation(tmp_path):
    surrogate, new = fitted(), points(7, 3)
    surrogate.to_netcdf(tmp_path / "decay.nc")
    again = pinn.load(tmp_path / "decay.nc", decay())
    for one, other in zip(surrogate.predict(new)["u"], again.predict(new)["u"], strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(Refusal, match="its equation or conditions leave other residuals"):
        pinn.load(tmp_path / "decay.nc", decay(equation=lambda s, p: s.u_t - p.rate * s.u))
    with pytest.raises(Refusal, match="is of another problem: of"):
        pinn.load(tmp_path / "decay.nc", decay(parameters={"start": (0.5, 3.0)}))


def test_a_file_without_what_is_added_to_fields_is_an_earlier_one(tmp_path):
    fitted().to_netcdf(tmp_path / "decay.nc")
    with xr.open_dataset(tmp_path / "decay.nc", engine="netcdf4") as stored:
        earlier = stored.load().drop_vars("features_out")
    sealed(earlier).to_netcdf(tmp_path / "earlier.nc", engine="netcdf4")
    with pytest.raises(Refusal, match=r"written by an earlier bayesdd and lacks .*'out'.*: fit the problem again"):
        pinn.load(tmp_path / "earlier.nc", decay())


def test_predictions_go_to_arviz():
    groups = fitted().to_arviz(points(5, 1), draws=20)
    assert groups["predictions"]["u"].dims == ("chain", "draw", "row")
    assert groups["predictions"]["u"].shape == (1, 20, 5)


def test_intervals_hold_what_every_network_of_their_size_misses():
    """Nothing is measured and nothing unknown: all error is the networks' own. u'' = -k^2 sin(k x), u = sin(k x)."""
    waves = pinn.Problem(
        inputs={"x": (0.0, 1.0)},
        parameters={"k": (3.0, 7.0)},
        outputs={"u": (-1.0, 1.0)},
        equation=lambda s, p: s.u_xx + s.k**2 * torch.sin(s.k * s.x),
        conditions=[pinn.at(x=0.0, u=0.0), pinn.at(x=1.0, u=lambda s, p: torch.sin(s.k))],
    )
    surrogate = pinn.fit(waves, seed=0, hidden=(8,), modes=3, steps=100)
    rng = np.random.default_rng(0)
    new = {"x": rng.uniform(0, 1, 400), "k": rng.uniform(3, 7, 400)}
    columns, true = {name: torch.from_numpy(column) for name, column in new.items()}, np.sin(new["k"] * new["x"])
    mean, sd = surrogate.predict(new)["u"]
    assert (np.abs(mean - true) <= 1.645 * sd).mean() > 0.85
    searched = dataclasses.replace(surrogate, theta=torch.zeros_like(surrogate.theta))
    assert np.abs(mean - true).mean() < np.abs(searched.mean(columns)[:, 0].detach().numpy() - true).mean() / 2


def test_what_corrections_meet_no_better_is_said():
    """A peak so narrow that no smooth feature of a few units follows it."""
    peak = decay(
        conditions=[pinn.at(t=0.0, u=lambda s, p: torch.exp(-(((s.start - 1.2) / 0.02) ** 2)))],
        unknown={},
        constants={"rate": RATE},
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", pinn.FitWarning)
        pinn.fit(peak, seed=0, hidden=(4,), modes=1, steps=60)
    assert any("corrections still leave" in str(one.message) and "pinn.at(t=0.0" in str(one.message) for one in said)


def test_wide_networks_hold_between_fewer_points_than_weights():
    problem, new = decay(unknown={}, constants={"rate": RATE}), points(100, 5)
    wide = pinn.fit(problem, seed=0, hidden=(48,), modes=1, steps=200, points=96)
    assert wide.plain.dim == 48 * 4 + 1 > sum(term.count for term in wide.terms)
    assert np.abs(wide.predict(new)["u"][0] - truth(new)).max() < 0.005
    assert wide.errors()["equation"] < 0.005


def test_of_searches_that_meet_the_equation_the_one_that_explains_the_measurements_counts():
    """What a simple field leaves of the equation is nothing: that says nothing for its constants."""
    problem, at = decay(), points(40, 0)
    seen = {"u": ({key: torch.from_numpy(column) for key, column in at.items()}, torch.from_numpy(truth(at)))}
    networks = Networks.of(problem, (8,), ((0.0, 1.0),))
    for given in (seen, {}):
        terms = all_terms(problem, given, 64, 0)
        close = torch.randn(1, networks.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        groups = sum(len(term.names) for term in terms)
        found = search(networks, terms, close, torch.full((groups,), math.nan, dtype=torch.float64), 150)
        flat = torch.full_like(found.noise, 1e-9)
        flat[:, : groups - 2] = 1.0  # of measurements, where there are any
        both = dataclasses.replace(
            found,
            theta=torch.cat([torch.zeros_like(found.theta), found.theta]),
            noise=torch.cat([flat, found.noise]),
        )
        kept = _kept(networks, both, terms, 4)
        assert torch.equal(kept.theta, found.theta if given else torch.zeros_like(found.theta))
