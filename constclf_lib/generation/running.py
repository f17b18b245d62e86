"""Turns of one assistant that are written together, and join and leave while others go on. Built in chapter 08, for a
server.

The same reply as one turn at a time, up to the rounding of a batch. All turns write one token per step, so they stay
aligned on the right and leave no holes; the prompts of those that join are read in a pass of their own.

Deliberately not here: any guard (guard/engine.py), and models whose cache does not keep every token: `can_run` says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from ..errors import GenerationError
from ..models import RunningCache, cache_argument, cache_of, keeps_every_token
from ..streaming import within
from .reply_state import ControlTokens, ReplyState, context_of


class RunningTurn:
    """One turn: `state` (the reply so far, and why it ended), `new`: the token of its reply that the last step wrote,
    None for none; `error`: what went wrong with this turn alone.
    """

    def __init__(self, prompt_ids: Sequence[int], state: ReplyState):
        self.prompt_ids, self.state = list(prompt_ids), state
        self.read = len(self.prompt_ids)  # tokens that the model has read, or will have with the next step
        self.new: int | None = None
        self.error: Exception | None = None
        self.last = 0

    @property
    def over(self) -> bool:
        return self.error is not None or self.state.finish is not None

    def take(self, logits: torch.Tensor, context: float) -> None:
        written = len(self.state.ids)
        try:
            self.last = self.state.take(logits)
            self.new = self.last if len(self.state.ids) > written else None
            if self.state.finish is None and self.read + 1 > context:
                self.state.context_is_full()
            self.read += 1
        except GenerationError as error:
            self.error, self.new = error, None


class RunningTurns:
    """max_note_tokens, step_timeout: as in `Turn`; a step that takes longer is raised as ClassifierTimeout, and then
    the batch is of no further use. Raises ValueError unless `can_run`.
    """

    def __init__(self, model, tokenizer, max_note_tokens: int = 320, step_timeout: float | None = None):
        if not can_run(model):
            raise ValueError(f"{type(model).__name__} cannot be read in a batch whose rows come and go")
        self._model, self._max_note_tokens, self._timeout = model.eval(), max_note_tokens, step_timeout
        self._control, self._context = ControlTokens.of(model, tokenizer), context_of(model)
        self._options: dict[str, Any] = {}
        if "logits_to_keep" in inspect.signature(model.forward).parameters:
            self._options["logits_to_keep"] = 1
        self._live: list[RunningTurn] = []
        self._joining: list[RunningTurn] = []
        self._cache = RunningCache()

    def __len__(self) -> int:
        return len(self._live) + len(self._joining)

    def join(
        self, prompt_ids: Sequence[int], max_new_tokens: int = 256, temperature: float = 0.0, seed: int = 0
    ) -> RunningTurn:
        """A new turn, written from the next step on. prompt_ids: what `read_prompt` made of the prompt."""
        turn = RunningTurn(
            prompt_ids, ReplyState(self._control, max_new_tokens, self._max_note_tokens, temperature, seed)
        )
        if not turn.over:
            self._joining.append(turn)
        return turn

    def leave(self, *turns: RunningTurn) -> None:
        """These turns are written no further."""
        gone = set(turns)
        self._joining = [turn for turn in self._joining if turn not in gone]
        keep = [place for place, turn in enumerate(self._live) if turn not in gone]
        if len(keep) < len(self._live):
            self._live = [self._live[place] for place in keep]
            self._cache.keep(keep)

    def step(self) -> list[RunningTurn]:
        """One more token for every turn; those that wrote something (`new`), ended or failed with it. A turn that is
        over leaves by itself. Raises what the model raises.
        """
        logits = within(self._timeout, self._step)
        turns = list(self._live)
        for turn, row in zip(turns, logits, strict=True):
            turn.new = None
            turn.take(row, self._context)
        self.leave(*(turn for turn in turns if turn.over))
        return turns

    @torch.inference_mode()
    def _step(self) -> torch.Tensor:
        """Logits [turns, vocab] of those that live now, those that joined included."""
        found = []
        if self._live:
            found.append(self._decode())
        if self._joining:
            found.append(self._enter())
        return torch.cat(found)

    def _decode(self) -> torch.Tensor:
        new = torch.ones(len(self._live), 1, dtype=torch.long)
        mask = self._cache.extended(new)
        logits, cache = self._pass(torch.tensor([[turn.last] for turn in self._live]), mask, self._cache.cache)
        self._cache.cache, self._cache.mask = cache, mask
        return logits

    def _enter(self) -> torch.Tensor:
        longest = max(len(turn.prompt_ids) for turn in self._joining)
        short = [longest - len(turn.prompt_ids) for turn in self._joining]
        ids = torch.tensor([[0] * n + turn.prompt_ids for n, turn in zip(short, self._joining, strict=True)])
        mask = torch.tensor([[0] * n + [1] * (longest - n) for n in short])
        logits, cache = self._pass(ids, mask, DynamicCache(config=self._model.config))
        self._cache.join(cache, mask)
        self._live, self._joining = self._live + self._joining, []
        return logits

    def _pass(self, ids: torch.Tensor, mask: torch.Tensor, cache) -> tuple[torch.Tensor, Any]:
        device = self._model.device
        position = (mask.cumsum(1) - 1).clamp(min=0)[:, mask.shape[1] - ids.shape[1] :]
        kept: dict[str, Any] = {str(cache_argument(self._model.forward)): cache}
        output = self._model(
            input_ids=ids.to(device), attention_mask=mask.to(device), position_ids=position.to(device), use_cache=True,
            **kept, **self._options,
        )  # fmt: skip
        return output.logits[:, -1].float().cpu(), cache_of(output)


def can_run(model) -> bool:
    """Whether a model's turns can share a batch: it takes a cache that keeps every token, and positions."""
    parameters = inspect.signature(model.forward).parameters
    try:
        plain = keeps_every_token(model.config)
    except (AttributeError, TypeError, ValueError):  # a config that no cache can be made of
        return False
    return plain and cache_argument(model.forward) is not None and "position_ids" in parameters
