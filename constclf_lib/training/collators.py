"""Rows to batches: padding, masks, labels; next-token rows end to end. Built in chapters 02 and 03.

Deliberately not here: truncation that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..prompts import VERDICT_WORDS, completion_prefix_ids, verdict_prompt_ids, verdict_token_ids
from ..tokenization import pad_batch, text_ids


class TextCollator:
    """Rows with `input_ids` (and `loss_mask`, 1 at tokens to be predicted; default all) -> a batch for a causal LM:
    labels are -100 where nothing is learnt.
    """

    def __init__(self, pad_id: int):
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[dict]) -> dict[str, Tensor]:
        input_ids, attention_mask = pad_batch([row["input_ids"] for row in rows], self.pad_id)
        learnt, _ = pad_batch([row.get("loss_mask", [1] * len(row["input_ids"])) for row in rows], 0)
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": input_ids.masked_fill(learnt == 0, -100),
        }


def pack(documents: Sequence[Sequence[int]], length: int) -> list[dict[str, list[int]]]:
    """Token ids of documents, end to end, cut into rows of exactly `length` tokens (what is left at the end is
    dropped): no padding at all.
    """
    stream = [token for document in documents for token in document]
    return [{"input_ids": stream[start : start + length]} for start in range(0, len(stream) - length + 1, length)]


class VerdictCollator:
    """Rows with `prompt` and `restricted` -> a batch for the input classifier: the loss is taken at one position per
    row, the verdict's.

    Batch: input_ids and attention_mask [batch, time], verdict_positions [batch] (the last prompt token), labels [batch]
    (verdict token ids).
    """

    def __init__(self, tokenizer, words: tuple[str, str] = VERDICT_WORDS):
        self.tokenizer = tokenizer
        self.harmful_id, self.harmless_id = verdict_token_ids(tokenizer, words)

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        prompts = [
            row["input_ids"] if "input_ids" in row else verdict_prompt_ids(self.tokenizer, row["prompt"])
            for row in rows
        ]
        input_ids, attention_mask = pad_batch(prompts, self.tokenizer.pad_token_id or 0)
        labels = torch.tensor([self.harmful_id if row["restricted"] else self.harmless_id for row in rows])
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "verdict_positions": attention_mask.sum(1) - 1,
            "labels": labels,
        }


class CompletionCollator:
    """Rows with `completion` and `harmful` -> a batch for the output classifier. It sees the completion only, never the
    prompt, unless a row brings `prefix_ids` of its own (exchange classifier).

    Batch: input_ids and attention_mask [batch, time], mask [batch, time] bool (True at completion tokens), labels
    [batch] float in [0, 1].
    """

    def __init__(self, tokenizer, max_length: int | None = None):
        self.tokenizer, self.max_length = tokenizer, max_length
        self.prefix = completion_prefix_ids(tokenizer)

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        bodies = [
            row["input_ids"] if "input_ids" in row else text_ids(self.tokenizer, row["completion"]) for row in rows
        ]
        # a training crop, asked for by name; None crops nothing
        bodies = [list(body)[: self.max_length] for body in bodies]
        prefixes = [row.get("prefix_ids", self.prefix) for row in rows]
        texts = [[*prefix, *body] for prefix, body in zip(prefixes, bodies, strict=True)]
        input_ids, attention_mask = pad_batch(texts, self.tokenizer.pad_token_id or 0)
        mask = attention_mask.bool()
        for row, prefix in enumerate(prefixes):
            mask[row, : len(prefix)] = False
        labels = torch.tensor([float(row["harmful"]) for row in rows])
        return {"input_ids": input_ids, "attention_mask": attention_mask, "mask": mask, "labels": labels}
