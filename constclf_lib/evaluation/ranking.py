"""Figures of scores that need no threshold, or choose their own. Arrays only; curves and areas, which scikit-learn
computes, are in `lab.metrics`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from .calibration import calibrate_threshold
from .intervals import clean_scores


def labelled(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels, bool).reshape(-1), clean_scores(scores)
    if labels.size != scores.size:
        raise ValueError(f"{labels.size} labels for {scores.size} scores")
    if labels.all() or not labels.any():
        raise ValueError("both classes are needed: these labels hold only one")
    return labels, scores


def tpr_at_fpr(labels: ArrayLike, scores: ArrayLike, max_fpr: float = 0.01) -> float:
    """Share of positives flagged with the threshold set on the negatives of the same data: a diagnostic, no promise."""
    labels, scores = labelled(labels, scores)
    return float((scores[labels] > calibrate_threshold(scores[~labels], max_fpr)).mean())


def highest_scores(scores: Iterable[np.ndarray]) -> np.ndarray:
    """The highest score of each completion: what a running maximum ends at (0 for an empty one)."""
    return np.array([row.max() if len(row) else 0.0 for row in scores])
