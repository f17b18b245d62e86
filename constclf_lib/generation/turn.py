"""The assistant's side of a guarded reply: one KV-cached turn, token by token. Built in chapter 08.

Works with any Hugging Face causal LM. A lab assistant first writes a private note (between `<|note|>` and
`<|assistant|>`), its reasoning channel: it is kept apart in `Turn.note_ids`, capped in length, and never part of the
reply.

Deliberately not here: guarding (`guard`), what a token means for the reply (reply_state.py), beam search, top-k and
other samplers, batches.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..errors import GenerationError
from ..models import cache_argument, cache_of, hidden_states_of
from ..streaming import within
from .reply_state import ControlTokens, ReplyState, context_of, read_prompt


class Turn:
    """One turn of an assistant; iterate over it for the ids of its reply, control tokens excluded. Close it (or exhaust
    it) to free its cache.

    With `layers`, `states` [1, layers * hidden] are the hidden states of the token that was handed out last. It is
    handed out once the model has read it, one step later; the last token of a reply that is cut short costs one more
    pass.

    prompt: text, or the ids that `read_prompt` made of it. temperature 0 takes the likeliest token; above, sampling
    with a generator of its own from `seed`. `note_ids`: the private note (lab only). `finish`: None while it runs, then
    "end" (end of text), or "length" (max_new_tokens, or the context is full). step_timeout: seconds one step may take.

    Raises PromptTooLongError at once for a prompt that leaves no room in the context (nothing is ever cut from it), and
    GenerationError while it is read (`ReplyState.take`).
    """

    def __init__(
        self,
        model,
        tokenizer,
        prompt: str | Sequence[int],
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        max_note_tokens: int = 320,
        step_timeout: float | None = None,
        layers: Sequence[int] = (),
    ):
        self.layers = tuple(layers)
        self.states: torch.Tensor | None = None
        self.prompt_ids = read_prompt(model, tokenizer, prompt) if isinstance(prompt, str) else list(prompt)
        self.context_length = context_of(model)
        control = ControlTokens.of(model, tokenizer)
        self._state = ReplyState(control, max_new_tokens, max_note_tokens, temperature, seed)
        self._model, self._timeout = model, step_timeout
        self._options: dict[str, Any] = {}
        if "logits_to_keep" in inspect.signature(model.forward).parameters:
            self._options["logits_to_keep"] = 1
        if self.layers:
            self._options["output_hidden_states"] = True
        cached_as = cache_argument(model.forward)
        if cached_as is None:
            raise GenerationError(f"{type(model).__name__} takes no cache; it cannot write token by token")
        self._cache_argument = cached_as
        self._cache: Any = None
        self._read = 0  # tokens in the cache
        self._ids = self._write()

    @property
    def note_ids(self) -> list[int]:
        return self._state.note_ids

    @property
    def finish(self) -> str | None:
        return self._state.finish

    def __iter__(self) -> Iterator[int]:
        return self._ids

    def close(self) -> None:
        """Frees the cache. May be called twice."""
        self._ids.close()
        self._cache = None

    def _write(self):
        self._model.eval()
        state, new, waiting = self._state, self.prompt_ids, False
        try:
            while state.finish is None or waiting:
                if self._read + len(new) > self.context_length:
                    state.context_is_full()
                    return  # a token that waits is never read, so it never goes out
                logits = within(self._timeout, lambda: self._step(new))  # noqa: B023 it is called before `new` changes
                if waiting:
                    yield new[0]
                waiting = False
                if state.finish is None:
                    written = len(state.ids)
                    new = [state.take(logits)]
                    waiting = len(state.ids) > written and bool(self.layers)
                    if len(state.ids) > written and not waiting:
                        yield new[0]
        finally:
            self._cache = None

    @torch.inference_mode()
    def _step(self, new: Sequence[int]) -> torch.Tensor:
        """The logits [vocab] after `new`, float32 on the CPU."""
        batch = torch.tensor([list(new)], device=self._model.device)
        kept: dict[str, Any] = {} if self._cache is None else {self._cache_argument: self._cache}
        output = self._model(input_ids=batch, use_cache=True, **kept, **self._options)
        self._cache = cache_of(output)
        if self._cache is None:
            raise GenerationError(f"{type(self._model).__name__} returned no cache; it cannot write token by token")
        self._read += len(new)
        if self.layers:
            self.states = hidden_states_of(output, self.layers)[0, -1:]
        return output.logits[0, -1].float().cpu()
