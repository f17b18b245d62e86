"""One call from a frame of labelled texts to a fine-tuned classifier, resumable. Chapters 02 to 06 use it.

Deliberately not here: the losses and what is logged (trainers.py), and any choice of hyperparameters.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from ..models import InputClassifier, OutputClassifier
from ..prompts import verdict_prompt_ids
from ..tokenization import batch_text_ids
from .arguments import fine_tune_arguments, latest_checkpoint
from .collators import CompletionCollator, VerdictCollator
from .trainers import InputClassifierTrainer, OutputClassifierTrainer


def verdict_rows(tokenizer, exchanges) -> list[dict]:
    """Rows for VerdictCollator, tokenized once."""
    pairs = zip(exchanges.prompt, exchanges.restricted, strict=True)
    return [
        {"input_ids": verdict_prompt_ids(tokenizer, prompt), "restricted": bool(restricted)}
        for prompt, restricted in pairs
    ]


def completion_rows(tokenizer, exchanges) -> list[dict]:
    """Rows for CompletionCollator, tokenized once."""
    pairs = zip(batch_text_ids(tokenizer, exchanges.completion), exchanges.harmful, strict=True)
    return [{"input_ids": ids, "harmful": bool(harmful)} for ids, harmful in pairs]


def train_input_classifier(
    backbone,
    exchanges,
    steps: int,
    *,
    seed: int = 0,
    lr: float = 1e-3,
    batch: int = 64,
    output_dir: str | Path = "",
    callbacks: Sequence = (),
    **arguments,
) -> tuple[InputClassifier, list[dict]]:
    """An input classifier fine-tuned from `backbone` (name, path or model) on a frame with `prompt` and `restricted`.
    Returns it and the log. output_dir and arguments as in `train_output_classifier`.
    """
    classifier = InputClassifier.from_backbone(backbone)
    trainer = InputClassifierTrainer(
        classifier,
        fine_tune_arguments(output_dir or _scratch(), steps, batch, lr, seed, **arguments),
        data_collator=VerdictCollator(classifier.tokenizer),
        train_dataset=verdict_rows(classifier.tokenizer, exchanges),
        callbacks=list(callbacks),
    )
    trainer.train(resume_from_checkpoint=latest_checkpoint(output_dir) if output_dir else None)
    return classifier.eval(), trainer.state.log_history


def train_output_classifier(
    backbone,
    exchanges,
    steps: int,
    *,
    loss: str = "annealed",
    lam: float = 1.0,
    anneal_end: float = 0.75,
    seed: int = 0,
    lr: float = 1e-3,
    batch: int = 32,
    output_dir: str | Path = "",
    callbacks: Sequence = (),
    **arguments,
) -> tuple[OutputClassifier, list[dict]]:
    """An output classifier fine-tuned from `backbone` on a frame with `completion` and `harmful`. Returns it and the
    log.

    backbone: a name, path or causal LM, which gets a new value head; or an OutputClassifier, to train it further.
    output_dir: where checkpoints go and from where an interrupted run goes on. arguments: as in `fine_tune_arguments`.
    """
    classifier = backbone
    if not isinstance(backbone, OutputClassifier):
        torch.manual_seed(seed)  # the head's start is part of the seed
        classifier = OutputClassifier.from_backbone(backbone, base_rate=float(exchanges.harmful.mean()))
    trainer = OutputClassifierTrainer(
        classifier,
        fine_tune_arguments(output_dir or _scratch(), steps, batch, lr, seed, **arguments),
        data_collator=CompletionCollator(classifier.tokenizer),
        train_dataset=completion_rows(classifier.tokenizer, exchanges),
        loss=loss,
        lam=lam,
        anneal_end=anneal_end,
        callbacks=list(callbacks),
    )
    trainer.train(resume_from_checkpoint=latest_checkpoint(output_dir) if output_dir else None)
    return classifier.eval(), trainer.state.log_history


def _scratch() -> str:
    return tempfile.mkdtemp(prefix="constclf-")
