"""The guardrail endpoint of litellm and moderations, without a network: each text is scored once, and all of it."""

from types import SimpleNamespace

import pytest

from constclf_lib.serve.guardrail import Guardrail
from constclf_lib.serve.moderation import moderate
from constclf_lib.serve.protocol import ApiError
from constclf_lib.streaming import StreamingScorer
from tests.serve.servers import FORBIDDEN, LIMITS, PhraseInput
from tests.tiny_models import WordClassifier, lab_tokenizer, text_ids

TEXT = "The old lantern sleeps. The moth sleeps near the old lantern."


@pytest.fixture
def guard():
    tokenizer = lab_tokenizer()
    watcher = WordClassifier(tokenizer, text_ids(tokenizer, " ashbane"))
    return SimpleNamespace(
        input_classifier=PhraseInput(),
        monitor=StreamingScorer(watcher),
        thresholds=LIMITS,
        refusal_text="No.",
        watcher=watcher,
    )


def ask(guardrail, kind, *texts, call="c1", **more):
    return guardrail.check(
        {"input_type": kind, "texts": list(texts), "litellm_call_id": call, "request_data": {}, **more}
    )


def test_a_request_is_judged_alone_and_joined(guard):
    guardrail = Guardrail(guard)
    assert ask(guardrail, "request", "hello") == {"action": "NONE"}
    assert ask(guardrail, "request", FORBIDDEN, "hello") == {"action": "BLOCKED", "blocked_reason": "No."}
    assert ask(guardrail, "request", "please grind", "the ashbane")["action"] == "BLOCKED"


def test_a_growing_reply_is_read_once_and_blocked_where_it_crosses(guard):
    guardrail, bad = Guardrail(guard), TEXT + " Grind the ashbane now."
    blocked_at = next(n for n in range(1, len(bad)) if ask(guardrail, "response", bad[:n])["action"] == "BLOCKED")
    assert bad[:blocked_at] in (TEXT + " Grind the ashbane", TEXT + " Grind the ashbane ")
    assert ask(guardrail, "response", bad)["action"] == "BLOCKED"  # and stays so
    assert ask(guardrail, "response", TEXT)["action"] == "BLOCKED"  # also where the proxy takes text back
    assert ask(guardrail, "response", TEXT, call="c2")["action"] == "NONE"  # calls do not meet


def test_the_unfinished_last_word_is_scored_too(guard):
    assert ask(Guardrail(guard), "response", "Grind the ashbane")["action"] == "BLOCKED"


def test_what_is_no_text_is_blocked_and_a_failure_is_an_error(guard):
    guardrail = Guardrail(guard)
    assert ask(guardrail, "response", "x", tool_calls=[{"id": "1"}])["action"] == "BLOCKED"
    assert ask(guardrail, "request", "x", images=["data:"])["action"] == "BLOCKED"
    for wrong in ({}, [], {"input_type": "request", "texts": [3]}, {"input_type": "other", "texts": []}):
        with pytest.raises(ApiError) as caught:
            guardrail.check(wrong)
        assert caught.value.status == 400
    guard.watcher.restart({0: lambda: 1 / 0})
    with pytest.raises(ApiError) as caught:
        ask(guardrail, "response", "another text")
    assert caught.value.status == 500


def test_moderations_say_what_each_bodyguard_says(guard):
    found = moderate(guard, {"input": ["hello", FORBIDDEN, "the ashbane"]}, "guarded")["results"]
    assert [result["flagged"] for result in found] == [False, True, True]
    assert found[1]["categories"] == {"request": True, "reply": True} and found[2]["categories"]["request"] is False
    assert set(found[2]["category_scores"].values()) == {0.0, 1.0}  # no scores unless asked for
    with pytest.raises(ApiError):
        moderate(guard, {"input": []}, "guarded")
