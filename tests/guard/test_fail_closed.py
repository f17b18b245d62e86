"""Whatever fails, wherever it fails: nothing more is released, the state is freed, the next request works."""

import gc
import math
import threading

import pytest
import torch
from tiny_models import (
    FakeCache,
    FixedInput,
    ScriptedAssistant,
    WordClassifier,
    foreign_tokenizer,
    lab_script,
    lab_tokenizer,
)

from constclf_lib.errors import ClassifierError, ClassifierTimeout, StreamClosedError
from constclf_lib.guard import GuardedModel, Thresholds, guard_text_stream
from constclf_lib.streaming import StreamingScorer, within
from constclf_lib.tokenization import text_ids

LAB = lab_tokenizer()
TEXT = "The old lantern sleeps near the key and waits."
LIMITS = Thresholds(0.5, 0.5, 0.5)
HANG = threading.Event()  # never set while a test runs; released at the end so that abandoned threads go away


@pytest.fixture(autouse=True)
def let_hung_threads_go():
    HANG.clear()
    yield
    HANG.set()


def raising(kind, *about):
    def fail():
        raise kind(*about)  # a new one each time: a kept exception keeps its traceback, and that keeps caches

    return fail


def interrupt():
    raise KeyboardInterrupt


FAILURES = {
    "exception": raising(ValueError, "broken"),
    "NaN": lambda: math.nan,
    "infinity": lambda: math.inf,
    "out of memory": raising(torch.OutOfMemoryError, "CUDA out of memory"),
    "host out of memory": raising(MemoryError),
    "closed stream": raising(StreamClosedError, "closed"),
    "timeout": lambda: HANG.wait(20) and None,
    "interrupt": interrupt,
}
# stage -> the tokens released before it fails; the private note and its end take 3 steps of the assistant, so its step
# 3 writes the first token
NOTE_STEPS = len(lab_script("", note="a note")) - 1
STAGES = {
    ("input", 0): 0,
    ("assistant", 0): 0,
    ("assistant", 1): 0,
    ("assistant", NOTE_STEPS): 0,
    ("assistant", NOTE_STEPS + 4): 4,
    ("output", 0): 0,
    ("output", 4): 4,
}


def build(through_text: bool, step_timeout=None):
    if through_text:
        tokenizer = foreign_tokenizer("byte_level")
        script = [*text_ids(tokenizer, TEXT), tokenizer.eos_token_id]
    else:
        tokenizer, script = LAB, lab_script(TEXT, note="a note")
    assistant = ScriptedAssistant(tokenizer, script)
    return GuardedModel(assistant, tokenizer, FixedInput(), WordClassifier(LAB), LIMITS, step_timeout=step_timeout)


def caches() -> int:
    if FakeCache.alive:
        gc.collect()
    return len(FakeCache.alive)


def parts(model):
    return {"input": model.input_classifier, "assistant": model.assistant, "output": model.output_classifier}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: f"{stage[0]}-{stage[1]}")
@pytest.mark.parametrize("through_text", [False, True], ids=["tokens", "text"])
def test_every_failure_at_every_stage(through_text, stage, failure):
    who, step = stage
    model = build(through_text, step_timeout=0.3 if failure == "timeout" else None)
    assert caches() == 0
    parts(model)[who].restart({step: FAILURES[failure]})
    released, reply = "", None
    if failure == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            for event in model.stream("How?"):
                released += event.text
    else:
        for event in model.stream("How?"):
            if hasattr(event, "status"):
                reply = event
            else:
                assert reply is None
                released += event.text
        assert reply.status == "error" and reply.error
        assert reply.released_text == released and reply.halt_index is None
        assert TEXT.startswith(released + reply.withheld_text)
    if through_text:
        assert TEXT.startswith(released) and len(released) < len(TEXT)
        assert (
            text_ids(LAB, released) == model.output_classifier.seen[: len(text_ids(LAB, released))]
        )  # only what was scored
    else:
        assert text_ids(LAB, released) == text_ids(LAB, TEXT)[: STAGES[stage]]
    failed_at = {name: part.steps for name, part in parts(model).items()}
    if failure != "timeout":  # an abandoned call still holds what it was given; it is let go below
        assert caches() == 0
    assert {name: part.steps for name, part in parts(model).items()} == failed_at  # nothing goes on in the background
    HANG.set()
    for part in parts(model).values():
        part.restart()
    again = model.reply("How?")
    assert (again.status, again.released_text) == ("released", TEXT)


