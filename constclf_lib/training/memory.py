"""What a training needs of a device's memory, and what to do when it was not enough. Built for chapter 11.

What it does: counts bytes from a model's own sizes, before anything is loaded (a model on the "meta" device will do),
and words the advice with which a Trainer answers an out-of-memory error.

What it deliberately does not do: measure. Activations are counted by the usual rule for a transformer's layer (34 bytes
per hidden unit and token at 16 bits; arXiv 2205.05198, with an attention that keeps no scores), kernels and
fragmentation are not counted at all: expect a tenth more, and see what your device says.
"""

from __future__ import annotations

import gc
from typing import Any, NamedTuple

import torch
from torch import nn

GIB = 2**30


class Memory(NamedTuple):
    """GiB: the weights, gradients and AdamW's two moments of what is trained, activations, logits with gradient."""

    weights: float
    training: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        return sum(self)


def memory_needed(
    model: Any,
    batch: int,
    length: int,
    *,
    bytes_per_weight: int = 4,
    trained: int | None = None,
    checkpointing: bool = False,
    logits_at_once: int | None = None,
) -> Memory:
    """For one step of `batch` rows of `length` tokens of a causal LM. trained: how many weights are (all by default;
    with LoRA, the adapters), in float32. bytes_per_weight: of weights that only rest, 2 in half precision.
    checkpointing: gradient checkpointing, which keeps one hidden state a layer. logits_at_once: the most logits that
    stand at a time (`models.classifiers` makes them in chunks), all of them by default.
    """
    config = model.config.get_text_config()
    count = sum(p.numel() for p in model.parameters())
    trained = count if trained is None else trained
    tokens, layers, hidden = batch * length, config.num_hidden_layers, config.hidden_size
    wide = 34 * hidden  # what one layer keeps of one token
    activations = tokens * (2 * hidden * layers + wide if checkpointing else wide * layers)
    logits = min(tokens * config.vocab_size, logits_at_once or tokens * config.vocab_size)
    resting = max(count - trained, 0)
    return Memory(
        (resting * bytes_per_weight + trained * 4) / GIB, 12 * trained / GIB, activations / GIB, 10 * logits / GIB
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the computer itself, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def out_of_memory_advice(arguments, model: nn.Module, inputs: dict) -> str:
    """What to change, in the order of what it costs, for a step on `inputs` under TrainingArguments."""
    rows, length = inputs["input_ids"].shape
    steps = arguments.gradient_accumulation_steps
    advice = []
    if rows > 1:
        advice.append(
            f"per_device_train_batch_size={max(1, arguments.per_device_train_batch_size // 2)} with "
            f"gradient_accumulation_steps={2 * steps} (the same step, in smaller parts)"
        )
    if not (
        getattr(arguments, "gradient_checkpointing", False) or getattr(arguments, "activation_checkpointing", False)
    ):
        advice.append("gradient_checkpointing=True (a third more time)")
    if not any(not p.requires_grad for p in model.parameters()):
        advice.append("LoRA (training.add_adapters): gradients and optimizer for a hundredth of the weights")
    advice.append("shorter texts (CompletionCollator(max_length=...) or only texts that fit a smaller window)")
    return f"out of memory at {rows} rows of {length} tokens. In this order: {'; '.join(advice)}"


def free_memory() -> None:
    """Gives back what nobody holds any more, so that the next attempt starts from an empty device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
