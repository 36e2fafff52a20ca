"""Sources: how their rows become the columns of one target, and what is refused."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from bayesdd import dbn
from bayesdd.dbn.likelihood import unconstrain
from bayesdd.dbn.likelihood.source import Source, apart, gathered
from bayesdd.dbn.template.template import Template

CHAIN = Template(("a", "b", "c"), static=("s",), intra=(("s", "a"), ("a", "b")), inter=(("b", "c"), ("c", "c")))
STATES = Template(("a", "b"), intra=(("a", "b"),), states={"a": 2, "b": 3})


def rows(count=12, slices=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, slices, 3, generator=generator, dtype=torch.float64)
    return {"x": x, "static": torch.randn(count, 1, generator=generator, dtype=torch.float64)}


def test_own_columns_find_their_places_and_what_is_not_seen_is_missing():
    data = rows()
    own = {"x": data["x"][:, :, [2, 0]]}  # its own order, nothing static
    (x, static), (whole, _) = gathered(CHAIN, [Source(own, variables=("c", "a")), Source(data)])
    assert torch.equal(x[:, :, [2, 0]], own["x"]) and x[:, :, 1].isnan().all() and static.isnan().all()
    assert torch.equal(whole, data["x"])
    (x, static), _ = gathered(CHAIN, [Source(data, variables=("b", "s")), Source(data)])
    assert torch.equal(x.isnan(), torch.tensor([True, False, True]).expand(12, 3, 3))
    assert torch.equal(static, data["static"])


def test_sequences_of_unequal_length_are_padded_and_rows_without_an_entry_left_out():
    long, short = rows(4, 5), rows(3, 1, seed=1)
    lists = [long["x"][i, : i + 1] for i in range(4)]
    data = {"x": lists, "static": long["static"]}
    empty = {"x": torch.cat([short["x"], torch.full((2, 1, 3), torch.nan)]), "static": torch.full((5, 1), torch.nan)}
    (x, _), (y, _) = gathered(CHAIN, [Source(data), Source(empty)])
    assert x.shape == (4, 4, 3) and y.shape == (3, 4, 3)
    assert all(torch.equal(x[i, : i + 1], lists[i]) and x[i, i + 1 :].isnan().all() for i in range(4))
    assert torch.equal(y[:, :1], short["x"]) and y[:, 1:].isnan().all()


def test_rows_given_are_not_changed():
    data = rows()
    before = data["x"].clone()
    gathered(CHAIN, [Source(data, variables=("a",)), Source(data)])
    assert torch.equal(data["x"], before)


def test_pairs_are_apart_where_no_row_has_both():
    data = rows()
    found = gathered(CHAIN, [Source(data, ("a", "b")), Source(data, ("b", "c", "s"))])
    assert apart(CHAIN, found) == [("s", "a"), ("a", "c")]
    # Two rows of one source, one of which has a and the other b, have not seen them together.
    split = data["x"].clone()
    split[::2, :, 0], split[1::2, :, 1:] = torch.nan, torch.nan
    assert ("a", "b") in apart(CHAIN, gathered(CHAIN, [Source({"x": split, "static": data["static"]})]))


def test_sources_with_no_common_variable_are_merged_with_a_warning_that_names_what_nobody_saw():
    data = rows()
    with pytest.warns(UserWarning, match=r"source 0 and source 1 have no variable in common; .*\(s, b\), .*\(a, c\)"):
        gathered(CHAIN, [Source(data, ("a", "s")), Source(data, ("b", "c"))])


def test_target_is_the_sum_of_the_sources_likelihoods_under_their_own_noise():
    data = rows()
    sources = [Source(data, ("a", "b", "s"), noise=0.3), Source({"x": data["x"]}, ("b", "c"), noise_site="error")]
    tasks = dbn.target(CHAIN, sources)
    generator = torch.Generator().manual_seed(2)
    unknown = dataclasses.replace(CHAIN, noise_site="error")
    draws = {
        site: (0.5 if shape else 0.2) + 0.3 * torch.rand(3, *shape, generator=generator, dtype=torch.float64)
        for site, shape in unknown.sites.items()
    }
    known = dataclasses.replace(CHAIN, noise=0.3)
    for task, template, some in zip(tasks, (known, unknown), gathered(CHAIN, sources), strict=True):
        found = task.log_likelihood(task.data, unconstrain(template, draws))
        x, static = some
        if static.isnan().all():  # a column needs one number: of a row more, which is left out again
            x, static = torch.cat([x, x[:1]]), torch.cat([static, torch.zeros(1, 1)])
        theirs = dbn.log_likelihood(template, draws, {"x": x, "static": static})[:, : len(some[0])]
        torch.testing.assert_close(found, theirs)
    assert "static" not in tasks[1].data and set(tasks[1].sites) - set(tasks[0].sites) == {"error"}


def test_student_takes_complete_rows_and_the_sources_patterns():
    data = rows(12, 4)
    sources = [Source(data, ("a", "b", "s"), noise=0.3), Source(data, ("b", "c"), noise=0.1)]
    student = dbn.student(CHAIN, 4, sources)
    assert set(student.sites) == set(CHAIN.sites)
    draws = torch.zeros(1, student.dim, dtype=torch.float64)
    patterns = [data["x"], *(x for x, _ in gathered(CHAIN, sources))]
    thin = patterns[1].clone()
    thin[:, 1::2] = torch.nan  # merged rows of noisy sources may lack every second slice
    static = [data["static"], data["static"], torch.full((12, 1), torch.nan).double(), data["static"]]
    for x, fixed in zip([*patterns, thin], static, strict=True):
        assert torch.isfinite(student.log_likelihood({"x": x, "static": fixed}, draws)).all()
    plain = dbn.student(CHAIN, 4)
    torch.testing.assert_close(plain.log_likelihood(data, draws), student.log_likelihood(data, draws))
    with pytest.raises(ValueError, match="the sources have 4 slices, not 5"):
        dbn.student(CHAIN, 5, sources)


X = rows()["x"]
REFUSED = {
    "none": (CHAIN, [], "at least one source"),
    "no source": (CHAIN, [{"x": X}], "source 0 must be a Source"),
    "unknown": (CHAIN, [Source({"x": X}, ("a", "q"))], "variables= names 'q', which is none of"),
    "unseen": (CHAIN, [Source(rows(), ("a", "b", "s"))], "no source sees the variable 'c': leave it out"),
    "empty": (CHAIN, [Source(rows()), Source({"x": X * torch.nan})], "source 1: no entry of any sequence was seen"),
    "hidden": (
        CHAIN,
        [Source(rows()), Source({"x": torch.where(torch.tensor([True, True, False]), X, torch.nan)}, ("c",))],
        r"source 1 has seen no entry of the variables \['c'\]",
    ),
    "wide": (CHAIN, [Source({"x": X[:, :, :2]})], r"source 0: Template needs column 'x' of shape"),
    "list": (CHAIN, [Source({"x": [X[0], X[1, :, :2]]})], "a list of sequences needs arrays"),
    "missing": (CHAIN, [Source({"static": rows()["static"]})], "source 0: Template needs the columns"),
    "own noise": (dataclasses.replace(CHAIN, noise=0.1), [Source(rows())], "noise belongs to the sources"),
    "states": (STATES, [Source({"x": torch.full((2, 1, 2), 2)})], "source 0: .*variable 'a' has the states 0 to 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_fits_no_template_is_refused_in_one_line(name):
    template, sources, message = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=message) as error:
        gathered(template, sources)
    assert "\n" not in str(error.value)


def test_noise_on_states_is_refused():
    with pytest.raises(ValueError, match="measurement noise is for linear-Gaussian variables"):
        dbn.target(STATES, [Source({"x": torch.ones(3, 2, 2)}, noise=0.1)])


def test_numpy_and_integers_are_taken():
    (x, _), _ = gathered(STATES, [Source({"x": np.ones((3, 2, 2), int)}), Source({"x": np.ones((3, 2, 2))})])
    assert x.dtype == torch.float64 and (x == 1).all()


CONTAINERS = {
    "masked": lambda x, gap: np.ma.masked_array(np.where(gap, -999.0, x), gap),
    "list of masked": lambda x, gap: [
        np.ma.masked_array(np.where(g, -999.0, a), g) for a, g in zip(x, gap, strict=True)
    ],
    "objects with None": lambda x, gap: np.where(gap, None, x),
    "nested lists with None": lambda x, gap: np.where(gap, None, x).tolist(),
    "big endian": lambda x, gap: np.where(gap, np.nan, x).astype(">f8"),
    "negative strides": lambda x, gap: np.where(gap, np.nan, x)[:, ::-1].copy()[:, ::-1],
    "data array": lambda x, gap: xr.DataArray(np.where(gap, np.nan, x), dims=["patient", "visit", "what"]),
    "data frames": lambda x, gap: [pd.DataFrame(a) for a in np.where(gap, np.nan, x)],
    "nullable data frames": lambda x, gap: [pd.DataFrame(a).convert_dtypes() for a in np.where(gap, np.nan, x)],
}


def _x(x):
    """``x`` as the target has it, beside masked static values, of which half are seen."""
    static = np.ma.masked_array(np.arange(len(x), dtype=float), np.arange(len(x)) % 2 == 0)[:, None]
    found, other = gathered(CHAIN, [Source({"x": x, "static": static})])[0]
    assert other.isnan()[:, 0].tolist() == [i % 2 == 0 for i in range(len(x))]
    return found


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_rows_and_keeps_its_mask(name):
    x = rows()["x"].numpy()
    gap = np.arange(x.size).reshape(x.shape) % 5 == 0
    want = _x(torch.from_numpy(np.where(gap, np.nan, x)))
    assert int(want.isnan().sum()) == gap.sum()
    found = _x(CONTAINERS[name](x, gap))
    assert torch.equal(found.nan_to_num(7.0), want.nan_to_num(7.0))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.full((2, 3, 3), "yes"), ["source 0", "'x'", "text", "'yes'", "codes"]),
        (np.full((2, 3, 3), np.datetime64("2020-01-01")), ["source 0", "'x'", "dates"]),
        (np.full((2, 3, 3), 1j), ["source 0", "'x'", "not real"]),
        (np.full((2, 3, 3), np.inf), ["source 0", "'x'", "infinite"]),
        ([np.full((3, 3), "no")], ["source 0", "'x'", "text", "'no'", "'a'"]),
    ],
)
def test_what_is_no_number_is_refused_by_source_column_and_remedy(x, words):
    with pytest.raises(ValueError) as caught:
        _x(x)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)
