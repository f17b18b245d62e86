"""When to stop: small objects that turn the probabilities of a stream into one risk. Built in chapter 07.

Every rule is used the same way: `risk = rule.update(p)` for each token, and **a halt is `risk > threshold`, strictly**,
exactly as `calibrate_threshold` counts a benign score as flagged. Each rule has its own scale, so each is calibrated at
its own false-positive budget.

Deliberately not here: thresholds, and anything that knows about text or models. A rule holds the state of one stream;
`fresh()` gives an empty copy for the next, which is how a scorer makes sure that two streams never share one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable


class RunningMax:
    """The highest probability so far: one token is enough (the default; what option B is trained for)."""

    def __init__(self) -> None:
        self.highest = 0.0

    def fresh(self) -> RunningMax:
        return RunningMax()

    def update(self, p: float) -> float:
        if p > self.highest:
            self.highest = p
        return self.highest


class KInARow:
    """The smallest of the last k probabilities: a halt needs k tokens in a row above the threshold.

    A stream shorter than k tokens has risk 0 throughout: that is the price of the rule, not an error. Raises ValueError
    for k < 1.
    """

    def __init__(self, k: int) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        self.k = k
        self._last: deque[float] = deque(maxlen=k)

    def fresh(self) -> KInARow:
        return KInARow(self.k)

    def update(self, p: float) -> float:
        self._last.append(p)
        return min(self._last) if len(self._last) == self.k else 0.0


class ExponentialAverage:
    """The average of all probabilities so far, a token that is n tokens old weighing (1 - alpha)^n.

    The weights are normalised, so the first tokens are pulled neither to 0 nor to 1/2 (an average that starts at 1/2
    alarms on every opening). Raises ValueError unless 0 < alpha <= 1; alpha = 1 is the newest token alone.
    """

    def __init__(self, alpha: float) -> None:
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must lie in (0, 1], not {alpha}")
        self.alpha = alpha
        self._sum = self._weight = 0.0

    def fresh(self) -> ExponentialAverage:
        return ExponentialAverage(self.alpha)

    def update(self, p: float) -> float:
        keep = 1.0 - self.alpha
        self._sum = keep * self._sum + p
        self._weight = keep * self._weight + 1.0
        return self._sum / self._weight


class SlidingMean:
    """The mean of the last `width` numbers, of all of them while there are fewer (SWiM, chapter 10). State: `width`
    numbers. Raises ValueError for width < 1.
    """

    def __init__(self, width: int) -> None:
        if width < 1:
            raise ValueError(f"width must be at least 1, not {width}")
        self.width = width
        self._last: deque[float] = deque(maxlen=width)

    def fresh(self) -> SlidingMean:
        return SlidingMean(self.width)

    def update(self, p: float) -> float:
        self._last.append(p)
        return math.fsum(self._last) / len(self._last)


class AnyOf:
    """The highest risk of several rules: halts when one of them would (under one threshold for all)."""

    def __init__(self, *rules) -> None:
        if not rules:
            raise ValueError("AnyOf needs at least one rule")
        self.rules = rules

    def fresh(self) -> AnyOf:
        return AnyOf(*(rule.fresh() for rule in self.rules))

    def update(self, p: float) -> float:
        return max([rule.update(p) for rule in self.rules])  # a list: every rule must see every token


def running_risk(scores: Iterable[float], rule=None) -> list[float]:
    """The risk after each token, latched: it never falls, as in a stream (a reply that once crossed stays crossed).

    scores: one probability per token. rule: RunningMax() if None; its own state is not touched. Raises ValueError for a
    NaN score, which would otherwise compare as harmless.
    """
    rule = RunningMax() if rule is None else rule.fresh()
    risk, curve = 0.0, list[float]()
    for p in scores:
        if math.isnan(p):
            raise ValueError(f"score {len(curve)} is NaN")
        risk = max(risk, rule.update(float(p)))
        curve.append(risk)
    return curve


def crosses(risk: float, threshold: float) -> bool:
    """Whether a risk (or a score) is above its threshold, strictly: the one decision of the whole project. A risk that
    is no number is above every threshold.
    """
    return not risk <= threshold


def halt_index(scores: Iterable[float], threshold: float, rule=None) -> int | None:
    """The index of the first token whose risk is above the threshold, which is the first token that is not released;
    None if all are.

    The guarded model and the evaluation both stand on it. Raises ValueError for a NaN score or threshold.
    """
    if math.isnan(threshold):
        raise ValueError("the threshold is NaN: nothing would ever be above it")
    for index, risk in enumerate(running_risk(scores, rule)):
        if crosses(risk, threshold):
            return index
    return None
