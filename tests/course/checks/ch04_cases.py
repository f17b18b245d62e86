"""Answers to the exercises of chapter 04, right and wrong."""

import numpy as np
import torch


def forecast_for(labels, lengths):
    weights = 1 / lengths
    return (weights * labels).sum() / weights.sum()


def plain_share(labels, lengths):
    return labels.mean()


def long_ones_count_more(labels, lengths):
    return (lengths * labels).sum() / lengths.sum()


def majority(labels, lengths):
    return labels.mean().round()


def always_one_half(labels, lengths):
    return torch.tensor(0.5)


def not_normalised(labels, lengths):
    return (labels / lengths).sum()


def flagged_within(scores, threshold, tokens):
    return np.mean([bool((row[:tokens] > threshold).any()) for row in scores])


def at_least(scores, threshold, tokens):
    return np.mean([bool((row[:tokens] >= threshold).any()) for row in scores])


def whole_completion(scores, threshold, tokens):
    return np.mean([bool((row > threshold).any()) for row in scores])


def only_the_last(scores, threshold, tokens):
    return np.mean([bool(row.size and row[:tokens][-1] > threshold) for row in scores])


def long_ones_only(scores, threshold, tokens):
    return np.mean([bool((row[:tokens] > threshold).any()) for row in scores if len(row) >= tokens])


def share_of_tokens(scores, threshold, tokens):
    return np.mean(np.concatenate([row[:tokens] for row in scores]) > threshold)


def counts(scores, threshold, tokens):
    return sum(bool((row[:tokens] > threshold).any()) for row in scores)


def one_too_far(scores, threshold, tokens):
    return np.mean([bool((row[: tokens + 1] > threshold).any()) for row in scores])


def of_the_mean(scores, threshold, tokens):
    return np.mean([bool(row.size and row[:tokens].mean() > threshold) for row in scores])


def for_another_mix(p, old, new):
    harmful, harmless = p * new / old, (1 - p) * (1 - new) / (1 - old)
    return harmful / (harmful + harmless)


def scales_the_probability(p, old, new):
    return p * new / old


def adds_the_difference(p, old, new):
    return p + new - old


def adds_and_clamps(p, old, new):
    return (p + new - old).clamp(0, 1)


def the_other_way(p, old, new):
    return for_another_mix(p, new, old)


def as_it_was(p, old, new):
    return p


def says_the_new_rate(p, old, new):
    return torch.full_like(p, new)


def infinite_odds(p, old, new):
    odds = p / (1 - p) * (new / (1 - new)) / (old / (1 - old))
    return odds / (1 + odds)


CASES = {
    "forecast_for": {
        "solution": forecast_for,
        "wrong": {
            "the plain share": plain_share,
            "longer ones weigh more": long_ones_count_more,
            "the commonest label": majority,
            "always one half": always_one_half,
            "weights that do not sum to one": not_normalised,
        },
    },
    "flagged_within": {
        "solution": flagged_within,
        "wrong": {
            "at least": at_least,
            "the whole completion": whole_completion,
            "only the last token": only_the_last,
            "drops short completions": long_ones_only,
            "share of tokens": share_of_tokens,
            "a count": counts,
            "one token too far": one_too_far,
            "the mean": of_the_mean,
        },
    },
    "for_another_mix": {
        "solution": for_another_mix,
        "wrong": {
            "scales the probability": scales_the_probability,
            "adds the difference": adds_the_difference,
            "adds and clamps": adds_and_clamps,
            "the other way": the_other_way,
            "as it was": as_it_was,
            "says the new rate": says_the_new_rate,
            "infinite odds": infinite_odds,
        },
    },
}
