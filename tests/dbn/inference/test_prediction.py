"""What a posterior says of patients, against structural equations solved and conditioned by NumPy, draw by draw."""

import doctest
import functools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import bayesdd
from bayesdd import dbn
from bayesdd.dbn import Source, Template, pooled
from bayesdd.dbn.inference import Pooled
from bayesdd.dbn.inference.prediction import predicted

NET = Template(
    ("c", "a", "b"), static=("s",), intra=(("s", "a"), ("a", "b")), inter=(("a", "a"), ("c", "a"), ("b", "c"))
)
nan = float("nan")
X = torch.tensor([[[0.5, nan, 1.0], [nan, nan, -0.4]], [[nan, 0.3, nan], [0.1, nan, nan]]]).double()
PATIENTS = {"x": X, "static": torch.tensor([[0.7], [nan]]).double()}


def draws(count):
    generator = torch.Generator().manual_seed(0)
    found = {}
    for site, shape in NET.sites.items():
        value = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
        found[site] = 0.5 * value if shape else 0.3 + 0.3 * value.abs()
    return found


def conditioned(values, patient, slices, noise=0.0, do=None, start=0):
    """Mean and deviation of every entry of one patient: z = B z + c + e, solved, then conditioned."""
    entries = NET.structure.entries(slices)
    place = {entry: i for i, (entry, _) in enumerate(entries)}
    b, shift, variance = np.zeros((len(entries),) * 2), np.zeros(len(entries)), np.zeros(len(entries))
    for i, ((name, t), family) in enumerate(entries):
        if do and name in do and t >= start:
            shift[i] = do[name][t - start]
            continue
        slopes = values[family.site].numpy()
        shift[i], variance[i] = slopes[0], float(values[f"{family.site}_variance"])
        for slope, (parent, lag) in zip(slopes[1:], family.parents, strict=True):
            b[i, place[parent, -1 if parent in NET.static else t - lag]] = slope
    solve = np.linalg.inv(np.eye(len(entries)) - b)
    mean, covariance = solve @ shift, solve @ np.diag(variance) @ solve.T
    seen = np.full(len(entries), np.nan)
    for (name, t), i in place.items():
        if t < 0:
            seen[i] = float(PATIENTS["static"][patient, 0])
        elif t < X.shape[1]:
            seen[i] = float(X[patient, t, NET.variables.index(name)])
    at = np.flatnonzero(~np.isnan(seen))
    gain = covariance[:, at] @ np.linalg.inv(covariance[np.ix_(at, at)] + noise**2 * np.eye(len(at)))
    mean = mean + gain @ (seen[at] - mean[at])
    spread = np.sqrt(np.maximum(np.diag(covariance - gain @ covariance[at]), 0))
    order = [[place[name, t] for name in NET.variables] for t in range(slices)]
    return mean[order], spread[order]


def each(draw, **settings):
    """Moments under each draw of each patient: ``(S, rows, T, V)`` twice."""
    count = len(draw["a"])
    found = [[conditioned({k: v[s] for k, v in draw.items()}, p, **settings) for p in (0, 1)] for s in range(count)]
    return np.moveaxis(np.array(found), 2, 0)


def agrees(found, mean, spread):
    np.testing.assert_allclose(found.mean, mean.mean(0), atol=1e-9)
    np.testing.assert_allclose(found.sd, np.sqrt((spread**2).mean(0) + mean.var(0)), atol=1e-6)
    wide = spread.min(0) > 1e-6
    for end, share in ((found.low, 0.05), (found.high, 0.95)):
        below = stats.norm.cdf((end.numpy() - mean) / np.maximum(spread, 1e-12)).mean(0)
        np.testing.assert_allclose(below[wide], share, atol=1e-6)


def full(draw):
    return Pooled(NET, (), [], draw, torch.zeros(0), nan)


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_smoothing_is_the_conditional_mixture_over_draws(noise):
    draw = draws(5)
    agrees(full(draw).smooth(Source(PATIENTS, noise=noise)), *each(draw, slices=2, noise=noise))


def test_forecasts_go_on_from_what_was_seen():
    draw = draws(5)
    mean, spread = each(draw, slices=5)
    found = full(draw).forecast(PATIENTS, 3)
    agrees(found, mean[:, :, 2:], spread[:, :, 2:])
    frame = found.to_frame()
    assert frame.loc[(1, 4, "a"), "mean"] == float(found.mean[1, 2, 1])
    assert frame.index.names == ["patient", "slice", "variable"]


