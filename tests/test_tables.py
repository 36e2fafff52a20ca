"""A table as people have it, text, dates, blanks and yes/no, to a distilled set and a posterior with its labels."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd

WARDS = ["east", "north", "west"]

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


def model(ward, age, died=None):
    """Effects of ward a ~ N(0, I) and of age b ~ N(0, 1); died ~ Bernoulli(logit a[ward] + b age), where known."""
    a = pyro.sample("a", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    known = died is None or ~died.isnan()
    with pyro.plate("data", len(ward)), pyro.poutine.mask(mask=known):
        pyro.sample("died", dist.Bernoulli(logits=a[ward] + b * age), obs=died if died is None else died.nan_to_num())


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    ward, age = rng.choice(WARDS, 300), rng.normal(size=300)
    died = rng.random(300) < 1 / (1 + np.exp(-age - (ward == "west")))
    frame = pd.DataFrame({"ward": ward, "age": age, "died": np.where(died, "yes", "no")})
    frame["seen"] = pd.date_range("2020-01-01", periods=300).strftime("%Y-%m-%d")
    frame.loc[[3, 7], "died"] = None
    return frame


def test_from_a_table_to_a_posterior_with_its_labels(table, tmp_path):
    table.to_csv(tmp_path / "rows.csv")
    with pytest.warns(bayesdd.DataNote, match=r"no columns \['', 'seen'\]"):
        task = bayesdd.Task(model, tmp_path / "rows.csv", dims={"a": ["ward"]})
    distilled = bayesdd.distill(task, size=8, seed=0, progress=False)
    assert distilled.certificate.ok
    assert list(distilled.certificate.corrected.index) == ["a[east]", "a[north]", "a[west]", "b"]
    assert set(distilled.to_frame()["ward"]) == set(WARDS)
    distilled.to_netcdf(tmp_path / "d.nc")
    distilled = bayesdd.Distilled.from_netcdf(tmp_path / "d.nc")
    idata = bayesdd.sample(task, distilled, draws=50, chains=2, method=bayesdd.inference.laplace)
    bayesdd.posterior.write(idata, tmp_path / "posterior.nc")
    idata = bayesdd.posterior.read(tmp_path / "posterior.nc")
    assert idata.posterior["a"].dims == ("chain", "draw", "ward")
    assert idata.posterior["ward"].values.tolist() == WARDS
    labels = idata.distilled_data["ward"].attrs["labels"]
    assert labels == '["east", "north", "west"]'
    new = pd.DataFrame({"ward": ["west", "east"], "age": [0.0, 0.0]})
    predicted = bayesdd.predict(task, idata, new)
    assert predicted.constant_data["ward"].values.tolist() == [2, 0]
    with pytest.raises(ValueError, match="'ward' has the label 'south', which is none of"):
        bayesdd.predict(task, idata, new.replace("west", "south"))
    missing = new.assign(ward=["west", None])
    with pytest.raises(ValueError, match="'ward' holds whole numbers in the task, entries are missing"):
        bayesdd.predict(task, idata, missing)


def test_labels_are_codes_to_every_number(table):
    """The same rows as text, as categoricals and as codes have one log-likelihood."""
    frame = table.drop(columns="seen").dropna()
    codes = frame.assign(ward=[WARDS.index(ward) for ward in frame["ward"]], died=(frame["died"] == "yes"))
    shuffled = pd.CategoricalDtype(["west", "east", "north"])
    tasks = [bayesdd.Task(model, rows) for rows in (frame, codes, frame.assign(ward=frame["ward"].astype(shuffled)))]
    draws = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    text, number, other = (task.log_likelihood(task.data, draws) for task in tasks[:2] + tasks[2:])
    assert torch.equal(text, number)
    order = [*[WARDS.index(ward) for ward in shuffled.categories], 3]
    turned = tasks[2].log_likelihood(tasks[2].data, draws[:, order])
    torch.testing.assert_close(turned, text)
    assert not torch.equal(other, text)
    ordered = bayesdd.Task(model, frame, labels={"ward": list(shuffled.categories)})
    assert torch.equal(ordered.data["ward"], tasks[2].data["ward"])
    with pytest.raises(ValueError, match="labels= names 'wards', which is no column that is taken"):
        bayesdd.Task(model, frame, labels={"wards": WARDS})
    with pytest.raises(ValueError, match="'ward' has the label 'west', which is none of"):
        bayesdd.Task(model, frame, labels={"ward": WARDS[:2]})
    again = tasks[0].with_data(frame.query("ward != 'east'"))
    assert again.data["ward"].tolist() == codes.query("ward != 0")["ward"].tolist()
    with pytest.raises(ValueError, match="'south'"):
        tasks[0].with_data(frame.replace({"ward": {"west": "south"}}))
