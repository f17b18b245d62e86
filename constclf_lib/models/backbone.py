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
from . import gguf
from .adapters import load_language_model, merged, unwrapped
from .cache import cache_argument, cache_of
from .checkpoints import quiet
from .self_check import STREAMED, advice, distance, faults, some_ids, still, tolerance


class Reading(NamedTuple):
    """What a backbone made of some tokens: last_hidden_state [batch, time, hidden], and its cache or None."""

    last_hidden_state: Tensor
    cache: Any


class Seen(NamedTuple):
    """What gives the hidden states of one full pass: several tokens behind a cache, a batch padded on the right, one
    whose rows pause, a cache that was cropped, the padding token in a text.
    """

    chunks: bool
    padding: bool
    pauses: bool
    rewinding: bool
    padding_token: bool


class _GivenOutput(BaseModelOutputWithPast):
    """A body's output that holds hidden states only; whatever else an architecture looks for (router logits ...) is
    None.
    """

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        return None


class _GivenHidden(nn.Module):
    """Stands where a causal LM keeps its body and hands back the hidden states it is given; for the rest it is `body`
    (Falcon-H1 keeps a factor of its logits there).
    """

    def __init__(self, body: nn.Module):
        super().__init__()
        self.__dict__["_body"] = body  # not a submodule: nothing here is owned

    def __getattr__(self, name: str):
        return getattr(self.__dict__["_body"], name)

    def forward(self, *_, inputs_embeds: Tensor, **__) -> _GivenOutput:
        return _GivenOutput(last_hidden_state=inputs_embeds)

    @property
    def decoder(self) -> nn.Module:  # some architectures (OPT) call their body one level further down
        return self


