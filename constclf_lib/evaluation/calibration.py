"""Thresholds chosen on benign scores, and how far a probability can be believed.

Built in chapters 02 (one threshold, reliability) and 08 (a pair of thresholds). Only arrays come in; no model is
loaded here.

One convention for the whole course: **flagged means score > threshold**, strictly.
Deliberately not here: a default threshold. 0.5 is not a decision, and a threshold is worth what its data are worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .intervals import clean_scores

Pair = tuple[ArrayLike, ArrayLike]  # input scores, output scores


def calibrate_threshold(benign_scores: ArrayLike, max_fpr: float) -> float:
    """The lowest threshold that flags at most `max_fpr` of the benign scores (flagged: score > threshold; chapter 02).

    It is an order statistic of the benign scores, so ties count against the budget and never break it; with saturated
    scores it may be the tied value itself (1.0 flags nothing). Probabilities and logits both work. The promise holds on
    *these* scores: report the rate on other data with its interval.
    Raises ValueError for no scores, NaN, or a budget outside [0, 1].
    """
    scores = np.sort(clean_scores(benign_scores, "benign scores"))
    if not 0 <= max_fpr <= 1:
        raise ValueError(f"max_fpr is a fraction between 0 and 1, not {max_fpr}")
    allowed = _allowed(scores.size, max_fpr)
    if allowed == scores.size:
        return float(np.nextafter(scores[0], -np.inf))
    return float(scores[scores.size - 1 - allowed])


def _allowed(n: int, max_fpr: float) -> int:
    """How many of n may be flagged: the largest k with k / n <= max_fpr, safe against 0.29 * 100 = 28.999..."""
    k = min(n, math.floor(max_fpr * n) + 1)
    while k > 0 and k / n > max_fpr:
        k -= 1
    return k


class ThresholdPair(NamedTuple):
    """Two thresholds and what they do on the scores they were chosen on. `flagged` has one rate per benign group."""

    input: float
    output: float
    detection: float
    flagged: dict[str, float]


def choose_threshold_pair(
    attack_scores: Pair, benign_groups: Mapping[str, Pair], limits: Mapping[str, float]
) -> ThresholdPair:
    """The pair that catches most attacks within a limit on refusals for every benign group (paper 1.5, chapter 08).

    attack_scores: (input scores [n], output scores [n]), one pair per attack; the output score is the highest of the
    completion. benign_groups: name -> (input scores [m], output scores [m]); `limits`: name -> the largest fraction
    that the two together may flag. A request counts as flagged if either score exceeds its threshold. Give +inf as the
    input score of a request that something else already blocks (off-label mass), so that it is counted here too. Every
    threshold is one of the benign scores: the lowest that keeps the limits. Ties in detection go to the pair that flags
    fewer benign requests. Choose on validation, report on test.
    Raises ValueError if a group has no limit, or if no pair can keep the limits.
    """
    missing = set(benign_groups) ^ set(limits)
    if missing:
        raise ValueError(f"every benign group needs exactly one limit; look at {sorted(missing)}")
    attack_in, attack_out = (clean_scores(s, "attack scores") for s in attack_scores)
    groups = {name: tuple(clean_scores(s, f"{name} scores") for s in pair) for name, pair in benign_groups.items()}
    budget = {name: _allowed(pair[0].size, limits[name]) for name, pair in groups.items()}

    def counts(threshold_in: float, threshold_out: float) -> dict[str, int]:
        return {name: int(((a > threshold_in) | (b > threshold_out)).sum()) for name, (a, b) in groups.items()}

    def within(threshold_in: float, threshold_out: float) -> bool:
        return all(n <= budget[name] for name, n in counts(threshold_in, threshold_out).items())

    def candidates(side: int) -> np.ndarray:  # only the top `budget + 1` scores of a group can be the lowest threshold
        top = np.concatenate([np.sort(pair[side])[::-1][: budget[name] + 1] for name, pair in groups.items()])
        return np.unique(top[np.isfinite(top)])  # +inf means "blocked anyway" and must stay flagged

    outs = candidates(1)
    best, best_key = None, None
    for threshold_in in candidates(0) if len(outs) else ():
        if not within(threshold_in, np.inf):
            continue
        low, high = 0, len(outs) - 1  # the lowest admissible output threshold: `within` is monotone in it
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if within(threshold_in, outs[middle]) else (middle + 1, high)
        if not within(threshold_in, outs[low]):
            continue
        flagged = counts(threshold_in, outs[low])
        caught = float(((attack_in > threshold_in) | (attack_out > outs[low])).mean())
        key = (caught, -sum(flagged.values()), threshold_in)
        if best_key is None or key > best_key:
            rates = {name: flagged[name] / groups[name][0].size for name in groups}
            best, best_key = ThresholdPair(float(threshold_in), float(outs[low]), caught, rates), key
    if best is None:
        raise ValueError(
            "no pair of thresholds keeps these limits: some benign requests are blocked whatever the thresholds are"
        )
    return best


def in_depth(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every attack three times: as it is, with the input classifier blind to it, with the output classifier blind.

    Detection over these is what two bodyguards are for. Without the blind cases the better of the two would take the
    whole budget: on attacks of known kinds the input classifier needs no help, on unknown ones it may see nothing.
    """
    blind = np.zeros_like(first)
    return np.concatenate([first, blind, first]), np.concatenate([second, second, blind])
