"""A failure is not a success, and says which it is: error kinds, refusals, prompts that are refused before any work."""

import copy
import math
import threading

import pytest
import torch
from tiny_models import (
    FixedInput,
    ScriptedAssistant,
    WordClassifier,
    causal_lm,
    foreign_tokenizer,
    lab_script,
    lab_tokenizer,
)

from constclf_lib import tokenization
from constclf_lib.errors import PromptTooLongError
from constclf_lib.generation import generate_replies, read_prompt
from constclf_lib.guard import ERROR_KINDS, GuardedModel, Reply, Thresholds, history_after, replay
from constclf_lib.streaming import crosses
from constclf_lib.tokenization import text_ids

LAB = lab_tokenizer()
TEXT = "The old lantern sleeps. Grind the ashbane and wait."
LIMITS = Thresholds(0.5, 0.5, 0.5)
(HARMFUL,) = text_ids(LAB, " ashbane")
HANG = threading.Event()


def build(harm=0.1, harmful=(), script=None, context=10_000, **options):
    assistant = ScriptedAssistant(LAB, script or lab_script(TEXT), context)
    return GuardedModel(assistant, LAB, FixedInput(harm), WordClassifier(LAB, harmful), LIMITS, **options)


def broken():
    raise OSError("broken")


def hang():
    HANG.wait(20)


@pytest.fixture(autouse=True)
def let_hung_threads_go():
    HANG.clear()
    yield
    HANG.set()


# --------------------------------------------------------------------------------------------------------- error kinds


@pytest.mark.parametrize(
    ("who", "step", "fault", "kind"),
    [
        ("input_classifier", 0, broken, "classifier_failed"),
        ("input_classifier", 0, lambda: math.nan, "classifier_failed"),
        ("input_classifier", 0, hang, "classifier_timeout"),
        ("output_classifier", 3, broken, "classifier_failed"),
        ("output_classifier", 3, lambda: math.inf, "classifier_failed"),
        ("output_classifier", 3, hang, "classifier_timeout"),
        ("assistant", 0, broken, "generation_failed"),
        ("assistant", 6, lambda: math.nan, "generation_failed"),
        ("assistant", 6, hang, "generation_timeout"),
    ],
)
@pytest.mark.parametrize("through_text", [False, True], ids=["tokens", "text"])
def test_every_failure_has_its_kind(through_text, who, step, fault, kind):
    model = build(step_timeout=0.3 if fault is hang else None)
    if through_text:
        tokenizer = foreign_tokenizer("byte_level")
        assistant = ScriptedAssistant(tokenizer, [*text_ids(tokenizer, TEXT), tokenizer.eos_token_id])
        model = GuardedModel(
            assistant, tokenizer, FixedInput(), WordClassifier(LAB), LIMITS, step_timeout=model.step_timeout
        )
    getattr(model, who).restart({step: fault})
    reply = model.reply("How?")
    assert (reply.status, reply.error_kind) == ("error", kind) and kind in ERROR_KINDS and reply.error
    assert reply.refusal == "" and TEXT.startswith(reply.released_text) and reply.released_text != TEXT


def test_a_template_that_cannot_show_the_prompt_is_bad_input():
    tokenizer = copy.deepcopy(LAB)
    for template in ("no place for it", "{{ raise_exception('system message wanted') }}"):
        tokenizer.chat_template = template
        reply = GuardedModel(ScriptedAssistant(tokenizer, []), tokenizer).reply("How?")
        assert (reply.status, reply.error_kind) == ("error", "bad_input")


def test_a_success_has_no_error_kind():
    assert build().reply("How?").error_kind == build(harm=0.9).reply("How?").error_kind == Reply().error_kind == ""


# ------------------------------------------------------------------------------------------------------------ refusals


def test_what_is_blocked_or_halted_is_refused_in_words_that_tools_know():
    blocked, halted = build(harm=0.9).reply("How?"), build(harmful=[HARMFUL]).reply("How?")
    assert (blocked.status, blocked.shown_text) == ("blocked_input", "I'm sorry, but I can't help with that.")
    assert "sorry, but I can" in halted.shown_text  # the substring that garak's MitigationBypass looks for
    assert halted.shown_text == f"{halted.released_text}\n\n{halted.refusal}" and halted.status == "halted_output"
    assert "ashbane" in halted.withheld_text and "ashbane" not in halted.shown_text
    assert "sorry" not in halted.released_text and "sorry" not in history_after(halted)


def test_the_wording_is_the_owners():
    model = build(harm=0.9, refusal_text="Das beantworte ich nicht.")
    assert model.reply("How?").refusal == model.reply("How?").shown_text == "Das beantworte ich nicht."


