"""Adapters (LoRA and its kin) around a backbone: taken over, saved and loaded through peft itself.

transformers' own road to adapters asks for particular versions of peft; this one works on all that are supported here.
peft keeps weights that several layers share (VeRA, VB-LoRA ...) on its wrapper, so the wrapper is remembered beside the
model, out of its state dict.

Deliberately not here: training, prompt learning (which changes the input, not the layers). The only module of
the core that imports peft, and only where a model or a folder with adapters is met. Used by chapter 11.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import cached_file, find_adapter_config_file

from ..errors import ClassifierError
from . import gguf
from .self_check import still

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_WRAPPER, _PREFIX, _NAME = "_peft_wrapper", "base_model.model.", "adapter_name"


def has_adapters(model: nn.Module) -> bool:
    """True for a model with adapters in its layers, whoever put them there, until they are merged."""
    return any(type(module).__module__.partition(".")[0] == "peft" for module in model.modules())


def unwrapped(wrapper: Any) -> PreTrainedModel:
    """The causal LM inside a PeftModel, adapters in place. Raises ValueError if the wrapper does more than its layers
    do: then scores without it would be wrong, or weights outside the layers would never be trained.
    """
    for config in wrapper.peft_config.values():
        if config.is_prompt_learning:
            raise ValueError("prompt-learning adapters change the input, not the layers; use LoRA or its kin")
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        if kind == "XLORA" or getattr(config, "alora_invocation_tokens", None):
            raise ValueError(f"{kind} adapters of this sort depend on the whole input; use plain LoRA or its kin")
    model = wrapper.get_base_model()
    inside = {id(parameter) for parameter in model.parameters()}
    if outside := [name for name, p in wrapper.named_parameters() if p.requires_grad and id(p) not in inside]:
        raise ValueError(f"{kind} adapters keep trainable weights outside the layers ({outside[0]} ...); use LoRA")
    ids = torch.arange(8, device=model.get_input_embeddings().weight.device)[None]
    with still(wrapper):
        try:
            whole = wrapper(input_ids=ids, use_cache=False).logits
            layers = model(input_ids=ids, use_cache=False).logits
        except Exception as error:
            raise ValueError(f"a model with {kind} adapters cannot be read by token ids alone ({error})") from error
    if not torch.allclose(whole, layers, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise ValueError(f"{kind} adapters work in their wrapper, not in the layers; use LoRA or its kin")
    vars(model)[_WRAPPER] = wrapper  # not as a submodule: it holds the model itself
    model._hf_peft_config_loaded = True  # transformers lets gradients reach adapters over frozen embeddings
    return model


def save(model: PreTrainedModel, folder: Path) -> None:
    """The adapter of `model`, as peft saves it, into a stage of `_files`. Embeddings go with it if their number is not
    the base's. The base is named as the adapter's config names it; a path that begins nowhere (models/base) is looked
    for below the folders that hold the adapters, so that base and adapters can move together. Raises ValueError for a
    base that nothing could find again, or for several adapters.
    """
    from peft import get_peft_model_state_dict

    holder = vars(model).get(_WRAPPER, model)
    if len(holder.peft_config) != 1:
        raise ValueError(f"one adapter can be saved, not {sorted(holder.peft_config)}; delete the others or merge them")
    ((adapter, config),) = holder.peft_config.items()
    config = copy.copy(config)
    base = config.base_model_name_or_path or model.name_or_path
    if not base:
        raise ValueError(
            "these adapters sit on a model that was never loaded from a name or folder, so nothing could "
            "find it again; load the base from a folder, or merge the adapters first"
        )
    found = _base_of(base, folder)
    if Path(found).resolve() == folder.resolve().parent:  # the stage is inside the folder that it will replace
        raise ValueError(f"adapters are not saved over their own base, {base}; choose another folder")
    config.base_model_name_or_path, config.inference_mode = base, True
    resized = _config(found).get_text_config().vocab_size != _rows(model)
    state = get_peft_model_state_dict(holder, adapter_name=adapter, save_embedding_layers=resized)
    prefix = _PREFIX if holder is model else ""
    tensors = {prefix + key: value.detach().cpu().clone().contiguous() for key, value in state.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt", _NAME: adapter})
    config.save_pretrained(str(folder))


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """`model` with its adapters added into the layers: the same to rounding, and no extra matrices to multiply. A model
    without adapters, or with adapters that peft did not wrap (inject_adapter_in_model), comes back as it is.
    """
    wrapper = vars(model).pop(_WRAPPER, None)
    if wrapper is None:
        return model
    model = wrapper.merge_and_unload()
    model._hf_peft_config_loaded = False
    return model


def load_language_model(name_or_path: str | os.PathLike, **options) -> tuple[Any, dict]:
    """What AutoModelForCausalLM loads, and its loading info, out of a GGUF file too (`gguf.located`); if the name or
    folder holds adapters, a PeftModel around their base. Raises OSError if the adapters are not safetensors,
    ClassifierError without peft, or without the package gguf.
    """
    name = os.fspath(name_or_path)
    options["output_loading_info"] = True
    if gguf.located(name) or find_adapter_config_file(name) is None:
        return _load_base(name, options)
    try:
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise ClassifierError(f"{name} holds adapters; `pip install peft` to load them") from error
    weights = cached_file(name, WEIGHTS)
    base, info = _load_base(_base_of(PeftConfig.from_pretrained(name).base_model_name_or_path, Path(name)), options)
    rows, adapter = _saved(weights, base)
    if rows not in (None, _rows(base)):
        base.resize_token_embeddings(rows, mean_resizing=False)  # their values come with the adapters
    with warnings.catch_warnings():  # peft asks for a property that transformers renamed; nothing a user could mend
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return PeftModel.from_pretrained(base, name, adapter_name=adapter, torch_device="cpu"), info


def base_of(folder: Path) -> str | None:
    """The folder or name of the base of the adapters in `folder`, or None if it holds none."""
    if not (folder / CONFIG).is_file():
        return None
    return _base_of(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"], folder)


def _base_of(name: str, folder: Path) -> str:
    """Where the base called `name` is, for adapters in `folder`: below a folder that holds them, or what it says."""
    if folder.is_dir() and not Path(name).is_absolute():
        for above in folder.resolve().parents:
            if (above / name / "config.json").is_file():
                return str(above / name)
    return name


def _load_base(name: str, options: dict) -> tuple[Any, dict]:
    file = gguf.located(name)
    loaded: Any = gguf.load(*file, **options) if file else AutoModelForCausalLM.from_pretrained(name, **options)
    return loaded


def _config(base: str) -> Any:
    file = gguf.located(base)
    return AutoConfig.from_pretrained(file[0], gguf_file=file[1]) if file else AutoConfig.from_pretrained(base)


def _rows(model: Any) -> int:
    return model.get_input_embeddings().weight.shape[0]


def _saved(weights: str | None, base: Any) -> tuple[int | None, str]:
    """What a file of adapters brings along: how many embeddings, or None, and the adapter's name."""
    name = next(name for name, module in base.named_modules() if module is base.get_input_embeddings())
    with safe_open(weights, framework="pt") as file:
        wanted = {f"{_PREFIX}{name}.weight", f"{_PREFIX}{name}.base_layer.weight"}.intersection(file.keys())
        rows = file.get_slice(wanted.pop()).get_shape()[0] if wanted else None
        return rows, (file.metadata() or {}).get(_NAME, "default")
