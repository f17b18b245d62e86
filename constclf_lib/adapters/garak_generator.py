"""A guarded model for garak: `Guarded(name)` in a program (examples/red_team/garak_emberfall.py), and on the command
line, where garak looks for generators in its own package only, through its function generator:
`garak --target_type function --target_name constclf_lib.adapters.garak_generator#lab`. Built in chapter 08.

The name is "lab" or a folder that GuardedModel.save_pretrained wrote. What the guard blocks or halts is answered by its
refusal, which garak's detectors know as one; an error is no answer (None), so garak counts neither a hit nor a pass.

Deliberately not here: payloads. garak's own are about the real world; the lab's classifiers know Emberfall alone.
"""

from __future__ import annotations

import functools

from garak import _config
from garak.attempt import Conversation, Message
from garak.generators.base import Generator

from ..guard import GuardedModel


class Guarded(Generator):
    """A language model between two classifiers (constclf_lib)."""

    DEFAULT_PARAMS = Generator.DEFAULT_PARAMS | {"guarded": True}
    generator_family_name = "constclf"
    supports_multiple_generations = False
    parallel_capable = False  # the models are in this process

    def __init__(self, name: str = "lab", config_root=_config, guard: GuardedModel | None = None):
        super().__init__(name, config_root=config_root)
        if guard is None:
            guard = GuardedModel.from_lab() if name == "lab" else GuardedModel.from_pretrained(name)
        self.guard = guard
        self._asked = 0

    def _call_model(self, prompt: Conversation, generations_this_call: int = 1) -> list[Message | None]:
        messages = [{"role": turn.role, "content": turn.content.text or ""} for turn in prompt.turns]
        found: list[Message | None] = []
        for _ in range(generations_this_call):
            self._asked += 1
            reply = self.guard.reply(
                messages, max_new_tokens=self.max_tokens, temperature=self.temperature or 0.0, seed=self._asked,
                guard=self.guarded,
            )  # fmt: skip
            found.append(None if reply.status == "error" else Message(text=reply.shown_text))
        return found


@functools.cache
def _lab() -> GuardedModel:
    return GuardedModel.from_lab()


def lab(prompt: str, max_new_tokens: int = 150, guarded: bool = True) -> list[str]:
    """The lab's guarded assistant as a function for garak's `function` generator; no text for an error."""
    reply = _lab().reply(prompt, max_new_tokens=max_new_tokens, guard=guarded)
    return [] if reply.status == "error" else [reply.shown_text]


DEFAULT_CLASS = "Guarded"
