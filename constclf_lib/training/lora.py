"""LoRA around a backbone: adapters are trained, the value head is trained whole, the rest stays as it is. Chapter 11.

A checkpoint is then adapters, head and card (`models.adapters`): some megabytes beside a base that is loaded by name.

Deliberately not here: other kinds of adapters (make them with peft and pass the PeftModel to `from_backbone`), merging,
quantized bases.
"""

from __future__ import annotations

import torch

from ..errors import ClassifierError


def precision() -> dict[str, bool]:
    """{"bf16", "fp16"} for TrainingArguments, by what the device can: bfloat16 from compute capability 8.0 on (A100),
    float16 with a loss scaler on 7.x (T4, V100), float32 elsewhere. On the CPU both are False.
    """
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0)
    return {"bf16": capability >= (8, 0), "fp16": (7, 0) <= capability < (8, 0)}


def resting_dtype() -> torch.dtype:
    """In which dtype to load a backbone that is not trained itself: as in `precision`. What is trained is float32."""
    able = precision()
    return torch.bfloat16 if able["bf16"] else torch.float16 if able["fp16"] else torch.float32


def add_adapters(model, rank: int = 16, alpha: int = 32, dropout: float = 0.05, targets: str | list = "all-linear"):
    """A PeftModel around a causal LM: `rank` columns of LoRA on each of `targets` (every matrix of the layers, not the
    head), in float32 whatever the dtype of the base. Pass it to OutputClassifier.from_backbone.

    Raises ClassifierError without peft.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ClassifierError("`pip install peft` for adapters") from error
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, task_type="CAUSAL_LM", bias="none"
    )
    wrapped = get_peft_model(model, config)
    for parameter in wrapped.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()
    return wrapped
