"""Answer once, score once, decide later: equal to the live guard, and nobody is asked in vain."""

import dataclasses

import pytest

from constclf_lib.guard import GuardedModel, Thresholds, transcribe, transcript


@pytest.fixture(scope="module")
def guard(lab):
    harm = lab.input.score(lab.prompts).harm
    limits = Thresholds(float(harm.median()), 2.0, 0.5)
    return GuardedModel(lab.assistant, lab.tokenizer, lab.input, lab.output, limits)


def test_decided_later_is_decided_live(lab, guard):
    found, seen = transcribe(guard, lab.prompts, max_new_tokens=12), set()
    risks = sorted(float(scores.max()) for scores in found.token_scores if len(scores))
    for output in (2.0, risks[len(risks) // 2], risks[0]):
        limits = dataclasses.replace(guard.thresholds, output=output)
        for result in found.decide(limits):
            live = guard.reply(result["prompt"], max_new_tokens=12, thresholds=limits)
            assert (live.status, live.released_text) == (result["status"], result["released_text"])
            seen.add(live.status)
    assert seen >= {"released", "blocked_input", "halted_output"}


def test_what_is_blocked_is_not_asked_and_the_rest_keeps_its_place(lab, guard, monkeypatch):
    whole, asked = transcribe(guard, lab.prompts, max_new_tokens=12), []
    generate = transcript.generate_replies
    monkeypatch.setattr(
        transcript, "generate_replies", lambda a, t, p, *r, **o: asked.extend(p) or generate(a, t, p, *r, **o)
    )
    part = transcribe(guard, lab.prompts, guard.thresholds, 12)
    blocked = [result["status"] == "blocked_input" for result in whole.decide(guard.thresholds)]
    assert 0 < sum(blocked) < len(blocked)
    assert asked == [prompt for prompt, stopped in zip(lab.prompts, blocked, strict=True) if not stopped]
    assert part.decide(guard.thresholds, "input") == [
        {**result, "withheld_text": ""} for result in whole.decide(guard.thresholds, "input")
    ]
    for reply, other, stopped in zip(part.replies, whole.replies, blocked, strict=True):
        assert reply["ids"] == ([] if stopped else other["ids"])


@pytest.mark.parametrize("missing", ["input_classifier", "output_classifier"])
def test_a_guard_that_cannot_be_transcribed_is_refused(lab, missing):
    parts = {"input_classifier": lab.input, "output_classifier": lab.output} | {missing: None}
    with pytest.raises(ValueError, match="both bodyguards"):
        transcribe(GuardedModel(lab.assistant, lab.tokenizer, thresholds=Thresholds(1, 1, 1), **parts), ["hm"])
