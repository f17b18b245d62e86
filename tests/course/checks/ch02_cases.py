"""Answers to the exercises of chapter 02, right and wrong."""

import math
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F


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


def verdict_loss(logits, attention_mask, verdict_ids):
    places = torch.arange(attention_mask.shape[1])
    last = (attention_mask * places).argmax(dim=1)
    return F.cross_entropy(logits[torch.arange(len(logits)), last].float(), verdict_ids)


def targets_elsewhere_ignored(logits, attention_mask, verdict_ids):
    targets = torch.full(attention_mask.shape, -100)
    for row, real in enumerate(attention_mask):
        targets[row, int(real.nonzero().max())] = verdict_ids[row]
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


def one_by_one(logits, attention_mask, verdict_ids):
    losses = []
    for row, real, word in zip(logits.double(), attention_mask, verdict_ids, strict=True):
        at = row[int(real.nonzero()[-1])]
        losses.append(at.logsumexp(0) - at[word])
    return torch.stack(losses).mean().reshape(1)


def _losses(logits, verdict_ids):
    """At every position, [batch, time]."""
    return F.cross_entropy(logits.transpose(1, 2), verdict_ids[:, None].expand(-1, logits.shape[1]), reduction="none")


def _last(logits, attention_mask):
    return logits[torch.arange(len(logits)), attention_mask.sum(dim=1) - 1]


def counts_only(logits, attention_mask, verdict_ids):
    return F.cross_entropy(_last(logits, attention_mask), verdict_ids)


def last_column(logits, attention_mask, verdict_ids):
    return F.cross_entropy(logits[:, -1], verdict_ids)


def shifted(logits, attention_mask, verdict_ids):
    return F.cross_entropy(logits[torch.arange(len(logits)), attention_mask.sum(dim=1) - 2], verdict_ids)


def no_minus_one(logits, attention_mask, verdict_ids):
    last = attention_mask.sum(dim=1).clamp(max=logits.shape[1] - 1)
    return F.cross_entropy(logits[torch.arange(len(logits)), last], verdict_ids)


def first_one(logits, attention_mask, verdict_ids):
    return F.cross_entropy(logits[torch.arange(len(logits)), attention_mask.argmax(dim=1)], verdict_ids)


def everywhere(logits, attention_mask, verdict_ids):
    return _losses(logits, verdict_ids)[attention_mask.bool()].mean()


def padding_too(logits, attention_mask, verdict_ids):
    return _losses(logits, verdict_ids).mean()


def summed(logits, attention_mask, verdict_ids):
    return F.cross_entropy(_last(logits, attention_mask), verdict_ids, reduction="sum")


def over_all_tokens(logits, attention_mask, verdict_ids):
    return summed(logits, attention_mask, verdict_ids) / attention_mask.sum()


def over_all_positions(logits, attention_mask, verdict_ids):
    return summed(logits, attention_mask, verdict_ids) / attention_mask.numel()


def two_words(logits, attention_mask, verdict_ids):
    words = verdict_ids.unique()
    return F.cross_entropy(_last(logits, attention_mask)[:, words], torch.searchsorted(words, verdict_ids))


def no_logarithm(logits, attention_mask, verdict_ids):
    return -_last(logits, attention_mask).softmax(dim=1).gather(1, verdict_ids[:, None]).mean()


def no_minus(logits, attention_mask, verdict_ids):
    return -counts_only(logits, attention_mask, verdict_ids)


def a_number(logits, attention_mask, verdict_ids):
    return verdict_loss(logits, attention_mask, verdict_ids).item()


def detached(logits, attention_mask, verdict_ids):
    return torch.tensor(verdict_loss(logits, attention_mask, verdict_ids).item())


def log_of_softmax(logits, attention_mask, verdict_ids):
    places = torch.arange(attention_mask.shape[1])
    last = (attention_mask * places).argmax(dim=1)
    rows = logits[torch.arange(len(logits)), last]
    return -rows.softmax(dim=1).gather(1, verdict_ids[:, None]).log().mean()


def one_per_prompt(logits, attention_mask, verdict_ids):
    return F.cross_entropy(_last(logits, attention_mask), verdict_ids, reduction="none")


def by_expm1(logits, verdict_ids):
    wide = logits.double()
    return -torch.expm1(wide[:, list(verdict_ids)].logsumexp(dim=1) - wide.logsumexp(dim=1))


def one_minus_in_float64(logits, verdict_ids):
    return one_minus(logits.double(), verdict_ids)


def clamped_in_float64(logits, verdict_ids):
    return one_minus(logits.double(), verdict_ids).clamp(min=1e-30)


def maximum_of_the_batch(logits, verdict_ids):
    return plain_exponentials(logits - logits.max(), verdict_ids)


def sums_of_softmax(logits, verdict_ids):
    return logits.softmax(dim=1).index_fill(1, torch.tensor(verdict_ids), 0.0).sum(dim=1)


def off_label_list(logits, verdict_ids):
    return off_label_mass(logits.double(), verdict_ids).tolist()


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


