"""Long tables: what becomes of visits, units, states and static values, and what is refused in one line."""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest

from bayesdd import dbn
from bayesdd.data import DataNote
from bayesdd.dbn import Source, Template
from bayesdd.dbn.likelihood.source import gathered, joined

VISITS = pd.DataFrame(
    {
        "id": [7, 7, 7, 3, 3],
        "day": [0, 180, 360, 10, 400],
        "BILI": [17.1, 34.2, np.nan, 51.3, 17.1],
        "alb": [3.5, np.nan, 3.1, 4.0, 3.9],
        "sex": ["m", "m", "m", "f", "f"],
        "unused": 1,
    }
)
SETTINGS = {"patient": "id", "time": "day", "every": 365.25, "variables": {"BILI": "bili", "alb": "albumin"}}
COURSE = Template(("albumin", "bili"), inter=(("bili", "bili"), ("albumin", "albumin")))


def test_visits_come_to_the_nearest_step_by_patient_and_name():
    with pytest.warns(DataNote, match=r"2 values share a step"):  # those of day 180: day 0 is nearer
        source = Source.from_long(VISITS.assign(alb=[3.5, 3.6, 3.1, 4.0, 3.9]), **SETTINGS, static=["sex"])
    assert source.table.patients == (3, 7) and source.table.others == ("unused",)
    found = source.data["x"].sel(variable=["bili", "albumin"]).values
    np.testing.assert_array_equal(found[0], [[51.3, 4.0], [17.1, 3.9]])
    np.testing.assert_array_equal(found[1], [[17.1, 3.5], [np.nan, 3.1]])
    assert source.measures["sex"].labels == ("f", "m") and source.data["static"].values[:, 0].tolist() == [0, 1]


@pytest.mark.parametrize("save", ["frame", "csv", "parquet"])
def test_frames_and_files_give_the_same_rows(tmp_path, save):
    table = VISITS
    if save != "frame":
        table = tmp_path / f"visits.{save}"
        VISITS.to_csv(table, index=False) if save == "csv" else VISITS.to_parquet(table)
    source = Source.from_long(table, **{**SETTINGS, "every": 180}, slices=3)
    want = [[[51.3, 4.0], [np.nan, np.nan], [17.1, 3.9]], [[17.1, 3.5], [34.2, np.nan], [np.nan, 3.1]]]
    np.testing.assert_array_equal(source.data["x"].values, want)


def test_dates_count_from_the_first_visit_or_from_a_column():
    dated = pd.DataFrame(
        {"id": [1, 1, 2], "on": ["2020-01-01", "2021-01-01", "2020-06-01"], "in": "2019-01-01", "bili": [1.0, 2.0, 3.0]}
    )
    first = Source.from_long(dated, patient="id", time="on", every=365.25, variables=["bili"])
    assert first.data["x"].values[:, :, 0].tolist()[0] == [1.0, 2.0] and first.data["x"].values[1, 0, 0] == 3.0
    entered = Source.from_long(dated, patient="id", time="on", every="365.25D", variables=["bili"], start="in")
    np.testing.assert_array_equal(entered.data["x"].values[:, :, 0], [[np.nan, 1, 2], [np.nan, 3, np.nan]])


def two_hospitals(count=40, seed=0):
    """One population, bilirubin in umol/l here and in mg/dl there, without albumin there."""
    rng = np.random.default_rng(seed)
    log_bili = np.cumsum(rng.normal(0.3, 0.5, (count, 3)), 1)
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.arange(count), 3),
            "day": np.tile([0, 1, 2], count),
            "bili": np.exp(log_bili).ravel(),
            "albumin": (3.5 - 0.1 * log_bili + rng.normal(0, 0.2, (count, 3))).ravel(),
        }
    )
    north, south = frame[frame["id"] % 2 == 0], frame[frame["id"] % 2 == 1].drop(columns="albumin")
    return north, south


def sources_of(north, south, **more):
    common = {"patient": "id", "time": "day", **more}
    return [
        Source.from_long(north, **common, variables=["bili", "albumin"], transform={"bili": "log"}),
        Source.from_long(
            south.assign(bili=south["bili"] * 1e4 / 584.66),
            **common,
            variables=["bili"],
            transform={"bili": "log"},
            units={"bili": ("umol/l", "mg/dl")},
        ),
    ]


