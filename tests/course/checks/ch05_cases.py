"""Answers to the exercises of chapter 05, right and wrong."""

import torch


def records(z, mask):
    hidden = z.masked_fill(~mask, torch.finfo(z.dtype).min)
    return mask & (hidden == hidden.cummax(dim=0).values)


def records_with_prompt(z, mask):
    return mask & (z == z.cummax(dim=0).values)


def records_without_the_first(z, mask):
    top = z.masked_fill(~mask, -1e30).cummax(dim=0).values
    return mask & torch.cat([torch.zeros(1, dtype=torch.bool), top[1:] > top[:-1]])


def highest_only(z, mask):
    first = torch.zeros(len(z), dtype=torch.bool)
    first[0] = True
    return mask & (first | (z == z.max()))


def rises(z, mask):
    return mask & torch.cat([torch.ones(1, dtype=torch.bool), z[1:] > z[:-1]])


def positions_of_records(z, mask):
    return records(z, mask).nonzero().flatten()


def padding_marked(z, mask):
    hidden = z.masked_fill(~mask, torch.finfo(z.dtype).min)
    return hidden == hidden.cummax(dim=0).values


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


def record_gradient(z, label):
    owner = z.cummax(dim=0).indices
    stood_for = torch.bincount(owner, minlength=len(z))
    return stood_for * (z.sigmoid() - label) / len(z)


def option_a(z, label):
    return (z.sigmoid() - label) / len(z)


def no_mean(z, label):
    return len(z) * record_gradient(z, label)


def counted_once(z, label):
    stands = torch.bincount(z.cummax(dim=0).indices, minlength=len(z)) > 0
    return stands * (z.sigmoid() - label) / len(z)


def sign(z, label):
    return -record_gradient(z, label)


def label_forgotten(z, label):
    return record_gradient(z, 0.0)


CASES = {
    "records": {
        "solution": records,
        "wrong": {
            "the maximum runs over the prompt": records_with_prompt,
            "the first is missing": records_without_the_first,
            "only the highest of all": highest_only,
            "rises over the neighbour": rises,
            "positions instead of flags": positions_of_records,
            "prompt positions marked": padding_marked,
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
    "record_gradient": {
        "solution": record_gradient,
        "wrong": {
            "option A": option_a,
            "no mean": no_mean,
            "each record once": counted_once,
            "wrong sign": sign,
            "label forgotten": label_forgotten,
        },
    },
}