def test_an_abandoned_call_cannot_write_into_a_closed_stream():
    classifier = WordClassifier(LAB)
    scorer = StreamingScorer(classifier, step_timeout=0.3)
    stream = scorer.open()
    stream.push([5])
    done = threading.Event()
    classifier.restart({0: lambda: HANG.wait(20) and done.set()})
    with pytest.raises(ClassifierTimeout):
        stream.push([6])
    assert stream.risk == math.inf and stream.closed
    HANG.set()
    assert done.wait(20)
    for thread in threading.enumerate():
        if thread.daemon and thread is not threading.main_thread() and thread.name.startswith("Thread-"):
            thread.join(1)
    assert stream._cache is None and stream.scores == stream.scores[:1]


@pytest.mark.parametrize("failure", [f for f in FAILURES if f != "timeout"])
@pytest.mark.parametrize("size", [1, 6, 100])
def test_a_guarded_text_stream_fails_closed_at_the_same_place_for_every_chunking(failure, size):
    classifier = WordClassifier(LAB)
    classifier.restart({3: FAILURES[failure]})
    guarded = guard_text_stream(
        [TEXT[i : i + size] for i in range(0, len(TEXT), size)], StreamingScorer(classifier), 0.5
    )
    if failure == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            list(guarded)
    else:
        assert "".join(guarded) == "The old lantern" and guarded.withheld_text.startswith(" sleeps")
    assert guarded.status == "error" and guarded.released_text == "The old lantern" and guarded.risk == math.inf
    assert list(guarded) == [] and caches() == 0
    classifier.restart()
    assert "".join(guard_text_stream([TEXT], StreamingScorer(classifier), 0.5)) == TEXT


@pytest.mark.parametrize("failure", ["exception", "NaN", "infinity", "out of memory", "interrupt"])
def test_a_failed_stream_is_above_every_threshold_even_if_the_error_is_swallowed(failure):
    classifier = WordClassifier(LAB)
    stream = StreamingScorer(classifier).open()
    stream.push([5, 6])
    classifier.restart({0: FAILURES[failure]})
    failed = False
    try:
        stream.push([7])
    except BaseException:
        failed = True
    assert failed and stream.risk == math.inf and len(stream.scores) == 2 and caches() == 0
    with pytest.raises(StreamClosedError):
        stream.push([7])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_input_score_that_is_no_number_never_counts_as_low(bad):
    model = build(False)
    model.input_classifier.off_label = bad
    reply = model.reply("How?")
    assert reply.status == "error" and "input classifier" in reply.error and model.assistant.steps == 0


def test_a_tokenizer_that_fails_is_an_error_too(monkeypatch):
    def broken(tokenizer, text):
        raise RuntimeError("no tokens today")

    monkeypatch.setattr("constclf_lib.streaming.text_stream.text_ids", broken)
    guarded = guard_text_stream(["The old lantern"], StreamingScorer(WordClassifier(LAB)), 0.5)
    assert list(guarded) == [] and guarded.status == "error" and guarded.withheld_text == "The old lantern"


def test_within_hands_on_results_and_errors_and_costs_nothing_without_a_limit():
    here = threading.get_ident()
    assert within(None, threading.get_ident) == here
    assert within(5, threading.get_ident) != here
    with pytest.raises(ClassifierError, match="broken"):
        within(5, raising(ClassifierError, "broken"))
    with pytest.raises(KeyboardInterrupt):
        within(5, interrupt)
