"""`guard_text_stream`: any provider's stream of text, guarded by the output classifier. Built in chapter 07.

Wraps an iterable (or async iterable) of text deltas and yields only text that has been scored and stayed below the
threshold. It ends quietly; `.status` says why: "released" (all of it), "halted_output", "error" (the provider or the
classifier failed), "closed" (the reader left: `close`, a cancelled task, a timeout around it). In every case the
provider's stream is closed, the cache is freed, and nothing more comes out. Only a delta that is no text at all is
raised, as TypeError: it is a mistake in the program, and it would otherwise look like an empty answer.

What comes out, joined, and the decision are the same for every chunking (streaming/text_stream.py).
The async one scores in a thread of its own, one piece at a time, so the event loop goes on meanwhile.
Deliberately not here: retries, and a rewording of what was stopped.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from contextlib import suppress
from typing import Any, overload

from ..generation import StopSequences
from ..streaming import StreamingScorer
from .gates import TextGate
from .types import TokenEvent

_END: Any = object()  # no provider's delta


class _NoTextError(TypeError):
    """A delta that is no text: raised to the reader, unlike what a provider or a classifier raises."""


class _TextGuard:
    """What both twins share. status, released_text, withheld_text (received but not released), error, risk,
    token_scores (one per token read).
    """

    def __init__(self, deltas, scorer: StreamingScorer, threshold: float):
        if math.isnan(threshold):
            raise ValueError("the threshold is NaN: nothing would ever be above it")
        self.threshold = threshold
        self.status, self.released_text, self.withheld_text, self.error = "streaming", "", "", ""
        self._deltas: Any = deltas
        self._source: Any = None  # its iterator, once it is read
        self._stream = scorer.open_text()
        self._gate = TextGate(StopSequences(()), self._stream, threshold)
        self._scoring, self._freed = threading.Lock(), False

    @property
    def risk(self) -> float:
        return self._stream.risk

    @property
    def token_scores(self) -> list[float]:
        return self._stream.scores

    def _events(self, delta: str | bytes | None, final: bool = False) -> Iterator[TokenEvent]:
        if delta is not None and not isinstance(delta, str | bytes | bytearray | memoryview):
            raise _NoTextError(
                f"a delta is str, bytes or None, not {type(delta).__name__}; pass the text inside, as in "
                "(chunk.choices[0].delta.content for chunk in stream)"
            )
        return self._gate.push_delta(delta, final)

    def _next(self, events: Iterator[TokenEvent]) -> TokenEvent | None:
        """The next cleared event. One thread at a time; a reader who left meanwhile frees the stream here."""
        try:
            with self._scoring:
                return None if self._freed or self.status != "streaming" else next(events, None)
        finally:
            self._free()

    def _release(self, event: TokenEvent) -> str:
        self.released_text += event.text
        return event.text

    def _providers(self) -> list:
        """What is to be closed: the iterator and the object that it came from, once if they are the same."""
        return [stream for stream in (self._source, self._deltas) if stream is not None][self._source is self._deltas :]

    def _end(self, error: BaseException | None) -> None:
        """Writes down how it ended and frees the stream. `error` is what is under way, if anything."""
        if isinstance(error, GeneratorExit | asyncio.CancelledError):
            self.status = "closed"
        elif error is not None:
            self.status, self.error = "error", f"{type(error).__name__}: {error}"
        else:
            self.status = "halted_output" if self._gate.halted else "released"
        self._free()

    def _free(self) -> None:
        """Frees the stream once it has ended, unless a thread still scores on it: then that thread does it."""
        if self.status == "streaming" or not self._scoring.acquire(blocking=False):
            return
        try:
            if not self._freed:
                self._freed = True
                self.withheld_text = ("".join(self._gate.tokens) + self._stream.held)[len(self.released_text) :]
                self._gate.close()
        finally:
            self._scoring.release()


class GuardedTextStream(_TextGuard):
    """An iterator of released text; also a context manager. See the module's docstring for `status`."""

    def __init__(self, deltas: Iterable[str | bytes | None], scorer: StreamingScorer, threshold: float):
        super().__init__(deltas, scorer, threshold)
        self._texts = self._run()

    def _run(self) -> Generator[str, None, None]:
        failure: BaseException | None = None
        try:
            self._source = iter(self._deltas)
            final = False
            while not final and not self._gate.halted:
                delta = next(self._source, _END)
                final = delta is _END
                events = self._events(None if final else delta, final)
                while (event := self._next(events)) is not None:
                    yield self._release(event)
        except _NoTextError as error:
            failure = error
            raise
        except Exception as error:
            failure = error
        except BaseException as error:
            failure = error
            raise
        finally:
            self._end(failure)
            self._close_provider()

    def _close_provider(self) -> None:
        for stream in self._providers():
            with suppress(Exception):  # a provider that fails to close has nothing left to say
                getattr(stream, "close", lambda: None)()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._texts)

    def close(self) -> None:
        """Ends the stream and the provider's. May be called twice."""
        self._texts.close()
        if self.status == "streaming":  # it was never read from, so the generator had nothing to clean up
            self._end(GeneratorExit())
            self._close_provider()

    def __enter__(self) -> GuardedTextStream:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class AsyncGuardedTextStream(_TextGuard):
    """An async iterator of released text (`async for`, `anext`); also an async context manager. A cancelled read ends
    it: a pass that is under way is abandoned, and the stream freed when it returns.
    """

    def __init__(self, deltas: AsyncIterable[str | bytes | None], scorer: StreamingScorer, threshold: float):
        super().__init__(deltas, scorer, threshold)
        self._texts = self._run()

    async def _run(self) -> AsyncGenerator[str, None]:
        failure: BaseException | None = None
        try:
            self._source = aiter(self._deltas)
            final = False
            while not final and not self._gate.halted:
                delta = await anext(self._source, _END)
                final = delta is _END
                events = self._events(None if final else delta, final)
                while (event := await asyncio.to_thread(self._next, events)) is not None:
                    yield self._release(event)
        except _NoTextError as error:
            failure = error
            raise
        except Exception as error:
            failure = error
        except BaseException as error:
            failure = error
            raise
        finally:
            self._end(failure)
            await self._close_provider()

    async def _close_provider(self) -> None:
        for stream in self._providers():
            with suppress(Exception):
                end = getattr(stream, "aclose", None) or getattr(stream, "close", None)
                if end is not None and inspect.isawaitable(ended := end()):
                    await ended

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        return await anext(self._texts)

    async def aclose(self) -> None:
        """Ends the stream and the provider's. May be called twice."""
        await self._texts.aclose()
        if self.status == "streaming":
            self._end(GeneratorExit())
            await self._close_provider()

    async def __aenter__(self) -> AsyncGuardedTextStream:
        return self

    async def __aexit__(self, *_) -> None:
        await self.aclose()


