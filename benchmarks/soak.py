"""Does a guard ever release too much, or keep memory? Run: python -m benchmarks.soak [--streams 10000] [--minutes 30]

Thousands of fuzzed streams on a tiny random model: token streams, text streams (sync and async), batches, whole replies
of a guarded assistant; texts cut anywhere (in bytes, too), thresholds anywhere, faults in any pass of the classifier or
from the provider (an exception, NaN), readers who leave or are cancelled at any step, windows that run over.

Each stream is first scored undisturbed and whole; that says what may come out. Then it is cut, disturbed and compared:
undisturbed, exactly that comes out; disturbed, a beginning of it. What came out is also scored by one plain pass of the
model, which shares no code with the streams. Prints counts as JSON; exit status 1 if anything came out too far, or if
memory grew. Every stream has its own seed: `--first N --streams 1` runs one again.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import inspect
import json
import math
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Cache, LlamaConfig, LlamaForCausalLM

from constclf_lib import data_path
from constclf_lib.errors import StreamClosedError
from constclf_lib.guard import GuardedModel, Thresholds, guard_text_stream
from constclf_lib.models import OutputClassifier
from constclf_lib.streaming import StreamingScorer, halt_index
from constclf_lib.tokenization import text_ids

CONTEXT = 48  # short, so that some streams run over it
CLOSE_ENOUGH = 1e-4  # two ways to compute one probability in float32
WARM = 0.2  # share of the streams after which memory is looked at for the first time
MEGABYTES = 24  # what the process may grow by from then on
WORDS = [" the", " old", " lantern", " ash", "bane", " harmful", " don't", "-", " Grind", " it,", ".", "?!", "  ", "\t"]
WORDS += ["\n\n", "\r\n", " 🐛", " é", "e\u0301", " 你好", " x x x", "<|end|>", "0123456789", "wwwwwwwwww" * 8]


class Broken(Exception):
    """The fault that is injected."""


class Faults:
    """Stands in front of one method. Once armed, it lets some calls pass, and spoils the next."""

    def __init__(self, owner, name: str, spoil):
        self._call, self._spoil = getattr(owner, name), spoil
        self.left, self.kind, self.fired = math.inf, "", False
        self.__signature__ = inspect.signature(self._call)  # models are asked which arguments they take
        setattr(owner, name, self)

    def arm(self, rng: random.Random, calls: int) -> None:
        self.disarm()
        if rng.random() < 0.5:
            self.left, self.kind = rng.randrange(calls), rng.choice(("exception", "NaN"))

    def disarm(self) -> None:
        self.left, self.kind, self.fired = math.inf, "", False

    def __call__(self, *args, **kwargs):
        self.left -= 1
        if self.left >= 0:
            return self._call(*args, **kwargs)
        self.left, self.fired = math.inf, True
        if self.kind == "exception":
            raise Broken
        return self._spoil(self._call(*args, **kwargs))


def _no_number(reading):
    """One row, at its newest token, is no number any more."""
    hidden = reading[0].clone()
    hidden[random.randrange(len(hidden)), -1] = math.nan
    return type(reading)(hidden, *reading[1:])


def _no_logits(output):
    output.logits = output.logits * math.nan
    return output


class Soak:
    """The models, and one method per kind of stream. `counts`: what happened; `wrong`: what must not have."""

    def __init__(self):
        torch.manual_seed(0)
        self.tokenizer = AutoTokenizer.from_pretrained(data_path("models", "bodyguard"))
        size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
        config = LlamaConfig(**size, vocab_size=len(self.tokenizer), max_position_embeddings=CONTEXT)
        self.classifier = OutputClassifier.from_backbone(LlamaForCausalLM(config), self.tokenizer).eval()
        torch.nn.init.normal_(self.classifier.value_head.out.weight, std=3.0)
        self.scorer = StreamingScorer(self.classifier)
        assistant = LlamaForCausalLM(config).eval()
        self.guard = GuardedModel(assistant, self.tokenizer, None, self.classifier, Thresholds(1, 1, 1))
        self.faults = Faults(self.classifier, "read", _no_number)
        self.assistant_faults = Faults(assistant, "forward", _no_logits)
        self.counts: Counter = Counter()
        self.wrong: list[str] = []
        self.seed = 0

    def run(self, seed: int) -> int:
        """The stream (or the batch of streams) of this seed; how many streams it was."""
        self.seed, rng = seed, random.Random(seed)
        random.seed(seed)
        kinds = (self.tokens, self.text, self.text_async, self.batch, self.reply)
        kind = rng.choices(kinds, weights=(35, 35, 8, 12, 10))[0]
        for faults in (self.faults, self.assistant_faults):
            faults.disarm()
        streams = kind(rng) or 1
        self.counts[kind.__name__] += streams
        return streams

    def check(self, right: bool, what: str) -> None:
        if not right:
            self.wrong.append(f"stream {self.seed}: {what}")

    # ------------------------------------------------------------------------------------------------ what is right

    def some_text(self, rng: random.Random) -> str:
        return "".join(rng.choices(WORDS, k=rng.randint(1, 24)))

    def threshold(self, rng: random.Random, scores: list[float]) -> float:
        """Somewhere between two scores, well away from both; often beyond all of them, so that faults are met."""
        if rng.random() < 0.4:
            return 2.0
        levels = [-1.0, *sorted(scores), 2.0]
        gaps = [(a, b) for a, b in zip(levels, levels[1:], strict=False) if b - a > 10 * CLOSE_ENOUGH]
        low, high = rng.choice(gaps)
        return (low + high) / 2

    def judge(self, released: list[int], threshold: float) -> None:
        """One plain pass over what came out."""
        if released and len(released) <= CONTEXT:
            self.faults.disarm()
            with torch.inference_mode():
                logits = self.classifier(torch.tensor([released]), with_lm_logits=False).harm_logits
            self.check(float(logits.sigmoid().max()) <= threshold + CLOSE_ENOUGH, "a token above the threshold is out")

    def compare(self, released, may_come, disturbed: bool, what: str) -> None:
        if disturbed:
            self.check(may_come[: len(released)] == released, f"{what}: not a beginning of what may come out")
        else:
            self.check(may_come == released, f"{what}: {len(released)} came out, {len(may_come)} should have")

    # ------------------------------------------------------------------------------------------------ kinds of streams

    def tokens(self, rng: random.Random) -> None:
        ids = text_ids(self.tokenizer, self.some_text(rng) * rng.choice((1, 1, 1, 4)))
        scores = self.scorer.score(ids)
        threshold = self.threshold(rng, scores)
        may_come = ids[: halt_index(scores, threshold)]
        leaves = rng.randrange(len(ids)) if rng.random() < 0.2 else math.inf
        self.faults.arm(rng, len(ids))
        released, at, ended = [], 0, "released"
        with self.scorer.open() as stream:
            while at < len(ids) and ended == "released":
                part = ids[at : at + rng.choice((1, 1, 2, 5, 60))]
                if at >= leaves:
                    stream.close()
                try:
                    stream.push(part)
                except Broken:
                    ended = "error"
                except StreamClosedError:
                    ended = "closed"
                except RuntimeError:  # a ClassifierError: NaN
                    ended = "error"
                else:
                    cut = halt_index(stream.scores, threshold)
                    ended = ended if cut is None else "halted_output"
                    released = ids[: at + len(part)][:cut]
                at += len(part)
            if ended == "error":
                self.check(stream.risk == math.inf and stream.closed, "a failed stream is open")
        self.check(stream._cache is None, "a cache is kept")
        self.compare(released, may_come, ended in ("error", "closed"), "tokens")
        self.check(self.faults.fired == (ended == "error"), "a fault was swallowed")
        self.judge(released, threshold)
        self.counts[ended] += 1
        self.counts["tokens scored"] += len(stream.scores)

    def deltas(self, rng: random.Random, text: str) -> list:
        whole = text.encode() if rng.random() < 0.3 else text
        cuts = sorted(rng.randrange(len(whole) + 1) for _ in range(rng.choice((0, 1, 5, 30))))
        parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        return [None, *parts] if rng.random() < 0.1 else parts

    def expected_text(self, rng: random.Random, text: str) -> tuple[float, str]:
        """(a threshold, what may come out of a text stream below it)."""
        with self.scorer.open_text() as stream:
            pieces = [*stream.push(text), *stream.flush()]
        threshold = self.threshold(rng, [piece.risk for piece in pieces])
        cut = next((i for i, piece in enumerate(pieces) if piece.risk > threshold), None)
        return threshold, "".join(piece.text for piece in pieces[:cut])

    def judge_text(self, guarded, text: str, may_come: str, threshold: float, disturbed: bool) -> None:
        self.compare(guarded.released_text, may_come, disturbed, "text")
        received = guarded.released_text + guarded.withheld_text
        self.check(text.startswith(received), "the record is not what was received")
        self.check(not self.faults.fired or guarded.status in ("error", "closed"), "a fault was swallowed")
        self.check(guarded._stream.closed and guarded._stream._stream._cache is None, "a cache is kept")
        ids, out = text_ids(self.tokenizer, text), text_ids(self.tokenizer, guarded.released_text)
        if ids[: len(out)] == out:
            self.judge(out, threshold)
        self.counts[guarded.status] += 1
        self.counts["tokens scored"] += len(guarded.token_scores)

    def text(self, rng: random.Random) -> None:
        text = self.some_text(rng)
        threshold, may_come = self.expected_text(rng, text)
        deltas = self.deltas(rng, text)
        breaks, leaves = (rng.randrange(len(deltas)) if rng.random() < p else math.inf for p in (0.15, 0.2))
        closed = []

        def provider():
            try:
                for i, delta in enumerate(deltas):
                    if i >= breaks:
                        raise Broken
                    yield delta
            finally:
                closed.append(True)

        self.faults.arm(rng, len(text_ids(self.tokenizer, text)))
        seen = ""
        with guard_text_stream(provider(), self.scorer, threshold) as guarded:
            for i, piece in enumerate(guarded):
                seen += piece
                if i >= leaves:
                    break
        self.check(seen == guarded.released_text, "the record is not what came out")
        self.check(list(guarded) == [], "an ended stream went on")
        self.check(bool(closed) or guarded.status == "closed", "the provider is open")
        self.judge_text(guarded, text, may_come, threshold, guarded.status in ("error", "closed"))

    def text_async(self, rng: random.Random) -> None:
        text = self.some_text(rng)
        threshold, may_come = self.expected_text(rng, text)
        deltas = self.deltas(rng, text)
        breaks, hangs = (rng.randrange(len(deltas)) if rng.random() < 0.2 else math.inf for _ in range(2))
        closed, seen = [], []

        async def provider():
            try:
                for i, delta in enumerate(deltas):
                    if i >= breaks:
                        raise Broken
                    if i >= hangs:
                        await asyncio.sleep(60)
                    yield delta
            finally:
                closed.append(True)

        async def run():
            nonlocal guarded
            guarded = guard_text_stream(provider(), self.scorer, threshold)
            try:
                async with guarded:
                    while True:
                        limit = 0.02 if hangs < math.inf else 60
                        seen.append(await asyncio.wait_for(anext(guarded), limit))
            except (TimeoutError, StopAsyncIteration):
                pass
            while not guarded._freed:  # a pass that was abandoned ends first
                await asyncio.sleep(0.001)

        guarded: Any = None
        self.faults.arm(rng, len(text_ids(self.tokenizer, text)))
        asyncio.run(run())
        self.check("".join(seen) == guarded.released_text, "the record is not what came out")
        self.check(bool(closed) or guarded.status == "closed", "the provider is open")
        self.judge_text(guarded, text, may_come, threshold, guarded.status in ("error", "closed"))

    def batch(self, rng: random.Random) -> int:
        rows = [text_ids(self.tokenizer, self.some_text(rng)) for _ in range(rng.randint(2, 6))]
        scores = [self.scorer.score(row) for row in rows]
        thresholds = [self.threshold(rng, row) for row in scores]
        released: list[list[int]] = [[] for _ in rows]
        at, ended = [0] * len(rows), ["released"] * len(rows)
        self.faults.arm(rng, max(map(len, rows)))
        with self.scorer.open_batch(len(rows)) as batch:
            while any(e == "released" and a < len(row) for e, a, row in zip(ended, at, rows, strict=True)):
                parts = [
                    row[a : a + rng.choice((0, 1, 1, 2, 9))] if e == "released" else []
                    for row, a, e in zip(rows, at, ended, strict=True)
                ]
                try:
                    batch.push(parts)
                except (Broken, RuntimeError):
                    ended = ["error" if e == "released" else e for e in ended]
                    self.check(batch.closed and min(batch.risks) == math.inf, "a failed batch is open")
                    break
                for i, part in enumerate(parts):
                    at[i] += len(part)
                    if batch.errors[i] is not None and ended[i] == "released":
                        ended[i] = "error"
                        self.check(batch.risks[i] == math.inf, "a failed row is open")
                    elif ended[i] == "released":
                        cut = halt_index(batch.scores[i], thresholds[i])
                        released[i] = rows[i][: at[i]][:cut]
                        leaves = rng.random() < 0.02
                        ended[i] = "halted_output" if cut is not None else "closed" if leaves else "released"
                    if ended[i] != "released":
                        batch.close_row(i)
            self.counts["tokens scored"] += sum(map(len, batch.scores))
        self.check(batch._cache is None, "a cache is kept")
        for row, out, end, of, threshold in zip(rows, released, ended, scores, thresholds, strict=True):
            self.compare(out, row[: halt_index(of, threshold)], end in ("error", "closed"), "batch")
            self.judge(out, threshold)
            self.counts[end] += 1
        return len(rows)

    def reply(self, rng: random.Random) -> None:
        self.guard.through_text = rng.random() < 0.5
        options = {"temperature": 1.5, "seed": rng.randrange(1000), "max_new_tokens": rng.randint(1, 12)}
        prompt = self.some_text(rng)[:20]
        whole = self.guard.reply(prompt, thresholds=Thresholds(1, 1, math.inf), **options)
        sound = whole.status == "released" or "control token" in whole.error  # a random assistant may write one
        self.check(sound, f"an undisturbed reply ended with {whole.status}: {whole.error}")
        if whole.status == "error" or not whole.token_scores:  # or it ended at once
            self.counts[whole.status] += 1
            return
        threshold = self.threshold(rng, whole.token_scores)
        cut = halt_index(whole.token_scores, threshold)
        may_come = whole.released_text if cut is None else "".join(whole.tokens[:cut])
        leaves = rng.randrange(8) if rng.random() < 0.2 else math.inf
        rng.choice((self.faults, self.assistant_faults)).arm(rng, len(whole.token_scores))
        shown, ids, last = "", [], None
        stream = self.guard.stream(prompt, thresholds=Thresholds(1, 1, threshold), **options)
        for i, event in enumerate(stream):
            if i >= leaves:
                stream.close()
                break
            last = event if hasattr(event, "status") else None
            if last is None:
                shown += event.text
                ids += [] if event.token_id is None else [event.token_id]
        ended = "closed" if last is None else last.status
        self.compare(shown, may_come, ended in ("error", "closed"), "reply")
        if last is not None:
            self.check(last.released_text == shown, "the record is not what came out")
            fired = self.faults.fired or self.assistant_faults.fired
            self.check(fired == (ended == "error") and bool(last.error_kind) == fired, "a fault was swallowed")
            self.check(whole.released_text.startswith(shown), "text of another reply")
            self.counts["tokens scored"] += len(last.token_scores)
        self.judge(ids, threshold)
        self.counts[ended] += 1


def megabytes() -> float:
    """Memory that the process holds now (on Linux; elsewhere nan: then only objects are counted)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
    except OSError:
        return math.nan


