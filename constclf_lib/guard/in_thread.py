"""A stream that blocks, read from an event loop: each step in a thread, one at a time. Built in chapter 08.

Deliberately not here: what the stream is. A reader who leaves (a cancelled task, a timeout around it) ends it: a step
that is under way is abandoned, its result never looked at, and the stream closed when it returns.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")
_END: Any = object()


async def in_thread(
    events: Generator[T, None, None], executor: Executor | None = None, interrupt: Callable[[], None] | None = None
) -> AsyncGenerator[T, None]:
    """The items of `events`. executor: whose threads, None for the event loop's own. interrupt: called when the reader
    leaves, from the event loop, to make a step return that would wait for long; it must not raise.
    """
    stepping, left = threading.Lock(), threading.Event()

    def step() -> T:
        try:
            with stepping:
                return _END if left.is_set() else next(events, _END)
        finally:
            if left.is_set():
                close()

    def close() -> None:
        if stepping.acquire(blocking=False):  # otherwise the thread that holds it closes
            try:
                events.close()
            finally:
                stepping.release()

    try:
        while (item := await asyncio.get_running_loop().run_in_executor(executor, step)) is not _END:
            yield item
    finally:
        left.set()
        if interrupt is not None:
            interrupt()
        close()
