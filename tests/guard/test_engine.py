"""Many replies in one batch: each is the one that the guard gives alone, and pays for nobody else's failure."""

import asyncio
from types import SimpleNamespace

import pytest
import torch
from tiny_models import tiny_lab

from constclf_lib.guard import BatchedGuard, GuardedModel, Reply, Thresholds, TooManyRequests


class TextInput:
    """Scores a text by itself, whatever stands beside it in a batch; `bad` texts get NaN or raise."""

    def __init__(self):
        self.bad = {}
        self.calls = []

    def score(self, texts):
        self.calls.append(list(texts))
        harm = [self.bad.get(text, 0.9 if "🦊" in text else 0.1) for text in texts]
        if any(value is None for value in harm):
            raise RuntimeError("cannot read this")
        return SimpleNamespace(harm=torch.tensor(harm), off_label=torch.zeros(len(texts)))


@pytest.fixture
def setting():
    lab = tiny_lab()
    lab.input = TextInput()
    open_ = GuardedModel(lab.assistant, lab.tokenizer, None, lab.output, Thresholds(1, 1, 1))
    peaks = sorted(max(open_.reply(p, max_new_tokens=40).token_scores, default=0) for p in lab.prompts)
    middle = (peaks[len(peaks) // 2 - 1] + peaks[len(peaks) // 2]) / 2  # between two: a batch rounds otherwise
    lab.guard = GuardedModel(lab.assistant, lab.tokenizer, lab.input, lab.output, Thresholds(0.5, 0.5, middle))
    lab.want = [lab.guard.reply(prompt, max_new_tokens=40) for prompt in lab.prompts]
    assert {reply.status for reply in lab.want} >= {"released", "halted_output", "blocked_input"}
    lab.engine = BatchedGuard(lab.guard, max_streams=4)
    yield lab
    lab.engine.close()


def together(engine, prompts, **options):
    async def read(prompt):
        events = [event async for event in engine.astream(prompt, **{"max_new_tokens": 40, **options})]
        reply = events[-1]
        assert isinstance(reply, Reply) and "".join(event.text for event in events[:-1]) == reply.released_text
        return reply

    async def gather():
        return await asyncio.gather(*map(read, prompts))

    return asyncio.run(gather())


def same(got, want):
    for name, value in vars(want).items():
        if name == "token_scores":
            assert got.token_scores == pytest.approx(value, abs=1e-5)
        elif name in ("input_score", "off_label"):
            assert getattr(got, name) == pytest.approx(value, abs=1e-5)
        elif name != "error":
            assert getattr(got, name) == value, name


def test_each_reply_is_the_one_that_the_guard_gives_alone(setting):
    for _ in range(2):  # more requests than places: some join while others are being written
        for got, want in zip(together(setting.engine, setting.prompts * 2), setting.want * 2, strict=True):
            same(got, want)
    assert len(setting.engine._turns) == 0 and len(setting.engine._batch) == 0


def test_prompts_that_come_together_are_judged_together(setting):
    setting.input.calls.clear()
    together(setting.engine, setting.prompts[:3])
    assert sum(map(len, setting.input.calls)) == 3 and len(setting.input.calls) < 3


def test_sampling_is_its_seeds(setting):
    alone = [setting.guard.reply(p, max_new_tokens=20, temperature=1.2, seed=5) for p in setting.prompts]
    for got, want in zip(
        together(setting.engine, setting.prompts, max_new_tokens=20, temperature=1.2, seed=5), alone, strict=True
    ):
        assert (got.status, got.released_text) == (want.status, want.released_text)


def test_options_are_each_requests_own(setting):
    prompt = setting.prompts[0]
    for options in ({"guard": False}, {"max_new_tokens": 0}, {"stop": " "}, {"thresholds": Thresholds(0, 0, 0)}):
        (got,) = together(setting.engine, [prompt], **options)
        same(got, setting.guard.reply(prompt, **{"max_new_tokens": 40, **options}))
    with pytest.raises(ValueError):
        setting.engine.astream(prompt, temperature=-1)


@pytest.mark.parametrize("value", [float("nan"), None])
def test_a_prompt_that_cannot_be_judged_fails_alone(setting, value):
    setting.input.bad[setting.prompts[0]] = value
    got = together(setting.engine, setting.prompts)
    assert (got[0].status, got[0].error_kind, got[0].released_text) == ("error", "classifier_failed", "")
    for reply, want in zip(got[1:], setting.want[1:], strict=True):
        same(reply, want)


def test_a_prompt_that_does_not_fit_fails_alone(setting):
    got = together(setting.engine, ["lantern " * 400, *setting.prompts])
    assert got[0].error_kind == "context_length_exceeded"
    for reply, want in zip(got[1:], setting.want, strict=True):
        same(reply, want)


@pytest.mark.parametrize("side", ["assistant", "output"])
def test_a_failed_pass_releases_nothing_more_and_the_next_begins_anew(setting, side):
    model = setting.assistant.model if side == "assistant" else setting.output.backbone
    calls = []

    def broken(*_):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("broken")

    handle = model.register_forward_pre_hook(broken)
    got = together(setting.engine, setting.prompts[:4])
    handle.remove()
    kind = "generation_failed" if side == "assistant" else "classifier_failed"
    failed = [reply for reply in got if reply.status == "error" and reply.error_kind == kind]
    assert failed
    for reply, want in zip(got, setting.want, strict=False):
        assert want.released_text.startswith(reply.released_text)
    for reply, want in zip(together(setting.engine, setting.prompts), setting.want, strict=True):
        same(reply, want)


def test_a_score_that_is_no_number_ends_its_own_reply(setting):
    read, calls = setting.guard.monitor.read, []

    def poisoned(*arguments, **options):
        cache, harm = read(*arguments, **options)
        calls.append(1)
        if len(calls) == 3:
            harm = harm.clone()
            harm[0] = float("nan")
        return cache, harm

    setting.guard.monitor.read = poisoned
    got = together(setting.engine, setting.prompts[:4])
    assert [reply.error_kind for reply in got].count("classifier_failed") == 1
    for reply, want in zip(got, setting.want, strict=False):
        if reply.error_kind != "classifier_failed":
            same(reply, want)
        assert want.released_text.startswith(reply.released_text)


def test_a_reader_who_leaves_frees_both_batches(setting):
    async def leave():
        events = setting.engine.astream(setting.prompts[0], max_new_tokens=100)
        await anext(events)
        await events.aclose()

    asyncio.run(leave())
    together(setting.engine, setting.prompts[1:2])  # by its end the other has long been freed
    assert len(setting.engine._turns) == 0 and len(setting.engine._batch) == 0


def test_more_than_may_wait_is_refused(setting):
    engine = BatchedGuard(setting.guard, max_streams=1, max_waiting=1)

    async def gather():
        async def read(prompt):
            return [event async for event in engine.astream(prompt, max_new_tokens=20)][-1]

        return await asyncio.gather(*[read(setting.prompts[0]) for _ in range(5)], return_exceptions=True)

    got = asyncio.run(gather())
    engine.close()
    refused = [result for result in got if isinstance(result, TooManyRequests)]
    assert refused and len(refused) < 5 and all(isinstance(r, Reply) for r in got if r not in refused)


def test_a_closed_engine_answers_with_an_error(setting):
    setting.engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        together(setting.engine, setting.prompts[:1])


def test_what_cannot_be_batched_is_refused(setting):
    setting.guard.through_text = True
    assert not BatchedGuard.serves(setting.guard)
    with pytest.raises(ValueError, match="astream"):
        BatchedGuard(setting.guard)
