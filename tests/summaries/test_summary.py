"""Summaries of sources: closed-form derivatives, sums, files, rows distilled from the sum alone, refusals."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd.density.third import to_third_order


def counts(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Poisson((x @ w).exp()), obs=y)


def spread(y):
    scale = pyro.sample("scale", dist.HalfNormal(2.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(0.0, scale), obs=y)


@pytest.fixture(scope="module")
def sources():
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(3000), rng.normal(size=(3000, 2))])
    rows = {"x": x, "y": rng.poisson(np.exp(x @ [0.3, -0.2, 0.4])).astype(float)}
    return [bayesdd.Task(counts, {name: column[k::3] for name, column in rows.items()}) for k in range(3)]


@pytest.fixture(scope="module")
def combined(sources):
    at = bayesdd.summary(sources[0]).at
    return bayesdd.combine([bayesdd.summary(source, at=at) for source in sources])


def test_derivatives_are_those_of_the_closed_form(sources):
    """Poisson with a log link: the m-th derivative is -sum of mean times products of m covariates."""
    one = bayesdd.summary(sources[0], at={"w": [0.2, -0.1, 0.3]})
    x, y = (sources[0].data[name] for name in ("x", "y"))
    mean = (x @ torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64)).exp()
    assert torch.allclose(one.gradient, x.T @ (y - mean), rtol=1e-10)
    assert torch.allclose(one.hessian, -torch.einsum("n,na,nb->ab", mean, x, x), rtol=1e-10)
    assert torch.allclose(one.third, -torch.einsum("n,na,nb,nc->abc", mean, x, x, x), rtol=1e-6)


def test_remainder_is_what_the_cubic_leaves_out(sources):
    """At half the width, fourth derivatives leave a sixteenth; draws of one's own meet what is said."""
    one = bayesdd.summary(sources[0])
    assert float(one.remainder[5] / one.remainder[4]) == pytest.approx(16, rel=0.3)
    step = torch.linalg.cholesky(torch.linalg.inv(one.precision))
    steps = torch.randn(2000, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64) @ step.T
    exact = sources[0].log_likelihood(sources[0].data, one.at + steps).sum(1) - one.value
    left = (exact - to_third_order(one.gradient, one.hessian, one.third, steps)).std()
    assert float(left) == pytest.approx(one.error, rel=0.3)


def test_sums_of_parts_are_those_of_all_rows(sources, combined):
    pooled = {name: torch.cat([source.data[name] for source in sources]) for name in ("x", "y")}
    whole = bayesdd.summary(bayesdd.Task(counts, pooled), at=combined.at)
    assert combined.rows == whole.rows == 3000 and combined.sources == 3
    for name in ("gradient", "hessian", "third"):
        assert torch.allclose(getattr(combined, name), getattr(whole, name), rtol=1e-6, atol=1e-6)
    assert combined.error >= 0.9 * whole.error  # a bound: remainders may cancel


@pytest.mark.long
def test_rows_are_distilled_from_the_sum_alone(sources, combined):
    """Against all rows, which the distillation has not seen, the certificate holds."""
    distilled = bayesdd.distill(combined, size=8, student=sources[0], seed=0, progress=False)
    said = distilled.certificate
    assert said.ok and distilled.provenance["rows"] == 3000
    truth = bayesdd.certify(sources, distilled, student=sources[0], seed=3)
    assert truth.ok and truth.kl_reverse < said.kl_reverse + 3 * (said.kl_reverse_se + truth.kl_reverse_se)
    again = bayesdd.certify(combined, distilled, student=sources[0], seed=4)
    assert again.ok and again.kl_reverse_se >= 0.5 * (0.5 * combined.error**2)


def test_constrained_sites_and_the_mode(sources):
    """A scale by its logarithm: the mode of n normal values is near their root mean square."""
    y = torch.as_tensor(np.random.default_rng(1).normal(size=2000) * 1.5)
    one = bayesdd.summary(bayesdd.Task(spread, {"y": y}), at={"scale": 1.4})
    best = math.log(float(y.square().mean().sqrt()))
    assert float(one.mode[0]) == pytest.approx(best, abs=2e-3) and one.shift == pytest.approx(
        (best - math.log(1.4)) * math.sqrt(4000), rel=0.2
    )


def test_files_keep_everything_and_show_damage(combined, tmp_path):
    path = tmp_path / "s.nc"
    combined.to_netcdf(path)
    back = bayesdd.Summary.from_netcdf(path)
    assert torch.equal(back.third, combined.third) or torch.allclose(back.third, combined.third, rtol=1e-14, atol=1e-9)
    assert torch.equal(back.hessian, combined.hessian) and back.sites == combined.sites and back.error == combined.error
    raw = bytearray(path.read_bytes())
    at = raw.find(combined.gradient.numpy().tobytes()[:8])
    raw[at + 3] ^= 1
    (tmp_path / "bad.nc").write_bytes(raw)
    with pytest.raises(bayesdd.Refusal, match="damaged"):
        bayesdd.Summary.from_netcdf(tmp_path / "bad.nc")
    with pytest.raises(bayesdd.Refusal, match="no summary"):
        bayesdd.Distilled({"y": torch.zeros(2)}, torch.ones(2)).to_netcdf(tmp_path / "d.nc")
        bayesdd.Summary.from_netcdf(tmp_path / "d.nc")


def test_what_does_not_add_is_refused_by_name(sources, combined):
    one, other = bayesdd.summary(sources[0]), bayesdd.summary(sources[1])
    with pytest.raises(bayesdd.Refusal, match=r"source 1 .* another point"):
        bayesdd.combine([one, other])
    with pytest.raises(bayesdd.Refusal, match="same summary"):
        bayesdd.combine([one, one])
    scale = bayesdd.summary(bayesdd.Task(spread, {"y": torch.randn(50, dtype=torch.float64)}))
    with pytest.raises(bayesdd.Refusal, match="another model"):
        bayesdd.combine([one, scale])
    with pytest.raises(TypeError, match="part 1 is no summary"):
        bayesdd.combine([one, 3])
    with pytest.raises(bayesdd.Refusal, match="needs student="):
        bayesdd.distill(combined, size=8)
    with pytest.raises(bayesdd.Refusal, match="lacks latent site 'w'"):
        bayesdd.summary(sources[0], at={"b": 1.0})


def test_kinks_are_said():
    def hinge(y):
        t = pyro.sample("t", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.factor("row", -((y - t).abs() + (y - t) ** 2))

    task = bayesdd.Task(hinge, {"y": torch.linspace(-1, 1, 41, dtype=torch.float64)})
    with pytest.warns(bayesdd.CertificateWarning, match="a kink or a branch"):
        assert bayesdd.summary(task, at={"t": 0.001}).error > 0.01
