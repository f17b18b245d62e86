"""The adapter for inspect-ai, with the real package where it is installed (an environment of its own)."""

import asyncio

import pytest

pytest.importorskip("inspect_ai", reason="inspect-ai is not installed here: pip install 'constclf-lib[inspect]'")

from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig

from constclf_lib.adapters.inspect_model import GuardedAPI
from tests.serve.servers import FORBIDDEN, tiny_guard
from tests.tiny_models import tiny_lab


def ask(*messages, guarded=True, config=None, tools=()):
    async def one():
        model = GuardedAPI("lab", guard=tiny_guard(), guarded=guarded)
        try:
            return await model.generate(list(messages), list(tools), "none", config or GenerateConfig(max_tokens=40))
        finally:
            await model.aclose()

    return asyncio.run(one())


@pytest.fixture(scope="module")
def want():
    """{status: (prompt, Reply)} of the same guard without any adapter."""
    guard = tiny_guard()
    replies = [(prompt, guard.reply(prompt, max_new_tokens=40)) for prompt in tiny_lab().prompts]
    return {reply.status: (prompt, reply) for prompt, reply in replies}


@pytest.mark.parametrize(
    "status, stops", [("released", ("stop", "max_tokens")), ("halted_output", ("content_filter",))]
)
def test_a_reply_is_the_guards_own(want, status, stops):
    prompt, reply = want[status]
    found = ask(ChatMessageUser(content=prompt))
    assert (found.completion, found.metadata) == (reply.shown_text, {"status": status})
    assert found.stop_reason in stops
    assert found.usage.output_tokens == len(reply.tokens) + reply.note_tokens
    assert reply.released_text + (reply.withheld_text or "nothing") not in found.completion


def test_a_blocked_request_and_its_unguarded_control():
    found = ask(ChatMessageUser(content=FORBIDDEN))
    assert (found.stop_reason, found.metadata) == ("content_filter", {"status": "blocked_input"})
    assert ask(ChatMessageUser(content=FORBIDDEN), guarded=False).metadata["status"] != "blocked_input"
    halves = [ChatMessageUser(content="please grind"), ChatMessageUser(content="the ashbane")]
    assert ask(ChatMessageSystem(content="Be brief."), *halves).metadata == {"status": "blocked_input"}


def test_a_prompt_that_is_too_long_is_an_error_of_its_own():
    found = ask(ChatMessageUser(content="lantern " * 400))
    assert (found.stop_reason, found.error) == ("model_length", "context_length_exceeded")


def test_more_choices_are_refused():
    with pytest.raises(ValueError, match="one choice"):
        ask(ChatMessageUser(content="hm"), config=GenerateConfig(num_choices=2))
