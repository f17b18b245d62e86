"""A causal LM as a classifier reads it: hidden states through the cache, positions under padding, logits to the bit.

What it does: wraps any decoder-only Hugging Face causal LM, plain or with LoRA adapters, so that a second head can
stand beside its own (chapter 03).

What it deliberately does not do: score. The heads and the verdict are in `classifiers.py`.
"""

from __future__ import annotations

import copy
import inspect
import os
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer
from transformers.modeling_outputs import BaseModelOutputWithPast

from ..errors import ClassifierError
from ..tokenization import fingerprint
from .adapters import load_language_model, unwrapped
from .cache import cache_argument, cache_of
from .checkpoints import quiet


class Reading(NamedTuple):
    """What a backbone made of some tokens: last_hidden_state [batch, time, hidden], and its cache or None."""

    last_hidden_state: Tensor
    cache: Any


class _GivenOutput(BaseModelOutputWithPast):
    """A body's output that holds hidden states only; whatever else an architecture looks for (router logits ...) is
    None.
    """

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        return None


class _GivenHidden(nn.Module):
    """Stands where a causal LM keeps its body and hands back the hidden states it is given."""

    def forward(self, *_, inputs_embeds: Tensor, **__) -> _GivenOutput:
        return _GivenOutput(last_hidden_state=inputs_embeds)

    @property
    def decoder(self) -> nn.Module:  # some architectures (OPT) call their body one level further down
        return self


class LanguageModelReader(nn.Module):
    """What both classifiers share: a causal LM kept whole, its hidden states and its own logits.

    model: any decoder-only Hugging Face causal LM, or a PeftModel around one; taken over, not copied. Raises ValueError
    for anything else, or for a tokenizer with more tokens than the model has embeddings.
    """

    def __init__(self, model: nn.Module, tokenizer=None):
        super().__init__()
        if hasattr(model, "get_base_model") and hasattr(model, "peft_config"):
            model = unwrapped(model)  # a PeftModel: its adapters live inside the layers of the model it wraps
        head = getattr(model, "get_output_embeddings", lambda: None)()
        if head is None or model.base_model is model or getattr(model.config, "is_encoder_decoder", False):
            raise ValueError(
                f"{type(model).__name__} is not a decoder-only causal LM with a head; load it with AutoModelForCausalLM"
            )
        rows = model.get_input_embeddings().weight.shape[0]  # an adapter around them has no num_embeddings
        if tokenizer is not None and len(tokenizer) > rows:
            raise ValueError(
                f"the tokenizer has {len(tokenizer)} tokens, the model {rows} embeddings: they do not belong together"
            )
        self.model, self.tokenizer = model, tokenizer
        self.fingerprint = None if tokenizer is None else fingerprint(tokenizer)
        self._takes_positions = "position_ids" in inspect.signature(model.base_model.forward).parameters
        self._cache_argument = cache_argument(model.base_model.forward)

    @property
    def backbone(self) -> nn.Module:
        """The language model without its head."""
        return self.model.base_model

    @property
    def lm_head(self) -> nn.Module:
        return self.model.get_output_embeddings()

    @property
    def config(self):
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device

    @property
    def context_length(self) -> int | None:
        """Tokens that fit (max_position_embeddings), or None where the architecture sets no limit."""
        return getattr(self.config.get_text_config(), "max_position_embeddings", None)

    def activation_checkpointing_enable(self, **options) -> None:
        """Recompute activations in the backward pass instead of keeping them; transformers.Trainer calls this."""
        self.model.activation_checkpointing_enable(**options)

    def gradient_checkpointing_enable(self, **options) -> None:
        """The same, under the name that earlier transformers 5 call."""
        self.model.gradient_checkpointing_enable(**options)

    def read(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, cache=None, use_cache: bool = False
    ) -> Reading:
        """The backbone's hidden states for input_ids [batch, time] behind what `cache` holds, and the cache after them.

        attention_mask [batch, past + time] is 1 at real tokens; padding may stand on either side, positions count real
        tokens only. Raises ValueError if the mask does not cover the cache as well, ClassifierError for a cache that
        the backbone would not look at.
        """
        options: dict[str, Any] = {}
        if cache is not None:
            if self._cache_argument is None:
                raise ClassifierError(
                    f"{type(self.backbone).__name__} takes no cache by a name that is known here; it would forget "
                    "everything before these tokens"
                )
            options[self._cache_argument] = cache
        if attention_mask is not None:
            past = 0 if cache is None else cache.get_seq_length()
            if attention_mask.shape != (input_ids.shape[0], past + input_ids.shape[1]):
                want = [input_ids.shape[0], past + input_ids.shape[1]]
                raise ValueError(
                    f"attention_mask must cover cached and new tokens, {want}, not {list(attention_mask.shape)}"
                )
            options["attention_mask"] = attention_mask
            if self._takes_positions:
                options["position_ids"] = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, past:]
        output = self.backbone(input_ids=input_ids, use_cache=use_cache, **options)
        return Reading(output.last_hidden_state, cache_of(output) if use_cache else None)

    def lm_logits(self, hidden: Tensor) -> Tensor:
        """The language model's own logits for hidden states [batch, time, hidden], to the bit.

        Runs the causal LM's own forward with its body replaced by one that returns `hidden`, so soft-capping, scaling
        and whatever else an architecture does after its lm_head happens here too. A shallow copy shares every weight
        and costs microseconds; nothing is kept, so threads do not meet.
        """
        shell = copy.copy(self.model)
        shell._modules = {**self.model._modules, self.model.base_model_prefix: _GivenHidden()}
        return type(self.model).forward(shell, inputs_embeds=hidden, use_cache=False).logits


def load_backbone(name_or_path_or_model, tokenizer=None):
    """(model, tokenizer) from a name, a folder or a model object; names and folders bring a tokenizer."""
    if not isinstance(name_or_path_or_model, str | os.PathLike):
        return name_or_path_or_model, tokenizer
    # progress is worth seeing for a download, not for a folder of our own
    with quiet() if os.path.isdir(name_or_path_or_model) else nullcontext():
        model, _ = load_language_model(name_or_path_or_model)
    return model, tokenizer or AutoTokenizer.from_pretrained(name_or_path_or_model)
