"""The lab's trained models and thresholds, loaded from a data folder."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from .._files import standing
from ..guard import Thresholds, read_card
from ..models import InputClassifier, OutputClassifier


def lab_tokenizer(data: Path):
    """The tokenizer that all models of the lab share."""
    return AutoTokenizer.from_pretrained(standing(data / "models" / "tokenizer"))


def load_assistant(data: Path):
    """The assistant and its tokenizer."""
    folder = standing(data / "models" / "assistant")
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def load_lab(data: Path):
    """(assistant, tokenizer, input classifier, output classifier)."""
    return (
        *load_assistant(data),
        InputClassifier.from_pretrained(data / "models" / "input_classifier"),
        OutputClassifier.from_pretrained(data / "models" / "output_classifier"),
    )


def load_thresholds(data: Path) -> Thresholds:
    """The calibrated thresholds. Raises FileNotFoundError or ClassifierError, saying what to do."""
    return read_card(standing(data / "models"))["thresholds"]
