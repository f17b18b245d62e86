"""Many completions scored together: one forward pass per step for all of them, equal to one by one to 1e-5. Built in
chapter 07.

Rows may bring different numbers of tokens to a step, start late, pause and end at different times. They share one cache
tensor in which a row that had fewer tokens than the longest has holes; the attention mask hides them and positions
count real tokens only, so no row can see another or its own padding.

The cache is read anew from the tokens when a row's window is full (the rule of `scorer.py`) and when
holes outweigh tokens. Rows that step together compute exactly one position per token until then. A row that fails is
closed with risk infinity and the others go on; a failed pass closes all.

Sliding-window and recurrent layers know nothing of holes; on a backbone that has such layers the rows are read one by
one, which is slower and just as right.

Deliberately not here: admission of new rows into a running batch; open another batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from ..errors import ClassifierError, StreamClosedError
from ..tokenization import pad_batch
from .fail_closed import probability, within
from .reader import Reader
from .token_stream import TokenStream


class _Row:
    def __init__(self, rule):
        self.rule, self.scores, self.risk, self.window = rule, [], 0.0, []
        self.started, self.closed, self.error = False, False, None


class BatchStream:
    """`streams` completions on one scorer. `scores[i]`, `risks[i]`, `errors[i]` (None unless the row failed). A context
    manager.
    """

    def __init__(self, reader: Reader, streams: int):
        if streams < 1:
            raise ValueError(f"a batch needs at least one stream, not {streams}")
        self.reader = reader
        self.closed = False
        self._rows = [_Row(reader.rule.fresh()) for _ in range(streams)]
        layers = DynamicCache(config=reader.classifier.config).layers
        self._alone = (
            None if all(type(layer) is DynamicLayer for layer in layers) else [TokenStream(reader) for _ in self._rows]
        )
        self._live = list(range(streams))  # which stream each row of the cache belongs to
        self._cache = None
        self._mask = torch.zeros(streams, 0, dtype=torch.long)  # [rows, columns of the cache], 1 at real tokens
        if reader.classifier.training:
            reader.classifier.eval()

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
            new: list[list[float]] = [[] for _ in self._rows]
            while any(left):
                part = within(self.reader.step_timeout, lambda: self._step(left))  # noqa: B023 it is called before `left` changes
                for i, logits in part.items():
                    new[i] += self._record(i, logits)
                left = [ids[len(part.get(i, ())) :] if not self._rows[i].closed else [] for i, ids in enumerate(left)]
            for i, ids in enumerate(
                token_ids
            ):  # a row that failed half-way: every token of this push counts as over the line
                if self._rows[i].error is not None and len(ids):
                    new[i] = [math.inf] * len(ids)
            self._drop_closed()
            return new
        except BaseException:
            for row in self._rows:
                row.risk = math.inf
            self.close()
            raise

    def _record(self, i: int, logits: list[float]) -> list[float]:
        row = self._rows[i]
        try:
            new = [probability(z) for z in logits]
        except ClassifierError as error:
            row.error, row.risk = error, math.inf
            self.close_row(i)
            return []
        for p in new:
            row.risk = max(row.risk, row.rule.update(p))
        row.scores += new
        return new

    @torch.inference_mode()
    def _step(self, left: list[list[int]]) -> dict[int, list[float]]:
        """Reads as many of `left` as fit into each row's window; the logits read, by stream."""
        if self._alone is not None:
            return {i: self._alone[i].read(ids) for i, ids in enumerate(left) if ids}
        room, prefix = self.reader.room, self.reader.prefix_ids
        rows = [self._rows[i] for i in self._live]
        again = [i for i in self._live if left[i] and len(self._rows[i].window) >= room]
        for i in again:
            self._rows[i].window = self._rows[i].window[-(room // 2) :]
        longest = max(len(row.window) for row in rows) + len(prefix)
        if again or self._mask.shape[1] > 2 * longest + 256:
            self._live = [i for i in self._live if not self._rows[i].closed]
            self._cache, self._mask = None, torch.zeros(len(self._live), 0, dtype=torch.long)
        feeds, starts, parts = [], [], []
        for i in self._live:
            row = self._rows[i]
            part, _ = self.reader.fitting(left[i], row.window)
            before = []
            if self._cache is None and (row.started or part):
                before = [*prefix, *row.window]
            elif part and not row.started:
                before = prefix
            feeds.append([*before, *part])
            starts.append(len(before))
            parts.append(part)
        ids, new_mask = pad_batch(feeds, 0)
        mask = torch.cat([self._mask, new_mask], dim=1)
        # A row without any real token yet would attend to nothing, and softmax over nothing is NaN: let its padding see
        # itself in this pass.
        seen = mask.masked_fill(mask.sum(dim=1, keepdim=True) == 0, 1)
        device = self.reader.device
        cache, harm = self.reader.read(ids.to(device), self._cache, seen.to(device))
        if self.closed:  # this call outlived its time limit and nobody waits for it
            return {}
        logits = harm.tolist()  # [rows][columns]: the one wait for the device
        self._cache, self._mask = cache, mask
        read = {}
        for place, i in enumerate(self._live):
            if parts[place]:
                self._rows[i].window = self._rows[i].window + parts[place]
                self._rows[i].started = True
                read[i] = logits[place][starts[place] : starts[place] + len(parts[place])]
        return read

    def close_row(self, i: int) -> None:
        """Ends stream i; its scores stay readable, its share of the cache goes once half of the rows have ended."""
        self._rows[i].closed = True
        if self._alone is not None:
            self._alone[i].close()

    def _drop_closed(self) -> None:
        keep = [place for place, i in enumerate(self._live) if not self._rows[i].closed]
        if not keep:
            self._cache, self._live, self._mask = None, [], self._mask[:0]
        elif 2 * len(keep) <= len(self._live):
            if self._cache is not None:
                self._cache.batch_select_indices(torch.tensor(keep, device=self.reader.device))
            self._live, self._mask = [self._live[place] for place in keep], self._mask[keep]

    def close(self) -> None:
        """Ends all streams and frees the cache. May be called twice."""
        self.closed, self._cache, self._alone = True, None, None
        for row in self._rows:
            row.closed, row.window = True, []

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(self, *_) -> None:
        self.close()