def test_sources_agree_on_one_scale_whoever_holds_which_rows():
    north, south = two_hospitals()
    sources = sources_of(north, south)
    rows, measures = joined(COURSE, sources)
    logs = np.log(np.concatenate([north["bili"], south["bili"]]))
    assert measures["bili"].centre == pytest.approx(logs.mean(), abs=1e-6)
    assert measures["bili"].scale == pytest.approx(logs.std(), rel=1e-6)
    np.testing.assert_allclose(measures["bili"].outside(rows[0][0][:, :, 1].numpy()).ravel(), north["bili"])
    assert measures["bili"].high == pytest.approx(np.exp(logs.max()), rel=1e-6)
    # A source that comes later takes on the scale of those that were standardised before.
    scaled = dbn.standardise(COURSE, sources)
    later = Source.from_long(
        south.assign(id=south["id"] + 1000), patient="id", time="day", variables=["bili"], transform={"bili": "log"}
    )
    again = gathered(COURSE, [*scaled, later])
    np.testing.assert_allclose(again[2][0][:, :, 1], rows[1][0][:, :, 1], rtol=1e-5)
    noisy = [Source(**{**vars(source), "noise": 0.2}) for source in sources]
    known = dbn.likelihood.source.with_noise(COURSE, noisy)[0]
    assert known.noise_of("bili") == pytest.approx(0.2 / logs.std(), rel=1e-6)


