"""Every figure shows what it was given: positions, widths and areas that the data say."""

import math

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd import dbn
from bayesdd.data.accuracy import Accuracy
from bayesdd.data.certificate import Certificate
from bayesdd.data.predictive import PredictiveCertificate
from bayesdd.dbn.learning import Edges
from bayesdd.posterior.arviz import dataset, to_arviz
from bayesdd.reports.comparison import compared

pytest.importorskip("matplotlib").use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

GOOD = Certificate(1e-3, 1e-4, 2e-3, 1e-4, 1e-3, 1e-4, 0.1, 0.05, 900.0, 10.0, 10.0, 0.0, 1000, 0.05)
OWN_TERMS = PredictiveCertificate(
    9.0, 0.1, 3.0, 0.1, 8, 0.05, accuracy=Accuracy(0.01, 1e-3, 0.04, 0.06, 0.9, 0.01, 0.87, asked=0.05)
)
NET = dbn.Template(("dose", "symptom"), (("dose", "symptom"),), (("symptom", "symptom"),), static=("age",))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def idata(shift, scale, chains=2, draws=400, seed=0):
    """Two coefficients and a constant; the second has this mean and sd."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(chains, draws, 2)) * [1.0, scale] + [0.0, shift]
    coords = {"term": ["one", "two"]}
    return to_arviz(
        {"posterior": dataset({"w": w, "c": np.ones((chains, draws))}, dims={"w": ["term"]}, coords=coords)}
    )


def field_model(x, y=None):
    """A plane over two inputs."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ w, 0.1), obs=y)


@pytest.fixture(scope="module")
def plane():
    x = np.random.default_rng(0).uniform(size=(60, 2))
    return bayesdd.Task(field_model, {"x": x, "y": x.sum(1)})


def some_rows(task, weight):
    return bayesdd.Distilled({name: column[: len(weight)] for name, column in task.data.items()}, weight)


def test_the_parameter_that_differs_most_comes_first():
    table = compared(idata(0.0, 1.0), idata(2.0, 0.5, seed=1))
    assert next(iter(table.index)) == "w[two]" and "c" in table.index
    # Standard errors of a mean and an sd of 800 draws: 0.035 and 0.025 sds.
    assert table.loc["w[two]", "shift"] == pytest.approx(2.0, abs=0.2)
    assert table.loc["w[two]", "sd_ratio"] == pytest.approx(0.5, abs=0.05)
    assert table.loc["w[one]", "shift"] == pytest.approx(0.0, abs=0.2) and table.loc["c", "shift"] == 0
    assert table.loc["w[one]", "full_rhat"] == pytest.approx(1.0, abs=0.02)


def test_posteriors_are_drawn_where_their_draws_lie():
    figure = bayesdd.plot_posteriors(idata(0.0, 1.0), idata(5.0, 1.0, seed=1), names=["w[two]"])
    (axis,) = figure.axes
    tops = [line.get_xdata()[np.argmax(line.get_ydata())] for line in axis.lines]
    assert tops[0] == pytest.approx(0.0, abs=0.6) and tops[1] == pytest.approx(5.0, abs=0.6)
    with pytest.raises(bayesdd.Refusal, match=r"'w\[three\]'"):
        bayesdd.plot_posteriors(idata(0.0, 1.0), idata(0.0, 1.0), names=["w[three]"])
    with pytest.raises(bayesdd.Refusal, match="group 'posterior'"):
        bayesdd.plot_posteriors(GOOD, idata(0.0, 1.0))


def test_a_certificate_stands_left_of_its_tolerance_if_it_is_ok():
    for certificate, values in (
        (GOOD, [2e-3, 1e-3]),
        (PredictiveCertificate(0.02, 0.001, math.exp(0.03), 0.001, 8, 0.1), [0.03, 0.02]),
        (OWN_TERMS, [0.03, 0.02, 0.01]),
    ):
        (axis,) = bayesdd.plot_certificate(certificate).axes
        points = [float(line.get_xdata()[0]) for line in axis.lines if line.get_marker() == "o"]
        limit = [float(line.get_xdata()[0]) for line in axis.lines][-1]
        assert points == pytest.approx(values) and limit == certificate.tolerance > max(points)
    with pytest.raises(bayesdd.Refusal, match="certify"):
        bayesdd.plot_certificate(None)


def test_rounds_of_the_final_size_are_drawn(plane):
    with pytest.raises(bayesdd.Refusal, match="no rounds"):
        bayesdd.plot_rounds(some_rows(plane, np.ones(3)))
    distilled = bayesdd.distill(plane, size=6, seed=0, progress=False)
    (axis,) = bayesdd.plot_rounds(distilled).axes
    recorded = [one["nats"] for one in distilled.provenance["rounds"] if one["size"] == 6]
    assert list(axis.lines[0].get_ydata()) == pytest.approx([max(value, 1e-12) for value in recorded])
    assert distilled.provenance["rounds"][0]["stage"] == "start 1"


def test_rows_have_the_area_of_their_weight(plane):
    figure = bayesdd.plot_rows(plane, some_rows(plane, np.array([1.0, 2.0, 4.0])))
    assert [(axis.get_xlabel(), axis.get_ylabel()) for axis in figure.axes] == [("x[0]", "y"), ("x[1]", "y")]
    sizes = figure.axes[0].collections[1].get_sizes()
    assert sizes / sizes[0] == pytest.approx([1.0, 2.0, 4.0])


