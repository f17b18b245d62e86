"""Answers to the exercises of chapter 11, right and wrong."""

import math

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from constclf_lib.public_data.schemas import OPENAI_LABELS
from constclf_lib.tokenization import pad_batch


def harmful_of(labels):
    values = [labels.get(name) for name in OPENAI_LABELS]
    known = [value for value in values if not pd.isna(value)]
    if 1 in known:
        return True
    return False if len(known) == len(OPENAI_LABELS) else pd.NA


def harmful_by_counting(labels):
    values = [labels.get(name, math.nan) for name in OPENAI_LABELS]
    ones, zeros = (sum(not pd.isna(v) and v == wanted for v in values) for wanted in (1, 0))
    return np.bool_(ones > 0) if ones or zeros == 8 else math.nan


def missing_is_harmless(labels):
    return any(labels.get(name) is not pd.NA and labels.get(name) == 1 for name in OPENAI_LABELS)


def truth_of_nan(labels):
    return (
        any(bool(value) for value in labels.values())
        if len(labels) == 8
        else pd.NA
        if 1 not in labels.values()
        else True
    )


def complete_rows_only(labels):
    values = [labels.get(name) for name in OPENAI_LABELS]
    return pd.NA if any(pd.isna(value) for value in values) else 1 in values


def keys_only(labels):
    """Looks for missing keys, but not for missing values."""
    if any(value is not pd.NA and value == 1 for value in labels.values()):
        return True
    return False if len(labels) == 8 else pd.NA


def one_label(labels):
    return harmful_of({**labels, "S3": 0, "H2": 0, "V2": 0})


def as_a_word(labels):
    found = harmful_of(labels)
    return "unknown" if found is pd.NA else found


def states_of(body, rows, batch):
    found = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            ids, mask = pad_batch(part, 0)
            states = body(input_ids=ids, attention_mask=mask).last_hidden_state
            found += [states[i, : len(row)].clone() for i, row in enumerate(part)]
    return found


