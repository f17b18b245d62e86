"""Checks of chapter 04, option A."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from .framework import NotYet, exercise


@exercise("4.1")
def forecast_for(answer):
    labels, lengths = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([10, 20, 20])
    value = float(answer(labels.clone(), lengths.clone()))
    if not 0 <= value <= 1:
        raise NotYet(f"labels [1, 0, 0] and lengths [10, 20, 20] give {value:.3g}; a forecast lies in [0, 1].")
    if value in (0.0, 1.0):
        raise NotYet(
            f"you return {value:.0f}, the commonest label; the loss of the other one would grow without bound. Hedge."
        )
    if abs(value - 1 / 3) < 1e-4:
        raise NotYet(
            "1/3 counts every completion alike. Here the loss divides each one by its length, so the short one, which "
            "is harmful, weighs more."
        )
    if abs(value - 0.2) < 1e-4:
        raise NotYet("0.2 gives more weight to the *longer* completions; the mean over a completion does the reverse.")
    if abs(value - 0.5) > 1e-4:
        raise NotYet(f"for labels [1, 0, 0] and lengths [10, 20, 20] the forecast is 0.5, not {value:.3f}.")
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        labels = torch.rand(6, generator=generator).round()
        labels[0], labels[1] = 0.0, 1.0
        lengths = torch.randint(5, 60, (6,), generator=generator)
        value = float(answer(labels.clone(), lengths.clone()))
        slope = _slope(value, labels, lengths)
        if abs(slope) > 1e-4:
            side = "higher" if slope < 0 else "lower"
            raise NotYet(
                f"labels {labels.int().tolist()}, lengths {lengths.tolist()}: the loss at {value:.3f} still falls, "
                f"a {side} forecast is better."
            )


def _slope(value, labels, lengths):
    """d loss / d logit of one shared prefix token that is worth `value`."""
    logit = torch.tensor(value, dtype=torch.float64).clamp(1e-9, 1 - 1e-9).logit().requires_grad_()
    losses = F.binary_cross_entropy_with_logits(logit.expand(len(labels)), labels.double(), reduction="none")
    (losses / lengths).sum().backward()
    return float(logit.grad)


@exercise("4.3")
def flagged_within(answer):
    rows = [
        [0.1, 0.9, 0.2], [0.1, 0.2, 0.9], [0.6, 0.1],  # cross 0.5 within three tokens
        [0.3, 0.5, 0.1], [0.5],  # only reach it
        [0.2, 0.1, 0.1, 0.8], [0.2, 0.1, 0.3, 0.2, 0.9], [0.1, 0.2, 0.1, 0.1, 0.7],  # cross later
        [0.2, 0.1], [0.4, 0.4, 0.4],
    ]  # fmt: skip
    given = [np.array(row) for row in rows]
    got = float(answer(given, 0.5, 3))
    if any(not np.array_equal(a, b) for a, b in zip(given, rows, strict=True)):
        raise NotYet("you changed the scores in place; work on a copy, the next length needs them.")
    mistakes = {
        0.5: "a score that equals the threshold does not flag: score > threshold, strictly, as in the calibration.",
        0.6: "a crossing after the first 3 tokens has not happened yet; look at the first `tokens` scores only.",
        0.8: "you flag scores that only equal the threshold, and crossings that come after the first 3 tokens.",
        0.4: "you look at four tokens instead of three.",
        0.2: "you look at two tokens instead of three.",
        0.1: "you look at one score only. A guard stops at the *first* crossing: what was crossed stays crossed.",
        2 / 7: "you leave out completions shorter than 3 tokens. They were served too: they stay in the denominator.",
        3 / 26: "you count tokens; the guard stops completions. One crossing flags the whole completion, once.",
        3.0: "that is a count; give the share of the completions.",
        0.0: "you flag nobody, but the first completion crosses 0.5 at its second token.",
    }
    for value, words in mistakes.items():
        if abs(got - value) < 1e-6:
            raise NotYet(f"of ten completions three cross 0.5 within 3 tokens, so 0.3; you return {got:.3g}: {words}")
    if abs(got - 0.3) > 1e-6:
        raise NotYet(f"of ten completions three cross 0.5 within 3 tokens, so the answer is 0.3, not {got:.3g}.")
    if float(answer([np.zeros(0), np.array([0.9])], 0.5, 2)) != 0.5:
        raise NotYet("an empty completion is never flagged, and it counts: with one that crosses, 0.5.")


@exercise("4.2")
def for_another_mix(answer):
    same = torch.tensor([0.1, 0.5, 0.9])
    got = answer(same.clone(), 0.4, 0.4)
    if not isinstance(got, torch.Tensor) or got.shape != same.shape:
        raise NotYet("for three forecasts give three forecasts back, as a tensor of the same shape.")
    if not torch.allclose(got, same, atol=1e-5):
        raise NotYet(f"the mix did not change (0.4 to 0.4), but 0.1, 0.5, 0.9 became {_told(got)}.")
    known = float(answer(torch.tensor([0.4]), 0.4, 0.1))
    if abs(known - 0.1) > 1e-4:
        raise NotYet(
            f"a forecast that says only the old base rate, 0.4, should say the new one, 0.1; yours says {known:.3f}."
        )
    got = answer(torch.tensor([0.0, 1.0, 0.9]), 0.4, 0.1)
    if not got.isfinite().all():
        raise NotYet(f"from 0.4 to 0.1 the forecasts 0, 1 and 0.9 became {_told(got)}: certainty has infinite odds.")
    if got.min() < 0 or got.max() > 1:
        raise NotYet(f"from 0.4 to 0.1 the forecasts 0, 1 and 0.9 became {_told(got)}; a probability stays in [0, 1].")
    if abs(float(got[1]) - 1) > 1e-4:
        raise NotYet(
            f"a certain forecast, 1.0, became {float(got[1]):.3f}: scaling the probability makes certainty impossible. "
            "Scale the odds."
        )
    old, new = 0.4, 0.1
    wanted = 9 * (new / (1 - new)) / (old / (1 - old))
    wanted = wanted / (1 + wanted)
    if abs(float(got[2]) - wanted) > 1e-4:
        raise NotYet(f"from 0.4 to 0.1 a forecast of 0.9 becomes {wanted:.2f}, not {float(got[2]):.2f}. Work in odds.")


def _told(values):
    return ", ".join(f"{float(value):.2f}" for value in values)
