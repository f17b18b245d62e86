"""One call of a classifier, made so that it fails closed: time limits, finite numbers, no detours. Used by
every stream and by the guard (chapters 07, 08).

Deliberately not here: what to do about a failure. Everything raises; whoever guards releases nothing.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from ..errors import ClassifierError, ClassifierTimeout

T = TypeVar("T")


def within(seconds: float | None, call: Callable[[], T]) -> T:
    """call(), or ClassifierTimeout after `seconds`; None sets no limit and costs nothing.

    With a limit the call runs in a daemon thread (some 0.1 ms more), since Python cannot cut a computation short: a
    hung call is abandoned, whatever it may still return is never looked at. Without one a hang releases nothing either,
    but the caller never hears about it.
    """
    if seconds is None:
        return call()
    answer: queue.SimpleQueue = queue.SimpleQueue()

    def work() -> None:
        try:
            answer.put((call(), None))
        except BaseException as error:  # handed to the caller, whatever it is
            answer.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = answer.get(timeout=seconds)
    except queue.Empty:
        raise ClassifierTimeout(f"no answer within {seconds} s") from None
    if error is not None:
        raise error
    return result


def probability(logit: float) -> float:
    """sigmoid, exact at both ends. Raises ClassifierError for NaN or infinity."""
    if not math.isfinite(logit):
        raise ClassifierError(
            f"the output classifier gave the logit {logit}; nothing may be released on this score. A backbone in "
            "float16 may have left its range (Gemma does): bfloat16 and float32 hold it"
        )
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    if logit < -700.0:  # exp would overflow; the true value is below 1e-304
        return 0.0
    odds = math.exp(logit)
    return odds / (1.0 + odds)