def states_by_length(body, rows, batch):
    """Sorted, so that there is little padding, and back in order."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found = states_of(body, [rows[i] for i in order], batch)
    back = dict(zip(order, found, strict=True))
    return [back[i] for i in range(len(rows))]


def states_padded_left(body, rows, batch):
    found = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        longest = max(map(len, part))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in part])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in part])
        with torch.no_grad():
            states = body(ids, mask).last_hidden_state
        found += [states[i, longest - len(row) :].clone() for i, row in enumerate(part)]
    return tuple(found)


def states_with_padding(body, rows, batch):
    found = []
    with torch.no_grad():
        for start in range(0, len(rows), batch):
            ids, mask = pad_batch(rows[start : start + batch], 0)
            found += [x.clone() for x in body(ids, mask).last_hidden_state]
    return found


def states_in_another_order(body, rows, batch):
    return states_of(body, sorted(rows, key=len), batch)


def states_from_the_wrong_end(body, rows, batch):
    found = []
    with torch.no_grad():
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            longest = max(map(len, part))
            ids = torch.tensor([[0] * (longest - len(row)) + row for row in part])
            states = body(ids).last_hidden_state  # no mask
            found += [states[i, longest - len(row) :].clone() for i, row in enumerate(part)]
    return found


def states_with_a_graph(body, rows, batch):
    found = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        states = body(*pad_batch(part, 0)).last_hidden_state
        found += [states[i, : len(row)].clone() for i, row in enumerate(part)]
    return found


def states_as_views(body, rows, batch):
    found = []
    with torch.no_grad():
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            states = body(*pad_batch(part, 0)).last_hidden_state
            found += [states[i, : len(row)] for i, row in enumerate(part)]
    return found


def states_one_by_one(body, rows, batch):
    return states_of(body, rows, 1)


def states_all_at_once(body, rows, batch):
    return states_of(body, rows, len(rows))


def states_without_the_rest(body, rows, batch):
    return states_of(body, rows[: len(rows) // batch * batch], batch)


def mean_states(body, rows, batch):
    return torch.stack([x.mean(0) for x in states_of(body, rows, batch)])


def loss_in_chunks(logits_of, states, targets, rows):
    def part(x, y):
        return F.cross_entropy(logits_of(x), y, reduction="sum")

    pairs = zip(states.split(rows), targets.split(rows), strict=True)
    return sum(checkpoint(part, x, y, use_reentrant=False) for x, y in pairs) / len(targets)


class _GradientAtOnce(torch.autograd.Function):
    """The gradient is made while the logits of a chunk are there, and kept instead of them."""

    @staticmethod
    def forward(ctx, states, targets, rows, logits_of):
        total, gradients = 0.0, []
        weight = torch.zeros_like(logits_of.weight)
        for x, y in zip(states.split(rows), targets.split(rows), strict=True):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                loss = F.cross_entropy(logits_of(x), y, reduction="sum") / len(targets)
            got = torch.autograd.grad(loss, [x, logits_of.weight])
            total, weight = total + loss.detach(), weight + got[1]
            gradients.append(got[0])
        ctx.head = logits_of
        ctx.save_for_backward(torch.cat(gradients), weight)
        return total

    @staticmethod
    def backward(ctx, upstream):
        states, weight = ctx.saved_tensors
        ctx.head.weight.grad = upstream * weight
        return upstream * states, None, None, None


def loss_with_its_gradient(logits_of, states, targets, rows):
    return _GradientAtOnce.apply(states, targets, rows, logits_of)


def loss_at_once(logits_of, states, targets, rows):
    return F.cross_entropy(logits_of(states), targets)


def loss_kept(logits_of, states, targets, rows):
    pairs = zip(states.split(rows), targets.split(rows), strict=True)
    return sum(F.cross_entropy(logits_of(x), y, reduction="sum") for x, y in pairs) / len(targets)


def mean_of_means(logits_of, states, targets, rows):
    pairs = list(zip(states.split(rows), targets.split(rows), strict=True))
    each = [checkpoint(lambda x, y: F.cross_entropy(logits_of(x), y), x, y, use_reentrant=False) for x, y in pairs]
    return sum(each) / len(each)


def summed(logits_of, states, targets, rows):
    return loss_in_chunks(logits_of, states, targets, rows) * len(targets)


def without_the_rest(logits_of, states, targets, rows):
    whole = len(targets) // rows * rows
    return loss_in_chunks(logits_of, states[:whole], targets[:whole], rows)


def without_gradient(logits_of, states, targets, rows):
    with torch.no_grad():
        return loss_in_chunks(logits_of, states, targets, rows)


def detached(logits_of, states, targets, rows):
    return loss_in_chunks(logits_of, states.detach(), targets, rows)


def loss_as_number(logits_of, states, targets, rows):
    return loss_in_chunks(logits_of, states, targets, rows).item()


def rows_of_step(order, step, batch, process, processes):
    return order[step * batch : (step + 1) * batch][process::processes]


def rows_in_stretches(order, step, batch, process, processes):
    share = batch // processes
    start = step * batch + process * share
    return np.array(order)[start : start + share]


def a_whole_batch_each(order, step, batch, process, processes):
    start = (step * processes + process) * batch
    return order[start : start + batch]


def the_same_for_all(order, step, batch, process, processes):
    return order[step * batch : (step + 1) * batch]


def shards_of_the_epoch(order, step, batch, process, processes):
    size, share = len(order) // processes, batch // processes
    return order[process * size :][step * share : (step + 1) * share]


def unequal(order, step, batch, process, processes):
    whole = order[step * batch : (step + 1) * batch]
    if processes == 1:
        return whole
    cut = batch // processes + 1
    return whole[:cut] if process == 0 else whole[cut:]


def overlapping(order, step, batch, process, processes):
    start = step * batch + process
    return order[start : start + batch // processes]


def steps_from_one(order, step, batch, process, processes):
    return rows_of_step(order, step - 1, batch, process, processes)


CASES = {
    "harmful_of": {
        "solution": harmful_of,
        "right": {"by counting": harmful_by_counting},
        "wrong": {
            "missing is harmless": missing_is_harmless,
            "nan is true": truth_of_nan,
            "complete rows only": complete_rows_only,
            "missing keys only": keys_only,
            "five labels": one_label,
            "unknown as a word": as_a_word,
        },
    },
    "states_of": {
        "solution": states_of,
        "right": {"sorted by length": states_by_length, "padded on the left": states_padded_left},
        "wrong": {
            "padding kept": states_with_padding,
            "another order": states_in_another_order,
            "padded on the left, no mask": states_from_the_wrong_end,
            "with a graph": states_with_a_graph,
            "views": states_as_views,
            "one by one": states_one_by_one,
            "all at once": states_all_at_once,
            "the last batch is missing": states_without_the_rest,
            "means": mean_states,
        },
    },
    "loss_in_chunks": {
        "solution": loss_in_chunks,
        "right": {"gradient at once": loss_with_its_gradient},
        "wrong": {
            "at once": loss_at_once,
            "kept for the backward pass": loss_kept,
            "mean of means": mean_of_means,
            "sum": summed,
            "the rest is missing": without_the_rest,
            "no gradient": without_gradient,
            "detached": detached,
            "a number": loss_as_number,
        },
    },
    "rows_of_step": {
        "solution": rows_of_step,
        "right": {"stretches": rows_in_stretches},
        "wrong": {
            "a whole batch each": a_whole_batch_each,
            "the same for all": the_same_for_all,
            "shards of the epoch": shards_of_the_epoch,
            "unequal": unequal,
            "overlapping": overlapping,
            "steps from one": steps_from_one,
        },
    },
}
