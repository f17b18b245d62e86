"""What the Trainers of this library have in common: quiet, rows of similar length together, the parts of a loss apart,
checkpoints that are classifier folders.

Built on transformers.Trainer. Deliberately not here: the losses (`trainers.py`), metrics on scores. An evaluation gives
losses; scores come from `streaming.score_completions` and from an input classifier's `score`.
"""

from __future__ import annotations

import math
from dataclasses import fields

import torch
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_utils import has_length

from ..errors import ClassifierError
from ..models import advice, default_card, has_adapters, quiet
from ..tokenization import fingerprint
from .memory import free_memory, is_out_of_memory, out_of_memory_advice
from .sampler import LengthGroupedOrder


class QuietTrainer(Trainer):
    """A Trainer that prints nothing by itself and groups rows of similar length, of text too: padding is time, on a CPU
    most of all.
    """

    text_column = ""  # where a row that has no input_ids keeps its text
    ignored: tuple[str, ...] = ()  # options that would have no effect: naming one is an error

    def __init__(self, model=None, args=None, *others, **options):
        self._refuse_ignored(args)  # before transformers acts on any of them
        super().__init__(model, args, *others, **options)
        self._refuse_ignored(self)
        self.remove_callback(PrinterCallback)  # without a progress bar the Trainer would print every log line

    def _refuse_ignored(self, owner: TrainingArguments | Trainer | None) -> None:
        """ValueError for an option that is set on `owner` and has no effect here."""
        defaults = {field.name: field.default for field in fields(TrainingArguments)}
        lengths = getattr(owner, "train_sampling_strategy", None) == "group_by_length"
        for name in (*self.ignored, *(["length_column_name"] if lengths else [])):
            default = defaults.get(name)
            value = default if owner is self and name in defaults else getattr(owner, name, default)
            if value != default and (value or default is True):
                raise ValueError(f"{type(self).__name__} takes no notice of {name}={value!r}; leave it out")

    def _get_train_sampler(self, train_dataset=None):
        rows = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or not has_length(rows):
            return super()._get_train_sampler(train_dataset)
        column = "input_ids" if "input_ids" in rows[0] else self.text_column
        # a datasets.Dataset hands out a column at once; anything else is read row by row
        values = rows[column] if hasattr(rows, "column_names") else (row[column] for row in rows)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        # what goes into one step, over all processes: then their number does not change the order
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedOrder([len(value) for value in values], batch_size, seed)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        with quiet():
            super()._save(output_dir, state_dict)

    def _get_eval_sampler(self, eval_dataset):
        return SequentialSampler(eval_dataset)


