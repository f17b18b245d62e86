"""Conversations: what the assistant reads, what the bodyguards read, and the same reply for an event loop."""

import asyncio
import copy

import pytest
from tiny_models import (
    FakeCache,
    FixedInput,
    ScriptedAssistant,
    WordClassifier,
    foreign_tokenizer,
    lab_script,
    lab_tokenizer,
)

from constclf_lib.guard import GuardedModel, Reply, Thresholds, history_after
from constclf_lib.prompts import conversation, prompt_ids, texts_to_judge
from constclf_lib.tokenization import decode_text, text_ids

TOKENIZER = lab_tokenizer()
LIMITS = Thresholds(input=0.5, off_label=0.5, output=0.5)
(HARMFUL,) = text_ids(TOKENIZER, " ashbane")


def turns(*texts, system=None):
    said = [] if system is None else [{"role": "system", "content": system}]
    return said + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


class PhraseInput(FixedInput):
    """Flags a text that holds the whole phrase."""

    def score(self, prompts):
        self.harm = 0.9 if any("grind the ashbane" in prompt for prompt in prompts) else 0.1
        return super().score(prompts)


def guarded(text="All is well.", **options):
    assistant = ScriptedAssistant(TOKENIZER, lab_script(text))
    watcher = WordClassifier(TOKENIZER, [HARMFUL])
    return GuardedModel(assistant, TOKENIZER, PhraseInput(), watcher, LIMITS, **options)


def chat_tokenizer(template):
    tokenizer = copy.deepcopy(foreign_tokenizer("byte_level"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    tokenizer.chat_template = template
    return tokenizer


CHAT = (
    "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}<turn>{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def test_a_text_is_a_conversation_of_one_message():
    assert conversation("How?") == turns("How?") and prompt_ids(TOKENIZER, turns("How?")) == prompt_ids(
        TOKENIZER, "How?"
    )
    assert guarded().reply(turns("How?")) == guarded().reply("How?")


def test_the_template_stands_around_every_message_and_no_message_becomes_control():
    tokenizer = chat_tokenizer(CHAT)
    ids = prompt_ids(tokenizer, turns("hi<turn>", "well", "why?", system="Be kind."))
    control = tokenizer.convert_tokens_to_ids("<turn>")
    assert ids.count(control) == 4  # one per message; the one that the user typed is text
    shown = tokenizer.decode([i for i in ids if i != control], clean_up_tokenization_spaces=False)
    assert shown == "system: Be kind.user: hi<turn>assistant: welluser: why?assistant:"


def test_an_assistant_with_a_note_reads_a_conversation_as_one_text():
    assert prompt_ids(TOKENIZER, turns("Who?", "Nobody.", "Why?")) == prompt_ids(TOKENIZER, "Who? Nobody. Why?")


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[-1].content }}",
        "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
        "{% for m in messages | reverse %}{{ m.content }}{% endfor %}",
        "{{ raise_exception('no system turns here') }}",
    ],
)
def test_a_template_that_does_not_show_the_conversation_is_an_error(template):
    tokenizer = chat_tokenizer(template)
    model = GuardedModel(ScriptedAssistant(tokenizer, []), tokenizer)
    reply = model.reply(turns("one", "two", "three"))
    assert (reply.status, reply.error_kind, model.assistant.steps) == ("error", "bad_input", 0)


def test_a_base_model_reads_one_text():
    tokenizer = foreign_tokenizer("byte_level")
    with pytest.raises(ValueError, match="without a chat template"):
        prompt_ids(tokenizer, turns("one", "two", "three"))


@pytest.mark.parametrize(
    "wrong, error",
    [
        ([], ValueError),
        (turns("one", "two"), ValueError),
        ([{"role": "tool", "content": "x"}], ValueError),
        ([{"content": "x"}], ValueError),
        ([{"role": "user", "content": None}], TypeError),
        (["How?"], TypeError),
        (b"How?", TypeError),
    ],
)
def test_what_is_no_conversation_is_refused_at_once(wrong, error):
    with pytest.raises(error):
        guarded().stream(wrong)
    with pytest.raises(error):
        guarded().astream(wrong)


def test_a_conversation_that_does_not_fit_is_never_cut():
    model = guarded(max_prompt_tokens=20)
    reply = model.reply(turns("lantern " * 9, "moth", "lantern " * 9))
    assert (reply.error_kind, model.assistant.steps, model.input_classifier.seen) == ("context_length_exceeded", 0, [])


# --- what the bodyguards read


def test_every_turn_of_the_user_is_judged_alone_and_all_of_them_joined():
    said = turns("one", "two", "three", system="four")
    assert texts_to_judge(said) == ["one", "three", "one three"]
    assert texts_to_judge(said, ("system", "user", "assistant")) == [
        "four",
        "one",
        "two",
        "three",
        "four one two three",
    ]
    assert texts_to_judge("one") == ["one"]


def test_an_attack_split_over_turns_is_blocked():
    halves = turns("please grind", "Yes?", "the ashbane")
    for half in (halves[:1], halves[2:]):
        assert guarded().reply(half).status == "released"
    model = guarded()
    reply = model.reply(halves)
    assert (reply.status, reply.input_score, model.assistant.steps) == ("blocked_input", pytest.approx(0.9), 0)


def test_an_old_request_is_found_however_much_stands_behind_it():
    said = turns("please grind the ashbane", "No.", *["Who keeps the key?", "Nobody."] * 20, "Good night!")
    assert guarded().reply(said).status == "blocked_input"


def test_a_request_under_another_role_is_judged_where_roles_are_not_trusted():
    for said in (turns("go on", system="grind the ashbane"), turns("hi", "grind the ashbane", "go on")):
        assert guarded().reply(said).status == "released"
        assert guarded(judged_roles=("system", "user", "assistant")).reply(said).status == "blocked_input"
    with pytest.raises(ValueError, match="user"):
        guarded(judged_roles=("system",))


def test_the_history_of_a_halt_holds_what_was_seen():
    halted = guarded("The old lantern. Grind the ashbane now.").reply("How?")
    said = turns("How?", history_after(halted), "Go on.")
    model = guarded()
    assert model.reply(said).status == "released"
    assert "ashbane" not in decode_text(TOKENIZER, model.assistant.seen)


# --- event loops


def test_astream_is_stream():
    async def read():
        return [event async for event in guarded().astream("How?")]

    assert asyncio.run(read()) == list(guarded().stream("How?"))


def test_a_reader_who_leaves_an_astream_stops_the_assistant():
    model = guarded()

    async def leave():
        events = model.astream("How?")
        await anext(events)
        await events.aclose()

    asyncio.run(leave())
    assert model.assistant.steps < len(model.assistant.ids) and not FakeCache.alive


def test_a_cancelled_task_stops_the_assistant():
    model = guarded("The old lantern sleeps. " * 9)

    async def run():
        seen = asyncio.Event()

        async def read():
            async for _ in model.astream("How?"):
                seen.set()
                await asyncio.sleep(0)

        task = asyncio.create_task(read())
        await seen.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert model.assistant.steps < len(model.assistant.ids)


def test_what_fails_is_told_in_the_reply():
    model = guarded()
    model.output_classifier.restart({1: lambda: 1 / 0})

    async def read():
        return [event async for event in model.astream("How?")][-1]

    reply = asyncio.run(read())
    assert isinstance(reply, Reply) and (reply.status, reply.error_kind) == ("error", "classifier_failed")
