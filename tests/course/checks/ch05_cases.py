"""Answers to the exercises of chapter 05, right and wrong."""

import torch
import torch.nn.functional as F


def running_max(z, mask):
    return z.masked_fill(~mask, torch.finfo(z.dtype).min).cummax(dim=1).values


def as_it_is(z, mask):
    return z + 0.0


def of_the_whole_text(z, mask):
    hidden = z.masked_fill(~mask, torch.finfo(z.dtype).min)
    return hidden.max(dim=1, keepdim=True).values.expand_as(z)


def over_the_prompt(z, mask):
    return z.cummax(dim=1).values


def of_two_neighbours(z, mask):
    hidden = z.masked_fill(~mask, torch.finfo(z.dtype).min)
    return torch.cat([hidden[:, :1], torch.maximum(hidden[:, 1:], hidden[:, :-1])], dim=1)


def multiplied_away(z, mask):
    return (z * mask).cummax(dim=1).values


def floor_of_five(z, mask):
    return z.masked_fill(~mask, -5.0).cummax(dim=1).values


def floor_of_a_hundred(z, mask):
    return z.masked_fill(~mask, -100.0).cummax(dim=1).values


def minus_infinity(z, mask):
    return z.masked_fill(~mask, -torch.inf).cummax(dim=1).values


def detached(z, mask):
    return running_max(z, mask).detach()


def first_dimension(z, mask):
    return z.masked_fill(~mask, torch.finfo(z.dtype).min).cummax(dim=0).values


def only_one_sequence(z, mask):
    return running_max(z, mask)[0]


def changes_the_logits(z, mask):
    return z.masked_fill_(~mask, torch.finfo(z.dtype).min).cummax(dim=1).values


def gradient_to_all(z, mask):
    return running_max(z, mask).detach() + z - z.detach()


def tie_share(z):
    z = z.clone().requires_grad_()
    z.cummax(dim=0).values.sum().backward()
    return z.grad / z.grad.sum()


def tie_counts(z):
    return len(z) * tie_share(z)


def first_wins(z):
    owner = torch.tensor([int(z[: t + 1].argmax()) for t in range(len(z))])
    return torch.bincount(owner, minlength=len(z)) / len(z)


def evenly(z):
    top = (z == z.max()).float()
    return top / top.sum()


def last_takes_all(z):
    share = torch.zeros(len(z))
    share[int((z == z.max()).nonzero().max())] = 1.0
    return share


def in_place(z):
    z.requires_grad_().cummax(dim=0).values.sum().backward()
    return z.grad / z.grad.sum()


def even_at_each_position(z):
    total = torch.zeros(len(z))
    for t in range(len(z)):
        total[: t + 1] += evenly(z[: t + 1])
    return total / len(z)


def cross_entropy(logits, labels):
    return F.binary_cross_entropy_with_logits(logits, labels[:, None].expand_as(logits), reduction="none")


def per_sequence(losses, mask):
    return losses.masked_fill(~mask, 0.0).sum(1) / mask.sum(1)


def option_b(z, labels, mask):
    highest = running_max(z, mask).masked_fill(~mask, 0.0)
    return per_sequence(cross_entropy(highest, labels), mask).mean()


def option_a(z, labels, mask):
    return per_sequence(cross_entropy(z, labels), mask).mean()


def looks_ahead(z, labels, mask):
    return per_sequence(cross_entropy(of_the_whole_text(z, mask), labels), mask).mean()


def prompt_in_the_maximum(z, labels, mask):
    return per_sequence(cross_entropy(z.cummax(dim=1).values, labels), mask).mean()


def infinity_times_zero(z, labels, mask):
    losses = cross_entropy(minus_infinity(z, mask), labels)
    return ((losses * mask).sum(1) / mask.sum(1)).mean()


def mean_over_all_tokens(z, labels, mask):
    return cross_entropy(running_max(z, mask), labels)[mask].mean()


def padded_width(z, labels, mask):
    return cross_entropy(running_max(z, mask).masked_fill(~mask, 0.0), labels).masked_fill(~mask, 0.0).mean()


def sum_over_tokens(z, labels, mask):
    return (
        per_sequence(cross_entropy(running_max(z, mask).masked_fill(~mask, 0.0), labels), mask) * mask.sum(1)
    ).mean()


def sum_over_completions(z, labels, mask):
    return len(z) * option_b(z, labels, mask)


def from_probabilities(z, labels, mask):
    highest = running_max(z, mask).sigmoid().masked_fill(~mask, 0.5)
    losses = F.binary_cross_entropy(highest, labels[:, None].expand_as(highest), reduction="none")
    return per_sequence(losses, mask).mean()


def other_label(z, labels, mask):
    return option_b(z, 1 - labels, mask)


def hard_labels(z, labels, mask):
    return option_b(z, labels.round(), mask)


def no_gradient(z, labels, mask):
    return option_b(z, labels, mask).detach()


def not_a_tensor(z, labels, mask):
    return option_b(z, labels, mask).item()


def clamped(z, labels, mask):
    return option_b(z.clamp(-50, 50), labels, mask)


def option_b_in_float64(z, labels, mask):
    return option_b(z.double(), labels.double(), mask)


