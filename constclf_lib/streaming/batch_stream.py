"""Many completions scored together: one forward pass per step for all of them, equal to one by one to 1e-5. Built in
chapter 07.

Rows may bring different numbers of tokens to a step, start late, pause and end at different times. They share one cache
tensor in which a row that had fewer tokens than the longest has holes; the attention mask hides them and positions
count real tokens only, so no row can see another or its own padding.

The cache is read anew from the tokens when a row's window is full (the rule of `scorer.py`) and when
holes outweigh tokens. Rows that step together compute exactly one position per token until then. A row that fails is
closed with risk infinity and the others go on; a failed pass closes all.

Where the classifier was not seen to bear pauses (models.Seen), or where a layer keeps less than every token, so that a
hole would push one out, the rows are read one by one: slower and just as right.

Deliberately not here: admission of new rows into a batch that runs (running_batch.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..errors import StreamClosedError
from ..models import keeps_every_token
from ..tokenization import pad_batch
from .fail_closed import within
from .reader import Reader
from .row import Row


class BatchStream:
    """`streams` completions on one scorer. `scores[i]`, `risks[i]`, `errors[i]` (None unless the row failed);
    `reads_alone`: whether rows go through the backbone one by one. A context manager.
    """

    def __init__(self, reader: Reader, streams: int, prompts: Sequence[str] | None = None):
        if streams < 1:
            raise ValueError(f"a batch needs at least one stream, not {streams}")
        if prompts is not None and len(prompts) != streams:
            raise ValueError(f"give one prompt per stream, {streams}, not {len(prompts)}")
        self.reader = reader
        self.closed = False
        self.reads_alone = not (reader.ready().pauses and keeps_every_token(reader.classifier.config))
        self._rows = [Row(reader, self.reads_alone, prompts[i] if prompts else None) for i in range(streams)]
        self._live = self._rows  # the rows of the cache
        self._cache, self._device = None, reader.device
        self._mask = torch.zeros(streams, 0, dtype=torch.long)  # [live rows, columns of the cache], 1 at real tokens

    @property
    def scores(self) -> list[list[float]]:
        return [row.scores for row in self._rows]

    @property
    def risks(self) -> list[float]:
        return [row.risk for row in self._rows]

    @property
    def errors(self) -> list[Exception | None]:
        return [row.error for row in self._rows]

    def push(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """token_ids: one list per stream, empty where there is nothing new. Returns one probability per token, in the
        same shape.

        A row whose score is not a finite number is closed; its probabilities are infinity, above every threshold.
        Raises ValueError for a wrong number of lists or ids outside the vocabulary, StreamClosedError for tokens of a
        closed stream, and whatever the model raises, which closes them all.
        """
        if self.closed:
            raise StreamClosedError("this batch is closed; open a new one")
        try:
            if len(token_ids) != len(self._rows):
                raise ValueError(f"give one list per stream, {len(self._rows)}, not {len(token_ids)}")
            left = [self.reader.check_ids(ids) for ids in token_ids]
            for i, row in enumerate(self._rows):
                if left[i] and row.closed:
                    raise StreamClosedError(
                        f"stream {i} is closed" + (f" after a failure: {row.error}" if row.error else "")
                    )
            counts = [len(ids) for ids in left]
            new: list[list[float]] = [[] for _ in self._rows]
            while any(left):
                logits = within(self.reader.step_timeout, lambda: self._step(left))  # noqa: B023 it is called before `left` changes
                for row, ids, scores, z in zip(self._rows, left, new, logits, strict=True):
                    del ids[: len(z)]
                    scores += row.record(z)
                    if row.closed:
                        ids.clear()
            self._drop_closed()
            # a row that failed half-way: every token of this push counts as over the line
            return [
                [math.inf] * n if row.error is not None else scores
                for row, n, scores in zip(self._rows, counts, new, strict=True)
            ]
        except BaseException:
            for row in self._rows:
                row.risk = math.inf
            self.close()
            raise

    @torch.inference_mode()
    def _step(self, left: list[list[int]]) -> list[list[float]]:
        """Reads as many of `left` as fit into each row's window; the logits read, one list per stream."""
        if self.reads_alone:
            return [row.alone.read(ids) if ids and row.alone else [] for row, ids in zip(self._rows, left, strict=True)]
        reader, waiting = self.reader, dict(zip(self._rows, left, strict=True))
        again = [row for row in self._live if row.full and waiting[row]]
        for row in again:
            row.window = row.window[-(row.room // 2) :]
        longest = max(len(row.window) + len(row.prefix) for row in self._live)
        if again or self._mask.shape[1] > 2 * longest + 256:
            self._live = [row for row in self._live if not row.closed]
            self._cache, self._mask = None, torch.zeros(len(self._live), 0, dtype=torch.long)
            for row in self._live:
                row.known = False
        parts = [row.fitting(waiting[row]) for row in self._live]
        feeds = [row.feed(part) for row, part in zip(self._live, parts, strict=True)]
        ids, new_mask = pad_batch(feeds, 0)
        mask = torch.cat([self._mask, new_mask], dim=1)
        # A row without any real token yet would attend to nothing, and softmax over nothing is NaN: let its padding see
        # itself in this pass.
        seen = mask.masked_fill(mask.sum(dim=1, keepdim=True) == 0, 1)
        cache, harm = reader.read(ids.to(self._device), self._cache, seen.to(self._device))
        if self.closed:  # this call outlived its time limit and nobody waits for it
            return [[] for _ in left]
        logits = harm.tolist()  # [rows][columns]: the one wait for the device
        self._cache, self._mask = cache, mask
        read = {
            row: row.take(part, len(fed), z) for row, part, fed, z in zip(self._live, parts, feeds, logits, strict=True)
        }
        return [read.get(row, []) for row in self._rows]

    def close_row(self, i: int) -> None:
        """Ends stream i; its scores stay readable, its share of the cache goes once half of the rows have ended."""
        self._rows[i].close()

    def _drop_closed(self) -> None:
        keep = [place for place, row in enumerate(self._live) if not row.closed]
        if not keep:
            self._cache, self._live, self._mask = None, [], self._mask[:0]
        elif 2 * len(keep) <= len(self._live):
            if self._cache is not None:
                self._cache.batch_select_indices(torch.tensor(keep, device=self._device))
            self._live, self._mask = [self._live[place] for place in keep], self._mask[keep]

    def close(self) -> None:
        """Ends all streams and frees the cache. May be called twice."""
        self.closed, self._cache = True, None
        for row in self._rows:
            row.close()

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(self, *_) -> None:
        self.close()
