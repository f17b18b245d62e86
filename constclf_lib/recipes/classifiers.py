"""Both classifiers by themselves on the test split, each beside a bag of words and shuffled labels.

Sections "input_classifier" and "output_classifier" of `data/reference_results.json`; chapters 01, 02 and 07 show them.
Deliberately not here: the two around an assistant (measure.py).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..evaluation import highest_scores, rate_of, tpr_at_fpr
from ..guard import Thresholds, score_prompts
from ..lab import LENGTH_EDGES, average_precision, bag_of_words_baseline, load_split
from ..models import InputClassifier, OutputClassifier
from ..streaming import score_completions
from ..tokenization import batch_text_ids


def classifier_table(labels, scores, threshold: float, groups: dict[str, np.ndarray]) -> dict:
    """Rates at the deployed threshold, threshold-free figures, and both rates for every group."""
    labels, scores = np.asarray(labels, bool), np.asarray(scores, float)
    flagged = scores > threshold
    table = {
        "tpr": rate_of(flagged[labels]),
        "fpr": rate_of(flagged[~labels]),
        "threshold": threshold,
        "average_precision": round(average_precision(labels, scores), 4),
        "tpr_at_1pct_fpr": round(tpr_at_fpr(labels, scores, 0.01), 4),
    }
    for name, members in groups.items():
        table[name] = {
            str(value): {
                side: rate_of(flagged[chosen])
                for side, chosen in (("tpr", (members == value) & labels), ("fpr", (members == value) & ~labels))
                if chosen.any()
            }
            for value in sorted(set(members))
        }
    return table


def measure_input(input_classifier: InputClassifier, limits: Thresholds) -> dict:
    """The input classifier on test, per attack kind and register, beside a bag of words and shuffled labels; and again
    on the requests that no attack disguises ("undisguised").
    """
    train, test = load_split("train"), load_split("test")
    scores = score_prompts(input_classifier, test.prompt.tolist()).harm.numpy()
    groups = {"by_attack": test.attack.to_numpy(), "by_register": test.register.to_numpy()}
    table = classifier_table(test.restricted, scores, limits.input, groups)
    learnt, asked = (train.prompt, train.restricted), (test.prompt, test.restricted)
    lengths, clear = token_counts(input_classifier.tokenizer, test.prompt), (test.attack == "").to_numpy()
    return table | beside_bag_of_words(learnt, asked, scores, lengths, {"undisguised": clear})


def measure_output(output_classifier: OutputClassifier, limits: Thresholds) -> dict:
    """The output classifier on the completions of test, beside a bag of words and shuffled labels; and again on those
    in plain words ("plain_replies"): those in a code it stops, whatever they say.
    """
    train, test = load_split("train"), load_split("test")
    scores = highest_scores(score_completions(output_classifier, test.completion.tolist()))
    table = classifier_table(test.harmful, scores, limits.output, {"by_reply_code": test.reply_code.to_numpy()})
    learnt, asked = (train.completion, train.harmful), (test.completion, test.harmful)
    lengths, plain = token_counts(output_classifier.tokenizer, test.completion), (test.reply_code == "").to_numpy()
    return table | beside_bag_of_words(learnt, asked, scores, lengths, {"plain_replies": plain})


def token_counts(tokenizer, texts: pd.Series) -> np.ndarray:
    return np.array([len(ids) for ids in batch_text_ids(tokenizer, texts)])


def beside_bag_of_words(train, test, scores, lengths, parts: dict[str, np.ndarray], seed: int = 0) -> dict:
    """TPR at false-positive rates of 0.1% and 1%, over all texts and up to each length: of the classifier (its
    `scores` on the test texts), of word counts, and of word counts whose labels mean nothing.

    train, test: (texts, labels). parts: the same again for some of the test texts, name -> bool per text.
    """
    (train_texts, wanted), (texts, real) = ((list(texts), np.asarray(labels, bool)) for texts, labels in (train, test))
    shuffled = np.random.default_rng(seed).permutation(wanted)
    by_name = {"classifier": np.asarray(scores, float)} | {
        name: bag_of_words_baseline(train_texts, target, texts)
        for name, target in (("bag_of_words", wanted), ("bag_of_words_shuffled_labels", shuffled))
    }
    everything = np.ones(len(real), bool)
    return compared(real, by_name, lengths, everything) | {
        name: compared(real, by_name, lengths, part) for name, part in parts.items()
    }


def compared(labels, by_name: dict[str, np.ndarray], lengths, part) -> dict:
    """The figures of `beside_bag_of_words` for the texts in `part`."""
    buckets = {"all": part} | {
        f"to_{high}": part & (lengths > low) & (lengths <= high)
        for low, high in zip((-1, *LENGTH_EDGES), LENGTH_EDGES, strict=False)
    }
    found: dict = {"n_by_length": {bucket: int(inside.sum()) for bucket, inside in buckets.items()}}
    for name, values in by_name.items():
        found[name] = {"average_precision": round(average_precision(labels[part], values[part]), 4)}
        for rate, key in ((0.001, "tpr_at_01pct_fpr"), (0.01, "tpr_at_1pct_fpr")):
            rates = {
                bucket: round(tpr_at_fpr(labels[inside], values[inside], rate), 4)
                for bucket, inside in buckets.items()
                if inside.any()
            }
            found[name] |= {key: rates.pop("all"), f"{key}_by_length": rates}
    return found
