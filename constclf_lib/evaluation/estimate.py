"""One shape for a measured figure: what was found, between which limits, on how many. Built in chapter 02.

Deliberately not here: the intervals themselves (intervals.py), and how a figure is drawn or worded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .intervals import wilson_interval


class Estimate(NamedTuple):
    """A figure with its 95% interval; `n` outcomes stand behind it."""

    value: float
    low: float
    high: float
    n: int

    def stored(self, digits: int = 4) -> dict[str, Any]:
        """{"value", "interval", "n"}, rounded: the form in which results are kept as JSON."""
        low, high = round(self.low, digits), round(self.high, digits)
        return {"value": round(self.value, digits), "interval": [low, high], "n": self.n}


def estimate_rate(successes: int, trials: int) -> Estimate:
    """`successes` of `trials` with Wilson's interval. Raises ValueError where `wilson_interval` does."""
    low, high = wilson_interval(successes, trials)
    return Estimate(successes / trials, low, high, trials)


def rate_of(hits: ArrayLike) -> Estimate:
    """The share of True among `hits` with Wilson's interval. Raises ValueError if there are none."""
    hits = np.asarray(hits, bool)
    return estimate_rate(int(hits.sum()), int(hits.size))
