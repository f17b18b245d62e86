"""Answers to the exercises of chapter 06, right and wrong."""

import math

import numpy as np
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
    "now_gradient": {
        "solution": now_gradient,
        "wrong": {
            "sum of two losses": of_the_sum,
            "without 1 - omega": without_share,
            "wrong sign": wrong_sign,
            "without the sigmoid's slope": without_slope,
            "label 0 forgotten": label_one_only,
            "the record's gradient": of_the_record,
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
