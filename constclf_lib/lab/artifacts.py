"""The lab's trained models and thresholds, loaded from a data folder."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from ..guard import Thresholds
from ..models import InputClassifier, OutputClassifier


def lab_tokenizer(data: Path):
    return AutoTokenizer.from_pretrained(data / "models" / "tokenizer")


def load_assistant(data: Path):
    """The assistant and its tokenizer."""
    folder = data / "models" / "assistant"
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def load_lab(data: Path):
    """(assistant, tokenizer, input classifier, output classifier)."""
    assistant, tokenizer = load_assistant(data)
    return (
        assistant, tokenizer, InputClassifier.from_pretrained(data / "models" / "input_classifier"),
        OutputClassifier.from_pretrained(data / "models" / "output_classifier"),
    )  # fmt: skip


def load_thresholds(data: Path) -> Thresholds:
    values = json.loads((data / "models" / "thresholds.json").read_text(encoding="utf-8"))
    return Thresholds(values["input"], values["off_label"], values["output"])
