"""What is missing behind a correction."""

import pytest

from bayesdd.pinn.remainder import MOST, missing


def test_a_correction_repeated_sums_up_to_what_is_missing():
    """Corrections of a linear equation that each leave a third: 1/3 + 1/9 + ... of the first are missing behind it."""
    assert missing(1 / 3) == pytest.approx(sum(3.0**-power for power in range(1, 60)))
    assert missing(0.0) == 0.0
    assert missing(2.0) == missing(MOST) == pytest.approx(MOST / (1 - MOST))
