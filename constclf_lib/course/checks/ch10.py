"""Checks of chapter 10, Constitutional Classifiers++: the probe, its loss, its average. (Streams: ch10_streams.py.)"""

from __future__ import annotations

import math
from collections.abc import Callable, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...losses import per_token_bce, softmax_weighted_bce
from .ch05 import draw, graded, near, numbers, ragged, shown
from .framework import NotYet, attempted, exercise


@exercise("10.1")
def probe_logits(answer):
    states = tuple(draw(seed, 2, 5, 3) + seed for seed in range(4))  # the embeddings, then what three layers leave
    layers = [3, 0]
    given = {"weight": draw(9, 6), "bias": 0.7, "mean": draw(10, 6), "scale": draw(11, 6).abs() + 0.5}
    together = torch.cat([states[layer] for layer in layers], dim=-1)
    want = ((together - given["mean"]) * given["scale"]) @ given["weight"] + given["bias"]
    found = numbers(answer(states, list(layers), **given), 2, 5)

    def like(features: Tensor, bias: float = given["bias"]) -> bool:
        return near(found, features @ given["weight"] + bias, 1e-4)

    def standardised(features: Tensor) -> Tensor:
        return (features - given["mean"]) * given["scale"]

    in_order = torch.cat([states[layer] for layer in sorted(layers)], dim=-1)
    one_less = torch.cat([states[layer - 1] for layer in layers], dim=-1)
    if near(found, want.sigmoid(), 1e-4):
        raise NotYet("you return probabilities; the logit is asked for, because a mean over tokens is taken of logits.")
    if like(standardised(together), 0.0):
        raise NotYet("the bias is missing: every logit is too low by it.")
    if like(together):
        raise NotYet("the states are not standardised: subtract `mean` and multiply by `scale` before the weights.")
    if like((together - given["mean"]) / given["scale"]):
        raise NotYet("`scale` is one over the deviation already: multiply by it, do not divide.")
    if like(together * given["scale"] - given["mean"]):
        raise NotYet("first subtract the mean, then scale what is left; you scale first.")
    if like(standardised(in_order)):
        raise NotYet("layers=[3, 0] puts the states of 3 first; yours come in the order of the model.")
    if like(standardised(one_less)):
        raise NotYet("hidden_states[0] are the embeddings, so layer n left hidden_states[n]; yours are off by one.")
    if not near(found, want, 1e-4):
        raise NotYet(f"for the first text the logits are {shown(want[0])}, you give {shown(found[0])}.")
    for picked in ([1], [2, 1, 0, 3]):
        size = 3 * len(picked)
        more = {"weight": draw(1, size), "bias": -1.0, "mean": draw(2, size), "scale": draw(3, size).abs()}
        features = (torch.cat([states[layer] for layer in picked], dim=-1) - more["mean"]) * more["scale"]
        if not near(numbers(answer(states, picked, **more), 2, 5), features @ more["weight"] - 1.0, 1e-4):
            raise NotYet(f"right for layers [3, 0], not for {picked}.")


def _weighted(z: Tensor, labels: Tensor, mask: Tensor, scores: Tensor) -> float:
    """Cross-entropies weighted by the softmax of `scores` over the scored positions."""
    y, weights = labels[:, None], scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=1)
    losses = -(y * torch.nn.functional.logsigmoid(z) + (1 - y) * torch.nn.functional.logsigmoid(-z))
    return float((losses * weights).masked_fill(~mask, 0.0).sum(dim=1).mean())


def _of_weighted_logit(z: Tensor, labels: Tensor, tau: float) -> float:
    """One cross-entropy, of the softmax-weighted mean of the logits (all scored): another probe's loss."""
    mean = (z * (z / tau).softmax(dim=1)).sum(dim=1)
    return float(torch.nn.functional.binary_cross_entropy_with_logits(mean, labels))


