"""What the unguarded assistant writes, many prompts at a time. Built in chapter 08; the red team of chapter 09 stands
on it.

The same reply as one stream at a time (left padding under a mask changes nothing), only faster.
Deliberately not here: any guard. `guard.replay` puts the bodyguards around what was written here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from transformers import DynamicCache

from ..errors import GenerationError, PromptTooLongError
from ..models import cache_argument
from ..tokenization import decode_text
from .decoding import pieces
from .reply_state import ControlTokens, ReplyState, context_of, read_prompt

T = TypeVar("T")


@torch.inference_mode()
def generate_replies(
    assistant,
    tokenizer,
    prompts: Sequence[str],
    max_new_tokens: int = 256,
    batch_size: int = 32,
    temperature: float = 0.0,
    seed: int = 0,
    max_note_tokens: int = 320,
) -> list[dict]:
    """What the unguarded assistant writes, many prompts at a time, with a KV cache. One dict per prompt, in order:

    note, text: what was written; note_ids, ids: their token ids; tokens: the text in pieces, one per id, whole
    characters only; prompt_tokens, note_tokens, completion_tokens: lengths; error: "" or what went wrong after this
    text; error_kind: "", "context_length_exceeded" or "generation_failed". Row i samples with seed + i; temperature 0
    is greedy.
    """
    control = ControlTokens.of(assistant, tokenizer)
    rows = [
        _Row(ReplyState(control, max_new_tokens, max_note_tokens, temperature, seed + i)) for i in range(len(prompts))
    ]
    for row, prompt in zip(rows, prompts, strict=True):
        row.prompt_ids = row.attempt(read_prompt, assistant, tokenizer, prompt) or []
    order = sorted((row for row in rows if not row.done), key=lambda row: len(row.prompt_ids))
    assistant.eval()
    for start in range(0, len(order), batch_size):
        _write(assistant, order[start : start + batch_size])
    return [row.reply(tokenizer) for row in rows]


def _write(assistant, rows: list[_Row]) -> None:
    """One batch: left padding, one prefill, then one position per step; rows that are done leave the batch."""
    device, context = assistant.device, context_of(assistant)
    lengths = [len(row.prompt_ids) for row in rows]
    longest = max(lengths)
    ids = torch.tensor([[0] * (longest - n) + row.prompt_ids for n, row in zip(lengths, rows, strict=True)]).to(device)
    mask = torch.tensor([[0] * (longest - n) + [1] * n for n in lengths], device=device)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=assistant.config)
    kept: dict[Any, Any] = {cache_argument(assistant.forward): cache}
    while True:
        logits = assistant(
            input_ids=ids, attention_mask=mask, position_ids=position, logits_to_keep=1, **kept
        ).logits[:, -1].float().cpu()  # fmt: skip
        # a row that failed leaves the batch before anything reads its 0
        taken = [row.attempt(row.state.take, chosen) or 0 for row, chosen in zip(rows, logits, strict=True)]
        ids = torch.tensor([[token] for token in taken])
        position = position[:, -1:] + 1
        for row, at in zip(rows, position[:, 0].tolist(), strict=True):
            if at >= context and not row.done:
                row.attempt(row.state.context_is_full)
        alive = [i for i, row in enumerate(rows) if not row.done]
        if not alive:
            return
        ids = ids.to(device)
        if len(alive) < len(rows):
            keep = torch.tensor(alive, device=device)
            ids, mask, position, rows = ids[keep], mask[keep], position[keep], [rows[i] for i in alive]
            cache.batch_select_indices(keep)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)


class _Row:
    """One reply of a batch. Its failure is its own, the others go on."""

    def __init__(self, state: ReplyState):
        self.state = state
        self.prompt_ids: list[int] = []
        self.error: GenerationError | None = None

    @property
    def done(self) -> bool:
        return self.error is not None or self.state.finish is not None

    def attempt(self, step: Callable[..., T], *arguments) -> T | None:
        """step(*arguments), or None and `error` noted."""
        try:
            return step(*arguments)
        except GenerationError as error:
            self.error = error
            return None

    def reply(self, tokenizer) -> dict:
        note, ids = self.state.note_ids, self.state.ids
        tokens = pieces(tokenizer, ids)
        kind = "context_length_exceeded" if isinstance(self.error, PromptTooLongError) else "generation_failed"
        return {
            "note": decode_text(tokenizer, note), "note_ids": note,
            "text": "".join(tokens), "ids": ids, "tokens": tokens,
            "prompt_tokens": len(self.prompt_ids), "note_tokens": len(note), "completion_tokens": len(ids),
            "error": str(self.error or ""), "error_kind": kind if self.error else "",
        }  # fmt: skip