def rounded_down(benign_scores, max_fpr):
    ordered = np.sort(benign_scores)
    return ordered[len(ordered) - 1 - int(max_fpr * len(ordered))]


def midpoint(benign_scores, max_fpr):
    ordered = np.sort(benign_scores)
    allowed = math.floor(max_fpr * len(ordered) + 1e-9)
    at = len(ordered) - 1 - allowed
    return (ordered[at] + ordered[min(at + 1, len(ordered) - 1)]) / 2


def highest(benign_scores, max_fpr):
    ordered = np.sort(benign_scores)
    allowed = math.floor(max_fpr * len(ordered) + 1e-9)
    above = ordered[ordered > ordered[len(ordered) - 1 - allowed]]
    return np.nextafter(above[0], -np.inf) if len(above) else ordered[-1]


def in_float32(benign_scores, max_fpr):
    return np.float32(threshold_within_budget(benign_scores, max_fpr))


def as_tensor(benign_scores, max_fpr):
    return torch.tensor(threshold_within_budget(benign_scores, max_fpr))


def as_fraction(benign_scores, max_fpr):
    return Fraction(float(threshold_within_budget(benign_scores, max_fpr)))


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


def with_a_nan(groups, restricted, flagged):
    rates = {}
    for name in sorted(set(groups)):
        benign = (groups == name) & ~restricted
        rates[name] = (flagged & benign).sum() / benign.sum() if benign.any() else math.nan
    name = max(rates, key=rates.get)
    return name, rates[name]


def empty_means_worst(groups, restricted, flagged):
    rates = {}
    for name in set(groups):
        benign = flagged[(groups == name) & ~restricted]
        rates[name] = benign.mean() if len(benign) else 1.0
    name = max(rates, key=rates.get)
    return name, rates[name]


def begins_at_zero(groups, restricted, flagged):
    best = None, 0.0
    for name in set(groups[~restricted]):
        rate = flagged[(groups == name) & ~restricted].mean()
        if rate > best[1]:
            best = name, rate
    return best


def worst_in_float32(groups, restricted, flagged):
    name, rate = worst_group(groups, restricted, flagged)
    return [str(name), np.float32(rate)]


def worst_as_fraction(groups, restricted, flagged):
    name, rate = worst_group(groups, restricted, flagged)
    return name, Fraction(rate).limit_denominator(1000)


def only_rate(groups, restricted, flagged):
    return max(flagged[(groups == name) & ~restricted].mean() for name in set(groups[~restricted]))


CASES = {
    "verdict_loss": {
        "solution": verdict_loss,
        "right": {"ignored elsewhere": targets_elsewhere_ignored, "row by row, in float64": one_by_one},
        "wrong": {
            "right padding only": counts_only,
            "last column": last_column,
            "one too early": shifted,
            "one too late": no_minus_one,
            "first real token": first_one,
            "at every real token": everywhere,
            "at every position": padding_too,
            "sum over prompts": summed,
            "divided by all tokens": over_all_tokens,
            "divided by all positions": over_all_positions,
            "the two words alone": two_words,
            "probability, no logarithm": no_logarithm,
            "wrong sign": no_minus,
            "a number": a_number,
            "out of the graph": detached,
            "log of a softmax": log_of_softmax,
            "one loss per prompt": one_per_prompt,
        },
    },
    "off_label_mass": {
        "solution": off_label_mass,
        "right": {"sum of the others' softmax": sums_of_softmax, "a list": off_label_list},
        "wrong": {
            "loses it to rounding": one_minus,
            "mass on the verdicts": on_label,
            "only harmful left out": not_harmful,
            "overflows": plain_exponentials,
            "largest instead of sum": highest_other,
            "changes the logits": in_place,
            "rounds in float64": one_minus_in_float64,
            "rounds in float64, clamped": clamped_in_float64,
            "expm1 in float64": by_expm1,
            "the maximum of the whole batch": maximum_of_the_batch,
        },
    },
    "threshold_within_budget": {
        "solution": threshold_within_budget,
        "right": {"float32": in_float32, "tensor": as_tensor, "Fraction": as_fraction},
        "wrong": {
            "one too high": strictly_below,
            "one too low": one_too_low,
            "does not sort": not_sorted,
            "breaks ties": just_below,
            "one half": a_half,
            "28.999 is 28": rounded_down,
            "halfway to the next score": midpoint,
            "the highest that will do": highest,
        },
    },
    "worst_group": {
        "solution": worst_group,
        "right": {"a list, float32": worst_in_float32, "Fraction": worst_as_fraction},
        "wrong": {
            "counts attacks as false alarms": share_flagged,
            "divides by all rows of the group": over_all_rows,
            "divides by all benign rows": over_all_benign,
            "the best group": best_group,
            "no name": only_rate,
            "a nan in a group": with_a_nan,
            "no benign rows, rate 1": empty_means_worst,
            "begins at zero": begins_at_zero,
        },
    },
}