class PartsTrainer(QuietTrainer):
    """Logs named parts of its loss, averaged since the last log (in an evaluation: over rows, however they fell into
    batches), and saves checkpoints with the model's own save_pretrained.

    Options of transformers' Trainer that would have no effect here raise ValueError when they are set.
    """

    ignored = (
        # the loss is ours, and the model is no PreTrainedModel
        "compute_loss_func", "label_smoothing_factor", "use_liger_kernel", "neftune_noise_alpha",
        # an evaluation gathers losses, never logits or labels
        "compute_metrics", "preprocess_logits_for_metrics", "batch_eval_metrics", "include_for_metrics",
        "include_inputs_for_metrics", "eval_do_concat_batches", "label_names",
        # a checkpoint is a folder of the whole classifier: shards of it would be saved as if they were all
        "fsdp", "deepspeed", "parallelism_config",
    )  # fmt: skip

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for plugin in ("fsdp_plugin", "deepspeed_plugin"):  # from `accelerate config`, not from the arguments
            if getattr(self.accelerator.state, plugin, None) is not None:
                raise ValueError(
                    f"{type(self).__name__} saves whole classifiers; under {plugin.partition('_')[0]} each process has "
                    "a shard. Launch without it: a whole model in every process, LoRA where that is too large"
                )
        tokenizer, given = self.model.tokenizer, self.processing_class
        if given is not None and (tokenizer is None or fingerprint(given) != fingerprint(tokenizer)):
            raise ValueError("a classifier is saved with its own tokenizer; processing_class is another, leave it out")
        self._parts: dict[str, list[dict[str, Tensor | float]]] = {"train": [], "eval": []}
        self._evaluated: list[tuple[Tensor, dict[str, Tensor | float]]] = []  # rows of a batch, means over them

    def _record(self, **parts: Tensor | float) -> None:
        """Remember this batch's parts, without waiting for the device."""
        values = {name: value.detach() if isinstance(value, Tensor) else value for name, value in parts.items()}
        self._parts["train" if getattr(self.model, "training", True) else "eval"].append(values)

    def training_step(self, model, inputs, *others, **options) -> Tensor:
        """The Trainer's own. An out-of-memory error comes back as a ClassifierError that says what to change."""
        try:
            return super().training_step(model, inputs, *others, **options)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            said = out_of_memory_advice(self.args, self.accelerator.unwrap_model(model), inputs)
            free_memory()
            raise ClassifierError(said) from error

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if (batches := self._parts["train"]) and not any(name.startswith("eval_") for name in logs):
            logs.update(self._mean([(torch.tensor(1), batch) for batch in batches]))
            batches.clear()
            self._stop_at_overflow(logs)
        super().log(logs, start_time)

    def _stop_at_overflow(self, logs: dict[str, float]) -> None:
        """ClassifierError where float16 made the loss no number: every further step would be skipped in silence."""
        assert self.model is not None
        half = self.args.fp16 or next(self.model.parameters()).dtype == torch.float16
        if half and any(math.isnan(value) for name, value in logs.items() if name.endswith("loss")):
            raise ClassifierError(f"the loss is not a number; {advice(torch.float16)}")

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ):
        self._evaluated = []
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        if self._evaluated:
            means = self._mean(self._evaluated)
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in means.items()})
        return output

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Evaluation here means losses; scores come from `streaming.score_completions`. Labels and logits of a
        batch are never gathered.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs).detach()
        recorded = self._parts["eval"].pop() if self._parts["eval"] else {}
        # a mean over rows, of completions over those that have a scored token
        rows = inputs["mask"].any(dim=1).sum() if "mask" in inputs else torch.tensor(len(inputs["labels"]))
        self._evaluated.append((rows, {"loss": loss, **recorded}))
        return loss, None, None

    def _mean(self, batches: list[tuple[Tensor, dict[str, Tensor | float]]]) -> dict[str, float]:
        """Weighted by the first of each pair. Over all processes; there, rows that fill up a last batch count twice."""
        names = list(batches[0][1])
        weights = torch.tensor([float(weight) for weight, _ in batches], dtype=torch.float64)
        values = torch.tensor([[float(parts[name]) for name in names] for _, parts in batches], dtype=torch.float64)
        sums = torch.cat([weights @ values, weights.sum()[None]])
        if self.args.world_size > 1:
            sums = self.accelerator.reduce(sums.float().to(self.args.device), "sum")
        return dict(zip(names, (sums[:-1] / sums[-1]).tolist(), strict=True))

    def predict(self, *_, **__):
        raise ValueError(
            "a Trainer here gives losses (evaluate); for scores ask streaming.score_completions, or .score of an "
            "input classifier"
        )

    def _facts(self) -> dict[str, object]:
        """What the model card of a checkpoint can say about the training."""
        rows = f"{len(self.train_dataset):,} rows" if has_length(self.train_dataset) else "rows without a known number"
        return {
            "data": f"{rows}, of which nobody said what they are",
            "seed": self.args.seed,
            "trained with": f"{type(self).__name__}, step {self.state.global_step} of {self.state.max_steps}, "
            f"batch {self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size}, "
            f"learning rate {self.args.learning_rate:g}",
        }

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.should_save:
            model = self.accelerator.unwrap_model(self.model)
            model.save_pretrained(output_dir or self.args.output_dir, card=default_card(model, self._facts()))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        model = self.model if model is None else model
        saved = type(model).from_pretrained(resume_from_checkpoint).state_dict()
        adapted = has_adapters(model.model)
        if adapted:  # the base is not in the checkpoint and may be quantized: only what is trained comes back
            trained = {name for name, value in model.named_parameters() if value.requires_grad}
            if missing := sorted(trained - saved.keys()):
                raise ClassifierError(f"{resume_from_checkpoint} does not hold {missing[0]}, which is being trained")
            saved = {name: value for name, value in saved.items() if name in trained}
        model.load_state_dict(saved, strict=not adapted)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))
