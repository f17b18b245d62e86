"""A guard inside `transformers`' own generate: one object that is StoppingCriteria and streamer. Built in chapter 08.

generate keeps its samplers, assisted decoding and batches; after each step the guard scores the new ids of every row
(in one batch, each position once) and only then releases their text. A row that crosses the threshold stops, the others
go on. The same decision as GuardedModel's, by the same code.

    guard = GenerationGuard(scorer, threshold, model, tokenizer)
    model.generate(**inputs, **guard.options)
    guard.replies[0].released_text

What generate *returns* holds the token that crossed, and in assisted decoding those that came with it: show `replies`,
never that. If scoring fails, every open row ends with status "error" and generate stops.

Deliberately not here: the prompt's side (ask an InputClassifier first), beam search (transformers refuses a streamer
there), generators with another tokenizer (refused; guard their text with `guard_text_stream`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from .errors import GenerationError, StreamClosedError
from .generation import ControlTokens, StopSequences
from .guard import Answer, Reply, ScoredRow, TokenGate
from .streaming import Row, RunningBatch, StreamingScorer
from .tokenization import decode_text


class GenerationGuard(StoppingCriteria, BaseStreamer):
    """scorer: a StreamingScorer. threshold: a row is halted at the first token whose risk > threshold. model,
    tokenizer: the generator's. on_text: called with (row, text) for each released text. Serves one call of generate.

    `options`: what to pass to generate. `replies`: one Reply per row, filled in while it runs (without a prompt's
    scores); complete once generate has returned. Raises ValueError for a NaN threshold, or if the scorer's tokenizer is
    another one.
    """

    def __init__(
        self,
        scorer: StreamingScorer,
        threshold: float,
        model,
        tokenizer,
        on_text: Callable[[int, str], None] | None = None,
    ):
        if math.isnan(threshold):
            raise ValueError("the threshold is NaN: nothing would ever be above it")
        scorer.check_assistant(model, tokenizer)
        self.threshold, self.tokenizer, self.on_text = threshold, tokenizer, on_text
        self._batch, self._control = RunningBatch(scorer), ControlTokens.of(model, tokenizer)
        self._prompt: int | None = None  # columns of the prompt, padding included
        self._rows: list[_Row] = []
        self._ended = False

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for generate."""
        return {"stopping_criteria": StoppingCriteriaList([self]), "streamer": self}

    @property
    def replies(self) -> list[Reply]:
        return [row.reply for row in self._rows]

    def put(self, value: torch.Tensor) -> None:
        """transformers calls this with the prompt, and then with each step's ids, which are not scored yet."""
        if self._ended:
            raise StreamClosedError("this guard has served one call of generate; make a new one")
        if self._prompt is None:
            self._prompt = value.shape[-1]

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """transformers calls this after each step with all ids [rows, time]. True for the rows that are to stop."""
        if self._prompt is None:
            raise ValueError("pass the guard as streamer too: generate(**inputs, **guard.options)")
        try:
            self._score(input_ids[:, self._prompt :].tolist())
        except Exception as error:
            self._fail(error)
        return torch.tensor([row.over for row in self._rows], device=input_ids.device)

    def end(self) -> None:
        """transformers calls this when it is through."""
        for i, row in enumerate(self._rows):
            try:
                self._show(i, row.end("length"))
            except Exception as error:
                row.fail(error)
        self._ended = True
        self._batch.close()

    def _score(self, written: list[list[int]]) -> None:
        if not self._rows:
            self._rows = [_Row(self._batch.join(), self._control, self.tokenizer, self.threshold) for _ in written]
        fresh = {i: row.read(ids) for i, (row, ids) in enumerate(zip(self._rows, written, strict=True)) if not row.over}
        # one token per row and pass, so that a row that is halted costs no more and its reply ends where it must
        while any(fresh.values()):
            step = {i: ids.pop(0) for i, ids in fresh.items() if ids and not self._rows[i].over}
            if not step:
                return
            self._batch.push({self._rows[i].scored: [token] for i, token in step.items()})
            for i, token in step.items():
                row = self._rows[i]
                self._show(i, row.push(token))
                if row.over:
                    self._batch.leave(row.scored)
        for i, row in enumerate(self._rows):
            if row.ends and not row.over:
                self._show(i, row.end("end"))
                self._batch.leave(row.scored)

    def _show(self, i: int, texts) -> None:
        for event in texts:
            if self.on_text is not None and event.text:
                self.on_text(i, event.text)

    def _fail(self, error: Exception) -> None:
        for row in self._rows:
            row.fail(error)
        self._batch.close()


class _Row:
    """One reply. `over`: nothing more is wanted of it; `ends`: its end of text has come."""

    def __init__(self, scored: Row, control: ControlTokens, tokenizer, threshold: float):
        self.scored, self.reply = scored, Reply()
        self.over = self.ends = False
        self._control, self._tokenizer = control, tokenizer
        self._in_note = control.note_end is not None
        self._note: list[int] = []
        self._seen = 0
        stops = StopSequences(())
        self._answer = Answer(self.reply, tokenizer, TokenGate(stops, ScoredRow(scored), threshold), stops)

    def read(self, ids: list[int]) -> list[int]:
        """Those of the row's ids that are new and belong to the reply."""
        new, self._seen = ids[self._seen :], len(ids)
        found: list[int] = []
        for token in new:
            if self.ends:  # padding
                break
            if self._in_note:
                self._in_note = token != self._control.note_end
                self._note += [token] * self._in_note
            elif token in self._control.ends:
                self.ends = True
            elif token in self._control.all:
                raise GenerationError(f"the assistant wrote the control token {token} in its reply")
            else:
                found.append(token)
        return found

    def push(self, token: int):
        yield from self._answer.push(token)
        if self._answer.over:
            yield from self.end(None)

    def end(self, finish: str | None):
        if not self.over:
            self.over = True
            if self._in_note:
                raise GenerationError("the private note did not end")
            self.reply.note, self.reply.note_tokens = decode_text(self._tokenizer, self._note), len(self._note)
            yield from self._answer.end("end" if self.ends else finish)
            self._answer.withhold()

    def fail(self, error: Exception) -> None:
        if not self.over or self.reply.status == "error":
            self.over = True
            self.reply.status, self.reply.error = "error", f"{type(error).__name__}: {error}"
            generation = isinstance(error, GenerationError)
            self.reply.error_kind = "generation_failed" if generation else "classifier_failed"
            self._answer.withhold()