class LanguageModelReader(nn.Module):
    """What both classifiers share: a causal LM kept whole, its hidden states and its own logits.

    model: any decoder-only Hugging Face causal LM, or a PeftModel around one; taken over, not copied. Raises ValueError
    for anything else, or for a tokenizer with more tokens than the model has embeddings; ClassifierError for a model
    that does not stand its first short pass.
    """

    model: Any  # a PreTrainedModel, or anything that behaves like one
    _body: str

    def __init__(self, model: Any, tokenizer=None):
        super().__init__()
        if hasattr(model, "_orig_mod"):
            raise ValueError(
                "torch.compile(model) hides the model; pass the model itself, then compile its body in place: "
                "classifier.backbone.compile()"
            )
        if hasattr(model, "get_base_model") and hasattr(model, "peft_config"):
            model = unwrapped(model)  # a PeftModel: its adapters live inside the layers of the model it wraps
        head = getattr(model, "get_output_embeddings", lambda: None)()
        body = None if head is None else _name_of_body(model, head)
        if body is None or getattr(model.config, "is_encoder_decoder", False):
            raise ValueError(
                f"{type(model).__name__} is not a decoder-only causal LM with a head; load it with AutoModelForCausalLM"
            )
        self.model, self.tokenizer, self._body = model, tokenizer, body
        rows = self.vocab_size
        if tokenizer is not None and len(tokenizer) > rows:
            raise ValueError(
                f"the tokenizer has {len(tokenizer)} tokens, the model {rows} embeddings: they do not belong together"
            )
        self.fingerprint = None if tokenizer is None else fingerprint(tokenizer)
        forward = self.backbone.forward
        self._takes_positions = "position_ids" in inspect.signature(forward).parameters
        self._cache_argument = cache_argument(forward)
        self._probe()

    def _probe(self) -> None:
        """One short pass, with logits and cache: a model that cannot be read this way is refused here, not in service.
        Notes where hidden states come out, and how wide.
        """
        with still(self.model):
            try:
                ids = torch.tensor([some_ids(self, 4)], device=self.device)
                hidden, _ = self.read_unchecked(ids, use_cache=True)
                self.hidden_size, self.hidden_device = hidden.shape[-1], hidden.device
                got = self.lm_logits(self.read_unchecked(ids).last_hidden_state)
                want = self.model(input_ids=ids, use_cache=False).logits
            except Exception as error:
                raise ClassifierError(
                    f"{type(self.model).__name__} was loaded but cannot be read: {type(error).__name__}: {error}. "
                    "A classifier needs a causal LM whose body gives hidden states and whose head gives logits from "
                    "them; choose another backbone"
                ) from error
        if hidden.dtype == torch.float16 and not hidden.isfinite().all():
            raise ClassifierError(
                f"the hidden states of {type(self.model).__name__} are not finite numbers; {advice(hidden.dtype)}"
            )
        if hidden.isfinite().all() and distance(got, want) > tolerance(self.model, hidden):
            raise ClassifierError(
                f"{type(self.model).__name__} does not make its logits from the hidden states of its body alone; "
                "choose another backbone"
            )

    @property
    def backbone(self) -> nn.Module:
        """The language model without its head."""
        return getattr(self.model, self._body)

    @property
    def lm_head(self) -> nn.Module:
        return self.model.get_output_embeddings()

    @property
    def config(self):
        return self.model.config

    @property
    def device(self) -> torch.device:
        """Where token ids go in: the first weights that are anywhere. Weights that wait on disk are on "meta" until
        they are used, and the head may stand elsewhere.
        """
        return next((p.device for p in self.model.parameters() if p.device.type != "meta"), torch.device("cpu"))

    @property
    def context_length(self) -> int | None:
        """Tokens that fit (max_position_embeddings), or None where the architecture sets no limit."""
        return getattr(self.config.get_text_config(), "max_position_embeddings", None)

    @property
    def vocab_size(self) -> int:
        """How many token ids have an embedding."""
        return self.model.get_input_embeddings().weight.shape[0]  # an adapter around them has no num_embeddings

    @property
    def padding_token(self) -> int | None:
        """The id that the backbone's config calls padding, or None if it names none of the vocabulary."""
        pad = getattr(self.config.get_text_config(), "pad_token_id", None)
        return pad if isinstance(pad, int) and 0 <= pad < self.vocab_size else None

    def merge_adapters(self):
        """Adds the backbone's adapters into its layers, for serving; returns itself. Scores stay the same to rounding.
        Saved after this, it is a whole model and no longer adapters (`adapters.merged`).
        """
        self.model = merged(self.model)
        return self

    def activation_checkpointing_enable(self, **options) -> None:
        """Recompute activations in the backward pass instead of keeping them; transformers.Trainer calls this."""
        self.model.activation_checkpointing_enable(**options)

    def gradient_checkpointing_enable(self, **options) -> None:
        """The same, under the name that earlier transformers 5 call."""
        self.model.gradient_checkpointing_enable(**options)

    def check_streaming(self) -> Seen:
        """What else was seen to equal one full pass, beside one row token by token (self_check.py; remembered).

        Raises ClassifierError, naming the property, for a backbone on which not even that holds.
        """
        seen = faults(self)
        for way in STREAMED:
            if seen[way]:
                raise ClassifierError(
                    f"{type(self.backbone).__name__} cannot be streamed: read {way}, it does not give what one full "
                    f"pass gives ({seen[way]}). Choose another backbone"
                )
        return Seen(
            chunks=not seen["in uneven chunks"],
            padding=not seen["padded on the right"],
            pauses=not (seen["with pauses in a batch"] or seen["padded on the right"]),
            rewinding=not seen["after a rewind"],
            padding_token=not seen["with its padding token as text"],
        )

    def not_borne(self) -> dict[str, str]:
        """The ways of reading that do not give what one full pass gives, and what was seen instead."""
        return {way: what for way, what in faults(self).items() if what}

    def read(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, cache=None, use_cache: bool = False
    ) -> Reading:
        """The backbone's hidden states for input_ids [batch, time] behind what `cache` holds, and the cache after them.

        attention_mask [batch, past + time] is 1 at real tokens; padding may stand on either side, positions count real
        tokens only. Raises ValueError for no tokens or a mask that does not cover the cache as well, ClassifierError
        for a cache that the backbone would not look at, or for padding that was seen to change the rest.
        """
        if input_ids.shape[1] == 0:
            raise ValueError(f"nothing to read: input_ids are {list(input_ids.shape)}; leave out empty texts")
        if cache is None and attention_mask is not None and not attention_mask.all():
            way = "padded on the left" if _has_gaps(attention_mask) else "padded on the right"
            if wrong := faults(self)[way]:
                raise ClassifierError(
                    f"{type(self.backbone).__name__} does not give what one full pass gives when {way} ({wrong}); "
                    "pad on the other side, or read row by row"
                )
        return self.read_unchecked(input_ids, attention_mask, cache, use_cache)

    def read_unchecked(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, cache=None, use_cache: bool = False
    ) -> Reading:
        """`read` before it was seen to work; for the self-check."""
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
            # without gaps the model counts for itself, some from another number than 0
            if self._takes_positions and (cache is not None or _has_gaps(attention_mask)):
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
        shell._modules = {**self.model._modules, self._body: _GivenHidden(self.backbone)}
        return type(self.model).forward(shell, inputs_embeds=hidden, use_cache=False).logits


def _has_gaps(attention_mask: Tensor) -> bool:
    """Whether a real token stands behind padding in any row: padding on the left, or in between."""
    return bool((attention_mask[:, 1:] > attention_mask[:, :-1]).any())


def _name_of_body(model: Any, head: nn.Module) -> str | None:
    """The attribute under which a causal LM keeps its body, or None if it has none."""
    body = getattr(model, "base_model", model)
    if body is not model:
        return next((name for name, child in model.named_children() if child is body), None)
    # a prefix that names nothing (Llama 4 text): the one child beside the head
    rest = [name for name, child in model.named_children() if child is not head]
    return rest[0] if len(rest) == 1 else None


def load_backbone(name_or_path_or_model, tokenizer=None, **options):
    """(model, tokenizer) from a name, a folder, a GGUF file or a model object; all but the last bring a tokenizer.
    options (dtype, device_map ...) go to AutoModelForCausalLM.
    """
    if not isinstance(name_or_path_or_model, str | os.PathLike):
        return name_or_path_or_model, tokenizer
    if file := gguf.located(name_or_path_or_model):
        model, _ = gguf.load(*file, **options)
        return model, tokenizer or gguf.load_tokenizer(*file)
    # progress is worth seeing for a download, not for a folder of our own
    with quiet() if os.path.isdir(name_or_path_or_model) else nullcontext():
        model, _ = load_language_model(name_or_path_or_model, **options)
    return model, tokenizer or AutoTokenizer.from_pretrained(name_or_path_or_model)
