"""One batch for scoring that never ends: rows join and leave while others go on. Built in chapter 08, for a server.

What holds is what holds for a stream alone: the same scores to 1e-5, each token once, restarts where the window is full
at the same tokens. A row that joins, or starts its window again, is read in a pass of its own and then put beside the
others (models.RunningCache), so nobody pays for it with holes.

A row whose score is no number is closed with risk infinity and the others go on. A failed pass closes all rows, and
then the batch is of no further use: open another.

Where the classifier was not seen to bear pauses, or a layer of its cache does not keep every token, the rows are read
one by one.

Deliberately not here: which thread steps (shared_scorer.py for many; the guard's engine is one).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from ..errors import StreamClosedError
from ..models import RunningCache, keeps_every_token
from ..tokenization import pad_batch
from .fail_closed import within
from .reader import Reader
from .row import Row


class RunningBatch:
    """Rows on one scorer. One thread at a time. `reads_alone`: whether rows go through the backbone one by one;
    `positions`: token positions computed so far.
    """

    def __init__(self, reader: Reader):
        self.reader = reader
        self.reads_alone = not (reader.ready().pauses and keeps_every_token(reader.classifier.config))
        self.closed = False
        self.positions = 0
        self._joined: set[Row] = set()
        self._live: list[Row] = []  # the rows of the cache, in its order
        self._cache = RunningCache()

    def join(self, prompt: str | None = None) -> Row:
        """A new stream: `.scores`, `.risk`, `.error`. Raises as `StreamingScorer.open` does."""
        if self.closed:
            raise StreamClosedError("this batch is closed; open a new one")
        row = Row(self.reader, self.reads_alone, prompt)
        self._joined.add(row)
        return row

    def leave(self, row: Row) -> None:
        """Ends a stream; its share of the cache goes with the next step. May be called twice."""
        row.close()
        self._joined.discard(row)

    def __len__(self) -> int:
        return len(self._joined)

    def push(self, tokens: Mapping[Row, Sequence[int]]) -> None:
        """Scores the next tokens of these rows: `row.scores` grows by one each.

        Raises StreamClosedError for a closed row and ValueError for ids outside the vocabulary before anything is read,
        so check what comes from strangers row by row (`Reader.check_ids`). Whatever else is raised closes all rows.
        """
        if self.closed:
            raise StreamClosedError("this batch is closed; open a new one")
        waiting = {row: self.reader.check_ids(ids) for row, ids in tokens.items()}
        if any(row.closed for row in waiting):
            raise StreamClosedError("a row is closed; let a new one join")
        try:
            while waiting := {row: ids for row, ids in waiting.items() if ids and not row.closed}:
                logits = within(self.reader.step_timeout, lambda: self._step(waiting))  # noqa: B023 called before it changes
                for row, z in logits.items():
                    del waiting[row][: len(z)]
                    row.record(z)
                    if row.closed:
                        self._joined.discard(row)
        except BaseException:
            self.close()
            raise

    @torch.inference_mode()
    def _step(self, waiting: dict[Row, list[int]]) -> dict[Row, list[float]]:
        if self.reads_alone:
            return {row: row.alone.read(list(ids)) for row, ids in waiting.items() if row.alone is not None}
        for row in waiting:
            if row.full:  # go on behind the last half of it, read again from its own beginning
                row.window, row.known = row.window[-(row.room // 2) :], False
        self._drop([row for row in self._live if row.closed or not row.known])
        running = {row: row.fitting(ids) for row, ids in waiting.items() if row.known}
        entering = {row: row.fitting(ids) for row, ids in waiting.items() if not row.known}
        return self._run(running) | self._enter(entering)

    def _run(self, parts: dict[Row, list[int]]) -> dict[Row, list[float]]:
        """The rows whose past the cache holds."""
        if not parts:
            return {}
        device = self.reader.device
        self._cache.compact()
        ids, new = pad_batch([parts.get(row, []) for row in self._live], 0)
        mask = self._cache.extended(new)
        cache, harm = self.reader.read(ids.to(device), self._cache.cache, mask.to(device))
        logits = harm.tolist()
        if self.closed:  # this call outlived its time limit and nobody waits for it
            return {}
        self._cache.cache, self._cache.mask = cache, mask
        self.positions += int(new.sum())
        place = {row: i for i, row in enumerate(self._live)}
        return {row: row.take(part, len(part), logits[place[row]]) for row, part in parts.items()}

    def _enter(self, parts: dict[Row, list[int]]) -> dict[Row, list[float]]:
        """The rows that begin, or begin again."""
        if not parts:
            return {}
        device = self.reader.device
        feeds = {row: row.feed(part) for row, part in parts.items()}
        ids, mask = pad_batch(list(feeds.values()), 0)
        cache, harm = self.reader.read(ids.to(device), None, mask.to(device))
        logits = harm.tolist()
        if self.closed:
            return {}
        self._cache.join(cache, mask)
        self._live += parts
        self.positions += int(mask.sum())
        return {row: row.take(parts[row], len(feeds[row]), z) for row, z in zip(parts, logits, strict=True)}

    def _drop(self, gone: Sequence[Row]) -> None:
        if gone:
            keep = [place for place, row in enumerate(self._live) if row not in gone]
            self._live = [self._live[place] for place in keep]
            self._cache.keep(keep)

    def last_ids(self, row: Row, count: int) -> list[int] | None:
        """The last `count` tokens of a row, or None if its window no longer holds that many."""
        if row.alone is not None:
            return row.alone.last_ids(count)
        return row.window[len(row.window) - count :] if count <= len(row.window) else None

    def rewind(self, row: Row, count: int) -> None:
        """Forgets the last `count` tokens of a row; its risk stays. Raises as TokenStream.rewind does."""
        if row.closed or self.closed:
            raise StreamClosedError("this stream is closed; open a new one")
        known = self.last_ids(row, count)
        if known is None or count < 0:
            raise ValueError(f"cannot rewind {count} tokens, the cache does not hold them")
        if count == 0:
            return
        row.scores = row.scores[:-count]
        row.rule = self.reader.rule.fresh()
        for p in row.scores:
            row.rule.update(p)
        if row.alone is not None:
            row.alone.rewind(count)
            return
        row.window = row.window[:-count]
        if row.known:
            self._cache.forget(self._live.index(row), count)

    def close(self) -> None:
        """Ends all rows, those that were alive with risk infinity, and frees the cache. May be called twice."""
        self.closed = True
        for row in list(self._joined):
            row.risk = math.inf
            row.close()
        self._joined, self._live, self._cache = set(), [], RunningCache()
