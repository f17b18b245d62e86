"""A scorer for many threads: what they push at the same time is read in one batch. Built in chapter 08, for a server.

Every stream belongs to one thread, as a TokenStream does. Whoever comes first while no pass is under way reads for all
who wait: no thread of its own, no timer, and a single stream loses nothing.

Deliberately not here: the batch itself (running_batch.py), the decision to halt. Monitors that read hidden states have
no part in this.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from typing import Any

from ..errors import ClassifierError, StreamClosedError
from .running_batch import RunningBatch
from .scorer import StreamingScorer
from .text_stream import TextStream


class SharedScorer:
    """Opens streams on a StreamingScorer that are read together; `open`, `open_text` and the rest as there.

    The scorer's step_timeout bounds each pass, and thereby what a stream waits for the pass before its own. A failed or
    late pass fails every stream that was open in its batch; the next ones start a new batch.
    """

    layers: tuple[int, ...] = ()

    def __init__(self, scorer: StreamingScorer):
        self.scorer, self.rule, self.classifier = scorer, scorer.rule, scorer.classifier
        self._passing, self._noting = threading.Lock(), threading.Lock()
        self._waiting: list[_Push] = []
        self._batch = RunningBatch(scorer)

    def check_assistant(self, model, tokenizer) -> None:
        """As StreamingScorer.check_assistant."""
        self.scorer.check_assistant(model, tokenizer)

    def open(self, prompt: str | None = None) -> SharedStream:
        """A new token stream. Raises as StreamingScorer.open does."""
        with self._passing:
            if self._batch.closed:
                self._batch = RunningBatch(self.scorer)
            return SharedStream(self, self._batch, self._batch.join(prompt))

    def open_text(self, prompt: str | None = None) -> TextStream:
        """A new text stream, for text from any source in any chunks."""
        stream: Any = self.open(prompt=prompt)
        return TextStream(stream, self.classifier.tokenizer)

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._batch)

    def _read(self, push: _Push) -> None:
        """Returns once `push` has been read, by whichever thread."""
        with self._noting:
            self._waiting.append(push)
        with self._passing:
            if push.done:
                return
            with self._noting:
                together, self._waiting = self._waiting, []
            batch = self._batch
            mine = {other.row: other.ids for other in together if other.batch is batch and not other.row.closed}
            try:
                if mine:
                    batch.push(mine)
            except Exception as error:
                for other in together:
                    other.error = error
            finally:
                for other in together:
                    other.done = True


class _Push:
    def __init__(self, batch: RunningBatch, row, ids: list[int]):
        self.batch, self.row, self.ids = batch, row, ids
        self.done = False
        self.error: Exception | None = None


class SharedStream:
    """One completion. `scores`, `risk`, `closed`, `position`, `push`, `last_ids`, `rewind` as in TokenStream."""

    def __init__(self, shared: SharedScorer, batch: RunningBatch, row):
        self._shared, self._batch, self._row = shared, batch, row
        self._failed = False

    @property
    def scores(self) -> list[float]:
        return self._row.scores

    @property
    def risk(self) -> float:
        return math.inf if self._failed else self._row.risk

    @property
    def closed(self) -> bool:
        return self._failed or self._row.closed

    @property
    def position(self) -> int:
        return len(self._row.scores)

    def push(self, token_ids: Iterable[int], states: object = None) -> list[float]:
        """Scores the next tokens, together with whatever others push. Raises and fails as TokenStream.push does."""
        if self.closed:
            raise StreamClosedError("this stream is closed; open a new one")
        try:
            ids = self._shared.scorer.check_ids(token_ids)
            if not ids:
                return []
            before = len(self._row.scores)
            push = _Push(self._batch, self._row, ids)
            self._shared._read(push)
            if push.error is not None:
                raise push.error
            if self._row.error is not None:
                raise self._row.error
            new = self._row.scores[before:]
            if len(new) != len(ids):
                raise ClassifierError("the batch failed before these tokens were scored")
            return new
        except BaseException:
            self.fail()
            raise

    def last_ids(self, count: int) -> list[int] | None:
        """The last `count` tokens, or None if the window no longer holds that many."""
        return self._batch.last_ids(self._row, count)

    def rewind(self, count: int) -> None:
        """Forgets the last `count` tokens. `risk` stays."""
        with self._shared._passing:
            self._batch.rewind(self._row, count)

    def fail(self) -> None:
        """Closes the stream for good with a risk that is above every threshold."""
        self._failed = True
        self.close()

    def close(self) -> None:
        """Leaves the batch. May be called twice. (A push of the same thread is over by then; others never see it.)"""
        self._batch.leave(self._row)

    def __enter__(self) -> SharedStream:
        return self

    def __exit__(self, *_) -> None:
        self.close()