@overload
def guard_text_stream(
    deltas: AsyncIterable[str | bytes | None], scorer: StreamingScorer, threshold: float
) -> AsyncGuardedTextStream: ...
@overload
def guard_text_stream(
    deltas: Iterable[str | bytes | None], scorer: StreamingScorer, threshold: float
) -> GuardedTextStream: ...
def guard_text_stream(deltas, scorer: StreamingScorer, threshold: float) -> GuardedTextStream | AsyncGuardedTextStream:
    """Guards a stream of str or UTF-8 bytes deltas (None is skipped): yields released text, and has `.status` when it
    ends.

    An async iterable gives an async iterator. Flagged is risk > threshold, strictly. Raises ValueError for a NaN
    threshold or a classifier without a tokenizer, TypeError for what cannot be iterated (and, when it is read, for a
    delta that is no text); everything later is told in `.status` and `.error`, except an interrupt, which is raised.
    """
    if isinstance(deltas, AsyncIterable):
        return AsyncGuardedTextStream(deltas, scorer, threshold)
    if isinstance(deltas, str | bytes) or not isinstance(deltas, Iterable):
        raise TypeError(f"deltas is an iterable of text, not {type(deltas).__name__}; wrap a single text in a list")
    return GuardedTextStream(deltas, scorer, threshold)
