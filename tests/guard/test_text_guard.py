"""`guard_text_stream`: whole iterators, sync and async; every provider is closed; failures are loud or named."""

import asyncio
import contextlib
import copy
import gc
import sys
import threading
import warnings
from types import SimpleNamespace

import pytest
from tiny_models import FakeCache, WordClassifier, lab_tokenizer

from constclf_lib.guard import guard_text_stream
from constclf_lib.streaming import StreamingScorer
from constclf_lib.tokenization import text_ids

LAB = lab_tokenizer()
TEXT = "The old lantern sleeps. Grind the ashbane and wait."
(HARMFUL,) = text_ids(LAB, " ashbane")


def guarded(deltas, harmful=(HARMFUL,), threshold=0.5, fail_at=None):
    classifier = WordClassifier(LAB, harmful)
    classifier.restart(fail_at)
    return guard_text_stream(deltas, StreamingScorer(classifier), threshold)


class Provider:
    """Deltas from an async iterator of a given shape; `closed` counts the calls that closed it."""

    def __init__(self, deltas, then=None):
        self.deltas, self.then, self.closed = list(deltas), then, 0

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        if not self.deltas:
            if self.then is not None:
                await self.then()
            raise StopAsyncIteration
        return self.deltas.pop(0)


class AsyncClose(Provider):  # openai.AsyncStream
    async def close(self):
        await asyncio.sleep(0)
        self.closed += 1


class SyncClose(Provider):
    def close(self):
        self.closed += 1


class AClose(Provider):
    async def aclose(self):
        self.closed += 1


class FailsToClose(Provider):
    async def aclose(self):
        self.closed += 1
        raise OSError("already gone")


class Fresh(AsyncClose):
    """Its iterator is a generator of its own, as openai.AsyncStream's is."""

    ended = 0

    def __aiter__(self):
        async def deltas():
            try:
                while self.deltas:
                    yield self.deltas.pop(0)
            finally:
                self.ended += 1

        return deltas()


SHAPES = [AsyncClose, SyncClose, AClose, FailsToClose, Fresh]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_provider_is_closed_however_it_ends(shape):
    async def through(**options):
        provider = shape(list(TEXT))
        stream = guarded(provider, **options)
        return "".join([text async for text in stream]), stream, provider

    async def left(reads):
        provider = shape(list(TEXT))
        async with guarded(provider) as stream:
            for _ in range(reads):
                await anext(stream)
        return stream, provider

    text, stream, provider = asyncio.run(through())
    assert (text, stream.status, provider.closed) == ("The old lantern sleeps. Grind the", "halted_output", 1)
    text, stream, provider = asyncio.run(through(harmful=()))
    assert (text, stream.status, provider.closed) == (TEXT, "released", 1)
    text, stream, provider = asyncio.run(through(fail_at={3: lambda: 1 / 0}))
    assert (text, stream.status, provider.closed) == ("The old lantern", "error", 1) and "division" in stream.error
    for reads in (0, 1, 2):
        stream, provider = asyncio.run(left(reads))
        assert (stream.status, provider.closed) == ("closed", 1)
        assert shape is not Fresh or not reads or provider.ended == 1
    gc.collect()
    assert not FakeCache.alive


def test_it_is_an_async_iterator_and_an_async_context_manager():
    async def run():
        async with guarded(AClose(list(TEXT))) as stream:
            assert aiter(stream) is stream
            first = await anext(stream)
            rest = [text async for text in stream]
            assert await anext(stream, "done") == "done"
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        await stream.aclose()
        return first + "".join(rest), stream.status

    assert asyncio.run(run()) == ("The old lantern sleeps. Grind the", "halted_output")


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
def test_a_reader_who_is_cancelled_has_left(how):
    async def run():
        waits = asyncio.Event()
        provider = AsyncClose(["The old lantern "], then=waits.wait)
        stream = guarded(provider)
        assert await anext(stream) == "The"
        assert await anext(stream) == " old"
        if how == "timed out":
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(stream), 0.05)
        else:
            reading = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.02)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        assert await anext(stream, None) is None
        return stream, provider

    stream, provider = asyncio.run(run())
    assert (stream.status, stream.error, provider.closed) == ("closed", "", 1)
    assert stream.released_text == "The old" and stream.withheld_text == " lantern " and stream._stream.closed


def test_a_provider_that_times_out_by_itself_has_failed():
    async def late():
        raise TimeoutError("read timed out")

    async def run():
        stream = guarded(AClose(["The old lan"], then=late))
        return "".join([text async for text in stream]), stream

    text, stream = asyncio.run(run())
    assert (text, stream.status) == ("The old", "error") and "read timed out" in stream.error


def test_scoring_leaves_the_event_loop_free_and_one_stream_is_one_thread_at_a_time():
    at_once, most, loop_ran = [], [], threading.Event()

    def slow():
        at_once.append(threading.get_ident())
        most.append(len(at_once))
        assert loop_ran.wait(20)  # set by the loop, while this thread scores
        at_once.pop()

    async def run():
        stream = guarded(AClose(list(TEXT)), harmful=(), fail_at={2: slow})
        asyncio.get_running_loop().call_later(0.02, loop_ran.set)
        return "".join([text async for text in stream])

    assert asyncio.run(run()) == TEXT and most == [1]


