"""How figures become SVG, and densities."""

import re

import numpy as np
import pytest

from bayesdd.reports import style

plt = pytest.importorskip("matplotlib.pyplot")


def test_a_density_has_the_mass_of_one():
    at, height = style.density(np.random.default_rng(0).normal(3.0, 2.0, 4000))
    assert np.trapezoid(height, at) == pytest.approx(1.0, abs=0.01)
    at, height = style.density(np.full(50, 2.0))
    assert set(at) == {2.0} and np.isfinite(height).all()


def test_areas_are_in_proportion_to_weights():
    found = style.areas([1.0, 2.0, 4.0])
    assert found[2] / found[0] == pytest.approx(4.0) and found.max() == style.LARGEST


def test_every_panel_becomes_a_picture_of_one_size_in_the_colours_of_the_page():
    figure, axes = style.panels(3)
    for i, axis in enumerate(axes):
        axis.plot([0, 10**i], [0, 1], color=style.FULL)
    made = style.vectors(figure, ["one", "two & three", "four"])
    boxes = {re.search(r'viewBox="[\d. ]+"', one)[0] for one in made}
    assert len(made) == 3 and len(boxes) == 1
    assert "two &amp; three" in made[1]
    assert all("var(--full)" in one and style.FULL not in one and "<metadata" not in one for one in made)
    assert not plt.fignum_exists(figure.number)
