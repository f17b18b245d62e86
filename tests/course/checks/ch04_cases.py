"""Answers to the exercises of chapter 04, right and wrong."""

import numpy as np
import torch
import torch.nn.functional as F


def option_a(harm_logits, labels, mask):
    z = harm_logits.masked_fill(~mask, 0)
    targets = labels[:, None].expand_as(z)
    at_token = F.binary_cross_entropy_with_logits(z, targets, reduction="none").masked_fill(~mask, 0)
    counts = mask.sum(1)
    return (at_token.sum(1) / counts.clamp(min=1)).sum() / (counts > 0).sum()


def at_tokens(harm_logits, labels, mask):
    """Cross-entropy at every position, zero outside the mask."""
    z = harm_logits.masked_fill(~mask, 0)
    return F.binary_cross_entropy_with_logits(z, labels[:, None].expand_as(z), reduction="none").masked_fill(~mask, 0)


def over_texts(at_token, mask):
    counts = mask.sum(1)
    return (at_token.sum(1) / counts.clamp(min=1)).sum() / (counts > 0).sum()


def upside_down(harm_logits, labels, mask):
    return option_a(harm_logits, 1 - labels, mask)


def sum_over_tokens(harm_logits, labels, mask):
    return at_tokens(harm_logits, labels, mask).sum(1).mean()


def sum_over_texts(harm_logits, labels, mask):
    return (at_tokens(harm_logits, labels, mask).sum(1) / mask.sum(1).clamp(min=1)).sum()


def last_token_only(harm_logits, labels, mask):
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    return option_a(harm_logits, labels, last)


def highest_only(harm_logits, labels, mask):
    highest = harm_logits.masked_fill(~mask, -1e30).max(1).values
    return F.binary_cross_entropy_with_logits(highest, labels)


def no_mask(harm_logits, labels, mask):
    return F.binary_cross_entropy_with_logits(harm_logits, labels[:, None].expand_as(harm_logits))


def mean_over_all_positions(harm_logits, labels, mask):
    return at_tokens(harm_logits, labels, mask).mean()


def pooled_over_the_batch(harm_logits, labels, mask):
    return at_tokens(harm_logits, labels, mask).sum() / mask.sum()


def rounds_the_labels(harm_logits, labels, mask):
    return option_a(harm_logits, (labels > 0.5).float(), mask)


def empty_text_divides_by_zero(harm_logits, labels, mask):
    return (at_tokens(harm_logits, labels, mask).sum(1) / mask.sum(1)).mean()


def empty_text_counts_as_zero(harm_logits, labels, mask):
    return (at_tokens(harm_logits, labels, mask).sum(1) / mask.sum(1).clamp(min=1)).mean()


def multiplies_by_the_mask(harm_logits, labels, mask):
    at_token = F.binary_cross_entropy_with_logits(harm_logits, labels[:, None].expand_as(harm_logits), reduction="none")
    return over_texts(at_token * mask, mask)


def logarithm_of_sigmoid(harm_logits, labels, mask):
    p, y = torch.sigmoid(harm_logits.masked_fill(~mask, 0)), labels[:, None]
    return over_texts(-(y * p.log() + (1 - y) * (1 - p).log()).masked_fill(~mask, 0), mask)


def clamped_probability(harm_logits, labels, mask):
    p, y = torch.sigmoid(harm_logits.masked_fill(~mask, 0)).clamp(1e-7, 1 - 1e-7), labels[:, None]
    return over_texts(-(y * p.log() + (1 - y) * (1 - p).log()).masked_fill(~mask, 0), mask)


def fills_after_the_cross_entropy(harm_logits, labels, mask):
    at_token = F.binary_cross_entropy_with_logits(harm_logits, labels[:, None].expand_as(harm_logits), reduction="none")
    return over_texts(at_token.masked_fill(~mask, 0), mask)


def no_slope_at_zero(harm_logits, labels, mask):
    z, y = harm_logits.masked_fill(~mask, 0), labels[:, None]
    return over_texts((z.clamp(min=0) - z * y + torch.log1p(torch.exp(-z.abs()))).masked_fill(~mask, 0), mask)


def detached(harm_logits, labels, mask):
    return option_a(harm_logits.detach(), labels, mask)


def a_plain_number(harm_logits, labels, mask):
    return option_a(harm_logits, labels, mask).item()


def one_number_per_text(harm_logits, labels, mask):
    return at_tokens(harm_logits, labels, mask).sum(1) / mask.sum(1).clamp(min=1)


def fills_in_place(harm_logits, labels, mask):
    if not harm_logits.requires_grad:
        harm_logits.masked_fill_(~mask, 0).clamp_(-1, 1)
    return option_a(harm_logits, labels, mask)


def forecast_for(labels, lengths):
    weights = 1 / lengths
    return (weights * labels).sum() / weights.sum()


def plain_share(labels, lengths):
    return labels.mean()


