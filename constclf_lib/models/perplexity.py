"""How well a language model still predicts text: the control of chapter 03."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..tokenization import pad_batch, text_ids


@torch.inference_mode()
def perplexity(causal_lm, tokenizer, texts: Sequence, batch_size: int = 32) -> float:
    """exp(mean next-token loss per token) over texts or rows of token ids; an `OutputClassifier` works too (chapter
    03).

    The first token of a row is given, not predicted. Raises ValueError if no row has two tokens.
    """
    rows = [text_ids(tokenizer, text) if isinstance(text, str) else list(text) for text in texts]
    rows = sorted((row for row in rows if len(row) > 1), key=len)
    if not rows:
        raise ValueError("perplexity needs at least one text of two tokens")
    device, total, count = next(causal_lm.parameters()).device, 0.0, 0
    causal_lm.eval()
    for start in range(0, len(rows), batch_size):
        ids, attention_mask = (x.to(device) for x in pad_batch(rows[start : start + batch_size], 0))
        output = causal_lm(input_ids=ids, attention_mask=attention_mask)
        logits = output.lm_logits if hasattr(output, "lm_logits") else output.logits
        targets = ids[:, 1:].masked_fill(attention_mask[:, 1:] == 0, -100)
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].float().transpose(1, 2), targets, reduction="sum")
        total, count = total + float(loss), count + int((targets >= 0).sum())
    return float(np.exp(total / count))
