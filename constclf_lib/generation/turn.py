"""The assistant's side of a guarded reply: a KV-cached turn token by token, tokens to whole characters, stop sequences.
Built in chapter 08.

Works with any Hugging Face causal LM. A lab assistant first writes a private note (between `<|note|>` and
`<|assistant|>`), its reasoning channel: it is kept apart in `Turn.note_ids`, capped in length, and never part of the
reply.

Deliberately not here: guarding (`guard`), beam search, top-k and other samplers, batches.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence

import torch

from ..errors import GenerationError
from ..models import cache_argument, cache_of
from ..prompts import ASSISTANT, chat_id, is_lab_tokenizer, prompt_ids
from ..streaming import within
from ..tokenization import text_ids


def control_ids(model, tokenizer) -> set[int]:
    """Ids that end a reply when the assistant writes them: end of text and every other control token (never the unknown
    token).
    """
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = {ends} if isinstance(ends, int) else set(ends or ())
    ids |= set(tokenizer.all_special_ids)
    ids |= {i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    return ids - {tokenizer.unk_token_id, None}


class Turn:
    """One turn of an assistant; iterate over it for the ids of its reply, control tokens excluded. Close it (or exhaust
    it) to free its cache.

    temperature 0 takes the likeliest token; above, sampling with a generator of its own from `seed`, so no other random
    state is read or moved. `note_ids`: the private note (lab only). `finish`: None while it runs, then "end" (a control
    token), or "length" (max_new_tokens, or the context is full). step_timeout: seconds one step may take.

    Raises GenerationError at once for a prompt that leaves no room in the context (nothing is ever cut from it), and
    while it is read if the note does not end within `max_note_tokens`, or logits are not finite.
    """

    def __init__(
        self,
        model,
        tokenizer,
        prompt: str,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        max_note_tokens: int = 96,
        step_timeout: float | None = None,
    ):
        self.prompt_ids = prompt_ids(tokenizer, prompt) or list(text_ids(tokenizer, " "))
        self.context_length = getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf
        if len(self.prompt_ids) >= self.context_length:
            raise GenerationError(
                f"the prompt is {len(self.prompt_ids)} tokens long and the assistant's context holds "
                f"{self.context_length}; shorten it, it is never cut"
            )
        self.note_ids: list[int] = []
        self.finish: str | None = None
        self._note_end = chat_id(tokenizer, ASSISTANT) if is_lab_tokenizer(tokenizer) else None
        self._control = control_ids(model, tokenizer)
        self._model, self._timeout = model, step_timeout
        self._max_new_tokens, self._max_note_tokens = max_new_tokens, max_note_tokens
        self._temperature = temperature
        self._generator = torch.Generator().manual_seed(seed)
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        self._cache_argument = cache_argument(model.forward)
        if self._cache_argument is None:
            raise GenerationError(f"{type(model).__name__} takes no cache; it cannot write token by token")
        self._cache = None
        self._read = 0  # tokens in the cache
        self._ids = self._write()

    def __iter__(self) -> Iterator[int]:
        return self._ids

    def close(self) -> None:
        """Frees the cache. May be called twice."""
        self._ids.close()
        self._cache = None

    def _write(self) -> Iterator[int]:
        self._model.eval()
        new, written = self.prompt_ids, 0
        in_note = self._note_end is not None
        try:
            while in_note or written < self._max_new_tokens:
                if self._read + len(new) > self.context_length:
                    if in_note:
                        raise GenerationError("the private note filled the assistant's context")
                    break
                token = within(self._timeout, lambda: self._next(new))  # noqa: B023 it is called before `new` changes
                new = [token]
                if token == self._note_end and in_note:
                    in_note = False
                elif token in self._control:
                    if in_note:
                        raise GenerationError("the assistant ended without a reply")
                    self.finish = "end"
                    return
                elif in_note:
                    self.note_ids.append(token)
                    if len(self.note_ids) >= self._max_note_tokens:
                        raise GenerationError("the private note did not end")
                else:
                    written += 1
                    yield token
            self.finish = "length"
        finally:
            self._cache = None

    @torch.inference_mode()
    def _next(self, new: Sequence[int]) -> int:
        batch = torch.tensor([list(new)], device=self._model.device)
        kept = {} if self._cache is None else {self._cache_argument: self._cache}
        output = self._model(input_ids=batch, use_cache=True, **kept, **self._options)
        self._cache = cache_of(output)
        if self._cache is None:
            raise GenerationError(f"{type(self._model).__name__} returned no cache; it cannot write token by token")
        self._read += len(new)
        logits = output.logits[0, -1].float().cpu()
        if logits.isnan().any() or not logits.max().isfinite():
            raise GenerationError("the assistant's logits are not finite numbers")
        if self._temperature == 0:
            return int(logits.argmax())
        return int(torch.multinomial((logits / self._temperature).softmax(-1), 1, generator=self._generator))
