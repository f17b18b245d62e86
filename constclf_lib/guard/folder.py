"""A whole guard in one folder: assistant/, input_classifier/, output_classifier/, thresholds.json. Built in chapter 08.

thresholds.json says which parts belong to the guard (`parts`; all three if it does not say) and which stop rule the
thresholds were chosen for.

Deliberately not here: the classifiers' own folders (`models`), and settings of a service (time limits, wordings), which
are given anew when a guard is loaded.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from .. import _files
from ..errors import ClassifierError
from ..models import ExchangeClassifier, InputClassifier, OutputClassifier, quiet, save_language_model
from .types import Thresholds

CARD = "thresholds.json"
PARTS = ("assistant", "input_classifier", "output_classifier")
_AGAIN = "save the guard again, or restore the folder"


def read_card(folder: Path) -> dict:
    """What thresholds.json says, with `parts` and `rule` filled in and `thresholds` (Thresholds or None) added. Raises
    FileNotFoundError or ClassifierError, saying what to do, for a folder that holds no complete guard.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if not (folder / CARD).is_file():
        raise FileNotFoundError(
            f"{folder} has no {CARD}: no guard was saved there, or its save was interrupted; {_AGAIN}"
        )
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        card = {"parts": list(PARTS), "rule": "RunningMax", **card}
        named = [card[name] for name in ("input", "off_label", "output") if name in card]
        card["thresholds"] = Thresholds(*map(float, named)) if named else None
        missing = [name for name in card["parts"] if not (folder / name).is_dir()]
    except (ValueError, TypeError, AttributeError) as error:
        raise ClassifierError(f"{folder / CARD} is damaged ({error}); {_AGAIN}") from error
    if missing:
        raise FileNotFoundError(f"{', '.join(str(folder / name) for name in missing)} is missing; {_AGAIN}")
    return card


def load_parts(folder: Path, parts: list[str]) -> tuple:
    """(assistant, tokenizer, input classifier or None, output classifier or None). Raises ClassifierError, saying what
    to do, for a part that cannot be loaded.
    """
    with quiet():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(folder / "assistant", output_loading_info=True)
            tokenizer = AutoTokenizer.from_pretrained(folder / "assistant")
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ClassifierError(f"the assistant in {folder} cannot be loaded ({error}); {_AGAIN}") from error
        assistant, info = loaded
        if wrong := [key for kind in ("missing_keys", "mismatched_keys") for key in info.get(kind) or ()]:
            raise ClassifierError(f"config and weights of the assistant in {folder} do not fit ({wrong}); {_AGAIN}")
        return (
            assistant.eval(),
            tokenizer,
            InputClassifier.from_pretrained(folder / "input_classifier") if "input_classifier" in parts else None,
            _load_watching(folder / "output_classifier") if "output_classifier" in parts else None,
        )


def _load_watching(folder: Path) -> OutputClassifier:
    """An output classifier, or one that reads the exchange; a damaged record is named by the loader."""
    kind = None
    with suppress(OSError, ValueError, AttributeError):
        kind = json.loads((folder / "classifier.json").read_text(encoding="utf-8")).get("kind")
    return (ExchangeClassifier if kind == ExchangeClassifier.kind else OutputClassifier).from_pretrained(folder)


def save_guard(guard, folder: Path) -> None:
    """Writes a GuardedModel to `folder`, whole or not at all (_files.stage); each part is loaded once before any of it
    takes the place of what stood there. Other files in the folder are left alone. Needs disk for a second copy while it
    runs. Raises what saving and loading raise, and ValueError for a guard with a monitor of its own.
    """
    if guard.output_classifier is None and guard.monitor is not None:
        raise ValueError("a guard with a monitor is not saved as one folder; save its stages one by one")
    card: dict[str, Any] = {"parts": ["assistant"]}
    with _files.stage(folder, (CARD, *(f"{part}/*" for part in PARTS))) as new, quiet():
        save_language_model(guard.assistant, guard.tokenizer, new / "assistant")
        for name in PARTS[1:]:
            if (classifier := getattr(guard, name)) is not None:
                classifier.save_pretrained(new / name)
                card["parts"].append(name)
        if guard.monitor is not None:
            card["rule"] = type(guard.monitor.rule).__name__
        if (limits := guard.thresholds) is not None:
            card.update(input=limits.input, off_label=limits.off_label, output=limits.output)
        _files.write_json(new / CARD, card)
        read_card(new)
