"""Scoring a completion while it is being written: KV-cached, one state object per stream, closed for good after any
failure. Built in chapter 07.

What holds (tests/test_streaming.py):
- `push` returns one probability per token; the caller releases a token only after it has its score. A failed stream has
  risk infinity.
- Chunks do not matter: one push of n tokens, n pushes of one, any split and one full pass agree to 1e-5 in float32 on
  the CPU. Reduced precision rounds differently for different shapes: 5e-3 for float16, 3e-2 for bfloat16.
- A stream of n tokens computes prefix + n token positions; `prefix_ids` is the beginning-of-text token of a foreign
  tokenizer, and empty in the lab.
- Longer than the context: with room for R completion tokens, a full window starts again by re-reading its last R // 2
  tokens (their scores stand) and goes on. Every token is scored, with at least R // 2 tokens before it; each restart
  adds prefix + R // 2 positions, so a stream stays below twice its length. Restarts happen at fixed positions, so
  chunks still do not matter, and the risk carries on.

Deliberately not here: thresholds and the decision to halt (`stop_rules.halt_index`, `guard.py`), text
(`text_stream.py`), many streams at once (`batch_stream.py`). One stream belongs to one thread; any number of streams
may share a scorer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from .encoding import fingerprint
from .models import ClassifierError
from .safe_calls import StreamClosedError, direct, probability, within
from .stop_rules import RunningMax


class StreamingScorer:
    """Opens streams on one output classifier. Holds no state of any stream.

    classifier: models.OutputClassifier, put into eval mode (dropout would make every score a dice throw). rule: a stop
    rule, RunningMax() if None; each stream gets a fresh copy. device: moves the classifier there if given.
    step_timeout: seconds one push may take, None for no limit (see `within`). window: the most tokens to read at once,
    None for the model's context; a classifier that was trained on short texts judges best in windows of their length
    (chapter 07). Raises ValueError if that leaves no room for the prefix and two tokens.
    """

    def __init__(
        self, classifier, rule=None, device=None, step_timeout: float | None = None, window: int | None = None
    ):
        self.classifier = (classifier if device is None else classifier.to(device)).eval()
        self.head = direct(classifier.value_head)
        self.rule = RunningMax() if rule is None else rule
        self.step_timeout = step_timeout
        self.prefix_ids = list(classifier.prefix_ids)
        self.vocab_size = classifier.model.get_input_embeddings().num_embeddings
        limit = min((n for n in (window, classifier.context_length) if n is not None), default=None)
        self.room = math.inf if limit is None else limit - len(self.prefix_ids)
        if self.room < 2:
            raise ValueError(
                f"a window of {limit} tokens leaves no room for a completion behind a prefix of {len(self.prefix_ids)}"
            )

    @property
    def device(self) -> torch.device:
        return self.classifier.device

    def check_fingerprint(self, other: str) -> None:
        """Raises ValueError unless `other` is the fingerprint of the classifier's tokenizer: ids of another one would
        be scored as different words.
        """
        own = self.classifier.fingerprint
        if own != other:
            raise ValueError(
                f"these token ids come from another tokenizer (fingerprint {other}, the classifier's is {own}); "
                "guard the text instead: open_text() or guard_text_stream()"
            )

    def check_tokenizer(self, tokenizer) -> None:
        """Raises ValueError unless the ids of this tokenizer mean the same to the classifier."""
        self.check_fingerprint(fingerprint(tokenizer))

    def check_ids(self, token_ids: Iterable[int]) -> list[int]:
        """The ids as a list. Raises ValueError for an id outside the vocabulary (on a GPU it would take the whole
        process down).
        """
        ids = token_ids.tolist() if isinstance(token_ids, torch.Tensor) else list(token_ids)
        if ids and not (0 <= min(ids) and max(ids) < self.vocab_size):
            raise ValueError(f"token ids must lie in [0, {self.vocab_size}); got {min(ids)} to {max(ids)}")
        return ids

    def fitting(self, ids: list[int], window: list[int]) -> tuple[list[int], list[int]]:
        """(what still fits behind `window`, the rest)."""
        fits = len(ids) if self.room == math.inf else self.room - len(window)
        return ids[:fits], ids[fits:]

    def read(self, input_ids: torch.Tensor, cache, attention_mask: torch.Tensor | None = None):
        """(cache, harm logits [rows, time]) after input_ids [rows, time]. The classifier's forward without its output
        object, which at one token a pass costs as much as the head. Raises ClassifierError if there is no cache.
        """
        hidden, cache = self.classifier.read(input_ids, attention_mask, cache, use_cache=True)
        if cache is None:
            backbone = type(self.classifier.backbone).__name__
            raise ClassifierError(f"{backbone} returned no cache; a stream cannot be scored with it")
        return cache, self.head(hidden)

    def open(self, fingerprint: str | None = None) -> TokenStream:
        """A new token stream. Pass the fingerprint of the tokenizer that makes the ids and a wrong one is refused with
        ValueError.
        """
        if fingerprint is not None:
            self.check_fingerprint(fingerprint)
        return TokenStream(self)

    def open_text(self):
        """A new text stream, for text from any source in any chunks: text_stream.TextStream. Raises ValueError if the
        classifier has no tokenizer.
        """
        from .text_stream import TextStream

        return TextStream(self.open(), self.classifier.tokenizer)

    def open_batch(self, streams: int):
        """`streams` token streams scored together: batch_stream.BatchStream."""
        from .batch_stream import BatchStream

        return BatchStream(self, streams)

    def score(self, token_ids: Iterable[int]) -> list[float]:
        """The probabilities [n] of a finished completion, by the same road as a stream (long ones too)."""
        with self.open() as stream:
            return stream.push(token_ids)


class TokenStream:
    """One completion. `scores`: a probability per token; `risk`: the highest value of the stop rule so far, infinity
    after a failure; `position`: tokens read.

    A context manager; close it in `finally` otherwise. Scores and risk stay readable after `close`, the cache is freed.
    """

    def __init__(self, scorer: StreamingScorer):
        self.scorer = scorer
        self.scores: list[float] = []
        self.risk = 0.0
        self.closed = False
        self._rule = scorer.rule.fresh()
        self._cache = None
        self._window: list[int] = []  # the completion tokens that the cache holds, behind the prefix
        self._device = scorer.device
        if scorer.classifier.training:  # someone went on training it since the scorer was made
            scorer.classifier.eval()

    @property
    def position(self) -> int:
        return len(self.scores)

    def push(self, token_ids: Iterable[int]) -> list[float]:
        """Scores the next tokens: one probability each, that the whole completion will be harmful, having read
        everything up to and with that token.

        Whatever goes wrong (also an interrupt) closes the stream and sets `risk` to infinity before it is raised:
        StreamClosedError, ClassifierError for a score that is no number, ClassifierTimeout, ValueError for ids outside
        the vocabulary, or what the model itself raised.
        """
        if self.closed:
            raise StreamClosedError("this stream is closed; open a new one")
        try:
            ids = self.scorer.check_ids(token_ids)
            if not ids:
                return []
            new = [probability(z) for z in within(self.scorer.step_timeout, lambda: self.read(ids))]
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
        scorer, cache, window, logits = self.scorer, self._cache, self._window, []
        while ids:
            if len(window) >= scorer.room:  # full: go on behind the last half of it, read again from its own beginning
                cache, window = None, window[-(scorer.room // 2) :]
            part, ids = scorer.fitting(ids, window)
            feed = part if cache is not None else [*scorer.prefix_ids, *window, *part]
            cache, harm = scorer.read(torch.tensor([feed], device=self._device), cache)
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
        self._rule = self.scorer.rule.fresh()
        for p in self.scores:
            self._rule.update(p)
        try:
            if not getattr(self._cache, "is_croppable", True):
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