def test_a_released_reply_refuses_nothing():
    reply = build().reply("How?")
    assert reply.refusal == "" and reply.shown_text == reply.released_text == TEXT


# ------------------------------------------------------------------------------------------------ cheap refusals first


@pytest.mark.parametrize("unit", ["a", "🐛", "e\u0301", "<|end|>", "moth "])
def test_a_prompt_that_cannot_fit_is_refused_before_anything_is_encoded_or_scored(monkeypatch, unit):
    model, encoded, encode = build(context=512), [], tokenization._PrivateTokenizer.encode

    def counted(own, text, **options):
        encoded.append(len(text))
        return encode(own, text, **options)

    monkeypatch.setattr(tokenization._PrivateTokenizer, "encode", counted)
    reply = model.reply(unit * 100_000)
    assert (reply.status, reply.error_kind) == ("error", "context_length_exceeded") and "at least" in reply.error
    assert encoded == [] == model.input_classifier.seen and model.assistant.steps == 0


def test_a_prompt_that_might_fit_is_encoded_once_and_refused_before_it_is_scored():
    model = build(context=512)
    reply = model.reply("qx" * 2000)  # shorter than 512 of the longest token, longer than 512 tokens
    assert reply.error_kind == "context_length_exceeded" and "the prompt is 4" in reply.error
    assert model.input_classifier.seen == [] and model.assistant.steps == 0


def test_max_prompt_tokens_counts_what_the_assistant_reads():
    length = len(read_prompt(build().assistant, LAB, "How?"))
    assert build(max_prompt_tokens=length).reply("How?").status == "released"
    model = build(max_prompt_tokens=length - 1)
    reply = model.reply("How?")
    assert reply.error_kind == "context_length_exceeded" and f"max_prompt_tokens is {length - 1}" in reply.error
    assert model.input_classifier.seen == [] and model.reply("How?", guard=False).status == "error"


def test_text_of_any_kind_is_encoded_in_linear_work():
    """One call of the tokenizer per text, whatever it spells: nothing is encoded twice, or in growing pieces."""
    for unit in ("a", "🐛", "e\u0301\u0323", "<|end|>", " "):
        short, long = (len(text_ids(LAB, unit * n)) for n in (500, 2000))
        assert 3.5 * short < long < 4.5 * short


# --------------------------------------------------------------------------------------- one state machine, two drivers


def test_batches_fail_as_single_turns_do():
    control = lab_script("All is well.", end="<|user|>")
    (found,) = generate_replies_scripted(control)
    reply = build(script=control).reply("How?")
    assert found["error_kind"] == reply.error_kind == "generation_failed" and found["text"] == reply.released_text
    (again,) = replay(["How?"], [found], None, None, LIMITS, "none")
    assert (again["status"], again["released_text"], again["error"]) == ("error", "All is well.", found["error"])


def generate_replies_scripted(ids):
    """`generate_replies` of one prompt with a scripted assistant; it takes what a real model takes."""

    class Scripted(ScriptedAssistant):
        def forward(self, input_ids, attention_mask=None, position_ids=None, past_key_values=None, logits_to_keep=0):
            return super().forward(input_ids, past_key_values)

    model = Scripted(LAB, ids)
    model.config = causal_lm(vocab=len(LAB)).config  # it also decides what a cache looks like
    return generate_replies(model, LAB, ["How?"])


def test_too_long_is_an_error_in_both_before_the_input_classifier_is_looked_at():
    model = causal_lm(context=8, vocab=len(LAB))
    short, long = generate_replies(model, LAB, ["", "lantern " * 40], max_new_tokens=2)
    assert short["error_kind"] != long["error_kind"] == "context_length_exceeded"
    scores = FixedInput(harm=0.9).score(["both"])
    scores.harm, scores.off_label = torch.tensor([0.9]), torch.tensor([0.0])
    (found,) = replay(["long"], [long], scores, None, LIMITS, "input")
    live = GuardedModel(model, LAB, FixedInput(harm=0.9), None, LIMITS).reply("lantern " * 40)
    assert found["status"] == live.status == "error" and live.error_kind == long["error_kind"]
    with pytest.raises(PromptTooLongError, match="never cut"):
        read_prompt(model, LAB, "lantern " * 40)


def test_no_new_tokens_need_no_pass():
    tokenizer = foreign_tokenizer("byte_level")
    model = causal_lm(vocab=len(tokenizer))
    (found,) = generate_replies(model, tokenizer, ["moth"], max_new_tokens=0)
    assert found["ids"] == [] and not found["error"]


def test_a_risk_that_is_no_number_is_above_every_threshold():
    assert crosses(math.nan, 0.5) and crosses(math.inf, 0.5) and crosses(math.nextafter(0.5, 1), 0.5)
    assert not crosses(0.5, 0.5) and not crosses(0.0, math.inf)