@exercise("10.2")
def softmax_weighted(answer):
    four = torch.ones(1, 4, dtype=torch.bool)
    z = torch.tensor([[0.0, 2.0, -1.0, 1.0]], dtype=torch.float64)
    for y in (1.0, 0.0):
        label = torch.tensor([y], dtype=torch.float64)
        found, want = graded(answer, z, label, four, 0.5)[0], float(softmax_weighted_bce(z, label, four, 0.5))
        asked = f"for logits {shown(z)}, label {y:.0f}, tau 0.5: "
        known = {
            float(per_token_bce(z, label, four)): "all four tokens weigh the same; that is option A.",
            _weighted(z, label, four, z * 0.5): "tau multiplies; the logits are divided by it.",
            _weighted(z, label, four, z): "tau is not used; the weights are the softmax of z / tau.",
            _weighted(
                z, label, four, z.sigmoid() / 0.5
            ): "your weights come from probabilities; the formula has logits.",
            _weighted(
                z, label, four, -z / 0.5
            ): "the quiet tokens weigh most; the sign in the softmax is turned round.",
            _of_weighted_logit(z, label, 0.5): "you weigh the logits and take one loss; weigh the four losses.",
            4 * want: "the weights sum to 4; a softmax sums to 1 by itself.",
            want / 4: "the weights sum to 1 already; you divide by the number of tokens once more.",
            float(softmax_weighted_bce(z, 1 - label, four, 0.5)): "you charge for the other label.",
        }
        for value, words in known.items():
            if abs(found - value) < 1e-7:
                raise NotYet(asked + words)
        if not abs(found - want) < 1e-7:
            raise NotYet(asked + f"the loss is {want:.6f}, you give {found:.6f}.")
    _check_mask(answer)
    _check_gradient(answer)
    _check_extremes(answer)
    for seed in range(6):
        z, mask = draw(seed, 5, 14).double(), ragged(seed, 5, 14)
        labels = torch.tensor([0.0, 1.0, 0.3, 1.0, 0.0], dtype=torch.float64)
        for tau in (0.3, 1.0, 5.0):
            want = float(softmax_weighted_bce(z, labels, mask, tau))
            if not abs((found := graded(answer, z, labels, mask, tau)[0]) - want) < 1e-7:
                raise NotYet(
                    f"for five random texts (one label is 0.3), tau {tau}: the loss is {want:.6f}, not {found:.6f}."
                )
    if not abs(graded(answer, z, labels, mask)[0] - float(softmax_weighted_bce(z, labels, mask))) < 1e-7:
        raise NotYet("without tau it should be 1.")


def _check_mask(answer: Callable) -> None:
    loud, behind = torch.tensor([[5.0, 4.0, -2.0, -1.0]]), torch.tensor([[False, False, True, True]])
    calm = torch.tensor([0.0])
    found, want = graded(answer, loud, calm, behind)[0], float(softmax_weighted_bce(loud, calm, behind))
    if found != found:
        raise NotYet(
            "with a prompt in front the loss is nan: hide it with a finite number, and fill with 0 at the end."
        )
    if found > 1:
        raise NotYet("a prompt token that scores 5 is charged to the reply behind it: it is not scored.")
    if want / 10 < found < want / 3:
        raise NotYet(
            "what is not scored still takes part in the softmax, with exp(0) each: hide it behind a lowest number."
        )
    if found < want / 2:
        raise NotYet(
            "a loud prompt takes part in the softmax and leaves next to nothing to the reply: mask before the softmax."
        )
    if not abs(found - want) < 1e-5:
        raise NotYet(f"of logits {shown(loud)} only the last two are scored: the loss is {want:.4f}, not {found:.4f}.")
    dirty = torch.tensor([[math.nan, 1.0, -1.0, math.inf]])
    middle = torch.tensor([[False, True, True, False]])
    found, gradient = graded(answer, dirty, calm, middle)
    if found != found or not gradient.isfinite().all():
        raise NotYet("a nan at a position that is not scored reaches the loss or its gradient: fill, do not multiply.")
    two, on = torch.tensor([[3.0, 0.0, 0.0], [-2.0, -1.0, -3.0]]), torch.tensor([[1, 0, 0], [1, 1, 1]]).bool()
    labels = torch.zeros(2)
    found, want = graded(answer, two, labels, on)[0], float(softmax_weighted_bce(two, labels, on))
    each = [float(softmax_weighted_bce(two[i, None], labels[:1], on[i, None])) for i in (0, 1)]
    if abs(found - sum(each)) < 1e-5:
        raise NotYet("you add the texts up; the loss of a batch is the mean over them.")
    if not abs(found - want) < 1e-5:
        raise NotYet(
            f"for two texts of 1 and 3 tokens the loss is {want:.4f}, you give {found:.4f}: each text has a softmax of "
            "its own."
        )


def _check_gradient(answer: Callable) -> None:
    z, label, three = torch.tensor([[3.0, 0.0, -4.0]]), torch.tensor([1.0]), torch.ones(1, 3, dtype=torch.bool)
    gradient, theirs = (graded(loss, z, label, three)[1] for loss in (answer, softmax_weighted_bce))
    fixed = z.softmax(dim=1) * (z.sigmoid() - label)
    if near(gradient, fixed, 1e-4):
        raise NotYet(
            "the value is right, but no gradient runs through your weights: they are logits too, so no detach there."
        )
    if not near(gradient, theirs, 1e-4):
        raise NotYet(f"the value is right; the gradient for logits {shown(z)}, label 1 is {shown(theirs)}.")