def test_three_lines_from_tables_to_a_table_with_names_and_units(tmp_path):
    north, south = two_hospitals()
    full = dbn.pooled(COURSE, sources_of(north, south), draws=400, fallback=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what complete rows over-state
        found = dbn.merge(COURSE, full.sources, size=6, complete=True, full=full)
    found.to_netcdf(tmp_path / "rows.nc")
    table = type(found).from_netcdf(tmp_path / "rows.nc").to_long()  # a warning of a value out of range would fail here
    assert list(table) == ["id", "day", "albumin", "bili", "weight"] and len(table) == 18
    every = pd.concat([north, south])
    assert table["bili"].between(every["bili"].min(), every["bili"].max()).all()
    middle = np.exp(np.average(np.log(table["bili"]), weights=table["weight"]))
    assert abs(np.log(middle) - np.log(every["bili"]).mean()) < 0.2  # mg/dl, not umol/l, not deviations
    assert list(found.to_frame())[:2] == ["albumin[0]", "albumin[1]"]
    np.testing.assert_allclose(found.to_frame()["bili[2]"], table["bili"][2::3])


def test_states_of_sources_that_see_some_only_are_coded_alike_and_a_second_time():
    course = Template(("bili", "stage"), static=("sex",), states={"sex": 2, "stage": (1, 2, 3)})
    some = VISITS.assign(stage=[1, 1, 2, 1, 1], alb=1.0)
    more = VISITS[VISITS["id"] == 7].assign(id=8, stage=[2, 3, 3], sex="m")
    settings = {"patient": "id", "time": "day", "every": 180, "variables": {"BILI": "bili", "stage": "stage"}}
    both = [Source.from_long(table, **settings, static=["sex"]) for table in (some, more)]
    scaled = dbn.standardise(course, both)
    for sources in (both, scaled, [*scaled, Source.from_long(more.assign(id=9), **settings, static=["sex"])]):
        rows = gathered(course, sources)
        assert rows[0][1].tolist() == [[0.0], [1.0]] and rows[1][1].tolist() == [[1.0]]
        assert rows[1][0][0, :, 1].tolist() == [1.0, 2.0, 2.0] and rows[-1][0][0, :3, 1].tolist()[0] == 1.0


REFUSED = {
    "no time": ({"day": ["a", 1, 2, 3, 4]}, {}, ["'day'", "no time", "'a'"]),
    "no time at all": ({"day": [np.nan, 1, 2, 3, 4]}, {}, ["patient 7", "without a time"]),
    "twice": ({"day": [0, 0, 1, 2, 3]}, {}, ["patient 7", "two rows at day 0", "mean"]),
    "no patient": ({"id": [7, np.nan, 7, 3, 3]}, {}, ["row 1", "no patient"]),
    "units": ({}, {"units": {"albumin": ("g/l", "mm")}}, ["'alb'", "does not convert", "'mm'"]),
    "molar": ({}, {"units": {"albumin": ("umol/l", "g/dl")}}, ["'alb'", "molar mass", "g/mol"]),
    "strange unit": ({}, {"units": {"bili": ("umol/l", "zork")}}, ["'BILI'", "zork", "as pint does"]),
    "log": ({"alb": [0, 1, 2, 3, 4]}, {"transform": {"albumin": "log"}}, ["'alb'", "holds 0", "'log'", "log1p"]),
    "transform": ({}, {"transform": {"albumin": "cube"}}, ["'cube'", "'log'"]),
    "typing": ({}, {"variables": {"Bili": "bili"}}, ["'Bili'", "'BILI'"]),
    "all missing": ({"alb": np.nan}, {}, ["'alb'", "every entry missing", "variables="]),
    "changing sex": ({"sex": ["m", "f", "m", "f", "f"]}, {"static": ["sex"]}, ["patient 7", "'sex'", "one value"]),
    "before": ({"day": [-400, 1, 2, 3, 4]}, {}, ["patient 7", "before the start"]),
    "every": ({"day": np.arange(5) * 1e6}, {"every": 1}, ["every=", "unit of the times"]),
    "no rows": ({"id": [], "day": [], "BILI": [], "alb": []}, {}, ["no rows", "visit"]),
    "no step": ({}, {"every": 0}, ["every=", "above zero"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_tables_are_refused_by_patient_or_variable_with_a_remedy(name):
    columns, settings, words = REFUSED[name]
    with pytest.raises((ValueError, TypeError)) as caught:
        table = VISITS.head(len(columns["id"]) if "id" in columns else None).assign(**columns)
        Source.from_long(table, **{**SETTINGS, **settings})
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words), str(caught.value)


def test_patients_of_two_sources_are_refused_and_numbers_of_their_own_taken():
    north, south = two_hospitals()
    shared = [*sources_of(north, south), sources_of(north.head(3), south)[0]]
    with pytest.raises(ValueError, match=r"source 0 and source 2 both hold patient 0, whose rows would count twice"):
        gathered(COURSE, shared)
    own = sources_of(north, south.assign(id=south["id"] - 1), own_ids=True)
    assert [len(x) for x, _ in gathered(COURSE, own)] == [20, 20]


def test_what_two_sources_do_not_agree_on_is_refused_or_said():
    north, south = two_hospitals()
    first, second = sources_of(north, south)
    plain = Source.from_long(south, patient="id", time="day", variables=["bili"])
    with pytest.raises(ValueError, match="source 1: variable 'bili' has transform None, but 'log' in source 0"):
        gathered(COURSE, [first, plain])
    with pytest.raises(ValueError, match="source 1: variable 'albumin' holds numbers of a scale of its own"):
        gathered(COURSE, [first, Source({"x": np.zeros((3, 2, 2))})])
    lost = Source.from_long(north, patient="id", time="day", variables=["bili"], transform={"bili": "log"})
    with pytest.warns(DataNote, match="column 'albumin', as the template has a variable, but variables= does not name"):
        joined(COURSE, [lost, second])


FOLLOWED = pd.DataFrame(
    {
        "id": [1, 1, 2, 2, 3, 4],
        "year": [0.0, 1.1, 0.0, 2.0, 0.0, 0.0],
        "bili": [1.0, 2.0, 1.5, 3.0, 0.7, 2.2],
        "until": [2.3, 2.3, 3.9, 3.9, 9.0, np.nan],
        "status": ["dead", "dead", "lost", "lost", "dead", "dead"],
    }
)


def test_ends_stand_at_the_first_slice_after_them_and_follow_up_at_the_last_before():
    course = Template(
        ("bili", "end"), inter=(("bili", "bili"), ("bili", "end")), states={"end": ("lost", "dead")}, terminal="end"
    )
    read = functools.partial(
        Source.from_long, FOLLOWED, patient="id", time="year", ends={"end": ("until", "status", "lost")}
    )
    source = read(slices=6)
    nan = np.nan
    np.testing.assert_array_equal(source.data["x"].sel(variable="bili").values[0], [1, 2, nan, nan, nan, nan])
    (rows,) = gathered(course, [source])
    expected = [[0, 0, 0, 1, nan, nan], [0, 0, 0, 0, nan, nan], [0, 0, 0, 0, 0, 0], [nan] * 6]
    np.testing.assert_array_equal(rows[0][..., 1].numpy(), expected)  # a death at 9 is life at 5; 4 has no time
    assert read().data["x"].shape == (4, 10, 2)
    days = FOLLOWED.assign(
        year=pd.Timestamp("2001-05-01") + pd.to_timedelta(365.25 * FOLLOWED["year"], unit="D"),
        until=pd.Timestamp("2001-05-01") + pd.to_timedelta(365.25 * FOLLOWED["until"], unit="D"),
    )
    dated = Source.from_long(
        days, patient="id", time="year", every=365.25, slices=6, ends={"end": ("until", "status", "lost")}
    )
    np.testing.assert_array_equal(dated.data["x"].values, source.data["x"].values)


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ({"end": ("until", "status")}, r"says how 'end' comes: \(column of its time, column of its state"),
        ({"end": ("until", "status", "alive")}, r"'alive' is none of the states \['dead', 'lost'\] in column 'status'"),
        ({"end": ("bili", "status", "lost")}, "patient 1 has several 'bili'"),
        ({"bili": ("until", "status", "lost")}, "'bili' is in variables= and in ends="),
        ({"end": ("untill", "status", "lost")}, "there is no column 'untill': do you mean 'until'"),
    ],
)
def test_ends_that_cannot_be_read_are_refused(ends, message):
    with pytest.raises(ValueError, match=message):
        Source.from_long(FOLLOWED, patient="id", time="year", variables=["bili"], ends=ends)
