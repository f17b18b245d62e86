"""Curves, areas, tables and the bag-of-words control, from scikit-learn and pandas. Built in chapters 01 and 02.

Deliberately not in `evaluation`, which a practitioner imports and which needs neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve
from sklearn.pipeline import make_pipeline

from ..evaluation import Estimate, clean_scores, labelled, rate_of

LENGTH_EDGES = (64, 256, 512, 1024)  # tokens: rates of the lab are reported up to each of them


def roc_points(labels, scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(false-positive rate, true-positive rate, threshold) along the ROC curve."""
    return roc_curve(*labelled(labels, scores))


def pr_points(labels, scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(recall, precision, threshold) along the precision-recall curve."""
    precision, recall, thresholds = precision_recall_curve(*labelled(labels, scores))
    return recall, precision, thresholds


def auroc(labels, scores) -> float:
    """Area under the ROC curve: how often a positive outscores a negative."""
    return float(roc_auc_score(*labelled(labels, scores)))


def average_precision(labels, scores) -> float:
    """Area under the precision-recall curve. Its floor is the share of positives, so it exposes what accuracy hides."""
    return float(average_precision_score(*labelled(labels, scores)))


def rate_table(
    data: pd.DataFrame, group: str | Sequence[str], outcome: str = "flagged", error: str | None = None
) -> pd.DataFrame:
    """Per group: n, count, rate, low, high (Wilson).

    With `error` (a bool column) also `errors`; they stay in n, whatever their outcome says. Raises ValueError for a
    missing outcome value: an unknown outcome is an error to be counted, not a row to be dropped.
    """
    if data[outcome].isna().any():
        raise ValueError(
            f"{int(data[outcome].isna().sum())} rows have no {outcome!r}; mark them in an error column instead"
        )
    rows = []
    for key, part in data.groupby(group, sort=True, dropna=False):
        hits = part[outcome].astype(bool)
        rate, low, high, n = rate_of(hits)
        names = dict(zip([group], [key], strict=True)) if isinstance(group, str) else dict(zip(group, key, strict=True))
        errors = {} if error is None else {"errors": int(part[error].astype(bool).sum())}
        rows.append({**names, "n": n, "count": int(hits.sum()), "rate": rate, "low": low, "high": high, **errors})
    return pd.DataFrame(rows)


def rate_by_length(lengths, flagged, edges: Sequence[float]) -> pd.DataFrame:
    """Per group of lengths between two `edges` (the lower one included): length (mean), n, count, rate, low, high.

    Groups without a member are left out; lengths outside the edges are a ValueError, so that nothing drops out unseen.
    """
    lengths, flagged = clean_scores(lengths, "lengths"), np.asarray(flagged, bool).reshape(-1)
    if lengths.size != flagged.size or lengths.min() < edges[0] or lengths.max() >= edges[-1]:
        raise ValueError(f"give one outcome per length, and edges from {lengths.min():g} to beyond {lengths.max():g}")
    data = pd.DataFrame({"group": np.digitize(lengths, edges), "length": lengths, "flagged": flagged})
    table = rate_table(data, "group")
    table.insert(0, "length", data.groupby("group")["length"].mean().to_numpy())
    return table.drop(columns="group")


def by_length(lengths, outcomes, edges: Sequence[int] = LENGTH_EDGES) -> dict[str, Estimate]:
    """The rate of True among `outcomes` per bucket of lengths, {"to_64": Estimate, "to_256": ...} (chapters 07 and 09).

    A bucket ends at its edge, the edge included, and begins behind the one before. A bucket without a member has no
    rate and is left out. Raises ValueError for lengths that are no whole numbers of tokens, are negative or go beyond
    the last edge, and for edges that do not rise.
    """
    lengths, edges = clean_scores(lengths, "lengths"), [int(edge) for edge in edges]
    if (lengths % 1 != 0).any():
        raise ValueError("lengths are counted in whole tokens")
    if not edges or edges[0] < 0 or sorted(set(edges)) != edges:
        raise ValueError(f"edges must rise from 0 or more, not {edges}")
    bounds = [0, *(edge + 1 for edge in edges)]
    table = rate_by_length(lengths, outcomes, bounds)
    # a group's mean length lies inside its bucket
    return {
        f"to_{edges[np.digitize(row.length, bounds) - 1]}": Estimate(row.rate, row.low, row.high, int(row.n))
        for row in table.itertuples()
    }


def bag_of_words_baseline(train_texts, train_labels, *other_texts, tfidf: bool = True, seed: int = 0):
    """What word counts alone can do: one- and two-word features, logistic regression (chapters 01 and 02).

    Returns the probability of the positive class for each text of `other_texts`: one array for one split, a list of
    arrays for several.
    """
    # to the optimum: scikit-learn's own tolerance stops where rounding decides, and the next processor stops elsewhere
    solver = LogisticRegression(max_iter=20_000, tol=1e-8, C=10.0, random_state=seed)
    make = TfidfVectorizer if tfidf else CountVectorizer
    features = make(ngram_range=(1, 2), lowercase=True, token_pattern=r"[^\s.,!?:;\"()]+")
    model = make_pipeline(features, solver)
    model.fit(list(train_texts), np.asarray(train_labels, bool))
    scores = [model.predict_proba(list(texts))[:, 1] for texts in other_texts]
    return scores[0] if len(scores) == 1 else scores


def reliability_table(labels, probabilities, bins: int = 10) -> pd.DataFrame:
    """Said against seen, one row per filled bin of equal width: n, mean probability, rate, its Wilson interval."""
    probabilities, labels = clean_scores(probabilities, "probabilities"), np.asarray(labels, bool).reshape(-1)
    if probabilities.min() < 0 or probabilities.max() > 1 or labels.size != probabilities.size:
        raise ValueError("give one probability in [0, 1] per label")
    index = np.minimum((probabilities * bins).astype(int), bins - 1)
    rows = []
    for i in np.unique(index):
        inside = index == i
        seen, low, high, n = rate_of(labels[inside])
        rows.append((i / bins, (i + 1) / bins, n, probabilities[inside].mean(), seen, low, high))
    return pd.DataFrame(rows, columns=["from", "to", "n", "said", "seen", "low", "high"])


def expected_calibration_error(labels, probabilities, bins: int = 10) -> float:
    """Mean distance between said and seen, weighted by bin size."""
    table = reliability_table(labels, probabilities, bins)
    return float((table["n"] * (table["said"] - table["seen"]).abs()).sum() / table["n"].sum())
