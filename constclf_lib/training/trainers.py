"""Training both bodyguards, and their base, with transformers.Trainer.

What it does: the annealing schedule (chapter 06), two Trainer subclasses whose loss is ours and whose log keeps the
parts of that loss apart (chapters 02 to 06), next-token pretraining of a language model from scratch (00), and training
arguments that are quiet, offline and resumable.

What it deliberately does not do: losses (`losses.py`), evaluation, data. Nothing
here evaluates by default.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_utils import has_length

from .. import losses
from ..models import InputClassifier, OutputClassifier, has_adapters, quiet
from .arguments import latest_checkpoint
from .collators import TextCollator
from .sampler import LengthGroupedOrder

HARM_LOSSES = ("annealed", "per_token", "cumulative_max")


def linear_anneal(step: int, total_steps: int, end: float = 0.75) -> float:
    """omega in [0, 1] for optimizer step `step` (from 0): 0 at the start, rising linearly, 1 from `end * total_steps`
    on (chapter 06).

    end 0.75 as reported for Constitutional Classifiers; appendix C of arXiv 2601.04603 ramps to the very end (1.0).
    Raises ValueError unless step >= 0, total_steps >= 1 and 0 < end <= 1.
    """
    if step < 0 or total_steps < 1 or not 0.0 < end <= 1.0:
        raise ValueError(
            f"need step >= 0, total_steps >= 1 and 0 < end <= 1, not step={step}, total_steps={total_steps}, end={end}"
        )
    return min(1.0, step / (end * total_steps))


class _QuietTrainer(Trainer):
    """A Trainer that prints nothing by itself and groups rows of similar length, of text too: padding is time, on a CPU
    most of all.
    """

    text_column = ""  # where a row that has no input_ids keeps its text

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)  # without a progress bar the Trainer would print every log line

    def _get_train_sampler(self, train_dataset=None):
        rows = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or not has_length(rows):
            return super()._get_train_sampler(train_dataset)
        column = "input_ids" if "input_ids" in rows[0] else self.text_column
        # a datasets.Dataset hands out a column at once; anything else is read row by row
        values = rows[column] if hasattr(rows, "column_names") else (row[column] for row in rows)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedOrder([len(value) for value in values], batch_size, seed)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        with quiet():
            super()._save(output_dir, state_dict)

    def _get_eval_sampler(self, eval_dataset):
        return SequentialSampler(eval_dataset)


class _PartsTrainer(_QuietTrainer):
    """Logs named parts of its loss, averaged since the last log, and saves checkpoints with the model's own
    save_pretrained.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._parts: dict[str, list[dict[str, Tensor | float]]] = {"train": [], "eval": []}

    def _record(self, **parts: Tensor | float) -> None:
        """Remember this batch's parts, without waiting for the device."""
        values = {name: value.detach() if isinstance(value, Tensor) else value for name, value in parts.items()}
        training = self.model is not None and self.model.training
        self._parts["train" if training else "eval"].append(values)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        mode = "eval" if any(name.startswith("eval_") for name in logs) else "train"
        if batches := self._parts[mode]:
            names = list(batches[0])
            means = torch.tensor(
                [[float(batch[name]) for name in names] for batch in batches], dtype=torch.float64
            ).mean(dim=0)
            if self.args.world_size > 1:
                means = self.accelerator.reduce(means.float().to(self.args.device), "mean")
            logs.update(
                {
                    f"eval_{name}" if mode == "eval" else name: mean
                    for name, mean in zip(names, means.tolist(), strict=True)
                }
            )
            batches.clear()
        super().log(logs, start_time)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Evaluation here means losses; scores come from `streaming.score_completions`. Labels and logits of a
        batch are never gathered.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach(), None, None

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.should_save:
            self.accelerator.unwrap_model(self.model).save_pretrained(output_dir or self.args.output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        model = self.model if model is None else model
        saved = type(model).from_pretrained(resume_from_checkpoint).state_dict()
        adapters = has_adapters(model.model)
        if adapters:  # the base is not in the checkpoint and may be quantized: only what is trained comes back
            trained = {name for name, value in model.named_parameters() if value.requires_grad}
            saved = {name: value for name, value in saved.items() if name in trained}
        model.load_state_dict(saved, strict=not adapters)

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint is not None:
            self._load_from_checkpoint(self.state.best_model_checkpoint)


class OutputClassifierTrainer(_PartsTrainer):
    """Trains an OutputClassifier on `harm + lam * next_token` (chapters 03 to 06). Batches as from
    CompletionCollator.

    loss: "annealed" (omega follows the training step and ends its ramp at anneal_end), "per_token" (option A) or
    "cumulative_max" (option B). lam: weight of the next-token loss over the scored tokens; at 0 the vocabulary logits
    are never computed. Logs harm_loss, next_token_loss (if lam > 0) and omega beside loss, grad_norm and learning_rate.
    Other arguments are transformers.Trainer's. Raises ValueError on an unknown loss or a negative lam.
    """

    text_column = "completion"

    def __init__(
        self,
        model: OutputClassifier,
        *args,
        loss: str = "annealed",
        lam: float = 1.0,
        anneal_end: float = 0.75,
        **kwargs,
    ):
        if loss not in HARM_LOSSES:
            raise ValueError(f"loss must be one of {HARM_LOSSES}, not {loss!r}")
        if not lam >= 0:
            raise ValueError(f"lam weighs the next-token loss and cannot be negative, got {lam}")
        linear_anneal(0, 1, anneal_end)
        super().__init__(model, *args, **kwargs)
        self.loss, self.lam, self.anneal_end = loss, lam, anneal_end

    @property
    def omega(self) -> float:
        """Weight of the running maximum at the current step: 0 for option A, 1 for option B."""
        if self.loss == "annealed":
            return linear_anneal(self.state.global_step, max(1, self.state.max_steps), self.anneal_end)
        return float(self.loss == "cumulative_max")

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        output = model(inputs["input_ids"], attention_mask=inputs["attention_mask"], with_lm_logits=self.lam > 0)
        omega = self.omega
        total = harm = losses.annealed_bce(output.harm_logits, inputs["labels"], inputs["mask"], omega)
        parts = {"harm_loss": harm, "omega": omega}
        if self.lam > 0:
            parts["next_token_loss"] = losses.next_token_loss(output.lm_logits, inputs["input_ids"], inputs["mask"])
            total = harm + self.lam * parts["next_token_loss"]
        self._record(**parts)
        return (total, output) if return_outputs else total


class InputClassifierTrainer(_PartsTrainer):
    """Trains an InputClassifier with next-token loss on the verdict alone (chapter 02). Batches as from
    VerdictCollator.

    The cross-entropy runs over the whole vocabulary, so mass on any other token is punished too: that is what makes
    off_label a sign of trouble. Logs next_token_loss and accuracy (share of rows whose verdict has the larger of the
    two verdict logits).
    """

    text_column = "prompt"

    def __init__(self, model: InputClassifier, *args, **kwargs):
        super().__init__(model, *args, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        logits = model(inputs["input_ids"], inputs["attention_mask"], inputs["verdict_positions"]).float()
        loss = F.cross_entropy(logits, inputs["labels"])
        harmful, harmless = self.accelerator.unwrap_model(model).verdict_ids
        right = (logits[:, harmful] > logits[:, harmless]) == (inputs["labels"] == harmful)
        self._record(next_token_loss=loss, accuracy=right.float().mean())
        return (loss, logits) if return_outputs else loss


class LanguageModelTrainer(_QuietTrainer):
    """The plain Trainer for a causal LM, without a KV cache in training."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return super().compute_loss(model, {**inputs, "use_cache": False}, return_outputs, num_items_in_batch)


def pretrain(model, rows: Sequence[dict], arguments: TrainingArguments, pad_id: int = 0, callbacks=None) -> Trainer:
    """Next-token training of a causal LM on rows of token ids (see `pack`, `TextCollator`); goes on where an
    interrupted run stopped. Returns the Trainer.
    """
    trainer = LanguageModelTrainer(
        model, arguments, data_collator=TextCollator(pad_id), train_dataset=rows, callbacks=callbacks
    )
    trainer.train(resume_from_checkpoint=latest_checkpoint(arguments.output_dir) if arguments.output_dir else None)
    return trainer
