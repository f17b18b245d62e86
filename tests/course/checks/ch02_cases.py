"""Answers to the exercises of chapter 02, right and wrong."""

import math

import numpy as np
import torch


def off_label_mass(logits, verdict_ids):
    others = logits.index_fill(1, torch.tensor(verdict_ids), -torch.inf)
    return (others.logsumexp(dim=1) - logits.logsumexp(dim=1)).exp()


def one_minus(logits, verdict_ids):
    p = logits.softmax(dim=1)
    return 1 - p[:, verdict_ids[0]] - p[:, verdict_ids[1]]


def on_label(logits, verdict_ids):
    return logits.softmax(dim=1)[:, list(verdict_ids)].sum(dim=1)


def not_harmful(logits, verdict_ids):
    return 1 - logits.softmax(dim=1)[:, verdict_ids[0]]


def plain_exponentials(logits, verdict_ids):
    weights = logits.exp()
    keep = torch.ones(logits.shape[1], dtype=torch.bool)
    keep[list(verdict_ids)] = False
    return weights[:, keep].sum(dim=1) / weights.sum(dim=1)


def highest_other(logits, verdict_ids):
    p = logits.softmax(dim=1).clone()
    p[:, list(verdict_ids)] = 0
    return p.max(dim=1).values


def in_place(logits, verdict_ids):
    total = logits.logsumexp(dim=1)
    logits[:, list(verdict_ids)] = -torch.inf
    return (logits.logsumexp(dim=1) - total).exp()


def verdict_logits(logits, attention_mask):
    places = torch.arange(attention_mask.shape[1])
    last = (attention_mask * places).argmax(dim=1)
    return logits[torch.arange(len(logits)), last]


def last_column(logits, attention_mask):
    return logits[:, -1, :]


def no_minus_one(logits, attention_mask):
    last = attention_mask.sum(dim=1).clamp(max=logits.shape[1] - 1)
    return logits[torch.arange(len(logits)), last]


def first_one(logits, attention_mask):
    return logits[torch.arange(len(logits)), attention_mask.argmax(dim=1)]


def one_for_all(logits, attention_mask):
    return logits[:, attention_mask.sum(dim=1).min() - 1]


def all_pairs(logits, attention_mask):
    return logits[:, attention_mask.sum(dim=1) - 1]


def counts_only(logits, attention_mask):
    return logits[torch.arange(len(logits)), attention_mask.sum(dim=1) - 1]


def threshold_within_budget(benign_scores, max_fpr):
    ordered = np.sort(benign_scores)
    allowed = math.floor(max_fpr * len(ordered) + 1e-9)
    return ordered[len(ordered) - 1 - allowed]


def strictly_below(benign_scores, max_fpr):
    ordered = np.sort(benign_scores)[::-1]
    return ordered[max(int(max_fpr * len(ordered)) - 1, 0)]


def one_too_low(benign_scores, max_fpr):
    ordered = np.sort(benign_scores)[::-1]
    return ordered[int(max_fpr * len(ordered)) + 1]


def not_sorted(benign_scores, max_fpr):
    return benign_scores[len(benign_scores) - 1 - int(max_fpr * len(benign_scores))]


def just_below(benign_scores, max_fpr):
    ordered = np.sort(benign_scores)[::-1]
    allowed = int(max_fpr * len(ordered))
    return ordered[allowed] - (0.001 if ordered[max(allowed - 1, 0)] == ordered[allowed] else 0)


def a_half(benign_scores, max_fpr):
    return 0.5


def worst_group(groups, restricted, flagged):
    rates = {name: flagged[(groups == name) & ~restricted].mean() for name in set(groups[~restricted])}
    name = max(rates, key=rates.get)
    return name, rates[name]


def share_flagged(groups, restricted, flagged):
    rates = {name: flagged[groups == name].mean() for name in set(groups)}
    name = max(rates, key=rates.get)
    return name, rates[name]


def over_all_rows(groups, restricted, flagged):
    rates = {name: (flagged & ~restricted)[groups == name].mean() for name in set(groups)}
    name = max(rates, key=rates.get)
    return name, rates[name]


def over_all_benign(groups, restricted, flagged):
    rates = {name: (flagged & ~restricted & (groups == name)).sum() / (~restricted).sum() for name in set(groups)}
    name = max(rates, key=rates.get)
    return name, rates[name]


def best_group(groups, restricted, flagged):
    rates = {name: flagged[(groups == name) & ~restricted].mean() for name in set(groups[~restricted])}
    name = min(rates, key=rates.get)
    return name, rates[name]


def only_rate(groups, restricted, flagged):
    return max(flagged[(groups == name) & ~restricted].mean() for name in set(groups[~restricted]))


CASES = {
    "off_label_mass": {
        "solution": off_label_mass,
        "wrong": {
            "loses it to rounding": one_minus,
            "mass on the verdicts": on_label,
            "only harmful left out": not_harmful,
            "overflows": plain_exponentials,
            "largest instead of sum": highest_other,
            "changes the logits": in_place,
        },
    },
    "verdict_logits": {
        "solution": verdict_logits,
        "wrong": {
            "last column": last_column,
            "one too far": no_minus_one,
            "first real token": first_one,
            "one position for all": one_for_all,
            "indexes every row with every position": all_pairs,
            "right padding only": counts_only,
        },
    },
    "threshold_within_budget": {
        "solution": threshold_within_budget,
        "wrong": {
            "one too high": strictly_below,
            "one too low": one_too_low,
            "does not sort": not_sorted,
            "breaks ties": just_below,
            "one half": a_half,
        },
    },
    "worst_group": {
        "solution": worst_group,
        "wrong": {
            "counts attacks as false alarms": share_flagged,
            "divides by all rows of the group": over_all_rows,
            "divides by all benign rows": over_all_benign,
            "the best group": best_group,
            "no name": only_rate,
        },
    },
}
