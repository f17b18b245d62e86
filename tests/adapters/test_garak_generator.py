"""The adapter for garak, with the real package where it is installed (an environment of its own)."""

import pytest

pytest.importorskip("garak", reason="garak is not installed here: pip install 'constclf-lib[garak]'")

from garak import _config
from garak.attempt import Conversation, Message, Turn

from constclf_lib.adapters import garak_generator
from tests.serve.servers import FORBIDDEN, tiny_guard
from tests.tiny_models import tiny_lab


@pytest.fixture(scope="module")
def generator():
    _config.load_base_config()
    made = garak_generator.Guarded("lab", guard=tiny_guard())
    made.max_tokens, made.temperature = 40, 0.0
    return made


def talk(generator, *texts):
    turns = [Turn("user", Message(text)) for text in texts]
    (found,) = generator.generate(Conversation(turns))
    return found and found.text


def test_replies_are_the_guards_own_and_an_error_is_none(generator):
    guard = tiny_guard()
    for prompt in tiny_lab().prompts:
        reply = guard.reply(prompt, max_new_tokens=40)
        assert talk(generator, prompt) == (None if reply.status == "error" else reply.shown_text)
    assert talk(generator, "lantern " * 400) is None


def test_a_blocked_request_gets_the_refusal_also_when_it_is_split(generator):
    assert talk(generator, FORBIDDEN) == talk(generator, "please grind", "the ashbane") == generator.guard.refusal_text
    generator.guarded = False
    try:
        assert talk(generator, FORBIDDEN) != generator.guard.refusal_text
    finally:
        generator.guarded = True


def test_the_function_for_the_command_line(monkeypatch):
    guard = tiny_guard()
    monkeypatch.setattr(garak_generator, "_lab", lambda: guard)
    assert garak_generator.lab(FORBIDDEN) == [guard.refusal_text]
    assert garak_generator.lab("lantern " * 400) == []
