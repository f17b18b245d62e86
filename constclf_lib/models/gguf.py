"""Backbones out of GGUF files, the form in which llama.cpp keeps models: unpacked, so that they train and save.

What it does: finds the file that a name means, has transformers read it (the package `gguf` is needed), and takes off
the marks of quantization, with which transformers would neither train the model nor save it. Built for chapter 11.

What it deliberately does not do: keep weights packed. A Q4 file becomes float32 in memory, eight times its size, with
the precision that it had; what is saved from here is an ordinary folder of that size, which loads in seconds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from ..errors import ClassifierError

# What transformers leaves on a model that was quantized when it was read, and what it then refuses to do for it.
_MARKS = ("hf_quantizer", "quantization_method", "is_quantized")


def located(name_or_path: str | os.PathLike) -> tuple[str, str] | None:
    """(folder or repository, file in it) if a GGUF file is meant, else None: the path of one, "owner/repository/x.gguf"
    on a hub, or a folder in which one lies and no config.json. Raises ValueError if several lie there.
    """
    name = os.fspath(name_or_path)
    if name.lower().endswith(".gguf"):
        if os.path.isfile(name):
            return str(Path(name).parent), Path(name).name
        owner, _, rest = name.partition("/")
        repository, _, file = rest.partition("/")
        if not (owner and repository and file):
            raise ValueError(f"there is no file {name}; on a hub a GGUF file is named owner/repository/file.gguf")
        return f"{owner}/{repository}", file
    if not os.path.isdir(name) or os.path.exists(os.path.join(name, "config.json")):
        return None
    files = sorted(path.name for path in Path(name).glob("*.gguf"))
    if len(files) > 1:
        raise ValueError(f"{name} holds several GGUF files; name one of them: {', '.join(files)}")
    return (name, files[0]) if files else None


def load(folder: str, file: str, **options) -> tuple[Any, dict]:
    """What AutoModelForCausalLM reads from the file, as an ordinary model, and its loading info. It remembers the file
    as its name, so that adapters on it find their base again. options: dtype and so on.

    Raises ClassifierError without the package `gguf`, or for weights that stayed packed.
    """
    options.setdefault("output_loading_info", True)
    try:
        from transformers import GgufConfig
    except ImportError:  # before it was there, reading a GGUF file was unpacking it
        pass
    else:
        options.setdefault("quantization_config", GgufConfig(dequantize=True))
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, **options)
    except ImportError as error:
        raise ClassifierError(f"{file} is a GGUF file; `pip install gguf` to read it ({error})") from error
    model, info = loaded
    packed = next((name for name, p in model.named_parameters() if not p.is_floating_point()), None)
    if packed is not None:
        raise ClassifierError(f"{packed} of {file} stayed packed: it could be neither trained nor saved")
    for holder in (model, model.config):
        for mark in (*_MARKS, "quantization_config", "_is_quantized"):
            vars(holder).pop(mark, None)
    model.config.name_or_path = model.name_or_path = f"{folder}/{file}"
    return model, info


def load_tokenizer(folder: str, file: str):
    """The tokenizer that the file holds. Raises ClassifierError without the package `gguf`."""
    try:
        return AutoTokenizer.from_pretrained(folder, gguf_file=file)
    except ImportError as error:
        raise ClassifierError(f"{file} is a GGUF file; `pip install gguf` to read it ({error})") from error
