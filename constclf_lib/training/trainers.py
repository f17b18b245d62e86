"""Training both bodyguards, and their base, with transformers.Trainer.

What it does: the annealing schedule (chapter 06), two Trainer subclasses whose loss is ours and whose log keeps the
parts of that loss apart (chapters 02 to 06), and next-token pretraining of a language model from scratch (00).

What it deliberately does not do: losses (`losses.py`), what is logged and saved (`base.py`), data. Nothing here
evaluates by default.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from transformers import LlamaForCausalLM, Trainer, TrainingArguments

from .. import losses
from ..models import InputClassifier, OutputClassifier
from .arguments import latest_checkpoint
from .base import PartsTrainer, QuietTrainer
from .collators import TextCollator

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


class OutputClassifierTrainer(PartsTrainer):
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
        if self.args.ddp_find_unused_parameters is None:  # without its loss, the head of the language model rests
            self.args.ddp_find_unused_parameters = lam == 0
        self.loss, self.lam, self.anneal_end = loss, lam, anneal_end

    def _facts(self) -> dict[str, object]:
        return {**super()._facts(), "loss": f"{self.loss}, lam {self.lam:g}, ramp to {self.anneal_end:g}"}

    @property
    def omega(self) -> float:
        """Weight of the running maximum at the current step: 0 for option A, 1 for option B."""
        if self.loss == "annealed":
            return linear_anneal(self.state.global_step, max(1, self.state.max_steps), self.anneal_end)
        return float(self.loss == "cumulative_max")

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        output = model(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            with_lm_logits=False,
            next_token_mask=inputs["mask"] if self.lam > 0 else None,  # inside forward: where other processes see it
        )
        omega = self.omega
        total = harm = losses.annealed_bce(output.harm_logits, inputs["labels"], inputs["mask"], omega)
        parts = {"harm_loss": harm, "omega": omega}
        if self.lam > 0:
            parts["next_token_loss"] = output.next_token_loss
            total = harm + self.lam * parts["next_token_loss"]
        self._record(**parts)
        return (total, output) if return_outputs else total


class InputClassifierTrainer(PartsTrainer):
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


class LanguageModelTrainer(QuietTrainer):
    """The plain Trainer for a causal LM, without a KV cache in training. A Llama computes logits only where a label is
    learnt: over a vocabulary of thousands they are a third of a small model's work.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        bare = self.accelerator.unwrap_model(model)
        if isinstance(bare, LlamaForCausalLM) and not return_outputs and model is bare:
            ahead = inputs["labels"][:, 1:]
            learnt = ahead != -100
            with self.accelerator.autocast():
                hidden = bare.model(inputs["input_ids"], inputs["attention_mask"], use_cache=False).last_hidden_state
                logits = bare.lm_head(hidden[:, :-1][learnt])
            return F.cross_entropy(logits.float(), ahead[learnt])
        return super().compute_loss(model, {**inputs, "use_cache": False}, return_outputs, num_items_in_batch)


def pretrain(model, rows: Sequence[dict], arguments: TrainingArguments, pad_id: int = 0, callbacks=None) -> Trainer:
    """Next-token training of a causal LM on rows of token ids (see `pack`, `TextCollator`); goes on where an
    interrupted run stopped. Returns the Trainer.
    """
    trainer = LanguageModelTrainer(
        model, arguments, data_collator=TextCollator(pad_id), train_dataset=rows, callbacks=callbacks
    )
    trainer.train(resume_from_checkpoint=latest_checkpoint(str(arguments.output_dir)))
    return trainer
