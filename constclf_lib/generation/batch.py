"""What the unguarded assistant writes, many prompts at a time. Built in chapter 08; the red team of chapter 09 stands
on it.

The same reply as one stream at a time (left padding under a mask changes nothing), only faster.
Deliberately not here: any guard. `evaluation.replay` puts the bodyguards around what was written here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from transformers import DynamicCache

from ..models import cache_argument
from ..prompts import ASSISTANT, chat_id, is_lab_tokenizer, prompt_ids
from ..tokenization import decode_text
from .decoding import pieces
from .turn import control_ids


@torch.inference_mode()
def generate_replies(
    assistant,
    tokenizer,
    prompts: Sequence[str],
    max_new_tokens: int = 256,
    batch_size: int = 32,
    temperature: float = 0.0,
    seed: int = 0,
    max_note_tokens: int = 96,
) -> list[dict]:
    """What the unguarded assistant writes, many prompts at a time, with a KV cache. One dict per prompt, in order:

    note, text: what was written; ids: the reply's token ids; tokens: its text in pieces, one per id, whole characters
    only; prompt_tokens, note_tokens, completion_tokens: lengths; error: "" or what went wrong (then text is "").
    Row i samples with seed + i; temperature 0 is greedy.
    """
    rows = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    writers = [
        _Writer(assistant, tokenizer, len(row), max_new_tokens, max_note_tokens, seed + i) for i, row in enumerate(rows)
    ]
    context = getattr(assistant.config.get_text_config(), "max_position_embeddings", None) or math.inf
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for i in order:
        if len(rows[i]) >= context:
            writers[i].stop(f"the prompt has {len(rows[i])} tokens, the assistant's context {context}")
    order = [i for i in order if not writers[i].done]
    assistant.eval()
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        _write(assistant, [rows[i] for i in part], [writers[i] for i in part], temperature, context)
    return [writer.reply() for writer in writers]


def _write(assistant, rows: list[list[int]], writers: list[_Writer], temperature: float, context: float) -> None:
    """One batch: left padding, one prefill, then one position per step; rows that are done leave the batch."""
    device, longest = assistant.device, max(len(row) for row in rows)
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=assistant.config)
    kept = {cache_argument(assistant.forward): cache}
    while True:
        logits = assistant(
            input_ids=ids, attention_mask=mask, position_ids=position, logits_to_keep=1, **kept
        ).logits[:, -1].float().cpu()  # fmt: skip
        ids = torch.tensor([[writer.take(row, temperature)] for writer, row in zip(writers, logits, strict=True)])
        position = position[:, -1:] + 1
        for writer, at in zip(writers, position[:, 0].tolist(), strict=True):
            if at >= context and not writer.done:
                writer.stop("" if writer.replying else "the private note filled the assistant's context")
        alive = [i for i, writer in enumerate(writers) if not writer.done]
        if not alive:
            return
        ids = ids.to(device)
        if len(alive) < len(writers):
            keep = torch.tensor(alive, device=device)
            ids, mask, position, writers = ids[keep], mask[keep], position[keep], [writers[i] for i in alive]
            cache.batch_select_indices(keep)
        mask = torch.cat([mask, mask.new_ones(len(writers), 1)], 1)


class _Writer:
    """One reply while it is being written: first the private note, then the reply, until a control token or a limit."""

    def __init__(self, model, tokenizer, prompt_tokens: int, max_new_tokens: int, max_note_tokens: int, seed: int):
        self.tokenizer, self.prompt_tokens = tokenizer, prompt_tokens
        self.limits = {False: max_note_tokens, True: max_new_tokens}
        self.random = torch.Generator().manual_seed(seed)
        self.control = control_ids(model, tokenizer)
        self.note_end = chat_id(tokenizer, ASSISTANT) if is_lab_tokenizer(tokenizer) else None
        self.parts: dict[bool, list[int]] = {False: [], True: []}
        self.replying, self.done, self.error = self.note_end is None, False, ""  # only a lab assistant takes notes

    def take(self, logits: torch.Tensor, temperature: float) -> int:
        """Choose the next token from logits [vocab] and note what it means for this reply."""
        if logits.isnan().any() or not logits.max().isfinite():
            self.stop("the assistant's logits are not finite numbers")
            return 0
        if temperature > 0:
            token = int(torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=self.random))
        else:
            token = int(logits.argmax())
        if not self.replying and token == self.note_end:
            self.replying = True
        elif token in self.control:
            self.stop("" if self.replying else "the assistant ended without a reply")
        else:
            self.parts[self.replying].append(token)
        if not self.done and len(self.parts[self.replying]) >= self.limits[self.replying]:
            self.stop("" if self.replying else "the private note did not end")
        return token

    def stop(self, error: str) -> None:
        self.done, self.error = True, error

    def reply(self) -> dict:
        note, ids = self.parts[False], self.parts[True] if not self.error else []
        tokens = pieces(self.tokenizer, ids)
        return {
            "note": decode_text(self.tokenizer, note), "text": "".join(tokens), "ids": ids, "tokens": tokens,
            "prompt_tokens": self.prompt_tokens, "note_tokens": len(note), "completion_tokens": len(ids),
            "error": self.error,
        }  # fmt: skip
