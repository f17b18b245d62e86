"""Small statistics for honest numbers: intervals, curves, tables, and the word-count baseline.

Built in chapters 01 and 02 (baseline, curves) and 04 and 06 (intervals over seeds). Only arrays come in; no model is
loaded here. `evaluation` hands every name of this module on, so notebooks import from there.

Deliberately not here: thresholds (calibration.py), p-values, and any rate without its n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats as _scipy_stats
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve
from sklearn.pipeline import make_pipeline


def clean_scores(scores, name: str = "scores") -> np.ndarray:
    """A flat float64 array. ValueError if it is empty or holds NaN: a missing score is an error, not a small number."""
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    if values.size == 0:
        raise ValueError(f"{name} is empty: there is nothing to calibrate or count on")
    if np.isnan(values).any():
        raise ValueError(
            f"{int(np.isnan(values).sum())} of {values.size} {name} are NaN: find out why before you go on"
        )
    return values


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion. It stays inside [0, 1] and says something at 0 of n: 3.8/n or so.

    Raises ValueError unless 0 <= successes <= trials and trials > 0.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials} is not a proportion")
    z = float(_scipy_stats.norm.ppf(0.5 + confidence / 2))
    rate, shrink = successes / trials, 1 + z * z / trials
    middle = (rate + z * z / (2 * trials)) / shrink
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / shrink
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    return low, (1.0 if successes == trials else min(1.0, middle + half))


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval for the mean over seeds (Student's t). ValueError with fewer than two: one seed has no spread."""
    values = clean_scores(values, "values")
    if values.size < 2:
        raise ValueError("an interval over seeds needs at least two of them")
    half = _scipy_stats.t.ppf(0.5 + confidence / 2, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size)
    return float(values.mean() - half), float(values.mean() + half)


class Difference(NamedTuple):
    """A difference with its interval; `n` pairs stand behind it."""

    mean: float
    low: float
    high: float
    n: int


def paired_difference(first, second, confidence: float = 0.95) -> Difference:
    """first - second, seed by seed, with a t-interval (chapter 06). Mappings are joined by key, sequences by position.

    Raises ValueError if the two do not pair up.
    """
    if isinstance(first, Mapping):
        if set(first) != set(second):
            raise ValueError(f"these seeds are on one side only: {sorted(set(first) ^ set(second))}")
        first, second = [first[key] for key in first], [second[key] for key in first]
    a, b = clean_scores(first, "first"), clean_scores(second, "second")
    if a.size != b.size:
        raise ValueError(f"{a.size} values cannot be paired with {b.size}")
    return Difference(float((a - b).mean()), *t_interval(a - b, confidence), int(a.size))


def paired_rate_difference(before, after, confidence: float = 0.95) -> Difference:
    """after - before for two yes/no outcomes of the same requests, in fractions (added refusals). Wilson limits of the
    two kinds of change, combined by square-and-add; it says something also when nothing changed."""
    before, after = np.asarray(before, bool).reshape(-1), np.asarray(after, bool).reshape(-1)
    if before.size != after.size or before.size == 0:
        raise ValueError(f"{before.size} outcomes before cannot be paired with {after.size} after")
    n = before.size
    up, down = int((after & ~before).sum()), int((before & ~after).sum())
    (up_low, up_high), (down_low, down_high) = wilson_interval(up, n, confidence), wilson_interval(down, n, confidence)
    mean = (up - down) / n
    low = mean - math.hypot(up / n - up_low, down_high - down / n)
    return Difference(mean, low, mean + math.hypot(up_high - up / n, down / n - down_low), n)


def bootstrap_interval(
    *samples, statistic: Callable[..., float] = np.mean, repeats: int = 2000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap of `statistic(*samples)`. Several samples are resampled together, row by row (a paired
    bootstrap).

    The interval of a mean over requests is about requests: it does not cover what another training seed would do.
    """
    arrays = [np.asarray(sample) for sample in samples]
    n = len(arrays[0]) if arrays else 0
    if n == 0 or any(len(array) != n for array in arrays):
        raise ValueError("give one or more samples of the same, non-zero length")
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(repeats):
        rows = random.integers(0, n, n)
        draws.append(float(statistic(*(array[rows] for array in arrays))))
    low, high = np.quantile(draws, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


# --------------------------------------------------------------------------------------------------------------- curves


def labelled(labels, scores) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels, bool).reshape(-1), clean_scores(scores)
    if labels.size != scores.size:
        raise ValueError(f"{labels.size} labels for {scores.size} scores")
    if labels.all() or not labels.any():
        raise ValueError("both classes are needed: these labels hold only one")
    return labels, scores


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
    """Per group: n, count, rate, low, high (Wilson). With `error` (a bool column) also `errors`; they stay in n,
    whatever their outcome says.

    Raises ValueError for a missing outcome value: an unknown outcome is an error to be counted, not a row to be
    dropped.
    """
    if data[outcome].isna().any():
        raise ValueError(
            f"{int(data[outcome].isna().sum())} rows have no {outcome!r}; mark them in an error column instead"
        )
    rows = []
    for key, part in data.groupby(group, sort=True, dropna=False):
        n, count = len(part), int(part[outcome].astype(bool).sum())
        low, high = wilson_interval(count, n)
        names = dict(zip([group], [key], strict=True)) if isinstance(group, str) else dict(zip(group, key, strict=True))
        errors = {} if error is None else {"errors": int(part[error].astype(bool).sum())}
        rows.append({**names, "n": n, "count": count, "rate": count / n, "low": low, "high": high, **errors})
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


def bag_of_words_baseline(train_texts, train_labels, *other_texts, tfidf: bool = True, seed: int = 0):
    """What word counts alone can do: one- and two-word features, logistic regression (DESIGN section 2, chapters 01 and
    02).

    Returns the probability of the positive class for each text of `other_texts`: one array for one split, a list of
    arrays for several.
    """
    make = TfidfVectorizer if tfidf else CountVectorizer
    features = make(ngram_range=(1, 2), lowercase=True, token_pattern=r"[^\s.,!?:;\"()]+")
    model = make_pipeline(features, LogisticRegression(max_iter=1000, C=10.0, random_state=seed))
    model.fit(list(train_texts), np.asarray(train_labels, bool))
    scores = [model.predict_proba(list(texts))[:, 1] for texts in other_texts]
    return scores[0] if len(scores) == 1 else scores
