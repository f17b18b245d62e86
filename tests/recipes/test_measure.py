"""What is measured is written in the form that notebooks and README read."""

import json

import numpy as np
import pytest

from constclf_lib.evaluation import Estimate
from constclf_lib.recipes.classifiers import beside_bag_of_words, classifier_table
from constclf_lib.recipes.stored import merge_results

HALF = Estimate(0.5, 0.123456, 0.9, 4)


def test_sections_are_merged_and_estimates_are_kept_as_value_interval_and_n(tmp_path):
    path = tmp_path / "reference_results.json"
    path.write_text('{"kept": {"x": 1}, "changed": 0}')
    results = merge_results(tmp_path, changed={"deep": {"er": HALF}, "count": 3}, new=HALF)
    stored = {"value": 0.5, "interval": [0.1235, 0.9], "n": 4}
    assert results == json.loads(path.read_text(encoding="utf-8"))
    assert results == {"kept": {"x": 1}, "changed": {"deep": {"er": stored}, "count": 3}, "new": stored}
    assert list(results) == ["kept", "changed", "new"]


def test_the_table_of_a_classifier_counts_each_group_on_its_own():
    labels, scores = [True, True, True, False, False, False], np.array([0.9, 0.8, 0.1, 0.7, 0.2, 0.1])
    table = classifier_table(labels, scores, 0.5, {"by_kind": np.array(["a", "a", "b", "a", "b", "b"])})
    assert (table["tpr"].value, table["fpr"].n) == (pytest.approx(2 / 3), 3)
    assert {kind: (sides["tpr"].value, sides["fpr"].value) for kind, sides in table["by_kind"].items()} == {
        "a": (1.0, 1.0),
        "b": (0.0, 0.0),
    }
    alone = classifier_table(labels, scores, 0.5, {"by_kind": np.array([*"aaabbb"])})["by_kind"]
    assert set(alone["a"]) == {"tpr"} and set(alone["b"]) == {"fpr"}


def test_the_classifier_stands_beside_words_and_shuffled_labels_in_every_part():
    """Words tell these texts apart and shuffled labels do not; a part has its own figures and its own n."""
    rng = np.random.default_rng(0)
    labels = rng.random(400) < 0.5
    texts = [f"{'bane' if label else 'boon'} {rng.integers(9)}" for label in labels]
    lengths, part = np.where(np.arange(400) < 100, 10, 100), np.arange(400) < 50
    found = beside_bag_of_words((texts, labels), (texts, labels), labels * 1.0, lengths, {"first": part})
    assert found["classifier"]["tpr_at_1pct_fpr"] == found["bag_of_words"]["tpr_at_1pct_fpr"] == 1.0
    assert found["bag_of_words_shuffled_labels"]["average_precision"] < 0.8
    assert found["n_by_length"] == {"all": 400, "to_64": 100, "to_256": 300, "to_512": 0, "to_1024": 0}
    assert found["first"]["n_by_length"] == {"all": 50, "to_64": 50, "to_256": 0, "to_512": 0, "to_1024": 0}
    assert set(found["first"]["classifier"]["tpr_at_1pct_fpr_by_length"]) == {"to_64"}