def test_a_pass_that_is_abandoned_is_never_looked_at_and_frees_the_stream_when_it_returns():
    go_on, begun = threading.Event(), threading.Event()

    def slow():
        begun.set()
        assert go_on.wait(20)

    async def run():
        provider = AsyncClose(list(TEXT))
        stream = guarded(provider, fail_at={2: slow})
        seen = [await anext(stream), await anext(stream)]
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.to_thread(begun.wait, 20)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        # the reader is gone and so is the provider; the thread still scores, and nobody touches its stream meanwhile
        assert (stream.status, provider.closed) == ("closed", 1) and not stream._stream.closed
        go_on.set()
        while not stream._freed:
            await asyncio.sleep(0.005)
        return stream, "".join(seen)

    stream, seen = asyncio.run(run())
    assert stream.released_text == seen == "The old" and stream._stream.closed
    assert stream.withheld_text == " lantern s" and stream.status == "closed"
    gc.collect()
    assert not FakeCache.alive


def test_many_async_streams_run_beside_each_other():
    async def read(stream):
        return "".join([text async for text in stream])

    async def run():
        scorer = StreamingScorer(WordClassifier(LAB, [HARMFUL]))
        streams = [guard_text_stream(AClose(TEXT.replace("old", w)), scorer, 0.5) for w in ("moth", "key", "frost") * 4]
        return await asyncio.gather(*map(read, streams))

    assert asyncio.run(run()) == [f"The {w} lantern sleeps. Grind the" for w in ("moth", "key", "frost") * 4]


def test_eight_threads_and_a_neighbour_that_truncates_share_one_tokenizer():
    """5 of 599 text streams released the forbidden word: its tokens were cut off while another thread truncated."""
    before, stop, wrong = sys.getswitchinterval(), threading.Event(), []
    tokenizer = copy.deepcopy(LAB)

    def neighbour():
        while not stop.is_set():
            with contextlib.suppress(RuntimeError):  # "Already borrowed", in older tokenizers
                tokenizer("a moth near the key", truncation=True, max_length=1)

    def reader():
        scorer = StreamingScorer(WordClassifier(tokenizer, [HARMFUL]))
        for _ in range(40):
            stream = guard_text_stream([TEXT], scorer, 0.5)
            if "".join(stream) != "The old lantern sleeps. Grind the":
                wrong.append(stream.released_text)

    threads = [threading.Thread(target=reader) for _ in range(8)]
    beside = [threading.Thread(target=neighbour) for _ in range(4)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in beside + threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        stop.set()
        sys.setswitchinterval(before)
    for thread in beside:
        thread.join()
    assert not wrong


def chunk(text):
    return SimpleNamespace(choices=[SimpleNamespace(delta=SimpleNamespace(content=text))])


@pytest.mark.parametrize("wrong", [chunk("The old"), 3, ["The"], {"text": "The"}], ids=["chunk", "int", "list", "dict"])
def test_a_delta_that_is_no_text_is_an_error_at_once_with_advice(wrong):
    closed = []

    def deltas():
        try:
            yield "The old lan"
            yield wrong
        finally:
            closed.append(True)

    stream = guarded(deltas())
    assert [next(stream), next(stream)] == ["The", " old"]
    with pytest.raises(TypeError, match=r"chunk\.choices\[0\]\.delta\.content for chunk in stream"):
        list(stream)
    assert (stream.status, stream.withheld_text, closed) == ("error", " lan", [True]) and list(stream) == []

    async def run():
        provider = AClose(["The old lan", wrong])
        stream = guarded(provider)
        with pytest.raises(TypeError, match="delta is str, bytes or None"):
            async for _ in stream:
                pass
        return stream.status, stream.released_text, provider.closed

    assert asyncio.run(run()) == ("error", "The old", 1)


def test_a_type_error_of_the_provider_is_the_providers():
    def deltas():
        yield "The old lan"
        raise TypeError("theirs")

    stream = guarded(deltas())
    assert "".join(stream) == "The old" and stream.status == "error" and "theirs" in stream.error


def test_a_sync_provider_is_closed_with_its_iterator():
    class Response:  # openai.Stream: iterating makes a generator, close() is the response's
        closed = ended = 0

        def __iter__(self):
            try:
                yield from TEXT
            finally:
                self.ended += 1

        def close(self):
            self.closed += 1

    for read in (0, 1, 100):
        response = Response()
        with guarded(response) as stream:
            for _, _ in zip(range(read), stream, strict=False):
                pass
        assert response.closed == 1 and response.ended == (read > 0)
        assert stream.status == ("halted_output" if read == 100 else "closed")


def test_nothing_is_left_unawaited():
    async def run():
        stream = guarded(AsyncClose(list(TEXT)))
        await anext(stream)
        await stream.aclose()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(run())
        gc.collect()
