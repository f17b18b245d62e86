"""The guard inside transformers' generate: GuardedModel's decision, whatever the sampler."""

import pytest
import torch
from tiny_models import causal_lm, foreign_tokenizer, llama, tiny_lab

from constclf_lib.errors import StreamClosedError
from constclf_lib.guard import GuardedModel, Thresholds
from constclf_lib.hf import GenerationGuard
from constclf_lib.prompts import prompt_ids
from constclf_lib.streaming import StreamingScorer, halt_index
from constclf_lib.tokenization import pad_batch


@pytest.fixture(scope="module")
def setting():
    lab = tiny_lab()
    lab.scorer = StreamingScorer(lab.output)
    guard = GuardedModel(lab.assistant, lab.tokenizer, None, lab.output, Thresholds(1, 1, 1))
    plain = [guard.reply(prompt, max_new_tokens=40) for prompt in lab.prompts]
    lab.whole = [i for i, reply in enumerate(plain) if reply.status == "released" and reply.finish == "end"]
    peaks = sorted(max(plain[i].token_scores) for i in lab.whole)
    lab.threshold = (peaks[len(peaks) // 2 - 1] + peaks[len(peaks) // 2]) / 2  # half of them are halted
    lab.want = [guard.reply(p, max_new_tokens=40, thresholds=Thresholds(1, 1, lab.threshold)) for p in lab.prompts]
    assert {lab.want[i].status for i in lab.whole} == {"released", "halted_output"}
    return lab


def generate(lab, prompts, **options):
    guard = GenerationGuard(lab.scorer, lab.threshold, lab.assistant, lab.tokenizer, options.pop("on_text", None))
    rows = [prompt_ids(lab.tokenizer, prompt) for prompt in prompts]
    backwards, mask = pad_batch([row[::-1] for row in rows], 0)
    ends = lab.tokenizer.eos_token_id  # a Llama's own default would end at another of the lab's tokens
    options = {"max_new_tokens": 100, "do_sample": False, "eos_token_id": ends, "pad_token_id": ends, **options}
    ids = lab.assistant.generate(backwards.flip(1), attention_mask=mask.flip(1), **guard.options, **options)
    return guard, ids[:, backwards.shape[1] :].tolist()


def same(reply, want):
    names = ("status", "released_text", "withheld_text", "halt_index", "tokens", "finish", "note", "note_tokens")
    assert [getattr(reply, name) for name in names] == [getattr(want, name) for name in names]
    assert reply.token_scores == pytest.approx(want.token_scores, abs=1e-5)


def test_a_reply_is_the_guarded_models(setting):
    for i in setting.whole:
        out = []
        guard, _ = generate(setting, setting.prompts[i : i + 1], on_text=lambda row, text: out.append(text))  # noqa: B023
        same(guard.replies[0], setting.want[i])
        assert "".join(out) == setting.want[i].released_text


def test_a_ragged_batch_is_its_rows(setting):
    guard, _ = generate(setting, [setting.prompts[i] for i in setting.whole])
    for reply, i in zip(guard.replies, setting.whole, strict=True):
        same(reply, setting.want[i])


def test_a_halted_batch_stops_generating(setting):
    halted = [i for i in setting.whole if setting.want[i].status == "halted_output"]
    for i in halted:
        guard, (ids,) = generate(setting, [setting.prompts[i]])
        reply = guard.replies[0]
        assert len(ids) == reply.note_tokens + 1 + reply.halt_index + 1  # the note's end, and the token that crossed


@pytest.mark.parametrize("seed", range(3))
def test_any_sampler_is_halted_where_its_ids_say(setting, seed):
    torch.manual_seed(seed)
    guard, rows = generate(setting, setting.prompts, do_sample=True, top_p=0.9, temperature=1.3)
    read = GenerationGuard(setting.scorer, 1.0, setting.assistant, setting.tokenizer)
    control = read._control
    for reply, ids in zip(guard.replies, rows, strict=True):
        if reply.status == "error" or control.note_end not in ids:
            continue
        ids = ids[ids.index(control.note_end) + 1 :]
        ids = ids[: next((n for n, token in enumerate(ids) if token in control.ends), len(ids))]
        halt = halt_index(setting.scorer.score(ids), setting.threshold)
        assert reply.halt_index == halt and (reply.status == "halted_output") == (halt is not None)


def test_assisted_decoding_changes_nothing(setting):
    draft = llama(len(setting.tokenizer), seed=9)
    draft.load_state_dict(setting.assistant.state_dict())  # a good one, so that several tokens come at once
    for i in setting.whole:
        guard, _ = generate(setting, setting.prompts[i : i + 1], assistant_model=draft)
        reply, want = guard.replies[0], setting.want[i]
        assert (reply.status, reply.released_text, reply.halt_index) == (
            want.status,
            want.released_text,
            want.halt_index,
        )


def test_a_failing_classifier_releases_nothing_more(setting, monkeypatch):
    i = max(setting.whole, key=lambda i: len(setting.want[i].tokens))
    steps = []

    def broken(*arguments, **options):
        steps.append(1)
        if len(steps) > 2:
            raise RuntimeError("broken")
        return read(*arguments, **options)

    read = setting.scorer.read
    monkeypatch.setattr(setting.scorer, "read", broken)
    guard, _ = generate(setting, [setting.prompts[i]])
    reply = guard.replies[0]
    assert (reply.status, reply.error_kind, len(reply.tokens)) == ("error", "classifier_failed", 2)
    assert setting.want[i].released_text.startswith(reply.released_text)


def test_what_cannot_be_guarded_is_refused(setting):
    with pytest.raises(ValueError, match="another tokenizer"):
        GenerationGuard(setting.scorer, 0.5, causal_lm(), foreign_tokenizer("byte_level"))
    with pytest.raises(ValueError, match="NaN"):
        GenerationGuard(setting.scorer, float("nan"), setting.assistant, setting.tokenizer)
    guard, _ = generate(setting, setting.prompts[:1])
    with pytest.raises(StreamClosedError):
        guard.put(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="streamer"):
        GenerationGuard(setting.scorer, 0.5, setting.assistant, setting.tokenizer)(torch.zeros(1, 3).long(), None)
