"""Two monitors as one: a cheap one that sees everything, a second one that reads only what the first escalates; or both
on everything, mixed. Built in chapter 10 (arXiv 2601.04603, sections 3 and 5).

The first stage escalates, it never halts. From the token on at which its risk passes `escalate_above`, for the rest of
the reply, the score is sigmoid(a z_first + (1 - a) z_second). The token that escalates waits until the second stage has
read the reply so far, and what that says of earlier tokens counts too: score before release holds across stages.

Deliberately not here: the choice of `weight` and `escalate_above`, which are found on validation data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import StreamClosedError
from .fail_closed import probability
from .stop_rules import RunningMax, crosses


class Cascade:
    """A monitor of two. first: a ProbeScorer or StreamingScorer. second: a StreamingScorer.

    weight: a, of the first stage, in [0, 1]. escalate_above: the first stage's risk above which the second reads, from
    then on; None for always (an ensemble). `layers`: the hidden states that the first stage wants of the guarded model.
    Raises ValueError for a weight outside [0, 1], a NaN, or a second stage that wants hidden states.
    """

    def __init__(self, first, second, weight: float = 0.5, escalate_above: float | None = None):
        if not 0 <= weight <= 1:
            raise ValueError(f"weight must be in [0, 1], not {weight}")
        if escalate_above is not None and math.isnan(escalate_above):
            raise ValueError("escalate_above is NaN: nothing would ever be above it")
        if second.layers:
            raise ValueError(
                "the second stage gets no hidden states of what was written before it was asked; swap them"
            )
        self.first, self.second, self.layers = first, second, first.layers
        self.weight, self.escalate_above = weight, escalate_above
        self.rule = RunningMax()

    def check_assistant(self, model, tokenizer) -> None:
        """Raises what the stages raise for an assistant that is not theirs."""
        for stage in (self.first, self.second):
            stage.check_assistant(model, tokenizer)

    def open(self, prompt: str | None = None) -> CascadeStream:
        """A new stream; the second stage's is opened when it is needed."""
        return CascadeStream(self, prompt)


class CascadeStream:
    """One reply. `scores`, `risk`, `closed` as in TokenStream; `escalated_at`: the token from which on the second stage
    reads, None before. A token that was not escalated has score 0.
    """

    def __init__(self, cascade: Cascade, prompt: str | None):
        self.cascade, self._prompt = cascade, prompt
        self.scores: list[float] = []
        self.risk = 0.0
        self.closed = False
        self.escalated_at: int | None = None
        self._first = cascade.first.open(prompt=prompt)
        self._second: Any = None
        self._read: list[int] = []  # tokens that the second stage has yet to see

    def push(self, token_ids: Iterable[int], states: Tensor | None = None) -> list[float]:
        """One score for each of the next tokens, whichever stages it takes. Raises what the stages raise; whatever goes
        wrong closes the stream with risk infinity.
        """
        if self.closed:
            raise StreamClosedError("this stream is closed; open a new one")
        try:
            new = []
            for i, token in enumerate(token_ids):
                self._first.push([token], None if states is None else states[i : i + 1])
                new.append(self._next(token))
                self.risk = max(self.risk, new[-1])
                self.scores.append(new[-1])
            return new
        except BaseException:
            self.fail()
            raise

    def _next(self, token: int) -> float:
        self._read.append(token)
        limit = self.cascade.escalate_above
        if self._second is None:
            if limit is not None and not crosses(self._first.risk, limit):
                return 0.0
            self.escalated_at = len(self.scores)
            self._second = self.cascade.second.open(prompt=self._prompt)
        theirs = self._second.push(self._read)
        ours = self._first.scores[-len(self._read) :]
        self._read = []
        return max(mix(p, q, self.cascade.weight) for p, q in zip(ours, theirs, strict=True))

    def fail(self) -> None:
        """Closes the stream for good with a risk that is above every threshold."""
        self.risk = math.inf
        self.close()

    def close(self) -> None:
        """Frees both stages. May be called twice."""
        self.closed = True
        for stream in (self._first, self._second):
            if stream is not None:
                with suppress(Exception):
                    stream.close()

    def __enter__(self) -> CascadeStream:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def mix(p: float, q: float, weight: float) -> float:
    """sigmoid(weight logit(p) + (1 - weight) logit(q))."""
    return probability(weight * _logit(p) + (1 - weight) * _logit(q))


def _logit(p: float) -> float:
    p = min(max(p, 1e-17), 1 - 1e-16)  # a float's next-to-last values: beyond them both logits would be infinite
    return math.log(p) - math.log1p(-p)


def cascade_scores(
    first: ArrayLike, second: ArrayLike, weight: float, escalate_above: float | None = None
) -> np.ndarray:
    """The scores [tokens] that a CascadeStream gives a reply for which both stages' scores are known. NaN is handed on
    from where it is seen.
    """
    p, q = np.asarray(first, float), np.asarray(second, float)
    if p.shape != q.shape or p.ndim != 1:
        raise ValueError(f"one score per token of both stages: {p.shape} and {q.shape} do not belong together")
    clipped = np.clip(p, 1e-17, 1 - 1e-16), np.clip(q, 1e-17, 1 - 1e-16)
    z, other = (np.log(c) - np.log1p(-c) for c in clipped)
    mixed = 1 / (1 + np.exp(-(weight * z + (1 - weight) * other)))
    over = np.ones(len(p), bool) if escalate_above is None else ~(np.maximum.accumulate(p) <= escalate_above)
    if not over.any():
        return np.zeros(len(p))
    at = int(over.argmax())
    scores = np.where(np.arange(len(p)) < at, 0.0, mixed)
    scores[at] = mixed[: at + 1].max()
    return scores
