"""One call of a classifier, made so that it fails closed: time limits, finite numbers, no detours. Used by
`streaming.py` and `guard.py` (chapters 07, 08).

Deliberately not here: what to do about a failure. Everything raises; whoever guards releases nothing.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F

from .models import ClassifierError, ValueHead

T = TypeVar("T")


class ClassifierTimeout(ClassifierError):
    """A call took longer than its time limit."""


class StreamClosedError(RuntimeError):
    """A push on a stream that was closed or has failed. Open a new one."""


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
        raise ClassifierError(f"the output classifier gave the logit {logit}; nothing may be released on this score")
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    if logit < -700.0:  # exp would overflow; the true value is below 1e-304
        return 0.0
    odds = math.exp(logit)
    return odds / (1.0 + odds)


def direct(head: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """A plain ValueHead without its module calls, which at one token a pass take longer than its arithmetic.

    Works on the parameters themselves, so it follows training and moves. Any other kind of head is returned as it is.
    """
    if type(head) is not ValueHead:
        return head
    w1, b1, w2, b2 = head.inner.weight, head.inner.bias, head.out.weight, head.out.bias

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        if head._forward_hooks or head._forward_pre_hooks or torch.is_autocast_enabled(hidden.device.type):
            return head(hidden)  # it knows how to stay in float32
        if hidden.dtype != w1.dtype:
            hidden = hidden.to(w1.dtype)
        return F.linear(F.silu(F.linear(hidden, w1, b1)), w2, b2).squeeze(-1)

    return logits
