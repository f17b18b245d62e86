"""Many guarded replies at once: one thread, one batch for the assistant, one for the output classifier, and requests
that come and go. Built in chapter 08, for a server.

Each reply is the one that `GuardedModel.reply` gives, up to the rounding of a batch, decided by the same code
(answer.py, gates.py). A step is: read the prompts that wait (all texts in one batch of the input classifier), let the
assistant write one token for everybody, score those tokens, and only then hand out what stayed below the threshold. A
reply that is halted, over or no longer wanted leaves before the next step.

A pass that fails or outlives step_timeout ends every reply that was in it with status "error", as nobody can say which
of them it was about; those that wait begin with new batches. A score that is no number ends its own reply alone.

Deliberately not here: guards through text, monitors that read hidden states, and assistants whose cache cannot be
shared. `BatchedGuard.serves` says which; read those with `GuardedModel.astream`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from ..errors import ClassifierError
from ..generation import RunningTurn, RunningTurns, StopSequences, can_run, read_prompt
from ..prompts import Prompt, texts_to_judge, user_text
from ..streaming import Row, RunningBatch, StreamingScorer, within
from ..tokenization import decode_text
from .answer import Answer, blame, fail
from .gates import OpenGate, ScoredRow, TokenGate
from .model import GuardedModel, judge_prompt, reading_options
from .types import Reply, Thresholds, TokenEvent, blocks

JOIN_AT_ONCE = 16  # prompts that one step reads at most, so that those who are being answered do not wait for all


class TooManyRequests(RuntimeError):
    """More requests than are served and may wait. Try again later."""


class BatchedGuard:
    """guard: a GuardedModel that `serves` says yes to (ValueError otherwise). max_streams: replies that are written at
    the same time; max_waiting: requests that may wait for a place. Its thread starts with the first request and ends
    with `close`.
    """

    def __init__(self, guard: GuardedModel, max_streams: int = 64, max_waiting: int = 256):
        if not self.serves(guard):
            raise ValueError("this guard's replies cannot be written in one batch; use its astream")
        self.guard, self.max_streams, self.max_waiting = guard, max_streams, max_waiting
        self._waiting: deque[_Request] = deque()
        self._answering: list[_Request] = []
        self._wake = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._begin_anew()

    @staticmethod
    def serves(guard: GuardedModel) -> bool:
        """Whether this guard's replies can be written and scored in one batch."""
        plain = guard.monitor is None or type(guard.monitor) is StreamingScorer
        return plain and not guard.through_text and can_run(guard.assistant)

    @property
    def streams(self) -> int:
        """Replies that are being written, and requests that wait."""
        return len(self._answering) + len(self._waiting)

    def astream(
        self,
        prompt: Prompt,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        stop=(),
        guard: bool = True,
        thresholds: Thresholds | None = None,
    ) -> AsyncGenerator[TokenEvent | Reply, None]:
        """As `GuardedModel.astream`. Raises TypeError or ValueError at once for arguments that make no sense, and
        TooManyRequests when it is first read.
        """
        options, stops = reading_options(prompt, max_new_tokens, temperature, seed, stop)
        limits: Any = thresholds or self.guard.thresholds
        return self._events(_Request(prompt, options, stops, guard, limits))

    async def _events(self, request: _Request) -> AsyncGenerator[TokenEvent | Reply, None]:
        request.loop, request.events = asyncio.get_running_loop(), asyncio.Queue()
        self._enter(request)
        try:
            while True:
                event = await request.events.get()
                yield event
                if isinstance(event, Reply):
                    return
        finally:
            request.left = True

    def _enter(self, request: _Request) -> None:
        with self._wake:
            if self._closed:
                raise RuntimeError("this guard is closed")
            if len(self._waiting) >= self.max_waiting + max(0, self.max_streams - len(self._answering)):
                raise TooManyRequests(f"{self.streams} requests are being answered or wait")
            self._waiting.append(request)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="guard", daemon=True)
                self._thread.start()
            self._wake.notify()

    def close(self) -> None:
        """Ends the thread; replies that are under way end with status "error". May be called twice."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(timeout=60)

    # --- the thread

    def _begin_anew(self) -> None:
        guard = self.guard
        self._turns = RunningTurns(guard.assistant, guard.tokenizer, guard.max_note_tokens, guard.step_timeout)
        self._batch = None if guard.monitor is None else RunningBatch(guard.monitor)

    def _work(self) -> None:
        failure: Exception = RuntimeError("the server was closed")
        try:
            self._serve()
        except Exception as error:  # not even new batches can be made: nothing is answered from here on
            failure = error
        with self._wake:
            self._closed = True
            gone = [*self._answering, *self._waiting]
            self._answering, self._waiting = [], deque()
        for request in gone:
            request.end(failure)
        _deliver(gone)

    def _serve(self) -> None:
        while True:
            with self._wake:
                while not (self._closed or self._waiting or self._answering):
                    self._wake.wait()
                if self._closed:
                    return
                room = min(self.max_streams - len(self._answering), JOIN_AT_ONCE)
                new = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
                self._answering += new
            try:
                self._round(new)
            except Exception as error:  # nobody foresaw it: all that was under way ends, and the thread goes on
                self._fail_all(error, "generation")
            self._hand_out()

    def _round(self, new: list[_Request]) -> None:
        for request in self._answering:
            if request.left:
                request.over = True
        self._free()
        self._admit([request for request in new if not request.over])
        if not len(self._turns):
            return
        try:
            turns = set(self._turns.step())
        except Exception as error:
            return self._fail_all(error, "generation")
        wrote = [request for request in self._answering if request.turn in turns]
        scored = {
            request.row: [request.turn.new]
            for request in wrote
            if request.row is not None and request.turn is not None and request.turn.new is not None
        }
        if scored and self._batch is not None:
            try:
                self._batch.push(scored)
            except Exception as error:
                return self._fail_all(error, "classifier")
        for request in wrote:
            request.take()

    def _admit(self, new: list[_Request]) -> None:
        guard, asked = self.guard, []
        for request in new:
            try:
                with blame(request.reply, "bad_input"):
                    request.ids = read_prompt(guard.assistant, guard.tokenizer, request.prompt, guard.max_prompt_tokens)
                request.reply.prompt_tokens = len(request.ids)
                if request.guarded and guard.input_classifier is not None:
                    asked.append(request)
            except Exception as error:
                request.end(error)
        self._judge(asked)
        for request in new:
            if request.over:
                continue
            try:
                gate: Any = OpenGate(request.stops)
                if request.guarded and self._batch is not None:
                    with blame(request.reply, "classifier"):
                        request.row = self._batch.join(user_text(request.prompt, guard.judged_roles))
                    gate = TokenGate(request.stops, ScoredRow(request.row), request.limits.output)
                request.answer = Answer(request.reply, guard.tokenizer, gate, request.stops)
                request.decode = lambda ids: decode_text(guard.tokenizer, ids)
                request.turn = self._turns.join(request.ids, **request.options)
                if request.turn.over:  # nothing was asked for
                    request.take()
            except Exception as error:
                request.end(error)

    def _judge(self, requests: list[_Request]) -> None:
        """The input classifier on all texts of these requests; alone if that fails, so that none pays for another."""
        if not requests:
            return
        guard = self.guard
        texts = [texts_to_judge(request.prompt, guard.judged_roles) for request in requests]
        try:
            flat = [text for group in texts for text in group]
            scores = within(guard.step_timeout, lambda: guard.input_classifier.score(flat))
            harm, off_label = scores.harm.tolist(), scores.off_label.tolist()
            if not len(harm) == len(off_label) == len(flat):
                raise ClassifierError(f"the input classifier gave {len(harm)} scores for {len(flat)} texts")
        except Exception as error:
            if len(requests) > 1:
                for request in requests:
                    self._judge([request])
            else:
                try:
                    with blame(requests[0].reply, "classifier"):
                        raise error
                except Exception:
                    requests[0].end(error)
            return
        at = 0
        for request, group in zip(requests, texts, strict=True):
            part = slice(at, at + len(group))
            at += len(group)
            try:
                with blame(request.reply, "classifier"):
                    highest = judge_prompt(request.reply, harm[part], off_label[part])
                if blocks(request.limits, *highest):
                    request.reply.status = "blocked_input"
                    request.end()
            except Exception as error:
                request.end(error)

    def _fail_all(self, error: Exception, who: str) -> None:
        for request in self._answering:
            if not request.over:
                try:
                    with blame(request.reply, who):
                        raise error
                except Exception:
                    request.end(error)
        if self._batch is not None:
            self._batch.close()
        self._begin_anew()

    def _hand_out(self) -> None:
        for request in self._answering:
            if request.over and request.reply.status in ("blocked_input", "halted_output"):
                request.reply.refusal = self.guard.refusal_text
        ready = list(self._answering)
        self._free()  # first, so that whoever has its Reply finds its place free
        _deliver(ready)

    def _free(self) -> None:
        """Those that are over leave both batches."""
        over = [request for request in self._answering if request.over]
        self._turns.leave(*(request.turn for request in over if request.turn is not None))
        for request in over:
            if request.row is not None and self._batch is not None:
                self._batch.leave(request.row)
        with self._wake:
            self._answering = [request for request in self._answering if not request.over]


class _Request:
    """One request on its way: what was asked, its place in both batches, and what is ready to be handed out."""

    def __init__(self, prompt: Prompt, options: dict, stops: StopSequences, guarded: bool, limits: Thresholds):
        self.prompt, self.options, self.stops, self.guarded, self.limits = prompt, options, stops, guarded, limits
        self.reply = Reply()
        self.left = self.over = False
        self.ids: list[int] = []
        self.turn: RunningTurn | None = None
        self.row: Row | None = None
        self.answer: Answer | None = None
        self.decode: Any = None
        self.ready: list[TokenEvent | Reply] = []
        self.loop: Any = None
        self.events: Any = None

    def take(self) -> None:
        """What the last step brought, scored by now."""
        turn, answer = self.turn, self.answer
        if turn is None or answer is None or self.over:
            return
        try:
            if turn.new is not None:
                self.ready += answer.push(turn.new)
            if turn.error is not None:
                with blame(self.reply, "generation"):
                    raise turn.error
            if answer.over or turn.state.finish is not None:
                self._note(turn)
                self.ready += answer.end(turn.state.finish)
                self.end()
        except Exception as error:
            self.end(error)

    def _note(self, turn: RunningTurn) -> None:
        self.reply.note, self.reply.note_tokens = self.decode(turn.state.note_ids), len(turn.state.note_ids)

    def end(self, error: Exception | None = None) -> None:
        """Nothing follows but the Reply."""
        if not self.over:
            self.over = True
            if error is not None:
                fail(self.reply, error)
            if self.answer is not None:
                self.answer.withhold()
            self.ready.append(self.reply)


def _deliver(requests: Iterator[_Request] | list[_Request]) -> None:
    """Hands what is ready to the event loops, one call per loop."""
    by_loop: dict[Any, list[tuple[Any, list]]] = {}
    for request in requests:
        if request.ready and not request.left and request.loop is not None:
            by_loop.setdefault(request.loop, []).append((request.events, request.ready))
        request.ready = []
    for loop, parts in by_loop.items():
        try:
            loop.call_soon_threadsafe(_put, parts)
        except RuntimeError:  # the loop is closed: nobody reads any more
            continue


def _put(parts: list[tuple[Any, list]]) -> None:
    for queue, items in parts:
        for item in items:
            queue.put_nowait(item)