def test_codes_are_told_by_their_labels_and_dollars_stay_dollars():
    n, wards = 60, ["$east$", r"$\no such$", "west wing, second floor"]
    frame = pd.DataFrame({"$age": np.linspace(-1, 1, n), "ward": np.resize(wards, n), "y": np.linspace(0, 1, n)})

    def model(age, ward, y=None):
        level = pyro.sample("level", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        with pyro.plate("data", len(age)):
            return pyro.sample("y", dist.Normal(level[ward] + age, 0.1), obs=y)

    task = bayesdd.Task(model, frame, columns={"age": "$age", "ward": "ward", "y": "y"})
    figure = bayesdd.plot_rows(task, some_rows(task, torch.ones(3, dtype=torch.float64)))
    figure.canvas.draw()  # where text that is taken for mathematics fails
    (ward,) = (axis for axis in figure.axes if axis.get_xlabel() == "ward")
    assert [label.get_text() for label in ward.get_xticklabels()] == [r"$\no such$", "$east$", "west wing…"]
    with pytest.raises(bayesdd.Refusal, match="two inputs of numbers"):
        bayesdd.plot_field(task, some_rows(task, torch.ones(3, dtype=torch.float64)))


@pytest.mark.parametrize("plot", ["certificate", "rounds", "weights"])
def test_powers_of_ten_are_plain_text(plot, plane):
    if plot == "certificate":
        figure = bayesdd.plot_certificate(GOOD)
    elif plot == "rounds":
        figure = bayesdd.plot_rounds(bayesdd.distill(plane, size=8, seed=0, progress=False))
    else:
        figure = bayesdd.plot_weights(torch.linspace(0.0, 3.0, 400, dtype=torch.float64))
    figure.canvas.draw()
    (axis,) = figure.axes
    texts = [label.get_text() for side in (axis.xaxis, axis.yaxis) for label in side.get_ticklabels(which="both")]
    assert any(texts) and not any("$" in text or "\\" in text for text in texts)


def test_a_field_has_one_colour_scale(plane):
    figure = bayesdd.plot_field(plane, some_rows(plane, np.ones(3)))
    real, made = (axis.collections[0] for axis in figure.axes[:2])
    assert real.get_clim() == made.get_clim() and len(made.get_offsets()) == 3
    assert np.asarray(made.get_array()) == pytest.approx(plane.data["y"][:3].numpy())


def test_sequences_show_medians_and_names(plane):
    values = {site: torch.full(shape, 0.3, dtype=torch.float64) for site, shape in NET.sites.items()}
    task = dbn.task(NET, dbn.simulate(NET, values, 50, 4, 0))
    figure = bayesdd.plot_sequences(task, some_rows(task, np.ones(3)))
    assert [axis.get_title("left") for axis in figure.axes] == ["dose", "symptom"]
    middle = figure.axes[1].lines[0].get_ydata()
    assert middle == pytest.approx(np.median(task.data["x"][..., 1].numpy(), 0))
    assert len(figure.axes[0].lines) == 1 + 3
    with pytest.raises(bayesdd.Refusal, match="plot_rows"):
        bayesdd.plot_sequences(plane, some_rows(plane, np.ones(3)))


def test_a_network_has_an_arrow_an_edge():
    figure = bayesdd.plot_network(NET)
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said.count("symptom") == 2 and said.count("dose") == 1 and said.count("age") == 1
    assert len(figure.axes[0].patches) == 2
    edges = Edges(NET, pd.Series({("age", "dose"): 0.8, ("dose_before", "dose"): 0.3, ("age", "symptom"): 0.01}))
    figure = bayesdd.plot_network(edges)
    assert {"0.80", "0.30"} <= {text.get_text() for text in figure.axes[0].texts} and len(figure.axes[0].patches) == 2
    with pytest.raises(bayesdd.Refusal, match=r"dbn\.Template"):
        bayesdd.plot_network("age")


def test_the_fitted_tail_is_that_of_pareto_weights():
    # Weights of shape 0.5: the line has slope -0.5 far out, and passes through the median of the tail.
    uniform = (np.arange(4000) + 0.5) / 4000
    (axis,) = bayesdd.plot_weights(-0.5 * np.log(uniform)).axes
    share, weight = axis.lines[1].get_xdata(), axis.lines[1].get_ydata()
    truth = axis.lines[0].get_ydata()[: len(share)]
    assert weight[len(weight) // 2] == pytest.approx(truth[len(weight) // 2], rel=0.02)
    assert weight[3] == pytest.approx(truth[3], rel=0.2)
    with pytest.raises(bayesdd.Refusal, match="25"):
        bayesdd.plot_weights(np.zeros(3))


def test_ranks_are_counted():
    ranks = pd.DataFrame({"w": np.repeat(np.arange(100), 2)})
    figure = bayesdd.plot_calibration(bayesdd.Calibration(ranks, 99, 0))
    bars = [bar.get_height() for bar in figure.axes[0].containers[0]]
    assert bars == [20] * 10
    with pytest.raises(bayesdd.Refusal, match="calibrate"):
        bayesdd.plot_calibration(ranks)