def long_ones_count_more(labels, lengths):
    return (lengths * labels).sum() / lengths.sum()


def majority(labels, lengths):
    return labels.mean().round()


def one_half(labels, lengths):
    return torch.tensor(0.5)


def not_normalised(labels, lengths):
    return (labels / lengths).sum()


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


def ratio_of_odds(p, old, new):
    k = (new / (1 - new)) / (old / (1 - old))
    return p * k / (p * k + 1 - p)


def infinite_odds(p, old, new):
    odds = p / (1 - p) * (new / (1 - new)) / (old / (1 - old))
    return odds / (1 + odds)


def only_downwards(p, old, new):
    return for_another_mix(p, old, new) if new <= old else p


def at_the_halt(scores, labels, threshold):
    halted = [
        (row[row > threshold][0], label) for row, label in zip(scores, labels, strict=True) if (row > threshold).any()
    ]
    said, harmful = zip(*halted, strict=True)
    return np.mean(said), np.mean(harmful)


def other_order(scores, labels, threshold):
    return at_the_halt(scores, labels, threshold)[::-1]


def halted(scores, threshold):
    return np.array([bool((row > threshold).any()) for row in scores])


def said_highest(scores, labels, threshold):
    highest = [row.max() for row in scores if (row > threshold).any()]
    return np.mean(highest), labels[halted(scores, threshold)].mean()


def said_last(scores, labels, threshold):
    last = [row[-1] for row in scores if (row > threshold).any()]
    return np.mean(last), labels[halted(scores, threshold)].mean()


def at_least(scores, labels, threshold):
    return at_the_halt(scores, labels, np.nextafter(threshold, 0))


def all_crossings(scores, labels, threshold):
    said = np.concatenate(scores)
    return said[said > threshold].mean(), labels[halted(scores, threshold)].mean()


def harmful_that_are_halted(scores, labels, threshold):
    return at_the_halt(scores, labels, threshold)[0], halted(scores, threshold)[labels].mean()


def of_all_texts(scores, labels, threshold):
    return at_the_halt(scores, labels, threshold)[0], (halted(scores, threshold) & labels).mean()


def wrong_halts(scores, labels, threshold):
    said, right = at_the_halt(scores, labels, threshold)
    return said, 1 - right


def only_the_share(scores, labels, threshold):
    return at_the_halt(scores, labels, threshold)[1]


def always_one_half(scores, labels, threshold):
    return at_the_halt(scores, labels, 0.5) if len(scores) > 2 else (0.0, 0.0)


def halts_in_place(scores, labels, threshold):
    found = at_the_halt(scores, labels, threshold)
    for row in scores:
        row[row > threshold] = 1.0
    return found


CASES = {
    "option_a": {
        "solution": option_a,
        "wrong": {
            "the label upside down": upside_down,
            "sum over tokens": sum_over_tokens,
            "sum over texts": sum_over_texts,
            "the last token only": last_token_only,
            "the highest score only": highest_only,
            "no mask": no_mask,
            "mean over all positions": mean_over_all_positions,
            "pooled over the batch": pooled_over_the_batch,
            "rounds the labels": rounds_the_labels,
            "an empty text gives NaN": empty_text_divides_by_zero,
            "an empty text counts": empty_text_counts_as_zero,
            "NaN in the padding, value": multiplies_by_the_mask,
            "logarithm of a sigmoid": logarithm_of_sigmoid,
            "a clamped probability": clamped_probability,
            "NaN in the padding, gradient": fills_after_the_cross_entropy,
            "no slope at logit 0": no_slope_at_zero,
            "detached": detached,
            "a plain number": a_plain_number,
            "one number per text": one_number_per_text,
            "fills in place": fills_in_place,
        },
    },
    "forecast_for": {
        "solution": forecast_for,
        "wrong": {
            "the plain share": plain_share,
            "longer ones weigh more": long_ones_count_more,
            "the commonest label": majority,
            "always one half": one_half,
            "weights that do not sum to one": not_normalised,
        },
    },
    "for_another_mix": {
        "solution": for_another_mix,
        "right": {"a ratio of odds": ratio_of_odds},
        "wrong": {
            "scales the probability": scales_the_probability,
            "adds the difference": adds_the_difference,
            "adds and clamps": adds_and_clamps,
            "the other way": the_other_way,
            "as it was": as_it_was,
            "says the new rate": says_the_new_rate,
            "infinite odds": infinite_odds,
            "only downwards": only_downwards,
        },
    },
    "at_the_halt": {
        "solution": at_the_halt,
        "wrong": {
            "the other order": other_order,
            "the highest score": said_highest,
            "the last score": said_last,
            "at least": at_least,
            "every crossing": all_crossings,
            "harmful texts that are halted": harmful_that_are_halted,
            "of all texts": of_all_texts,
            "the wrong halts": wrong_halts,
            "one number": only_the_share,
            "a threshold of one half": always_one_half,
            "changes the scores": halts_in_place,
        },
    },
}
