"""Intervals: of a rate, of a mean over seeds, of a difference, of anything by bootstrap. 95% unless told otherwise.

Chapters 05 and 06 (seeds) and 08 (paired rates) say which one answers which question. Arrays and numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as _scipy_stats


def clean_scores(scores: ArrayLike, name: str = "scores") -> np.ndarray:
    """A flat float64 array. ValueError if it is empty or holds NaN: a missing score is an error, not a small number."""
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    if values.size == 0:
        raise ValueError(f"{name} is empty: there is nothing to calibrate or count on")
    if np.isnan(values).any():
        raise ValueError(
            f"{int(np.isnan(values).sum())} of {values.size} {name} are NaN: find out why before you go on"
        )
    return values


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion. It stays inside [0, 1] and says something at 0 of n: 3.8/n or so.

    Raises ValueError unless 0 <= successes <= trials, trials > 0, both whole numbers.
    """
    if trials <= 0 or not 0 <= successes <= trials or successes % 1 or trials % 1:
        raise ValueError(f"{successes} of {trials} is not a proportion")
    low, high = _scipy_stats.binomtest(int(successes), int(trials)).proportion_ci(confidence, method="wilson")
    return float(low), float(high)


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval for the mean over seeds (Student's t). ValueError with fewer than two: one seed has no spread."""
    seeds = clean_scores(values, "values")
    if seeds.size < 2:
        raise ValueError("an interval over seeds needs at least two of them")
    half = _scipy_stats.t.ppf(0.5 + confidence / 2, seeds.size - 1) * seeds.std(ddof=1) / math.sqrt(seeds.size)
    return float(seeds.mean() - half), float(seeds.mean() + half)


class Difference(NamedTuple):
    """A difference with its interval; `n` pairs stand behind it."""

    mean: float
    low: float
    high: float
    n: int


def paired_difference(first: Any, second: Any, confidence: float = 0.95) -> Difference:
    """first - second, seed by seed, with a t-interval (chapter 06). Mappings are joined by key, sequences by position.

    Raises ValueError if the two do not pair up.
    """
    if isinstance(first, Mapping):
        if set(first) != set(second):
            raise ValueError(f"these seeds are on one side only: {sorted(set(first) ^ set(second))}")
        first, second = [first[key] for key in first], [second[key] for key in first]
    a, b = clean_scores(first, "first"), clean_scores(second, "second")
    if a.size != b.size:
        raise ValueError(f"{a.size} values cannot be paired with {b.size}")
    return Difference(float((a - b).mean()), *t_interval(a - b, confidence), int(a.size))


def paired_rate_difference(before: ArrayLike, after: ArrayLike, confidence: float = 0.95) -> Difference:
    """after - before for two yes/no outcomes of the same requests, in fractions (added refusals). Wilson limits of the
    two kinds of change, combined by square-and-add; it says something also when nothing changed."""
    before, after = np.asarray(before, bool).reshape(-1), np.asarray(after, bool).reshape(-1)
    if before.size != after.size or before.size == 0:
        raise ValueError(f"{before.size} outcomes before cannot be paired with {after.size} after")
    n = before.size
    up, down = int((after & ~before).sum()), int((before & ~after).sum())
    (up_low, up_high), (down_low, down_high) = wilson_interval(up, n, confidence), wilson_interval(down, n, confidence)
    mean = (up - down) / n
    low = mean - math.hypot(up / n - up_low, down_high - down / n)
    return Difference(mean, low, mean + math.hypot(up_high - up / n, down / n - down_low), n)


def bootstrap_interval(
    *samples: ArrayLike,
    statistic: Callable[..., float] = np.mean,
    repeats: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap of `statistic(*samples)`. Several samples are resampled together, row by row (a paired
    bootstrap).

    The interval of a mean over requests is about requests: it does not cover what another training seed would do.
    """
    arrays = [np.asarray(sample) for sample in samples]
    n = len(arrays[0]) if arrays else 0
    if n == 0 or any(len(array) != n for array in arrays):
        raise ValueError("give one or more samples of the same, non-zero length")
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(repeats):
        rows = random.integers(0, n, n)
        draws.append(float(statistic(*(array[rows] for array in arrays))))
    low, high = np.quantile(draws, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
