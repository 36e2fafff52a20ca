"""distill through the public face: exact answers, verdicts, reproducibility, targets and students."""

import warnings
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd.distillation import rounds
from models import gaussian_mean, linear_regression, logistic_regression, varying_intercepts
from studies.contract.forms import FORMS

quiet = partial(bayesdd.distill, progress=False)


def exact_kl(module, task, distilled):
    full = module.exact(**task.data)
    few = module.exact(**distilled.data, weight=distilled.weight)
    return float(gaussian_mean.kl(few, full)), float(gaussian_mean.kl(full, few))


@pytest.mark.parametrize(
    ("module", "settings", "size"), [(gaussian_mean, {"dim": 20}, 1), (linear_regression, {"dim": 6}, 7)]
)
def test_conjugate_tasks_become_exact(module, settings, size):
    task = module.task(rows=400, **settings)
    distilled = quiet(task, size, seed=3)
    assert max(exact_kl(module, task, distilled)) < 1e-6
    assert distilled.certificate.ok and len(distilled) == size
    assert all(value.dtype == torch.float64 and not value.requires_grad for value in distilled.data.values())


def test_logistic_regression_keeps_constants_and_certifies():
    task = logistic_regression.task(rows=2000, dim=4)
    x = torch.cat([task.data["x"][:, :3], torch.ones(2000, 1, dtype=torch.float64)], 1)
    task = task.with_data({"x": x, "y": task.data["y"]})
    distilled = quiet(task, 12)
    assert torch.equal(distilled.data["x"][:, 3], torch.ones(12, dtype=torch.float64))
    assert bool(((distilled.data["y"] >= 0) & (distilled.data["y"] <= 1)).all())
    assert distilled.certificate.ok and distilled.certificate.kl_reverse < 0.01
    assert distilled.provenance["certifies"] == "posterior"
    again = bayesdd.certify(task, distilled, seed=77)
    error = 3 * (again.kl_reverse_se + distilled.certificate.kl_reverse_se)
    assert abs(again.kl_reverse - distilled.certificate.kl_reverse) < error


def test_one_seed_one_file(tmp_path):
    task = logistic_regression.task(rows=300, dim=3)
    before = torch.random.get_rng_state(), torch.get_default_dtype()
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        quiet(task, 6, seed=seed).to_netcdf(tmp_path / f"{name}.nc")
    a, b, c = ((tmp_path / f"{name}.nc").read_bytes() for name in "abc")
    assert a == b and a != c
    assert torch.equal(before[0], torch.random.get_rng_state()) and before[1] == torch.get_default_dtype()


def test_fixed_rows_are_real_rows_and_equal_weights_are_equal():
    task = logistic_regression.task(rows=300, dim=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bayesdd.CertificateWarning)
        coreset, even = quiet(task, 15, move_rows=False), quiet(task, 15, equal_weights=True)
    real = {tuple(row) for row in task.data["x"].tolist()}
    assert all(tuple(row) in real for row in coreset.data["x"].tolist())
    assert float(coreset.weight.std()) > 0 and bool((even.weight == even.weight[0]).all())
    assert even.certificate.kl_reverse < coreset.certificate.kl_reverse


def test_too_few_rows_warn_with_the_size_that_would_do():
    """Six directions cannot be told by two rows, which end far outside the data."""
    task = linear_regression.task(rows=300, dim=6)
    with pytest.warns(UserWarning) as caught:
        distilled = quiet(task, 2)
    first, last = (str(w.message) for w in caught)
    assert "size=6 or more" in first and last.startswith("not certified") and "kinds.observed" in last
    assert not distilled.certificate.ok


def test_tolerance_finds_a_small_size():
    task = linear_regression.task(rows=300, dim=4)
    distilled = quiet(task, tolerance=0.01)
    assert distilled.certificate.ok and distilled.certificate.tolerance == 0.01
    assert 4 <= len(distilled) <= 6


def test_init_starts_from_an_earlier_set():
    task = logistic_regression.task(rows=600, dim=3)
    half = task.with_data({name: column[:300] for name, column in task.data.items()})
    earlier = quiet(half, 6)
    assert quiet(task, 8, init=earlier).certificate.ok


