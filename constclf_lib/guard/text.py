"""`guard_text_stream`: any provider's stream of text, guarded by the output classifier. Built in chapter 07.

Wraps an iterable (or async iterable) of text deltas and yields only text that has been scored and stayed below the
threshold. It ends quietly; `.status` says why: "released" (all of it), "halted_output", "error" (the provider or the
classifier failed), "closed" (the reader left). In every case the provider's stream is closed, the cache is freed, and
nothing more comes out.

What comes out, joined, and the decision are the same for every chunking (streaming/text_stream.py).
Deliberately not here: retries, and a rewording of what was stopped.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import suppress

from ..streaming import StreamingScorer


class _TextGuard:
    """What both twins share. status, released_text, withheld_text (received but not released), error, risk,
    token_scores (one per token read).
    """

    def __init__(self, scorer: StreamingScorer, threshold: float):
        if math.isnan(threshold):
            raise ValueError("the threshold is NaN: nothing would ever be above it")
        self.threshold = threshold
        self.status, self.released_text, self.withheld_text, self.error = "streaming", "", "", ""
        self._stream = scorer.open_text()

    @property
    def risk(self) -> float:
        return self._stream.risk

    @property
    def token_scores(self) -> list[float]:
        return self._stream.scores

    def _cleared(self, delta: str | bytes | None, final: bool = False) -> Iterator[str]:
        for piece in self._stream.pieces(delta, final):
            if piece.risk > self.threshold:
                self.status, self.withheld_text = "halted_output", piece.text
                break
            self.released_text += piece.text
            yield piece.text
        else:
            if final:
                self.status = "released"

    def _end(self, error: BaseException | None) -> None:
        """Writes down how it ended and frees the stream. `error` is what is under way, if anything."""
        if isinstance(error, GeneratorExit):
            self.status = "closed"
        elif error is not None:
            self.status, self.error = "error", f"{type(error).__name__}: {error}"
        self.withheld_text += self._stream.held
        self._stream.close()


class GuardedTextStream(_TextGuard):
    """An iterator of released text; also a context manager. See the module's docstring for `status`."""

    def __init__(self, deltas: Iterable[str | bytes | None], scorer: StreamingScorer, threshold: float):
        super().__init__(scorer, threshold)
        self._deltas = deltas
        self._texts = self._run()

    def _run(self) -> Iterator[str]:
        failure = None
        try:
            for delta in self._deltas:
                yield from self._cleared(delta)
                if self.status != "streaming":
                    return
            yield from self._cleared(None, final=True)
        except Exception as error:
            failure = error
        except BaseException as error:
            failure = error
            raise
        finally:
            self._end(failure)
            with suppress(Exception):  # a provider that fails to close has nothing left to say
                getattr(self._deltas, "close", lambda: None)()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._texts)

    def close(self) -> None:
        """Ends the stream and the provider's. May be called twice."""
        self._texts.close()
        if self.status == "streaming":  # it was never read from, so the generator had nothing to clean up
            self._end(GeneratorExit())
            getattr(self._deltas, "close", lambda: None)()

    def __enter__(self) -> GuardedTextStream:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class AsyncGuardedTextStream(_TextGuard):
    """The same for `async for`. Scoring runs in the event loop (a millisecond or so per word in the lab)."""

    def __init__(self, deltas: AsyncIterable[str | bytes | None], scorer: StreamingScorer, threshold: float):
        super().__init__(scorer, threshold)
        self._deltas = deltas
        self._texts = self._run()

    async def _run(self) -> AsyncIterator[str]:
        failure = None
        try:
            async for delta in self._deltas:
                for text in self._cleared(delta):
                    yield text
                if self.status != "streaming":
                    return
            for text in self._cleared(None, final=True):
                yield text
        except Exception as error:
            failure = error
        except BaseException as error:
            failure = error
            raise
        finally:
            self._end(failure)
            if hasattr(self._deltas, "aclose"):
                with suppress(Exception):
                    await self._deltas.aclose()

    def __aiter__(self) -> AsyncIterator[str]:
        return self._texts

    async def aclose(self) -> None:
        """Ends the stream and the provider's. May be called twice."""
        await self._texts.aclose()
        if self.status == "streaming":
            self._end(GeneratorExit())
            if hasattr(self._deltas, "aclose"):
                await self._deltas.aclose()


def guard_text_stream(deltas, scorer: StreamingScorer, threshold: float) -> GuardedTextStream | AsyncGuardedTextStream:
    """Guards a stream of str or UTF-8 bytes deltas (None is skipped): yields released text, and has `.status` when it
    ends.

    An async iterable gives an async iterator. Flagged is risk > threshold, strictly. Raises ValueError for a NaN
    threshold or a classifier without a tokenizer, TypeError for what cannot be iterated; everything later is told in
    `.status` and `.error`, except an interrupt, which is raised.
    """
    if isinstance(deltas, AsyncIterable):
        return AsyncGuardedTextStream(deltas, scorer, threshold)
    if isinstance(deltas, str | bytes) or not isinstance(deltas, Iterable):
        raise TypeError(f"deltas is an iterable of text, not {type(deltas).__name__}; wrap a single text in a list")
    return GuardedTextStream(deltas, scorer, threshold)
