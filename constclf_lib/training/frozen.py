"""A value head on a backbone that stays as it is: hidden states are read once and the head alone is trained.
What a large model allows on a CPU. Built for chapter 11.

What it deliberately does not do: fine-tune (`fit.train_output_classifier`), or store states beyond memory: a token of a
model of width 576 takes 2.3 KB.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ClassifierError
from ..models import OutputClassifier, advice, cache_of
from ..tokenization import batch_text_ids, pad_batch
from .arguments import fine_tune_arguments
from .probes import ProbeTrainer


class _OnStates(nn.Module):
    """A value head as ProbeTrainer takes a probe: no smoothing."""

    width = 1

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, states: Tensor) -> Tensor:
        return self.head(states)


@torch.inference_mode()
def frozen_states(
    classifier: OutputClassifier,
    texts: Sequence[str],
    layers: Sequence[int] = (),
    batch_size: int = 32,
    done: Callable[[int], object] = lambda texts: None,
) -> list[Tensor]:
    """What `classifier`'s value head reads at every token of every text, behind it the hidden states of `layers` (as
    `output_hidden_states` numbers them): one tensor [tokens, (1 + layers) * hidden], float32 on the CPU, per text.

    done: told how many texts of a batch are read, for a progress bar. Raises ValueError for a text that does not fit
    the classifier's window, ClassifierError for states that are not finite, or a backbone that bears no padding.
    """
    rows = [[*classifier.prefix_ids, *ids] for ids in batch_text_ids(classifier.tokenizer, texts)]
    limit = min((n for n in (classifier.window, classifier.context_length) if n), default=None)
    if limit and (longest := max(map(len, rows), default=0)) > limit:
        raise ValueError(f"a text of {longest} tokens does not fit {limit}; leave it out, or raise the window")
    if "padded on the right" in classifier.not_borne():
        batch_size = 1
    before, size = len(classifier.prefix_ids), classifier.hidden_size
    found = [torch.zeros(0, (1 + len(layers)) * size)] * len(rows)
    order = sorted((i for i, row in enumerate(rows) if len(row) > before), key=lambda i: len(rows[i]))
    classifier.eval()
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        ids, mask = (x.to(classifier.device) for x in pad_batch([rows[i] for i in part], 0))
        output = classifier.backbone(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True)
        assert cache_of(output) is None
        states = torch.cat([output.last_hidden_state, *(output.hidden_states[n] for n in layers)], dim=-1)
        if not states[mask.bool()].isfinite().all():
            raise ClassifierError(f"hidden states are not finite numbers; {advice(states.dtype)}")
        for row, i in enumerate(part):
            found[i] = states[row, before : len(rows[i])].float().cpu().clone()
        done(len(part))
    return found


def train_value_head(
    classifier: OutputClassifier,
    states: Sequence[Tensor],
    harmful: Sequence[bool] | np.ndarray,
    steps: int = 600,
    *,
    loss: str = "annealed",
    seed: int = 0,
    lr: float = 1e-3,
    batch: int = 32,
    **arguments,
) -> list[dict]:
    """Trains the value head of `classifier` in place on states [tokens, hidden] of whole texts and a label each, its
    backbone untouched; returns the log. loss: as ProbeTrainer's, "annealed" by default. The next-token loss has nothing
    to keep alive here.

    Raises ValueError for other numbers of states and labels, or states of another width.
    """
    if len(states) != len(harmful):
        raise ValueError(f"{len(states)} texts and {len(harmful)} labels: one each")
    rows: list[dict[str, Any]] = [
        {"states": x, "harmful": bool(y)} for x, y in zip(states, harmful, strict=True) if len(x)
    ]
    if not rows or rows[0]["states"].shape[1] != classifier.hidden_size:
        got = list(rows[0]["states"].shape) if rows else "nothing"
        raise ValueError(f"the value head reads [tokens, {classifier.hidden_size}], not {got}")
    arguments = {"weight_decay": 0.1, **arguments}
    settings = fine_tune_arguments(tempfile.mkdtemp(prefix="constclf-"), steps, batch, lr, seed, **arguments)
    trainer = ProbeTrainer(_OnStates(classifier.value_head), settings, train_dataset=rows, loss=loss)  # type: ignore[arg-type]
    trainer.train()
    classifier.eval()
    return trainer.state.log_history


@torch.inference_mode()
def scores_on_states(head: nn.Module, states: Sequence[Tensor]) -> list[np.ndarray]:
    """sigmoid of what a value head or a probe says at every token of every text: one float32 array per text."""
    device = next(head.parameters()).device
    return [torch.sigmoid(head(x.to(device)).float()).cpu().numpy() for x in states]
