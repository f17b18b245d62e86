"""Scoring a completion while it is being written: KV-cached, one state object per stream, closed for good after any
failure. Built in chapter 07.

What holds (tests/streaming/test_scorer.py):
- `push` returns one probability per token; the caller releases a token only after it has its score. A failed stream has
  risk infinity.
- Chunks do not matter: one push of n tokens, n pushes of one, any split and one full pass agree to 1e-5 in float32 on
  the CPU. Reduced precision rounds differently for different shapes: 5e-3 for float16, 3e-2 for bfloat16.
- A backbone that does not give one pass's scores token by token is refused when the scorer is made. One that does not
  bear chunks reads single tokens, one that bears no padding or pauses reads rows alone, one whose cache cannot be
  cropped reads again (models/self_check.py: a dozen tokens, once per model and place).
- A stream of n tokens computes prefix + n token positions; `prefix_ids` is the beginning-of-text token of a foreign
  tokenizer, and empty in the lab.
- Longer than the context: with room for R completion tokens, a full window starts again by re-reading its last R // 2
  tokens (their scores stand) and goes on. Every token is scored, with at least R // 2 tokens before it; each restart
  adds prefix + R // 2 positions, so a stream stays below twice its length. Restarts happen at fixed positions, so
  chunks still do not matter, and the risk carries on.

Deliberately not here: thresholds and the decision to halt (`stop_rules.halt_index`, `guard`), text
(`text_stream.py`), many streams at once (`batch_stream.py`). One stream belongs to one thread; any number of streams
may share a scorer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from ..tokenization import pad_batch, text_ids
from .batch_stream import BatchStream
from .reader import Reader
from .text_stream import TextStream
from .token_stream import TokenStream


class StreamingScorer(Reader):
    """Opens streams on one output or exchange classifier. Holds no state of any stream.

    classifier: models.OutputClassifier, put into eval mode (dropout would make every score a dice throw). rule: a stop
    rule, RunningMax() if None; each stream gets a fresh copy. device: moves the classifier there if given.
    step_timeout: seconds one push may take, None for no limit (see `within`). window: the most tokens to read at once,
    None for the classifier's own window, or else the model's context; a classifier judges best in windows of the length
    that it was trained on (chapter 07). Raises ValueError if that leaves no room for the prefix and two tokens,
    ClassifierError, naming the property, for a backbone that was seen to read a stream otherwise than in one pass.
    """

    layers: tuple[int, ...] = ()  # of the guarded model it wants no hidden states

    def check_assistant(self, model, tokenizer) -> None:
        """Raises ValueError unless the assistant's token ids mean the same to the classifier."""
        self.check_tokenizer(tokenizer)

    def open(self, fingerprint: str | None = None, prompt: str | None = None) -> TokenStream:
        """A new token stream. Pass the fingerprint of the tokenizer that makes the ids and a wrong one is refused with
        ValueError. prompt: what is answered; an exchange classifier reads it first (chapter 10), others do not.
        """
        if fingerprint is not None:
            self.check_fingerprint(fingerprint)
        return TokenStream(self, prompt)

    def open_text(self, prompt: str | None = None) -> TextStream:
        """A new text stream, for text from any source in any chunks: text_stream.TextStream. Raises ValueError if the
        classifier has no tokenizer.
        """
        return TextStream(self.open(prompt=prompt), self.classifier.tokenizer)

    def open_batch(self, streams: int, prompts: Sequence[str] | None = None) -> BatchStream:
        """`streams` token streams scored together: batch_stream.BatchStream. prompts: one each, as in `open`."""
        return BatchStream(self, streams, prompts)

    def score(self, token_ids: Iterable[int], prompt: str | None = None) -> list[float]:
        """The probabilities [n] of a finished completion, by the same road as a stream (long ones too)."""
        with self.open(prompt=prompt) as stream:
            return stream.push(token_ids)


@torch.inference_mode()
def score_completions(
    output_classifier, completions: Sequence, batch_size: int = 64, prompts: Sequence[str] | None = None
) -> list[np.ndarray]:
    """Probability of harm at every token of every completion, by batched full passes: one float32 array per completion.

    `completions`: texts, or token ids where they are known (`reply["ids"]`: text encoded again may split differently).
    Completions longer than the window are read in the windows of a stream, all in the same batches; one row at a time
    where the backbone does not bear padding. NaN is handed on, not hidden: `replay` makes an error of it. prompts: what
    the completions answer, one each; an exchange classifier needs them.
    Raises ClassifierError as a StreamingScorer does, ValueError for another number of prompts.
    """
    scorer = StreamingScorer(output_classifier)
    classifier = scorer.classifier
    if prompts is not None and len(prompts) != len(completions):
        raise ValueError(f"{len(prompts)} prompts for {len(completions)} completions: they must belong together")
    prefixes = [scorer.prefix_of(prompts[i] if prompts is not None else None) for i in range(len(completions))]
    batch_size = batch_size if scorer.ready().padding else 1
    rows = [scorer.check_ids(text_ids(classifier.tokenizer, c) if isinstance(c, str) else c) for c in completions]
    scores = [np.zeros(len(row), np.float32) for row in rows]
    parts = [
        (i, *window)
        for i, row in enumerate(rows)
        if row
        for window in scorer.windows(len(row), scorer.room(prefixes[i]))
    ]
    # neighbours of one length waste little padding
    parts.sort(key=lambda part: part[3] - part[1] + len(prefixes[part[0]]))
    for first in range(0, len(parts), batch_size):
        batch = parts[first : first + batch_size]
        input_ids, attention_mask = pad_batch([prefixes[i] + rows[i][start:end] for i, start, _, end in batch], 0)
        output = classifier(
            input_ids.to(classifier.device), attention_mask=attention_mask.to(classifier.device), with_lm_logits=False
        )
        probabilities = torch.sigmoid(output.harm_logits.float()).cpu().numpy()
        for (i, start, new, end), row in zip(batch, probabilities, strict=True):
            scores[i][new:end] = row[len(prefixes[i]) + new - start : len(prefixes[i]) + end - start]
    return scores
