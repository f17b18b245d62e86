"""A whole guard in one folder: assistant/, input_classifier/, output_classifier/, thresholds.json. Built in chapter 08.

thresholds.json is removed first and written last, so a folder that has one is complete. It also says which parts belong
to the guard (`parts`; all three if it does not say) and which stop rule the thresholds were chosen for.

Deliberately not here: the classifiers' own folders (`models`), and settings of a service (time limits, wordings), which
are given anew when a guard is loaded.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..errors import ClassifierError
from ..models import InputClassifier, OutputClassifier, quiet
from ..tokenization import fingerprint
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
            OutputClassifier.from_pretrained(folder / "output_classifier") if "output_classifier" in parts else None,
        )


def save_guard(guard, folder: Path) -> None:
    """Writes a GuardedModel to `folder`: first into a folder inside it, where it is loaded once, then into place.

    Until the last step the folder has no thresholds.json and does not load; other files in it are left alone. Needs
    disk for a second copy while it runs, and memory for one. Raises what saving and loading raise; then what stood
    there before still stands.
    """
    parts = {
        "assistant": guard.assistant,
        "input_classifier": guard.input_classifier,
        "output_classifier": guard.output_classifier,
    }
    parts = {name: part for name, part in parts.items() if part is not None}
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / ".part"
    if not (folder / CARD).exists():  # an earlier save was killed on its last steps: what it replaced comes back first
        _put_back(staged, folder)
    shutil.rmtree(staged, ignore_errors=True)
    try:
        with quiet():
            for name, part in parts.items():
                part.save_pretrained(staged / name)
        guard.tokenizer.save_pretrained(staged / "assistant")
        card: dict[str, Any] = {"parts": list(parts)}
        if guard.scorer is not None:
            card["rule"] = type(guard.scorer.rule).__name__
        if (limits := guard.thresholds) is not None:
            card.update(input=limits.input, off_label=limits.off_label, output=limits.output)
        (staged / CARD).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        _, tokenizer, *_ = load_parts(staged, read_card(staged)["parts"])
        if fingerprint(tokenizer) != fingerprint(guard.tokenizer):
            raise ClassifierError(
                "the assistant's tokenizer gives other ids once it is saved and loaded; nothing is saved"
            )
        _publish(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _publish(staged: Path, folder: Path) -> None:
    """Moves the finished parts into place: thresholds.json leaves first and arrives last. What stood there is put back
    if a move fails.
    """
    names, old = (CARD, *PARTS), staged / "old"
    old.mkdir()
    try:
        for name in names:
            _move(folder / name, old)
        for name in reversed(names):
            _move(staged / name, folder)
    except BaseException:
        _put_back(staged, folder)
        raise


def _put_back(staged: Path, folder: Path) -> None:
    """What `_publish` moved away stands again, thresholds.json last."""
    old = staged / "old"
    for name in reversed((CARD, *PARTS)):
        if (old / name).exists():
            _move(folder / name, staged)
            _move(old / name, folder)


def _move(path: Path, folder: Path) -> None:
    if path.exists():
        path.rename(folder / path.name)
