"""One stream of many that are scored together: its window, its scores, its risk. Built in chapter 07.

Deliberately not here: the cache that rows share (batch_stream.py, running_batch.py).
"""

from __future__ import annotations

import math

from ..errors import ClassifierError
from .fail_closed import probability
from .reader import Reader
from .token_stream import TokenStream


class Row:
    """One stream of a batch. `window`: the completion tokens behind the prefix that its next scores build on; `known`:
    whether the shared cache holds them. `alone`: its own stream, where the backbone bears no pauses.
    """

    def __init__(self, reader: Reader, alone: bool, prompt: str | None):
        self.rule = reader.rule.fresh()
        self.prefix = reader.prefix_of(prompt)
        self.room = reader.room(self.prefix)
        self.alone = TokenStream(reader, prompt) if alone else None
        self.scores: list[float] = []
        self.risk = 0.0
        self.window: list[int] = []
        self.known = self.closed = False
        self.error: ClassifierError | None = None

    @property
    def full(self) -> bool:
        return len(self.window) >= self.room

    def fitting(self, ids: list[int]) -> list[int]:
        """What of `ids` still fits behind the window."""
        return ids[: self.room - len(self.window)]

    def feed(self, part: list[int]) -> list[int]:
        """What the row reads to learn about `part`: all that it builds on, unless the cache holds that."""
        if self.known:
            return part
        return [*self.prefix, *self.window, *part] if self.window or part else []

    def take(self, part: list[int], fed: int, logits: list[float]) -> list[float]:
        """Notes that `part`, the end of `fed` tokens, has been read; its logits [len(part)] out of those of a pass."""
        self.window, self.known = self.window + part, self.known or fed > 0
        return logits[fed - len(part) : fed]

    def record(self, logits: list[float]) -> list[float]:
        """The probabilities of the next tokens. A logit that is no number closes the row and gives none."""
        try:
            new = [probability(z) for z in logits]
        except ClassifierError as error:
            self.error, self.risk = error, math.inf
            self.close()
            return []
        for p in new:
            self.risk = max(self.risk, self.rule.update(p))
        self.scores += new
        return new

    def close(self) -> None:
        self.closed, self.window = True, []
        if self.alone is not None:
            self.alone.close()
