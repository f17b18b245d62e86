"""Answers to the exercises of chapter 06, right and wrong."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats


def ramp(step, total, end=0.75):
    return min(1.0, step / (end * total))


def never_clipped(step, total, end=0.75):
    return step / (end * total)


def over_all_steps(step, total, end=0.75):
    return step / total


def backwards(step, total, end=0.75):
    return max(0.0, 1.0 - step / (end * total))


def from_one(step, total, end=0.75):
    return min(1.0, (step + 1) / (end * total))


def other_default(step, total, end=1.0):
    return min(1.0, step / (end * total))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def parts(z, mask):
    highest = z.masked_fill(~mask, torch.finfo(z.dtype).min).cummax(dim=1).values
    return z.masked_fill(~mask, 0.0), highest.masked_fill(~mask, 0.0)


def loss_of(logit, labels, mask):
    losses = F.binary_cross_entropy_with_logits(logit, labels[:, None].expand_as(logit), reduction="none")
    return (losses.masked_fill(~mask, 0.0).sum(1) / mask.sum(1)).mean()


def mixed(now, highest, omega):
    a, b = math.log1p(-omega), math.log(omega)
    log_p = torch.logaddexp(a + F.logsigmoid(now), b + F.logsigmoid(highest))
    log_not_p = torch.logaddexp(a + F.logsigmoid(-now), b + F.logsigmoid(-highest))
    return log_p - log_not_p


def annealed(z, labels, mask, omega):
    now, highest = parts(z, mask)
    logit = now if omega == 0 else highest if omega == 1 else mixed(now, highest, omega)
    return loss_of(logit, labels, mask)


def sum_of_two(z, labels, mask, omega):
    now, highest = parts(z, mask)
    return (1 - omega) * loss_of(now, labels, mask) + omega * loss_of(highest, labels, mask)


def of_logits(z, labels, mask, omega):
    now, highest = parts(z, mask)
    return loss_of((1 - omega) * now + omega * highest, labels, mask)


def weights_swapped(z, labels, mask, omega):
    return annealed(z, labels, mask, 1 - omega)


def without_ends(z, labels, mask, omega):
    return loss_of(mixed(*parts(z, mask), omega), labels, mask)


def poisoned_ends(z, labels, mask, omega):
    now, highest = parts(z, mask)
    a, b = torch.tensor(1 - omega).log(), torch.tensor(omega).log()
    log_p = torch.logaddexp(a + F.logsigmoid(now), b + F.logsigmoid(highest))
    log_not_p = torch.logaddexp(a + F.logsigmoid(-now), b + F.logsigmoid(-highest))
    y = labels[:, None]
    losses = -torch.where(y > 0, y * log_p, 0 * y) - torch.where(y < 1, (1 - y) * log_not_p, 0 * y)
    return (losses.masked_fill(~mask, 0.0).sum(1) / mask.sum(1)).mean() + 0 * (a + b)


def literal(z, labels, mask, omega, tiny=0.0, dtype=torch.float32):
    now, highest = parts(z.to(dtype), mask)
    p = (1 - omega) * now.sigmoid() + omega * highest.sigmoid()
    y = labels[:, None]
    losses = -(y * (p + tiny).log() + (1 - y) * (1 - p + tiny).log())
    return (losses.masked_fill(~mask, 0.0).sum(1) / mask.sum(1)).mean()


def with_a_tiny_number(z, labels, mask, omega):
    return literal(z, labels, mask, omega, tiny=1e-7)


def in_double(z, labels, mask, omega):
    return literal(z, labels, mask, omega, dtype=torch.float64)


def prompt_in_the_maximum(z, labels, mask, omega):
    highest = z.cummax(dim=1).values
    return loss_of(mixed(z, highest, omega) if 0 < omega < 1 else z if omega == 0 else highest, labels, mask)


def hidden_with_infinity(z, labels, mask, omega):
    highest = z.masked_fill(~mask, -torch.inf).cummax(dim=1).values
    logit = mixed(z, highest, omega) if 0 < omega < 1 else z if omega == 0 else highest
    losses = F.binary_cross_entropy_with_logits(logit, labels[:, None].expand_as(logit), reduction="none")
    return ((losses * mask).sum(1) / mask.sum(1)).mean()


def over_all_tokens(z, labels, mask, omega):
    now, highest = parts(z, mask)
    logit = now if omega == 0 else highest if omega == 1 else mixed(now, highest, omega)
    losses = F.binary_cross_entropy_with_logits(logit, labels[:, None].expand_as(logit), reduction="none")
    return losses[mask].mean()


def record_cut_off(z, labels, mask, omega):
    now, highest = parts(z, mask)
    if omega in (0, 1):
        return annealed(z, labels, mask, omega)
    return loss_of(mixed(now, highest.detach(), omega), labels, mask)


def clamped(z, labels, mask, omega):
    return annealed(z.clamp(-80, 80), labels, mask, omega)


def annealed_in_double(z, labels, mask, omega):
    return annealed(z.double(), labels.double(), mask, omega)


def now_gradient(z, m, omega, label):
    p = (1 - omega) * sigmoid(z) + omega * sigmoid(m)
    slope = (1 - omega) * sigmoid(z) * (1 - sigmoid(z))
    return -slope / p if label else slope / (1 - p)


def of_the_sum(z, m, omega, label):
    return (1 - omega) * (sigmoid(z) - label)


def without_share(z, m, omega, label):
    return now_gradient(z, m, omega, label) / (1 - omega)


def wrong_sign(z, m, omega, label):
    return -now_gradient(z, m, omega, label)


def without_slope(z, m, omega, label):
    return now_gradient(z, m, omega, label) / (sigmoid(z) * (1 - sigmoid(z)))


def label_one_only(z, m, omega, label):
    return now_gradient(z, m, omega, 1.0)


def by_autograd(z, m, omega, label):
    z = torch.tensor(float(z), requires_grad=True)
    p = (1 - omega) * z.sigmoid() + omega * torch.tensor(float(m)).sigmoid()
    (-(label * p.log() + (1 - label) * (1 - p).log())).backward()
    return z.grad


def of_the_record(z, m, omega, label):
    p = (1 - omega) * sigmoid(z) + omega * sigmoid(m)
    slope = omega * sigmoid(m) * (1 - sigmoid(m))
    return -slope / p if label else slope / (1 - p)


def interval(first, second, factor=None, ddof=1, root=True):
    d = np.asarray(first, float) - np.asarray(second, float)
    factor = factor or stats.t.ppf(0.975, len(d) - 1)
    half = factor * d.std(ddof=ddof) / (math.sqrt(len(d)) if root else 1)
    return float(d.mean()), float(d.mean() - half), float(d.mean() + half)


def paired_interval(first, second):
    return interval(first, second)


def normal(first, second):
    return interval(first, second, factor=stats.norm.ppf(0.975))


def divides_by_n(first, second):
    return interval(first, second, ddof=0)


def without_root(first, second):
    return interval(first, second, root=False)


def second_minus_first(first, second):
    return interval(second, first)


def unpaired(first, second):
    mean = float(np.mean(first) - np.mean(second))
    n = len(first)
    half = stats.t.ppf(0.975, 2 * n - 2) * math.sqrt((np.var(first, ddof=1) + np.var(second, ddof=1)) / n)
    return mean, mean - half, mean + half


def always_five(first, second):
    return interval(first, second, factor=stats.t.ppf(0.975, 4))


CASES = {
    "ramp": {
        "solution": ramp,
        "wrong": {
            "never stops at 1": never_clipped,
            "over all steps": over_all_steps,
            "from B to A": backwards,
            "starts above 0": from_one,
            "another default": other_default,
        },
    },
    "annealed": {
        "solution": annealed,
        "wrong": {
            "sum of two losses": sum_of_two,
            "mixture of logits": of_logits,
            "weights swapped": weights_swapped,
            "log 0 at the ends": without_ends,
            "nan gradient at the ends": poisoned_ends,
            "literal": literal,
            "a tiny number inside the log": with_a_tiny_number,
            "literal in double": in_double,
            "the maximum runs over the prompt": prompt_in_the_maximum,
            "hidden with -inf": hidden_with_infinity,
            "mean over all tokens": over_all_tokens,
            "the record is cut off": record_cut_off,
            "clamped at 80": clamped,
        },
    },
    "now_gradient": {
        "solution": now_gradient,
        "wrong": {
            "sum of two losses": of_the_sum,
            "without 1 - omega": without_share,
            "wrong sign": wrong_sign,
            "without the sigmoid's slope": without_slope,
            "label 0 forgotten": label_one_only,
            "the record's gradient": of_the_record,
            "autograd": by_autograd,
        },
    },
    "paired_interval": {
        "solution": paired_interval,
        "wrong": {
            "1.96": normal,
            "divides by n": divides_by_n,
            "without the root of n": without_root,
            "second minus first": second_minus_first,
            "not paired": unpaired,
            "five seeds always": always_five,
        },
    },
}