def test_interventions_cut_the_edges_into_what_they_set():
    draw = draws(5)
    mean, spread = each(draw, slices=4, do={"a": [1.0, -2.0]}, start=2)
    agrees(full(draw).do(PATIENTS, 2, {"a": [1.0, -2.0]}), mean[:, :, 2:], spread[:, :, 2:])


def test_imputation_keeps_what_was_measured():
    found = full(draws(5)).impute(Source(PATIENTS, noise=0.4))
    seen = ~X.isnan()
    assert torch.equal(found.mean[seen], X[seen]) and not bool(found.sd[seen].any())
    assert bool((found.low < found.high)[~seen].all())


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Later slices of rows that the posterior has not seen, hidden from the forecast."""
    truth = {site: value[0] for site, value in draws(1).items()}
    data = dbn.simulate(NET, truth, 500, 3, seed=1)
    known = pooled(NET, [Source({name: column[:300] for name, column in data.items()})], draws=400)
    rest = {name: column[300:] for name, column in data.items()}
    ahead = known.forecast({"x": rest["x"][:, :2], "static": rest["static"]}, 1)
    inside = (ahead.low[:, 0] < rest["x"][:, 2]) & (rest["x"][:, 2] < ahead.high[:, 0])
    assert abs(float(inside.double().mean()) - 0.9) < 4 * (0.9 * 0.1 / 600) ** 0.5


def test_draws_go_to_arviz_with_names_and_chains():
    import arviz

    known = pooled(NET, [Source(dbn.simulate(NET, {k: v[0] for k, v in draws(1).items()}, 40, 3, seed=1))], draws=400)
    idata = known.to_arviz()
    assert dict(idata.posterior.sizes)["chain"] == known.chains == 8
    table = arviz.summary(idata, kind="diagnostics")
    assert "a[c_before]" in table.index and (table["r_hat"] < 1.1).all() and (table["ess_bulk"] > 150).all()


REFUSED = {
    "steps": (lambda f: f.forecast(PATIENTS, 0), "at least one slice, got 0"),
    "mass": (lambda f: f.smooth(PATIENTS, mass=1.0), "mass= between 0 and 1"),
    "name": (lambda f: f.do(PATIENTS, 2, {"s": 1.0}), "'s' is none of the variables of a slice"),
    "values": (lambda f: f.do(PATIENTS, 2, {"a": [1.0] * 3}), "one for each of 2 slices"),
    "noise": (lambda f: f.smooth(Source(PATIENTS, noise_site="error")), "draws of the site 'error'"),
    "states": (
        lambda f: predicted(Template(("a",), states={"a": 2}), {}, {"x": X}),
        "linear-Gaussian variables",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_predicted_is_refused_in_one_line(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call(full(draws(2)))


def test_examples_run():
    names = {"torch": torch}
    runner = doctest.DocTestRunner(verbose=False)
    for verb in (pooled, Pooled.smooth, Pooled.impute, Pooled.forecast, Pooled.do):
        example = doctest.DocTestParser().get_doctest(verb.__doc__, names, verb.__name__, None, None)
        assert runner.run(example, clear_globs=False).attempted > 0
        names = example.globs
    assert runner.failures == 0


def test_raw_tables_are_predicted_in_their_own_terms():
    """Patients of a long table take on the scale of the pooled sources; what is set is set in the table's units."""
    rng = np.random.default_rng(0)
    weight = 70 + 5 * rng.normal(size=(40, 1)) + rng.normal(size=(40, 4))
    table = pd.DataFrame({"id": np.arange(40).repeat(4), "year": np.tile(np.arange(4), 40), "kg": weight.ravel()})
    template = Template(("kg",), inter=(("kg", "kg"),))
    read = functools.partial(Source.from_long, patient="id", time="year", every=1, variables={"kg": "kg"})
    full = pooled(template, [read(table[table.id < 20]), read(table[table.id >= 20])], draws=400)
    known = table[table.id < 3]
    found = full.smooth(read(known)).to_frame()
    assert np.allclose(found["mean"], known["kg"], atol=1e-6) and found["sd"].max() < 1e-4
    ahead = full.do(read(known), 1, {"kg": 80.0}).to_frame()
    assert np.allclose(ahead["mean"], 80.0)
    free = full.forecast(read(known), 1).to_frame()
    assert ((free["low"] > 50) & (free["high"] < 90) & (free["low"] < free["mean"])).all()
    with pytest.raises(bayesdd.Refusal, match="scale is not known: read the patients as the sources were"):
        full.smooth({"x": [[[71.0], [nan]]]})
