"""Training a linear probe on hidden states of replies, with transformers.Trainer. Chapter 10.

The states are read once (`models.reply_states`) and the probe alone is trained: it has a few hundred weights, so a run
takes seconds, and five seeds of every variant fit into minutes. (At the size of a real service states are recomputed in
the training loop: stored, they would fill disks. arXiv 2601.04603 says so.)

Deliberately not here: where labels come from, thresholds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .. import losses
from ..models import LinearProbe
from .arguments import fine_tune_arguments
from .base import QuietTrainer
from .trainers import linear_anneal

PROBE_LOSSES: dict[str, Callable] = {
    "softmax": losses.softmax_weighted_bce,
    "spread": losses.spread_weighted_bce,
    "per_token": losses.per_token_bce,
    "cumulative_max": losses.cumulative_max_bce,
}


class StatesCollator:
    """Rows with `states` [tokens, features] and `harmful` -> states [batch, time, features], mask [batch, time] bool,
    labels [batch].
    """

    def __call__(self, rows: Sequence[dict]) -> dict[str, Tensor]:
        states = pad_sequence([row["states"] for row in rows], batch_first=True)
        lengths = torch.tensor([len(row["states"]) for row in rows])
        mask = torch.arange(states.shape[1]) < lengths[:, None]
        return {"states": states, "mask": mask, "labels": torch.tensor([float(row["harmful"]) for row in rows])}


class ProbeTrainer(QuietTrainer):
    """Trains a LinearProbe on rows of states, its mean over `probe.width` tokens (SWiM) where that is more than one.

    loss: "softmax" (with tau), "spread" (SingProbe's), "per_token" (A), "cumulative_max" (B) or "annealed". Raises
    ValueError for another.
    """

    text_column = "states"

    def __init__(self, model: LinearProbe, *args, loss: str = "softmax", tau: float = 1.0, **kwargs):
        if loss not in (*PROBE_LOSSES, "annealed"):
            raise ValueError(f"loss must be one of {(*PROBE_LOSSES, 'annealed')}, not {loss!r}")
        super().__init__(model, *args, data_collator=StatesCollator(), **kwargs)
        self.loss, self.options = loss, {"tau": tau} if loss == "softmax" else {}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        logits, mask = model(inputs["states"]), inputs["mask"]
        width = self.accelerator.unwrap_model(model).width
        if width > 1:
            logits, mask = losses.sliding_window_mean(logits, mask, width)
        if self.loss == "annealed":
            omega = linear_anneal(self.state.global_step, max(1, self.state.max_steps))
            total = losses.annealed_bce(logits, inputs["labels"], mask, omega)
        else:
            total = PROBE_LOSSES[self.loss](logits, inputs["labels"], mask, **self.options)
        return (total, logits) if return_outputs else total


def train_probe(
    probe: LinearProbe,
    states: Sequence[Tensor],
    harmful: Sequence[bool] | np.ndarray,
    steps: int = 600,
    *,
    loss: str = "softmax",
    tau: float = 1.0,
    seed: int = 0,
    lr: float = 2e-3,
    batch: int = 32,
    **arguments,
) -> tuple[LinearProbe, list[dict]]:
    """The probe trained on states [tokens, layers * hidden] of whole replies and a label each; standardised on them
    first if it is untrained. Returns it in eval mode, and the log. arguments: as in `fine_tune_arguments`.

    Raises ValueError for states that do not fit the probe or the labels, or are not finite.
    """
    if len(states) != len(harmful):
        raise ValueError(f"{len(states)} replies and {len(harmful)} labels: one each")
    rows: list[dict[str, Any]] = [
        {"states": x, "harmful": bool(y)} for x, y in zip(states, harmful, strict=True) if len(x)
    ]
    wrong = [tuple(row["states"].shape) for row in rows if row["states"].shape[1] != probe.linear.in_features]
    if not rows or wrong:
        raise ValueError(
            f"a probe of {len(probe.layers)} layers reads [tokens, {probe.linear.in_features}], not "
            f"{list(wrong[0]) if wrong else 'nothing'}"
        )
    if bool((probe.scale == 1).all()):
        probe.standardise(row["states"] for row in rows)
    trainer = ProbeTrainer(
        probe,
        fine_tune_arguments(tempfile.mkdtemp(prefix="constclf-"), steps, batch, lr, seed, **arguments),
        train_dataset=rows,
        loss=loss,
        tau=tau,
    )
    trainer.train()
    return probe.eval(), trainer.state.log_history
