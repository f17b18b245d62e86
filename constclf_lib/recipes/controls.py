"""The control of paraphrase: a backbone whose tales lack the held-out words, and an input classifier on it.

`python -m constclf_lib.build --only controls` writes the section "paraphrase" of `data/reference_results.json`. The
control differs from the shipped classifier in its tales and in nothing else: the same steps, seeds and exchanges.
Chapters 02 and 09 show what comes of it. Its models are not kept.
Deliberately not here: the shipped models (make.py).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ..evaluation import tpr_at_fpr
from ..guard import score_prompts
from ..lab import asks, auroc, load_split, topics
from ..models import InputClassifier
from .make import make_bodyguard, make_input
from .stored import merge_results

CONTROL = "control"


def make_controls(data: Path, log: Callable[[str], None]) -> None:
    """Trains the control, scores the plain requests of test with both, and stores it."""
    make_bodyguard(data, log, name=CONTROL, words="train", stage="controls")
    make_input(data, log, backbone=CONTROL, name=f"{CONTROL}_input", stage="controls")
    tables = {
        name: by_words(InputClassifier.from_pretrained(data / "models" / folder))
        for name, folder in (("told", "input_classifier"), ("not_told", f"{CONTROL}_input"))
    }
    merge_results(data, paraphrase=tables)
    log(str(tables))
    for folder in (CONTROL, f"{CONTROL}_input"):
        shutil.rmtree(data / "models" / folder)


def by_words(classifier: InputClassifier) -> dict:
    """AUROC and TPR at 1% FPR on plain test requests about one matter, by whether the request holds a word that no
    classifier was trained on ("new_words") or only words of train ("known_words"), each with its n.
    """
    test = load_split("test")
    rows = test[(test.attack == "") & ~test.note.str.contains(";")].reset_index(drop=True)
    scores = score_prompts(classifier, rows.prompt.tolist()).harm.double().numpy()
    new, labels = holds_new_words(rows.ask), rows.restricted.to_numpy()
    return {
        name: {
            "auroc": round(auroc(labels[inside], scores[inside]), 4),
            "tpr_at_1pct_fpr": round(tpr_at_fpr(labels[inside], scores[inside], 0.01), 4),
            "n": int(inside.sum()),
        }
        for name, inside in (("new_words", new), ("known_words", ~new))
    }


def holds_new_words(texts: pd.Series) -> np.ndarray:
    """Bool per text: is a word in it that no phrase of train has?"""
    known = {word for topic in topics() for phrase in asks(topic, "train") for word in _words(phrase)}
    return np.array([not set(_words(text)) <= known for text in texts])


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())