@pytest.mark.long
def test_groups_are_fixed_and_all_there():
    group = torch.arange(400) % 5
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = x[:, 0] + 0.3 * group + torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    task = bayesdd.Task(partial(varying_intercepts.model, groups=5), {"group": group, "x": x, "y": y})
    distilled = quiet(task, 10)
    assert sorted(set(distilled.data["group"].tolist())) == list(range(5))
    assert distilled.certificate.ok


def noisy(x, y=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ mu, sigma), obs=y)


def counted(x, y=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Poisson((x @ mu).exp()), obs=y)


def plain(x, y=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ mu, 0.5), obs=y)


def two_sources():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    mean = x @ torch.tensor([0.6, -0.4], dtype=torch.float64)
    y = mean + 0.3 * torch.randn(300, generator=generator, dtype=torch.float64)
    counts = torch.poisson(mean.exp(), generator=generator)
    return bayesdd.Task(noisy, {"x": x[:200], "y": y[:200]}), bayesdd.Task(counted, {"x": x[200:], "y": counts[200:]})


@pytest.mark.long
def test_two_tasks_with_a_nuisance_become_rows_of_a_plain_student():
    """The student's posterior from 4 rows is the marginal of the joint posterior (sampled by HMC)."""
    from bayesdd.density.density import Density
    from bayesdd.inference import hmc

    source, counts = two_sources()
    student = bayesdd.Task(plain, {"x": source.data["x"], "y": source.data["y"]})
    distilled = quiet([source, counts], 4, student=student)
    assert distilled.certificate.ok and set(distilled.data) == {"x", "y"}
    joint = hmc(Density([(source, source.data, None), (counts, counts.data, None)]), draws=300, chains=20, seed=1).flat
    idata = bayesdd.sample(student, distilled, draws=1500, chains=4)
    few = torch.as_tensor(idata.posterior["mu"].values).reshape(-1, 2)
    sd = joint[:, :2].std(0)
    assert bool(((few.mean(0) - joint[:, :2].mean(0)).abs() / sd < 0.15).all())
    assert bool(((few.std(0) / sd).log().abs() < 0.1).all())


def test_several_tasks_need_a_student():
    with pytest.raises(ValueError, match=r"2 tasks needs student="):
        quiet(list(two_sources()), 4)


