"""One completion on one scorer: tokens in, probabilities out, closed for good after any failure. Built in chapter 07.

Deliberately not here: text (text_stream.py), many streams at once (batch_stream.py), the decision to halt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from ..errors import StreamClosedError
from .fail_closed import probability, within
from .reader import Reader


class TokenStream:
    """One completion (of `prompt`, where the classifier reads exchanges). `scores`: a probability per token; `risk`:
    the highest value of the stop rule so far, infinity after a failure; `position`: tokens read.

    A context manager; close it in `finally` otherwise. Scores and risk stay readable after `close`, the cache is freed.
    """

    def __init__(self, reader: Reader, prompt: str | None = None):
        self.reader = reader
        self._prefix = reader.prefix_of(prompt)
        self._room = reader.room(self._prefix)
        self.scores: list[float] = []
        self.risk = 0.0
        self.closed = False
        self._rule = reader.rule.fresh()
        self._cache: Any = None
        self._window: list[int] = []  # the completion tokens that the cache holds, behind the prefix
        self._device = reader.device
        self._seen = reader.ready()

    @property
    def position(self) -> int:
        return len(self.scores)

    def push(self, token_ids: Iterable[int], states: object = None) -> list[float]:
        """Scores the next tokens: one probability each, that the whole completion will be harmful, having read
        everything up to and with that token. states: what a probe reads (chapter 10); left alone here.

        Whatever goes wrong (also an interrupt) closes the stream and sets `risk` to infinity before it is raised:
        StreamClosedError, ClassifierError for a score that is no number, ClassifierTimeout, ValueError for ids outside
        the vocabulary, or what the model itself raised.
        """
        if self.closed:
            raise StreamClosedError("this stream is closed; open a new one")
        try:
            ids = self.reader.check_ids(token_ids)
            if not ids:
                return []
            new = [probability(z) for z in within(self.reader.step_timeout, lambda: self.read(ids))]
            for p in new:
                self.risk = max(self.risk, self._rule.update(p))
            self.scores += new
            return new
        except BaseException:
            self.fail()
            raise

    @torch.inference_mode()
    def read(self, ids: list[int]) -> list[float]:
        """The logits [len(ids)] of the next tokens, and the cache moved on; `push` without the judgement."""
        reader, cache, window, logits = self.reader, self._cache, self._window, []
        while ids:
            if len(window) >= self._room:  # full: go on behind the last half of it, read again from its own beginning
                cache, window = None, window[-(self._room // 2) :]
            fits = self._room - len(window)
            part, ids = ids[:fits], ids[fits:]
            if cache is not None and not self._seen.chunks:  # several tokens behind its state would come out wrong
                part, ids = part[:1], part[1:] + ids
            feed = part if cache is not None else [*self._prefix, *window, *part]
            cache, harm = reader.read(torch.tensor([feed], device=self._device), cache)
            window = window + part
            logits += harm.tolist()[0][-len(part) :]  # the one wait for the device
        if not self.closed:  # else this call outlived its time limit, and nobody waits for it
            self._cache, self._window = cache, window
        return logits

    def last_ids(self, count: int) -> list[int] | None:
        """The last `count` tokens, or None if the cache no longer holds that many."""
        return self._window[len(self._window) - count :] if count <= len(self._window) else None

    def rewind(self, count: int) -> None:
        """Forgets the last `count` tokens (another tokenisation replaces them) and crops the cache. `risk` stays: what
        was seen was seen.

        Raises ValueError if the cache does not hold that many tokens, StreamClosedError if the stream is closed.
        """
        if self.closed:
            raise StreamClosedError("this stream is closed; open a new one")
        if not 0 <= count <= len(self._window):
            raise ValueError(f"cannot rewind {count} tokens, the cache holds {len(self._window)}")
        if count == 0:
            return
        self._window = self._window[:-count]
        self.scores = self.scores[:-count]
        self._rule = self.reader.rule.fresh()
        for p in self.scores:
            self._rule.update(p)
        try:
            if not (self._seen.rewinding and getattr(self._cache, "is_croppable", True)):
                raise ValueError("this cache cannot be cropped")
            self._cache.crop(-count)
        except (AttributeError, NotImplementedError, RuntimeError, ValueError):
            self._cache = None  # a sliding window or recurrent state: the next push reads the window again

    def fail(self) -> None:
        """Closes the stream for good with a risk that is above every threshold."""
        self.risk = math.inf
        self.close()

    def close(self) -> None:
        """Frees the cache. May be called twice."""
        self.closed, self._cache, self._window = True, None, []

    def __enter__(self) -> TokenStream:
        return self

    def __exit__(self, *_) -> None:
        self.close()
