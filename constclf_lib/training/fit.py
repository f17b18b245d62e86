"""One call from a frame of labelled texts to a fine-tuned classifier, resumable. Chapters 02 to 06 use it.

Deliberately not here: the losses and what is logged (trainers.py), and any choice of hyperparameters.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from ..models import ExchangeClassifier, InputClassifier, OutputClassifier
from ..prompts import exchange_prefix_ids, verdict_prompt_ids
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


def completion_rows(tokenizer, exchanges, with_prompt: bool = False) -> list[dict]:
    """Rows for CompletionCollator, tokenized once. with_prompt: behind the prompt, for an exchange classifier."""
    pairs = zip(batch_text_ids(tokenizer, exchanges.completion), exchanges.harmful, strict=True)
    rows = [{"input_ids": ids, "harmful": bool(harmful)} for ids, harmful in pairs]
    if with_prompt:
        for row, prompt in zip(rows, exchanges.prompt, strict=True):
            row["prefix_ids"] = exchange_prefix_ids(tokenizer, prompt)
    return rows


def hold_words(model, but: Sequence[int] = ()) -> None:
    """From now on, training leaves the embeddings of `model` (a causal LM) as they are, those of the tokens `but`
    excepted; set weight_decay to 0.

    Where embeddings are tied to the LM head, a softmax over the vocabulary pushes down the row of every word that the
    fine-tuning data lacks, and AdamW makes a small steady push as large as any other. That these rows move is tested;
    how much of what pretraining taught is lost by it has not been measured apart from the learning rate.
    """
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    for weight in {id(layer.weight): layer.weight for layer in layers if layer is not None}.values():
        free = torch.zeros(len(weight), 1, device=weight.device)
        free[list(but)] = 1
        weight.register_hook(lambda gradient, free=free: gradient * free.to(gradient))


def train_input_classifier(
    backbone,
    exchanges,
    steps: int,
    *,
    seed: int = 0,
    lr: float = 1e-3,
    batch: int = 64,
    held: bool = False,
    output_dir: str | Path = "",
    callbacks: Sequence = (),
    **arguments,
) -> tuple[InputClassifier, list[dict]]:
    """An input classifier fine-tuned from `backbone` (name, path or model) on a frame with `prompt` and `restricted`.
    Returns it and the log. held: see `hold_words`; the verdict words alone stay free. output_dir and arguments as in
    `train_output_classifier`.
    """
    classifier = InputClassifier.from_backbone(backbone)
    if held:
        hold_words(classifier.model, classifier.verdict_ids)
        arguments.setdefault("weight_decay", 0.0)
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
    reads_prompt: bool = False,
    seed: int = 0,
    lr: float = 1e-3,
    batch: int = 32,
    held: bool = False,
    output_dir: str | Path = "",
    callbacks: Sequence = (),
    **arguments,
) -> tuple[OutputClassifier, list[dict]]:
    """An output classifier fine-tuned from `backbone` on a frame with `completion` and `harmful`. Returns it and the
    log. reads_prompt: an ExchangeClassifier, on a frame with `prompt` as well (chapter 10).

    backbone: a name, path or causal LM, which gets a new value head; or an OutputClassifier, to train it further.
    held: see `hold_words`. output_dir: where checkpoints go and from where an interrupted run goes on. arguments: as in
    `fine_tune_arguments`.
    """
    classifier = backbone
    if not isinstance(backbone, OutputClassifier):
        torch.manual_seed(seed)  # the head's start is part of the seed
        kind = ExchangeClassifier if reads_prompt else OutputClassifier
        classifier = kind.from_backbone(backbone, base_rate=float(exchanges.harmful.mean()))
    if held:
        hold_words(classifier.model)
        arguments.setdefault("weight_decay", 0.0)
    trainer = OutputClassifierTrainer(
        classifier,
        fine_tune_arguments(output_dir or _scratch(), steps, batch, lr, seed, **arguments),
        data_collator=CompletionCollator(classifier.tokenizer),
        train_dataset=completion_rows(classifier.tokenizer, exchanges, classifier.reads_prompt),
        loss=loss,
        lam=lam,
        anneal_end=anneal_end,
        callbacks=list(callbacks),
    )
    trainer.train(resume_from_checkpoint=latest_checkpoint(output_dir) if output_dir else None)
    return classifier.eval(), trainer.state.log_history


def _scratch() -> str:
    return tempfile.mkdtemp(prefix="constclf-")
