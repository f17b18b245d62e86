"""Intervals against published values, by hand, and each other."""

import math

import numpy as np
import pytest
from scipy import stats

from constclf_lib.evaluation import (
    bootstrap_interval,
    paired_difference,
    paired_rate_difference,
    t_interval,
    wilson_interval,
)


def test_wilson_against_published_values():
    """Newcombe (1998), table I, method 3, and the closed form at 0 of n."""
    for (successes, n), expected in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
    }.items():
        assert wilson_interval(successes, n) == pytest.approx(expected, abs=5e-5)
    assert wilson_interval(7, 7)[1] == 1.0
    for bad in [(1, 0), (3, 2), (-1, 5), (2.5, 5), (2, 5.5)]:
        with pytest.raises(ValueError):
            wilson_interval(*bad)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("n", [1, 7, 263, 5000])
def test_wilson_is_its_closed_form(n, confidence):
    z = stats.norm.ppf(0.5 + confidence / 2)
    for k in (0, n // 3, n):
        middle, half = k / n + z * z / (2 * n), z * math.sqrt(k / n * (1 - k / n) / n + z * z / (4 * n * n))
        want = [(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)]
        assert wilson_interval(k, n, confidence) == pytest.approx(want, abs=1e-15)


def test_paired_difference_by_hand_and_by_key():
    difference = paired_difference({0: 0.9, 1: 0.8, 2: 0.7}, {2: 0.4, 0: 0.8, 1: 0.6})
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert difference == pytest.approx((0.2, 0.2 - half, 0.2 + half, 3), abs=1e-6)
    with pytest.raises(ValueError, match="one side"):
        paired_difference({0: 1.0}, {1: 1.0})
    with pytest.raises(ValueError, match="two"):
        paired_difference([1.0], [0.0])


def test_paired_rate_difference_covers_and_keeps_its_sign():
    before, after = np.zeros(5000, bool), np.zeros(5000, bool)
    same = paired_rate_difference(before, after)
    assert same.mean == 0 and same.low < 0 < same.high < 0.001
    after[:19] = True
    more = paired_rate_difference(before, after)
    assert more.mean == pytest.approx(0.0038) and 0 < more.low < 0.0038 < more.high < 0.007
    assert paired_rate_difference(after, before).mean == -more.mean


def test_bootstrap_resamples_rows_together():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap_interval(values)
    expected = t_interval(values)
    assert (low, high) == pytest.approx(expected, abs=0.03)
    assert bootstrap_interval(values, values, statistic=lambda a, b: (a - b).mean()) == (0.0, 0.0)
    with pytest.raises(ValueError):
        bootstrap_interval(values, values[1:])
