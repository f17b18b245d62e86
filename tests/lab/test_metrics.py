"""Curves, areas, tables of rates, and the bag of words that every classifier stands beside."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from constclf_lib.evaluation import rate_of, tpr_at_fpr, wilson_interval
from constclf_lib.lab import (
    auroc,
    average_precision,
    bag_of_words_baseline,
    by_length,
    expected_calibration_error,
    make_split,
    pr_points,
    rate_by_length,
    rate_table,
    reliability_table,
    roc_points,
)


def test_curves_and_tpr_at_fpr():
    labels = np.array([0] * 100 + [1] * 4, bool)
    scores = np.r_[np.arange(100) / 100, [0.985, 0.5, 0.995, 2.0]]
    assert tpr_at_fpr(labels, scores, 0.01) == 0.75
    assert tpr_at_fpr(labels, scores, 0.0) == 0.5
    assert auroc(labels, scores) == pytest.approx((99 + 51 - 0.5 + 100 + 100) / 400, abs=1e-9)
    assert average_precision(labels, scores) < auroc(labels, scores)
    assert roc_points(labels, scores)[1][-1] == 1 and pr_points(labels, scores)[0][0] == 1
    with pytest.raises(ValueError, match="both classes"):
        auroc(labels[:50], scores[:50])
    with pytest.raises(ValueError, match="NaN"):
        auroc([0, 1], [0.1, math.nan])


def test_calibration_error_of_an_honest_and_a_boastful_forecaster():
    random = np.random.default_rng(0)
    said = random.random(20_000)
    labels = random.random(20_000) < said
    assert expected_calibration_error(labels, said) < 0.02
    assert expected_calibration_error(labels, np.where(said > 0.5, 1.0, 0.0)) == pytest.approx(0.25, abs=0.02)
    assert reliability_table(labels, said)["n"].sum() == 20_000


def test_rate_table_keeps_errors_in_the_denominator():
    data = pd.DataFrame({"kind": ["a", "a", "a", "b"], "flagged": [1, 0, 0, 1], "error": [0, 1, 0, 0]})
    table = rate_table(data, "kind", error="error").set_index("kind")
    assert table.loc["a", ["n", "count", "errors"]].tolist() == [3, 1, 1] and table.loc["a", "rate"] == 1 / 3
    assert (table.loc["b", "low"], table.loc["b", "high"]) == wilson_interval(1, 1)
    with pytest.raises(ValueError, match="error column"):
        rate_table(data.assign(flagged=[1, None, 0, 1]), "kind")


def test_rate_by_length_groups_without_losing_anything():
    table = rate_by_length([10, 19, 20, 45], [0, 1, 1, 0], [10, 20, 40, 60])
    assert table[["length", "n", "count", "rate"]].values.tolist() == [[14.5, 2, 1, 0.5], [20, 1, 1, 1], [45, 1, 0, 0]]
    assert tuple(table.loc[0, ["low", "high"]]) == wilson_interval(1, 2)
    with pytest.raises(ValueError, match="beyond 60"):
        rate_by_length([10, 60], [0, 1], [10, 60])


def test_bag_of_words_sees_words_and_nothing_else():
    texts = [f"brew {word} slowly tonight" for word in ("ash", "tea") * 20]
    labels = [i % 2 == 0 for i in range(40)]
    scores = bag_of_words_baseline(texts, labels, ["strong ash", "strong tea", "zzz"])
    assert scores[0] > 0.8 > 0.2 > scores[1] and scores[2] == pytest.approx(0.5, abs=0.1)
    assert [len(s) for s in bag_of_words_baseline(texts, labels, texts[:3], texts[:2], tfidf=False)] == [3, 2]


def test_bag_of_words_is_fitted_to_the_optimum_which_no_rounding_decides():
    """Another solver comes to the same place; scikit-learn's own tolerance stops 0.01 from it."""
    rows = make_split("validation", 400)
    texts, labels, asked = rows.prompt[:300], rows.restricted[:300], rows.prompt[300:]
    features = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"[^\s.,!?:;\"()]+")
    other = LogisticRegression(solver="newton-cg", C=10.0, tol=1e-10, max_iter=1000)
    other.fit(features.fit_transform(texts), labels)
    expected = other.predict_proba(features.transform(asked))[:, 1]
    np.testing.assert_allclose(bag_of_words_baseline(texts, labels, asked), expected, atol=1e-4)


def test_rates_by_bucket_of_length():
    lengths = [0, 1, 64, 65, 256, 257, 1024]
    found = by_length(lengths, [True, False, False, True, True, False, True])
    assert list(found) == ["to_64", "to_256", "to_512", "to_1024"]
    assert [(e.value, e.n) for e in found.values()] == [(pytest.approx(1 / 3), 3), (1.0, 2), (0.0, 1), (1.0, 1)]
    assert found["to_64"] == rate_of([True, False, False])
    assert list(by_length([300, 400], [True, False])) == ["to_512"], "nothing to count, no rate"
    assert json.loads(json.dumps(found["to_64"].stored()))["n"] == 3


@pytest.mark.parametrize(
    "lengths, outcomes, edges, said",
    [
        ([1025], [True], (64, 1024), "to beyond 1025"),
        ([-1], [True], (64,), "edges from -1"),
        ([3.5], [True], (64,), "whole tokens"),
        ([3, 4], [True], (64,), "one outcome per length"),
        ([], [], (64,), "empty"),
        ([3], [True], (64, 64), "must rise"),
        ([3], [True], (), "must rise"),
    ],
)
def test_lengths_without_a_bucket_are_refused(lengths, outcomes, edges, said):
    with pytest.raises(ValueError, match=said):
        by_length(lengths, outcomes, edges)
