"""Folders of the two bodyguards on disk: written whole or not at all, and checked before they are believed.

A folder is an ordinary Hugging Face checkpoint (config, safetensors weights, tokenizer) that AutoModelForCausalLM loads
without this library, plus `classifier.json`, the card: what kind of classifier it is, its settings, the fingerprint of
its tokenizer, and size and SHA-256 of every weights file. The card is written last and removed first, so a folder that
has one is complete. An output classifier adds `value_head.safetensors`.

What it deliberately does not do: pickle, download, or repair. Used by the classifiers (chapters 02 and 03) and
the trainers.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from ..errors import ClassifierError
from ..tokenization import fingerprint

CARD, HEAD = "classifier.json", "value_head.safetensors"
FORMAT = 1


def save(classifier, folder: str | os.PathLike, settings: dict, head: nn.Module | None = None) -> None:
    """Write `classifier` (.model, .tokenizer, .kind, .fingerprint) with its settings to `folder`: first beside it, then
    moved into place.

    A folder that exists keeps its other files (a Trainer's optimizer state) and loses its old weights. Raises
    ValueError for adapters on a nameless base.
    """
    folder = Path(folder)
    if getattr(classifier.model, "_hf_peft_config_loaded", False):
        if not all(config.base_model_name_or_path for config in classifier.model.peft_config.values()):
            raise ValueError(
                "these adapters sit on a model that was never loaded from a name or folder, so nothing could "
                "find it again; load the base from a folder, or merge the adapters first"
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = folder.parent / f".{folder.name}.{os.getpid()}.part"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        with quiet():
            classifier.model.save_pretrained(staged)
        if classifier.tokenizer is not None:
            classifier.tokenizer.save_pretrained(staged)
        if head is not None:
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}, staged / HEAD
            )
        files = {file.name: _describe(file) for file in sorted(staged.glob("*.safetensors"))}
        card = {
            "format": FORMAT,
            "kind": classifier.kind,
            "fingerprint": classifier.fingerprint,
            **settings,
            "files": files,
        }
        (staged / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        _publish(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def load(folder: str | os.PathLike, kind: str, **load_options):
    """(card, causal LM, tokenizer or None) from a folder that `save` wrote. Raises ClassifierError, with what to do,
    unless all of it is as written.
    """
    folder = Path(folder)
    card = _read_card(folder, kind)
    for name, expected in card["files"].items():
        if not (folder / name).is_file():
            raise ClassifierError(
                f"{folder / name} is missing; copy the whole folder again or restore it from where it was built"
            )
        if _describe(folder / name) != expected:
            raise ClassifierError(
                f"{folder / name} is not the file that was saved (cut short or altered); restore the whole folder"
            )
    tokenizer = None
    if card["fingerprint"] is not None:
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError, KeyError, ImportError) as error:  # ImportError: where it tries other formats
            raise ClassifierError(
                f"the tokenizer files in {folder} are missing or damaged ({error}); restore them"
            ) from error
        if (found := fingerprint(tokenizer)) != card["fingerprint"]:
            raise ClassifierError(
                f"the tokenizer in {folder} has fingerprint {found}, training used {card['fingerprint']}: "
                "token ids would mean other words. Put back the tokenizer files that were saved with it"
            )
    try:
        with quiet():
            model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **load_options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ClassifierError(f"the language model in {folder} cannot be loaded ({error}); restore it") from error
    if wrong := {key: sorted(map(str, info[key])) for key in ("missing_keys", "mismatched_keys") if info.get(key)}:
        raise ClassifierError(f"config and weights in {folder} do not fit each other ({wrong}); restore both")
    return card, model, tokenizer


def load_head(folder: str | os.PathLike, head: nn.Module) -> None:
    """Load value_head.safetensors into `head`. Raises ClassifierError if it is unreadable or of another size."""
    try:
        head.load_state_dict(load_file(Path(folder) / HEAD))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ClassifierError(
            f"{Path(folder) / HEAD} does not fit this classifier ({error}); restore the whole folder"
        ) from error


def _read_card(folder: Path, kind: str) -> dict:
    if not folder.is_dir():
        raise ClassifierError(f"there is no folder {folder}")
    if not (folder / CARD).is_file():
        raise ClassifierError(
            f"{folder} has no {CARD}: it is a plain language model (start from it with from_backbone) "
            "or a save that was interrupted (save again)"
        )
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        found = card["format"], card["kind"]
        card["files"], card["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise ClassifierError(f"{folder / CARD} is damaged ({error!r}); restore it from where it was built") from error
    if found != (FORMAT, kind):
        raise ClassifierError(
            f"{folder} holds an {found[1]} classifier (format {found[0]}), not an {kind} classifier (format {FORMAT})"
        )
    return card


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


def _describe(file: Path) -> dict:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return {"bytes": file.stat().st_size, "sha256": digest.hexdigest()}


def _publish(staged: Path, folder: Path) -> None:
    """Move the finished files into place. Between the first line and the last the folder has no card, hence does not
    load.
    """
    if not folder.exists():
        staged.rename(folder)
        return
    (folder / CARD).unlink(missing_ok=True)
    for stale in folder.glob("*.safetensors*"):
        stale.unlink()
    for file in sorted(staged.iterdir(), key=lambda file: file.name == CARD):
        file.replace(folder / file.name)
