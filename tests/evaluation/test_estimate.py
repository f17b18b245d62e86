"""One shape for a figure with its interval."""

import numpy as np
import pytest

from constclf_lib.evaluation import Estimate, estimate_rate, rate_of, wilson_interval


def test_a_rate_from_counts_and_from_bools_is_the_same():
    assert estimate_rate(3, 10) == (0.3, *wilson_interval(3, 10), 10) == rate_of([True] * 3 + [False] * 7)
    assert rate_of(np.eye(2)) == estimate_rate(2, 4)
    for nothing in (lambda: rate_of([]), lambda: estimate_rate(0, 0), lambda: estimate_rate(2, 1)):
        with pytest.raises(ValueError):
            nothing()


def test_what_is_stored_is_rounded_and_plain():
    stored = Estimate(0.123456, 0.1, 0.20004, 7).stored()
    assert stored == {"value": 0.1235, "interval": [0.1, 0.2], "n": 7}