def record_gradient(z, labels, mask):
    owner = z.masked_fill(~mask, torch.finfo(z.dtype).min).cummax(dim=1).indices
    weight = mask / mask.sum(1, keepdim=True) / len(z)
    stood_for = torch.zeros_like(z).scatter_add(1, owner, weight)
    return stood_for * (z.sigmoid() - labels[:, None])


def gradient_by_autograd(z, labels, mask):
    z = z.clone().requires_grad_()
    option_b(z, labels, mask).backward()
    return z.grad


def gradient_of_a(z, labels, mask):
    return mask / mask.sum(1, keepdim=True) / len(z) * (z.sigmoid() - labels[:, None])


def no_mean(z, labels, mask):
    return record_gradient(z, labels, mask) * mask.sum(1, keepdim=True)


def counted_once(z, labels, mask):
    return (record_gradient(z, labels, mask) != 0) * gradient_of_a(z, labels, mask)


def sign(z, labels, mask):
    return -record_gradient(z, labels, mask)


def label_forgotten(z, labels, mask):
    return record_gradient(z, 0 * labels, mask)


def first_of_ties(z, labels, mask):
    nudged = z - 1e-4 * torch.arange(z.shape[1])
    return record_gradient(nudged, labels, mask)


def prompt_owns(z, labels, mask):
    owner = z.cummax(dim=1).indices
    weight = mask / mask.sum(1, keepdim=True) / len(z)
    return torch.zeros_like(z).scatter_add(1, owner, weight) * (z.sigmoid() - labels[:, None])


def width_not_length(z, labels, mask):
    return record_gradient(z, labels, mask) * mask.sum(1, keepdim=True) / mask.shape[1]


def no_batch_mean(z, labels, mask):
    return record_gradient(z, labels, mask) * len(z)


def over_the_whole_batch(z, labels, mask):
    return record_gradient(z, labels, mask) * mask.sum(1, keepdim=True) * len(z) / mask.sum()


def record_gradient_in_numpy(z, labels, mask):
    return record_gradient(z, labels, mask).numpy().tolist()


def best_opening(q, unsure, length):
    return q * unsure / (q * unsure + (1 - q) * length)


def share(q, unsure, length):
    return q


def one_token(q, unsure, length):
    return best_opening(q, 1, length)


def only_after(q, unsure, length):
    return best_opening(q, unsure, length - unsure)


def the_other_way(q, unsure, length):
    return 1 - best_opening(q, unsure, length)


def odds(q, unsure, length):
    return q * unsure / ((1 - q) * length)


def swapped(q, unsure, length):
    return best_opening(q, length, unsure)


def half(q, unsure, length):
    return 0.5


def rounded(q, unsure, length):
    return torch.tensor(best_opening(q, unsure, length))


CASES = {
    "running_max": {
        "solution": running_max,
        "wrong": {
            "option A": as_it_is,
            "the whole text": of_the_whole_text,
            "the maximum runs over the prompt": over_the_prompt,
            "neighbours only": of_two_neighbours,
            "hidden with 0": multiplied_away,
            "hidden with -5": floor_of_five,
            "hidden with -100": floor_of_a_hundred,
            "hidden with -inf": minus_infinity,
            "detached": detached,
            "along the batch": first_dimension,
            "one sequence": only_one_sequence,
            "in place": changes_the_logits,
            "gradient of option A": gradient_to_all,
        },
    },
    "tie_share": {
        "solution": tie_share,
        "wrong": {
            "counts instead of shares": tie_counts,
            "credits the first": first_wins,
            "splits evenly": evenly,
            "the last takes all": last_takes_all,
            "changes its argument": in_place,
            "splits at each position": even_at_each_position,
        },
    },
    "option_b": {
        "solution": option_b,
        "wrong": {
            "option A": option_a,
            "looks ahead": looks_ahead,
            "the maximum runs over the prompt": prompt_in_the_maximum,
            "nan": infinity_times_zero,
            "mean over all tokens": mean_over_all_tokens,
            "padded width": padded_width,
            "sum over tokens": sum_over_tokens,
            "sum over completions": sum_over_completions,
            "from probabilities": from_probabilities,
            "other label": other_label,
            "hard labels": hard_labels,
            "detached": no_gradient,
            "a float": not_a_tensor,
            "clamped at 50": clamped,
        },
    },
    "record_gradient": {
        "solution": record_gradient,
        "wrong": {
            "autograd": gradient_by_autograd,
            "option A": gradient_of_a,
            "no mean": no_mean,
            "each record once": counted_once,
            "wrong sign": sign,
            "label forgotten": label_forgotten,
            "first of ties": first_of_ties,
            "the prompt owns": prompt_owns,
            "padded width": width_not_length,
            "no mean over the batch": no_batch_mean,
            "tokens of the whole batch": over_the_whole_batch,
        },
    },
    "best_opening": {
        "solution": best_opening,
        "wrong": {
            "option A": share,
            "one unsure token": one_token,
            "harmless pays only after": only_after,
            "one minus": the_other_way,
            "odds": odds,
            "lengths swapped": swapped,
            "one half": half,
        },
    },
}
