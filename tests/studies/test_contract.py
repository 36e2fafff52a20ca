"""The study of model forms: its KLs from draws and grids are right, its forms are models, its verdicts hold."""

import inspect
import math

import numpy as np
import pyro
import pytest
import torch

from models import gaussian_mean
from studies import contract
from studies.contract import cell as measuring
from studies.contract import references, table, truth
from studies.contract.form import Form
from studies.contract.forms import FORMS, SMOKE
from studies.shared import cells, stamps
from studies.shared.bridge import bridge


@pytest.mark.parametrize("shift", [0.0, 1e-3, 0.3, 3.0, 12.0])  # KLs from 5e-7 to 72 nats
def test_bridge_gives_the_kl_of_gaussians(shift):
    rng = np.random.default_rng(0)
    sd = 1 + shift / 10
    p, q = (torch.zeros(1), torch.eye(1)), (torch.tensor([shift]), sd**2 * torch.eye(1))
    log_ratio = lambda x: 5.0 - x**2 / 2 + ((x - shift) / sd) ** 2 / 2  # noqa: E731
    found = bridge(log_ratio(rng.normal(size=(4, 2000))), log_ratio(shift + sd * rng.normal(size=(4, 2000))))
    for value, error, pair in ((found.forward, found.forward_se, (p, q)), (found.reverse, found.reverse_se, (q, p))):
        exact = float(gaussian_mean.kl(*((mean.double(), cov.double()) for mean, cov in pair)))
        assert abs(value - exact) <= 4 * error + 1e-12
        assert error <= 0.2 * exact or shift > 3  # few draws of either lie near the other
    if shift <= 3:  # both sets of draws overlap: the normalisers are known too
        assert found.log_normalisers == pytest.approx(5 - math.log(sd), abs=0.2)


def test_bridge_allows_for_autocorrelated_draws():
    rng = np.random.default_rng(1)

    def slow(mean):
        """Draws of N(mean, 1) that are correlated by 0.9."""
        x = np.empty((4, 4000))
        x[:, 0] = rng.normal(size=4)
        for t in range(1, 4000):
            x[:, t] = 0.9 * x[:, t - 1] + math.sqrt(1 - 0.81) * rng.normal(size=4)
        return mean + x

    at_p, at_q = slow(0.0), slow(1.0)
    found = bridge(0.5 - at_p, 0.5 - at_q)
    apart = bridge(0.5 - rng.normal(size=(4, 4000)), -0.5 - rng.normal(size=(4, 4000)))
    assert abs(found.forward - 0.5) <= 4 * found.forward_se
    assert found.forward_se > 2 * apart.forward_se  # 19 draws are worth one: 4.4 times, less for a bounded integrand


@pytest.mark.parametrize("name", [form.name for form in FORMS])
def test_every_form_is_a_model_with_one_value_a_row(name):
    """Pyro alone: a row's log-likelihood does not depend on the other rows."""
    form = next(form for form in FORMS if form.name == name)
    data = form.data(np.random.default_rng(0))
    # As Task makes them: codes of labels, floats of what is yes or no, nothing that the model does not take.
    taken = [name for name in inspect.signature(form.model).parameters if name in data]
    columns = {
        n: np.unique(c, return_inverse=True)[1] if (c := np.asarray(data[n])).dtype.kind in "OTU" else c for n in taken
    }
    whole = {
        n: torch.tensor(c, dtype=torch.int64 if c.max() > 1 and c.dtype.kind == "i" else torch.float64)
        for n, c in columns.items()
    }
    rows = len(next(iter(whole.values())))
    with truth._float64(), pyro.validation_enabled(False), torch.random.fork_rng():
        torch.manual_seed(0)
        trace = pyro.poutine.util.prune_subsample_sites(pyro.poutine.trace(form.model).get_trace(**whole))
        latent = {n: s["value"] for n, s in trace.nodes.items() if s["type"] == "sample" and not s["is_observed"]}
    evaluate = lambda some, weight: truth._evaluate(form.model, some, weight, latent)[0]  # noqa: E731
    ones = torch.ones(rows, dtype=torch.float64)
    half = torch.arange(rows) < rows // 2
    parts = [evaluate({n: c[part] for n, c in whole.items()}, ones[part]) for part in (half, ~half)]
    assert sum(parts) == pytest.approx(evaluate(whole, ones), rel=1e-9)
    assert evaluate(whole, half.double()) == pytest.approx(parts[0], rel=1e-9)


def test_forms_are_many_and_named_once():
    assert len(FORMS) >= 40
    assert len({form.name for form in FORMS}) == len(FORMS)
    assert set(SMOKE) < {form.name for form in FORMS}


