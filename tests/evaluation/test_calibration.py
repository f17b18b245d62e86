"""Thresholds keep their budgets: one, and a pair against an exhaustive search."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from constclf_lib.evaluation import calibrate_threshold, choose_threshold_pair

scores_lists = st.lists(st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(scores_lists, st.floats(0, 1))
def test_threshold_keeps_the_budget_and_is_the_lowest_that_does(scores, budget):
    values = np.array(scores)
    threshold = calibrate_threshold(scores, budget)
    assert (values > threshold).mean() <= budget
    lower = np.unique(values)[np.unique(values) < threshold]
    if len(lower):
        assert (values > lower[-1]).mean() > budget


def test_threshold_on_ties_saturation_and_float_budgets():
    assert calibrate_threshold([0.2, 1.0, 1.0, 1.0], 0.5) == 1.0
    assert calibrate_threshold([0.5] * 10, 0.3) == 0.5
    assert calibrate_threshold(np.arange(100), 0.29) == 70  # 0.29 * 100 is 28.999999999999996
    assert calibrate_threshold(torch.tensor([-3.0, 2.0, 7.0]), 0.0) == 7.0
    assert calibrate_threshold([0.1, 0.2], 1.0) < 0.1


@pytest.mark.parametrize("scores, budget", [([], 0.1), ([0.1, math.nan], 0.1), ([0.1], 1.5), ([0.1], math.nan)])
def test_threshold_refuses_what_it_cannot_use(scores, budget):
    with pytest.raises(ValueError):
        calibrate_threshold(scores, budget)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 25), st.sampled_from([0.0, 0.1, 0.3]))
def test_threshold_pair_equals_exhaustive_search(seed, n, limit):
    random = np.random.default_rng(seed)
    draw = lambda size: np.round(random.random(size), 1)  # noqa: E731 - rounded, so that there are ties
    attacks = (draw(n), draw(n))
    groups = {"easy": (draw(n), draw(n)), "hard": (draw(n + 3), draw(n + 3))}
    limits = {"easy": limit, "hard": 0.3}
    pair = choose_threshold_pair(attacks, groups, limits)
    grid = np.unique(np.concatenate([*groups["easy"], *groups["hard"], [1.0]]))
    flagged = lambda p, i, o: ((p[0] > i) | (p[1] > o)).mean()  # noqa: E731
    best = max(
        flagged(attacks, i, o) for i in grid for o in grid if all(flagged(groups[g], i, o) <= limits[g] for g in groups)
    )
    assert pair.detection == pytest.approx(best)
    assert all(pair.flagged[g] == flagged(groups[g], pair.input, pair.output) <= limits[g] for g in groups)


def test_threshold_pair_counts_what_is_blocked_anyway():
    attacks, benign = ([0.9, 0.9], [0.1, 0.9]), (np.array([np.inf, 0.3, 0.2, 0.1]), np.array([0.1, 0.8, 0.2, 0.1]))
    pair = choose_threshold_pair(attacks, {"easy": benign}, {"easy": 0.25})
    assert (pair.input, pair.output, pair.detection, pair.flagged) == (0.3, 0.8, 1.0, {"easy": 0.25})
    with pytest.raises(ValueError, match="whatever the thresholds"):
        choose_threshold_pair(attacks, {"easy": benign}, {"easy": 0.0})
    with pytest.raises(ValueError, match="limit"):
        choose_threshold_pair(attacks, {"easy": benign}, {"hard": 0.1})
