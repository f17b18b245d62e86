"""Training arguments that are quiet, offline and resumable, and where an interrupted run goes on."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import torch
from transformers import TrainingArguments

from .lora import precision


def latest_checkpoint(output_dir: str | os.PathLike) -> str | None:
    """The newest complete checkpoint in `output_dir`, for train(resume_from_checkpoint=...), or None.

    One that was being written when the run was killed has no readable trainer_state.json, which is written last, and is
    passed over.
    """

    def step(folder: Path) -> int:
        return int(folder.name.rpartition("-")[2])

    folders = [
        folder for folder in Path(output_dir).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", folder.name)
    ]
    for folder in sorted(folders, key=step, reverse=True):
        try:
            if json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["global_step"] == step(folder):
                return str(folder)
        except (OSError, ValueError, KeyError):
            continue
    return None


def fine_tune_arguments(
    output_dir: str | os.PathLike,
    steps: int,
    batch_size: int = 32,
    lr: float = 1e-3,
    seed: int = 0,
    *,
    progress: bool = False,
    **changes,
) -> TrainingArguments:
    """Arguments for a classifier: AdamW, 5% warm-up, cosine to 0, gradients clipped at 1.0; quiet, offline, nothing
    reported or evaluated.

    float32; on a GPU autocast to what it can (`lora.precision`). By default nothing is saved on the way;
    `save_steps=n` (with save_strategy="steps", set for you) makes the run resumable. Any other TrainingArguments field
    can be given and wins.
    """
    if changes.get("save_steps"):
        changes.setdefault("save_strategy", "steps")
    settings = {
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": 2 * batch_size,
        "learning_rate": lr,
        "seed": seed,
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, steps // 20),
        "weight_decay": 0.01,
        "adam_beta2": 0.95,
        "max_grad_norm": 1.0,
        **precision(),
        "logging_steps": 10,
        "logging_nan_inf_filter": False,  # a nan in the loss has to be seen
        "save_strategy": "no",
        "save_total_limit": 2,
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": not progress,
        "remove_unused_columns": False,  # the collators need the text columns
        "use_cache": True,  # lands in the model's config, where generation looks for it; training never caches
        "dataloader_pin_memory": torch.cuda.is_available(),
        "train_sampling_strategy": "group_by_length",
    }
    return TrainingArguments(output_dir=str(output_dir), **{**settings, **changes})


def pretrain_arguments(
    output_dir: str | os.PathLike,
    steps: int,
    batch_size: int = 32,
    lr: float = 4e-3,
    seed: int = 0,
    *,
    progress: bool = False,
    **changes,
) -> TrainingArguments:
    """Arguments for pretraining from scratch: as `fine_tune_arguments`, with a higher learning rate, decaying to a
    tenth of it.
    """
    schedule: dict = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}}
    return fine_tune_arguments(output_dir, steps, batch_size, lr, seed, progress=progress, **{**schedule, **changes})
