"""Folders of the two bodyguards on disk: written whole or not at all, loaded once before they stand, and checked before
they are believed.

A folder is an ordinary Hugging Face checkpoint (config, safetensors weights, tokenizer) that AutoModelForCausalLM loads
without this library, plus `classifier.json`, the record: what kind of classifier it is, its settings, the fingerprint
of its tokenizer, and size and SHA-256 of every weights file; and README.md, the model card. An output classifier adds
`value_head.safetensors`. A backbone with adapters saves these alone, as peft does, with the name of their base.

What it deliberately does not do: pickle, download, or repair. Used by the classifiers (chapters 02 and 03) and
the trainers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging

from .. import _files
from ..errors import ClassifierError
from ..tokenization import fingerprint, text_ids
from . import adapters
from .model_card import default_card
from .self_check import distance, some_ids, still, tolerance

RECORD, HEAD, MODEL_CARD = "classifier.json", "value_head.safetensors", "README.md"
FORMAT = 1
# What an earlier save may have left here and a loader would still read; a Trainer's own files stay.
_SUPERSEDES = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", adapters.CONFIG, RECORD,
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "chat_template.*", "additional_chat_templates/*",
)  # fmt: skip
_PROBE = "A probe, naïve: brew <|user|> </s> 12 bells\n"


def save(
    classifier, folder: str | os.PathLike, settings: dict, head: nn.Module | None = None, card: str | None = None
) -> None:
    """Write `classifier` (.model, .tokenizer, .kind, .fingerprint) with its settings to `folder`, load it from there,
    compare, and only then let it take the place of what stood there (_files.stage).

    A folder that exists keeps its other files (a Trainer's optimizer state). card: text of the model card; by default
    what is known, and that the rest is not. Raises ValueError for adapters that cannot be saved, ClassifierError for
    anything that does not come back as it is. Whatever it raises, what stood there before still loads.

    What the check costs: the files are read once more and mapped into memory, which the system can take back, tensor by
    tensor compared; a quantized backbone is not loaded a second time, only its tokenizer is.
    """
    folder, quantized = Path(folder), getattr(classifier.model, "hf_quantizer", None) is not None
    somebodys = (folder / MODEL_CARD).exists() and not (folder / RECORD).exists()
    with _files.stage(folder, _SUPERSEDES) as new:
        _write(classifier.model, classifier.tokenizer, new)
        if head is not None:
            save_file({name: x.detach().cpu().contiguous() for name, x in head.state_dict().items()}, new / HEAD)
        files = {file.name: _files.describe(file) for file in sorted(new.glob("*.safetensors"))}
        record = {"format": FORMAT, "kind": classifier.kind, "fingerprint": classifier.fingerprint, **settings}
        (new / RECORD).write_text(json.dumps({**record, "files": files}, indent=2) + "\n", encoding="utf-8")
        if card is not None or not somebodys:
            (new / MODEL_CARD).write_text(default_card(classifier) if card is None else card, encoding="utf-8")

        def load_again():
            if quantized:
                return None, _load_tokenizer(new, classifier.fingerprint)
            again = type(classifier).from_pretrained(new)
            return again, again.tokenizer

        _check(classifier, classifier.tokenizer, load_again, adapters.has_adapters(classifier.model))


def save_language_model(model, tokenizer, folder: str | os.PathLike, card: str | None = None) -> None:
    """A plain causal LM (an assistant, the base of classifiers) and its tokenizer, saved as carefully as `save` does.

    Without a card there is none. Raises ValueError for a model with adapters, ClassifierError for one that does not
    come back as it is.
    """
    if adapters.has_adapters(model):
        raise ValueError("a language model with adapters is not saved by itself; merge them first (merge_and_unload)")
    with _files.stage(folder, (*_SUPERSEDES, MODEL_CARD)) as new:
        _write(model, tokenizer, new)
        if card is not None:
            (new / MODEL_CARD).write_text(card, encoding="utf-8")
        _check(
            model,
            tokenizer,
            lambda: (adapters.load_language_model(new)[0], AutoTokenizer.from_pretrained(new)),
            adapted=False,
        )


def _write(model, tokenizer, folder: Path) -> None:
    with quiet():
        if adapters.has_adapters(model):
            adapters.save(model, folder)
        else:
            model._hf_peft_config_loaded = False  # there may have been adapters that are merged now
            model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _check(kept: nn.Module, tokenizer, load_again: Callable, adapted: bool) -> None:
    """Loads what was written, (module or None, tokenizer or None), and compares it with what was to be kept. Raises
    ClassifierError, naming the first thing that is not as it was.
    """
    advice = ". Only the adapters were written: merge them, or save the base, load it from there and adapt that"
    advice = advice if adapted else ""
    try:
        with quiet(), torch.random.fork_rng(devices=[]):  # new modules draw their start; a training must not notice
            again, reader = load_again()
    except Exception as error:
        raise ClassifierError(f"not saved: what was written does not load again ({error}){advice}") from error
    if tokenizer is not None and (reader is None or _reads(reader) != _reads(tokenizer)):
        kinds = f"{type(tokenizer).__name__} comes back as {type(reader).__name__}"
        raise ClassifierError(f"not saved: the tokenizer would read otherwise after loading ({kinds})")
    if again is None:
        return
    if changed := _first_difference(kept.state_dict(), again.state_dict()):
        raise ClassifierError(f"not saved: {changed} is not the same after loading{advice}")
    if adapted and not _same_scores(kept, again):
        raise ClassifierError(f"not saved: the scores would be others after loading{advice}")


def _reads(tokenizer) -> tuple:
    ids = text_ids(tokenizer, _PROBE)
    return fingerprint(tokenizer), ids, sorted(tokenizer.all_special_ids), tokenizer.bos_token_id


def _first_difference(kept: dict[str, Tensor], loaded: dict[str, Tensor]) -> str | None:
    """The name of a tensor that is in one only, or has another shape or, in the dtype that was loaded, other bits."""
    if odd := sorted(kept.keys() ^ loaded.keys()):
        return odd[0]
    for name, value in loaded.items():
        was = kept[name]
        if was.shape != value.shape:
            return name
        if not was.is_meta:  # offloaded weights are somewhere else
            one, other = (x.detach().to("cpu", value.dtype).reshape(-1).view(torch.uint8) for x in (was, value))
            if not torch.equal(one, other):  # bits, so that a weight that is nan is no difference
                return name
    return None


def _same_scores(classifier, again) -> bool:
    """Settings that are no tensors (a scaling, which layers are adapted) show in what a few tokens give."""
    ids, hidden = torch.tensor([some_ids(classifier)]), []
    for one in (classifier, again):
        with still(one):
            hidden.append(one.read(ids.to(one.device)).last_hidden_state)
    rounding = tolerance(classifier.model, hidden[0])  # more of it on another device than the CPU
    return distance(hidden[1], hidden[0].to(hidden[1].device)) <= rounding


def load(folder: str | os.PathLike, kind: str, **load_options):
    """(record, causal LM, tokenizer or None) from a folder that `save` wrote. Raises ClassifierError, with what to do,
    unless all of it is as written. The model comes wrapped by peft if the folder holds adapters.
    """
    folder = _files.standing(folder)
    record = _read_record(folder, kind)
    for name, expected in record["files"].items():
        if not (folder / name).is_file():
            raise ClassifierError(
                f"{folder / name} is missing; copy the whole folder again or restore it from where it was built"
            )
        if _files.describe(folder / name) != expected:
            raise ClassifierError(
                f"{folder / name} is not the file that was saved (cut short or altered); restore the whole folder"
            )
    tokenizer = _load_tokenizer(folder, record["fingerprint"])
    try:
        with quiet():
            model, info = adapters.load_language_model(folder, **load_options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ClassifierError(f"the language model in {folder} cannot be loaded ({error}); restore it") from error
    if wrong := {key: sorted(map(str, info[key])) for key in ("missing_keys", "mismatched_keys") if info.get(key)}:
        raise ClassifierError(f"config and weights in {folder} do not fit each other ({wrong}); restore both")
    return record, model, tokenizer


def _load_tokenizer(folder: Path, wanted: str | None):
    if wanted is None:
        return None
    if not (folder / "tokenizer_config.json").exists():  # adapters may leave it to their base
        folder = Path(adapters.base_of(folder) or folder)
    found = []
    # AutoTokenizer goes by the family of the model, and some families (Qwen2) make their own of any tokenizer.json
    for kind in (AutoTokenizer, PreTrainedTokenizerFast) if (folder / "tokenizer.json").exists() else (AutoTokenizer,):
        try:
            tokenizer = kind.from_pretrained(folder)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ClassifierError(
                f"the tokenizer files in {folder} are missing or damaged ({error}); restore them"
            ) from error
        found.append(fingerprint(tokenizer))
        if found[-1] == wanted:
            return tokenizer
    raise ClassifierError(
        f"the tokenizer in {folder} has fingerprint {found[0]}, training used {wanted}: "
        "token ids would mean other words. Put back the tokenizer files that were saved with it"
    )


def load_head(folder: str | os.PathLike, head: nn.Module) -> None:
    """Load value_head.safetensors into `head`. Raises ClassifierError if it is unreadable or of another size."""
    try:
        head.load_state_dict(load_file(_files.standing(folder) / HEAD))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ClassifierError(
            f"{Path(folder) / HEAD} does not fit this classifier ({error}); restore the whole folder"
        ) from error


def _read_record(folder: Path, kind: str) -> dict:
    if not folder.is_dir():
        raise ClassifierError(f"there is no folder {folder}")
    if not (folder / RECORD).is_file():
        raise ClassifierError(
            f"{folder} has no {RECORD}: it is a plain language model (start from it with from_backbone) "
            "or a save that was interrupted (save again)"
        )
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        found = record["format"], record["kind"]
        record["files"], record["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise ClassifierError(
            f"{folder / RECORD} is damaged ({error!r}); restore it from where it was built"
        ) from error
    if found != (FORMAT, kind):
        raise ClassifierError(
            f"{folder} holds an {found[1]} classifier (format {found[0]}), not an {kind} classifier (format {FORMAT})"
        )
    return record


@contextmanager
def quiet():
    """transformers' own progress bars off: a checkpoint every few seconds would fill a notebook with them."""
    were_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_on:
            logging.enable_progress_bar()
