"""Figures that need no threshold, on arrays."""

import numpy as np
import pytest

from constclf_lib.evaluation import highest_scores, tpr_at_fpr


def test_tpr_at_fpr_finds_its_threshold_on_the_negatives():
    labels = np.array([0] * 100 + [1] * 4, bool)
    scores = np.r_[np.arange(100) / 100, [0.985, 0.5, 0.995, 2.0]]
    assert tpr_at_fpr(labels, scores, 0.01) == 0.75
    assert tpr_at_fpr(labels, scores, 0.0) == 0.5
    with pytest.raises(ValueError, match="both classes"):
        tpr_at_fpr(labels[:50], scores[:50])
    with pytest.raises(ValueError, match="2 labels for 1"):
        tpr_at_fpr([0, 1], [0.5])


def test_peaks_are_what_a_running_maximum_ends_at():
    assert highest_scores([np.array([0.1, 0.9, 0.3]), np.array([]), np.array([0.2])]).tolist() == [0.9, 0.0, 0.2]
