"""One reply while it is being written: private note, reply, end. The one state machine behind a single turn (turn.py)
and a batch of them (batch.py). Built in chapter 08.

Deliberately not here: forward passes and their caches; text (decoding.py).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from ..errors import GenerationError, PromptTooLongError
from ..prompts import Prompt, conversation, note_end_id, prompt_ids, turn_end_ids
from ..tokenization import fewest_ids, text_ids


def context_of(model) -> float:
    """Tokens that fit into a causal LM's context, math.inf where its architecture sets no limit."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf


def read_prompt(model, tokenizer, prompt: Prompt, max_prompt_tokens: int | None = None) -> list[int]:
    """The ids that an assistant reads before it writes (`prompts.prompt_ids`), never none.

    Raises PromptTooLongError for more than max_prompt_tokens (None: no limit but the context), or if they leave no room
    in the context; a text that cannot fit however it is encoded is refused by its length, before any work.
    """
    context = context_of(model)
    most = min(context - 1, math.inf if max_prompt_tokens is None else max_prompt_tokens)
    place = (
        f"the assistant's context holds {context}"
        if most == context - 1
        else f"max_prompt_tokens is {max_prompt_tokens}"
    )
    fewest = sum(fewest_ids(tokenizer, message["content"]) for message in conversation(prompt))
    if fewest > most:
        raise PromptTooLongError(
            f"the prompt is at least {fewest} tokens long and {place}; shorten it, it is never cut"
        )
    ids = prompt_ids(tokenizer, prompt) or text_ids(tokenizer, " ")
    if len(ids) > most:
        raise PromptTooLongError(f"the prompt is {len(ids)} tokens long and {place}; shorten it, it is never cut")
    return ids


def control_ids(model, tokenizer) -> set[int]:
    """Ids that are no part of a reply: end of text and every other control token (never the unknown token)."""
    ids = _settings_ids(model, tokenizer) | set(tokenizer.all_special_ids)
    ids |= {i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    return ids - {tokenizer.unk_token_id, None}


def _settings_ids(model, tokenizer) -> set[int]:
    """The ids of end of text that the model's and the tokenizer's settings name."""
    ids = {tokenizer.eos_token_id}
    for settings in (getattr(model, "generation_config", None), model.config):
        ends = getattr(settings, "eos_token_id", None)
        ids |= {ends} if isinstance(ends, int) else set(ends or ())
    return ids - {None}


class ControlTokens(NamedTuple):
    """The control tokens of one assistant. `ends`: those that end a reply (end of text, and of a turn); `all`: every
    one; `note_end`: ends its private note, None where it writes none.
    """

    ends: frozenset[int]
    all: frozenset[int]
    note_end: int | None

    @classmethod
    def of(cls, model, tokenizer) -> ControlTokens:
        control = control_ids(model, tokenizer)
        ends = _settings_ids(model, tokenizer) | control.intersection(turn_end_ids(tokenizer))
        return cls(frozenset(ends), frozenset(control), note_end_id(tokenizer))


class ReplyState:
    """`take` the logits of one step after the other until `finish` is set. `note_ids`, `ids`: the private note and the
    reply so far, control tokens excluded.

    finish: None while it runs, then "end" (end of text), or "length" (max_new_tokens, or the context is full).
    temperature 0 takes the likeliest token; above, sampling with a generator of its own from `seed`, so no other random
    state is read or moved.
    """

    def __init__(
        self,
        control: ControlTokens,
        max_new_tokens: int,
        max_note_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ):
        self.note_ids: list[int] = []
        self.ids: list[int] = []
        self.in_note = control.note_end is not None
        self.finish: str | None = None
        self._control = control
        self._max_new_tokens, self._max_note_tokens = max_new_tokens, max_note_tokens
        self._temperature = temperature
        self._random = torch.Generator().manual_seed(seed)
        self._stop_if_long()

    def take(self, logits: torch.Tensor) -> int:
        """Chooses the next token from logits [vocab], float32 on the CPU, notes what it means, and returns its id.

        Raises GenerationError for logits that are no numbers, a note that does not lead to a reply, and a control token
        in the reply that does not end it: what would follow is not a reply (another turn, a tool call, a hidden
        channel), and a reply cut short there is no reply either.
        """
        if logits.isnan().any() or not logits.max().isfinite():
            raise GenerationError("the assistant's logits are not finite numbers")
        if self._temperature > 0:
            token = int(torch.multinomial((logits / self._temperature).softmax(-1), 1, generator=self._random))
        else:
            token = int(logits.argmax())
        if self.in_note:
            self._take_note(token)
        elif token in self._control.ends:
            self.finish = "end"
        elif token in self._control.all:
            raise GenerationError(
                f"the assistant wrote the control token {token} after {len(self.ids)} tokens of its reply; if it ends "
                "a turn of this model, add it to model.generation_config.eos_token_id"
            )
        else:
            self.ids.append(token)
        self._stop_if_long()
        return token

    def context_is_full(self) -> None:
        """No room for another token: ends the reply. Raises GenerationError if it has not begun."""
        if self.in_note:
            raise GenerationError("the private note filled the assistant's context")
        self.finish = self.finish or "length"

    def _take_note(self, token: int) -> None:
        if token == self._control.note_end:
            self.in_note = False
        elif token in self._control.all:
            raise GenerationError("the assistant ended without a reply")
        else:
            self.note_ids.append(token)
            if len(self.note_ids) >= self._max_note_tokens:
                raise GenerationError("the private note did not end")

    def _stop_if_long(self) -> None:
        if self.finish is None and not self.in_note and len(self.ids) >= self._max_new_tokens:
            self.finish = "length"