def test_union_of_sources_is_the_pooled_posterior():
    task = linear_regression.task(rows=400, dim=3)
    parts = [task.with_data({name: c[i::2] for name, c in task.data.items()}) for i in range(2)]
    union = bayesdd.union([quiet(part, 4, seed=i) for i, part in enumerate(parts)])
    assert union.certificate is None and len(union) == 8
    assert max(exact_kl(linear_regression, task, union)) < 1e-5
    assert bayesdd.certify(task, union).ok


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"needs size= .* or tolerance="),
        ({"size": 0}, r"size= must be a whole number from 1 to 50, got 0"),
        ({"size": 51}, r"from 1 to 50, got 51"),
        ({"size": 2.5}, r"got 2\.5"),
        ({"tolerance": -1.0}, r"tolerance= .* must be a positive number, got -1"),
        ({"size": 3, "device": "gpu"}, r"'auto', 'cpu' or 'cuda', got 'gpu'"),
    ],
)
def test_misuse_is_one_line(settings, message):
    task = linear_regression.task(rows=50, dim=2)
    with pytest.raises(ValueError, match=message) as caught:
        quiet(task, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_where_there_is_none():
    with pytest.raises(ValueError, match=r"no CUDA device here: use device='auto'"):
        quiet(linear_regression.task(rows=50, dim=2), 3, device="cuda")


def test_a_functional_is_asked_whether_it_is_infinite():
    def doubtful(log_ratio, log_weight, *, alpha):
        return bayesdd.objectives.half_variance(log_ratio, log_weight)

    def refuse_infinite(log_ratio, log_weight, size, *, alpha):
        raise bayesdd.Refusal(f"infinite of order {alpha} at {size} rows")

    doubtful.refuse_infinite = refuse_infinite
    with pytest.raises(bayesdd.Refusal, match="infinite of order 2 at 8 rows"):
        quiet(logistic_regression.task(rows=300, dim=3), 8, objective=partial(doubtful, alpha=2))


def overdispersed(x, y=None):
    """Negative binomial counts of unknown size, whose log density is not linear in the counts."""
    w, size = pyro.sample("w", dist.Normal(0.0, 1.0)), pyro.sample("size", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.NegativeBinomial(size, logits=x * w - size.log()), obs=y)


def counts(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Poisson((x * w).exp()), obs=y)


def count_task(model, rows=200):
    rng = np.random.default_rng(0)
    x = rng.normal(size=rows)
    return bayesdd.Task(model, {"x": x, "y": rng.poisson(np.exp(0.5 * x) * rng.gamma(2.0, 0.5, rows))})


def test_whole_outcomes_are_values_that_occur_and_are_certified():
    task = count_task(overdispersed)
    seen = set(task.data["y"].tolist())
    found = quiet(task, 6, seed=1, whole_outcomes=True)
    assert found.certificate.ok and set(found.data["y"].tolist()) <= seen and len(set(found.data["y"].tolist())) > 2
    frame = found.to_frame(whole=True)
    assert len(frame) == 6 and frame["y"].dtype == "int64"
    assert bayesdd.Task(task.model, frame.drop(columns="weight")).size == 6  # a task takes no fractions
    assert task.column_kinds["y"] is bayesdd.kinds.count


def test_whole_outcomes_start_from_an_earlier_set_with_fractions():
    task = count_task(counts)
    start = bayesdd.Distilled({"x": task.data["x"][:4], "y": task.data["y"][:4] + 0.5}, torch.full((4,), 50.0))
    found = quiet(task, 4, init=start, whole_outcomes=True)
    assert torch.equal(found.data["y"], found.data["y"].round()) and found.certificate.ok


def test_whole_outcomes_of_soft_classes_are_classes():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 1, generator=generator, dtype=torch.float64)

    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Categorical(logits=x @ w), obs=y)

    task = bayesdd.Task(model, {"x": x, "y": torch.arange(100) % 3}, kinds={"y": bayesdd.kinds.soft(3)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = quiet(task, 9, whole_outcomes=True)
    assert found.soft == {} and found.data["y"].dtype == torch.int64 and set(found.data["y"].tolist()) == {0, 1, 2}


def test_what_distil_records_is_what_the_table_needs(tmp_path):
    task = logistic_regression.task(rows=300, dim=3)
    found = quiet(task, 8)
    assert found.provenance["splits"] == {"y": True}
    found.to_netcdf(tmp_path / "d.nc")
    frame = bayesdd.Distilled.from_netcdf(tmp_path / "d.nc").to_frame(whole=True)
    assert frame.equals(found.to_frame(whole=True, task=task)) and set(frame["y"]) == {0, 1}
    whole = bayesdd.Distilled(task.with_data(frame.drop(columns="weight")).data, frame["weight"].to_numpy())
    draws = torch.randn(30, task.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    excess = sum(sign * task.log_likelihood(part.data, draws) @ part.weight for sign, part in ((1, found), (-1, whole)))
    assert float((excess - excess[0]).abs().max()) < 1e-10 * float(found.weight.sum())
    assert "certify" in frame.attrs["about"] and frame.attrs["task"] == task.name


@pytest.mark.long
def test_rows_with_a_region_of_their_own_are_made_anew():
    """A line with outliers: three weighted rows on one line allow a small noise, and most of the mass goes there."""
    (form,) = (form for form in FORMS if form.name == "contaminated")
    found = bayesdd.distill(form.task(0), size=20, seed=0, progress=False)
    assert found.certificate.ok
    assert [one["stage"] for one in found.provenance["rounds"]].count("start 1") > 1


def test_every_round_draws_anew(monkeypatch):
    """From the posterior of the rows as they are in that round."""
    drawn, own = [], rounds.draw_distilled
    monkeypatch.setattr(rounds, "draw_distilled", lambda *given, **more: drawn.append(own(*given, **more)) or drawn[-1])
    task = logistic_regression.task(rows=200, dim=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bayesdd.CertificateWarning)
        found = bayesdd.distill(task, size=5, seed=0, objective=bayesdd.objectives.reverse_kl, progress=False)
    made = [one["stage"] for one in found.provenance["rounds"] if one["stage"].startswith("round")]
    assert len(made) == len(drawn) > 1
    assert not torch.equal(drawn[0].flat.mean(0), drawn[1].flat.mean(0))