def held() -> dict:
    gc.collect()
    things = gc.get_objects()
    return {
        "megabytes": round(megabytes(), 1),
        "objects": len(things),
        "caches": sum(issubclass(type(thing), Cache) for thing in things),
    }


def soak(streams: int, minutes: float = 30.0, first: int = 0) -> dict:
    """Runs fuzzed streams until there were `streams`, or for `minutes`; the counts. Nothing printed."""
    made, seed, done, early, started = Soak(), first, 0, None, time.monotonic()
    while done < streams and time.monotonic() - started < 60 * minutes:
        done += made.run(seed)
        seed += 1
        if early is None and done >= WARM * streams:
            early = held()
    late, seconds = held(), time.monotonic() - started
    grown = late["megabytes"] - early["megabytes"] if early else 0.0
    kinds = ("tokens", "text", "text_async", "batch", "reply")
    return {
        "streams": done,
        "asked_for": streams,
        "kinds": {kind: made.counts[kind] for kind in kinds},
        "ended": {name: n for name, n in sorted(made.counts.items()) if name not in (*kinds, "tokens scored")},
        "tokens_scored": made.counts["tokens scored"],
        "wrong": made.wrong,
        "memory_early": early,
        "memory_late": late,
        "level": late["caches"] == 0 and not grown > MEGABYTES,
        "seconds": round(seconds),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=30.0, help="stop then, however many streams there were")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = soak(options.streams, options.minutes, options.first)
    print(json.dumps(result, indent=1))
    return 1 if result["wrong"] or not result["level"] else 0


if __name__ == "__main__":
    sys.exit(main())