def test_a_grid_gives_the_kl_of_gamma_posteriors():
    """Exponential times under a gamma prior: the posterior is Gamma(1 + events, 1 + time) for any weights."""
    form = next(form for form in FORMS if form.name == "exponential")
    rows = {n: torch.as_tensor(c, dtype=torch.float64) for n, c in form.data(np.random.default_rng(0)).items()}
    weight = torch.linspace(0.5, 1.2, len(rows["time"]), dtype=torch.float64)
    sets = [(rows, torch.ones_like(weight)), (rows, weight)]
    exact = [torch.distributions.Gamma(1 + w @ rows["event"], 1 + w @ rows["time"]) for _, w in sets]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = [{"rate": one.sample((2, 200)).numpy()} for one in exact]
    found = truth._quadrature(form.model, sets, draws)
    for way, pair in (("forward", exact), ("reverse", exact[::-1])):
        assert found[way] == pytest.approx(float(torch.distributions.kl_divergence(*pair)), rel=1e-6)


def measured(ok=True, said=1e-3, true=1e-3, se=1e-4, rhat=1.0, density=0.0, seconds=1.0):
    kl = {f"kl_{way}{end}": value for way in ("reverse", "forward") for end, value in (("", said), ("_se", se))}
    found = {"reverse": true, "reverse_se": se, "forward": true, "forward_se": se, "rhat": rhat, "how": "bridge"}
    numbers = {"rows": 10, "dim": 2, "size": 4, "seconds": seconds, "tolerance": 0.05, "density_error": density}
    return numbers | {"ok": ok, "said": kl, "true": found, "warned": [] if ok else ["not certified: k-hat"]}


@pytest.mark.parametrize(
    ("cell", "starts", "met"),
    [
        (measured(), "right", True),
        (measured(said=1e-3, true=2e-4), "right", True),  # a certificate may be careful
        (measured(seconds=61.0), "right", False),
        (measured(true=0.2), "wrong: certified, reverse KL truly 0.2", False),
        (measured(true=0.01), "wrong", False),  # within the tolerance, but ten times what was said
        (measured(density=1e-3), "wrong: bayesdd's log-likelihoods", False),
        (measured(rhat=1.5), "not known", False),
        (measured(ok=False, said=1.0, true=1.0), "not certified: not certified: k-hat", False),
        ({"refused": "no plate", "seconds": 0.0}, "refused: no plate", True),
        ({"fault": "RuntimeError: no", "seconds": 0.0}, "fault: RuntimeError: no", False),
        ({"error": "died in silence"}, "fault: died in silence", False),
    ],
)
def test_verdicts(cell, starts, met):
    row = table.row(Form("tiny", "tiny", lambda: None, lambda rng: {}), cell)
    assert row["verdict"].startswith(starts)
    assert row["met"] is met


def test_a_refused_form_is_its_line_and_a_fault_is_one(monkeypatch):
    def outside(y):
        pyro.sample("y", torch.distributions.Normal(0.0, 1.0), obs=y)

    def broken(y):
        raise ZeroDivisionError("no")

    forms = [Form(f.__name__, "", f, lambda rng: {"y": rng.normal(size=20)}) for f in (outside, broken)]
    monkeypatch.setattr(measuring, "FORMS", forms)
    assert "y" in measuring.measure("outside", 0)["refused"]
    assert {"refused", "fault"} & measuring.measure("broken", 0).keys()


def test_claims_count_what_was_refused(tmp_path, monkeypatch):
    forms = [Form(f"f{k}", f"form {k}", lambda: None, lambda rng: {}) for k in range(8)]
    found = {form.name: measured() for form in forms} | {"f0": {"refused": "no", "seconds": 0.1}}
    found = {name: one | {"machine": "a machine"} for name, one in found.items()}
    monkeypatch.setattr(contract, "FORMS", forms)
    monkeypatch.setattr(stamps, "source_hash", lambda module: module)  # seconds of reading
    monkeypatch.setattr(cells, "run", lambda commands, *_, **__: {name: found[name] for name in commands})
    claims = contract.main(results=tmp_path, data=tmp_path).attrs["claims"]
    assert claims["met"].tolist() == [True, True]
    assert "refused: no" in (tmp_path / "contract.md").read_text()
    assert "skipped posteriordb" in (tmp_path / "contract.md").read_text()
    found["f1"] = {"refused": "no", "seconds": 0.1, "machine": "a machine"}
    assert contract.main(results=tmp_path, data=tmp_path).attrs["claims"]["met"].tolist() == [True, False]


def test_means_and_sds_are_compared_in_the_references_own_sd():
    rng = np.random.default_rng(0)
    theirs, ours = 3 + 2 * rng.normal(size=(4, 5000)), 3.5 + 2.2 * rng.normal(size=(4, 5000))
    found = references.compared(ours, theirs)
    assert abs(found["mean"] - 0.25) < 4 * found["mean_se"]
    assert abs(found["spread"] - 0.1) < 4 * found["spread_se"]
    assert found["mean_se"] == pytest.approx(math.sqrt(2 / 20_000), rel=0.2)  # ESS of independent draws
    assert found["spread_se"] == pytest.approx(math.sqrt(2 / 20_000 / 2), rel=0.5)
    cell = {"rows": 1, "dim": 1, "size": 1, "seconds": 1.0, "ok": True, "parameters": {"a": found}}
    assert not references.row(references.REFERENCES[0], cell)["met"]
