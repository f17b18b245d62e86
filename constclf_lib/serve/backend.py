"""What answers behind the endpoint: a guarded model or a guarded upstream server, in one batch where that is possible.
Built in chapter 08.

Deliberately not here: HTTP (app.py), the words of the API (protocol.py).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..guard import BatchedGuard, GuardedModel, GuardedUpstream, Reply, TokenEvent, TooManyRequests
from ..prompts import Prompt
from ..streaming import SharedScorer, StreamingScorer


class Backend:
    """guard: a GuardedModel or GuardedUpstream. max_streams: replies at a time; max_waiting: more that may wait (not in
    front of an upstream server, where none waits). `batched`: whether replies are written and scored in one batch
    (False: each on its own thread, scored in one batch where the classifier reads text).
    """

    def __init__(self, guard: GuardedModel | GuardedUpstream, max_streams: int = 64, max_waiting: int = 256):
        self.guard, self.max_streams = guard, max_streams
        self._engine: BatchedGuard | None = None
        if isinstance(guard, GuardedModel) and BatchedGuard.serves(guard):
            self._engine = BatchedGuard(guard, max_streams, max_waiting)
        elif type(guard.monitor) is StreamingScorer:
            guard.monitor = SharedScorer(guard.monitor)
        self.batched = self._engine is not None
        self._threads = None if self.batched else ThreadPoolExecutor(max_streams, thread_name_prefix="guard")
        self._streams = 0

    @property
    def upstream(self) -> bool:
        return isinstance(self.guard, GuardedUpstream)

    @property
    def streams(self) -> int:
        """Requests that are being answered or wait."""
        return self._streams

    async def answer(
        self, prompt: Prompt, sampling: dict | None = None, **options
    ) -> AsyncGenerator[TokenEvent | Reply, None]:
        """TokenEvents and then one Reply, as `GuardedModel.astream`; left early, everything behind it ends. Raises
        TooManyRequests.
        """
        self._streams += 1
        more: dict[str, Any] = {"sampling": sampling} if self.upstream and sampling else {}
        try:
            if self._engine is not None:
                events = self._engine.astream(prompt, **options)
            elif self._streams > self.max_streams:
                raise TooManyRequests(f"{self._streams - 1} requests are being answered")
            else:
                events = self.guard.astream(prompt, executor=self._threads, **options, **more)
            try:
                async for event in events:
                    yield event
            finally:
                await events.aclose()
        finally:
            self._streams -= 1

    def close(self) -> None:
        """Ends the threads."""
        if self._engine is not None:
            self._engine.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