def _check_extremes(answer: Callable) -> None:
    three = torch.ones(1, 3, dtype=torch.bool)
    for size in (20.0, 200.0, 1e4):
        for y in (0.0, 1.0):
            z, label = torch.tensor([[-size, 0.0, size]]), torch.tensor([y])
            found, gradient = graded(answer, z, label, three)
            want, theirs = graded(softmax_weighted_bce, z, label, three)
            if not abs(found - want) <= 1e-3 + 1e-5 * size or not near(gradient, theirs, 1e-3):
                raise NotYet(
                    f"for logits {shown(z)}, label {y:.0f} the loss is {want:.5g}, you give {found:.5g}, gradient "
                    f"{shown(gradient)}: stay in logits (logsigmoid), and let softmax see to large numbers."
                )


def number_of(value: Any, what: str) -> float:
    """One number that a learner returned: a float, an array or a tensor of one element all do."""
    try:
        return float(attempted(value))
    except (TypeError, ValueError):
        raise NotYet(f"{what} should return one number, not {value!r}.") from None


def _smoothed(make: Callable, alpha: float, logits) -> list[float]:
    one = make(alpha)
    return [number_of(one.update(float(z)), "update") for z in logits]


def close_to(found, wanted) -> bool:
    return len(found) == len(wanted) and bool(np.allclose(found, wanted, rtol=0, atol=1e-6))


def _averages(logits, alpha: float, level: float | None = None) -> list[float]:
    """The exponential average of one number that starts at the first logit, or at `level`."""
    found = []
    for z in logits:
        level = z if level is None else (1 - alpha) * level + alpha * z
        found.append(level)
    return found


def _normalised(logits, alpha: float) -> list[float]:
    total, weight, found = 0.0, 0.0, []
    for z in logits:
        total, weight = (1 - alpha) * total + z, (1 - alpha) * weight + 1
        found.append(total / weight)
    return found


@exercise("10.3")
def ema(answer):
    logits, alpha = [-4.0, -4.0, -3.0, 2.0, 6.0, 6.0], 0.25
    got, wanted = _smoothed(answer, alpha, logits), _averages(logits, alpha)
    told = f"logits {logits}, alpha 0.25: "
    if close_to(got, _averages(logits, alpha, 0.0)):
        raise NotYet(
            told
            + f"your first value is {got[0]:.2f}, a probability of {1 / (1 + math.exp(-got[0])):.2f}: it starts at "
            "logit 0, which is 1/2. A calm reply begins half suspected."
        )
    if close_to(got, wanted[-1:] * 6) or close_to(got[1:], wanted[:-1]):
        raise NotYet(told + "you return the average before the new token; the token that is being judged counts.")
    if close_to(got, [1 / (1 + math.exp(-z)) for z in wanted]):
        raise NotYet(told + "you return probabilities; smooth the logits, and let the caller take the sigmoid.")
    if close_to(got, _averages(logits, 1 - alpha)):
        raise NotYet(told + "your alpha weighs the past; it is the weight of the new token.")
    if close_to(got, np.cumsum(logits) / np.arange(1, 7)):
        raise NotYet(told + "that is the mean of all tokens so far: alpha is not used.")
    if close_to(got, _normalised(logits, alpha)):
        raise NotYet(
            told + "that is the normalised average: a sound one, and the library's, but it keeps two numbers. Keep one."
        )
    if close_to(got, logits):
        raise NotYet(told + "you return the logits as they are.")
    if not close_to(got, wanted):
        raise NotYet(told + f"wanted {np.round(wanted, 3).tolist()}, you give {np.round(got, 3).tolist()}.")
    first = answer(alpha)
    first.update(8.0)
    second = answer(alpha)
    if abs(number_of(second.update(-8.0), "update") + 8) > 1e-6:
        raise NotYet("a second stream goes on where the first one stands: the number belongs to the object.")
    if abs(number_of(first.update(8.0), "update") - 8) > 1e-6:
        raise NotYet("two streams take turns and disturb each other: the number belongs to the object, into __init__.")
    long = answer(0.1)
    for z in range(200):
        long.update(float(z))
    kept = [value for value in getattr(long, "__dict__", {}).values() if isinstance(value, Sized) and len(value) > 2]
    if kept:
        raise NotYet(f"after 200 tokens you keep {len(kept[0])} numbers; one is enough.")
    zero = _smoothed(answer, 0.5, [0.0, 4.0])
    if close_to(zero, [0.0, 4.0]):
        raise NotYet(
            f"logits [0, 4], alpha 0.5: wanted [0, 2], you give {zero}. A level of 0 is a level; ask `is None`, not "
            "whether it is true."
        )
    draws = np.random.default_rng(0).normal(0, 5, 30).tolist()
    for alpha in (1.0, 0.6, 0.05):
        if not close_to(_smoothed(answer, alpha, draws), _averages(draws, alpha)):
            raise NotYet(f"right at alpha 0.25, not at {alpha}.")
