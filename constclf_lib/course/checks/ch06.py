"""Checks of chapter 06, annealing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ...evaluation import paired_difference
from ...losses import annealed_bce, cumulative_max_bce, per_token_bce
from ...training import linear_anneal
from .ch05 import draw, graded, near, ragged, shown, without_autograd
from .framework import NotYet, exercise


@exercise("6.1")
def ramp(answer):
    def value(*given):
        return float(answer(*given))

    start, half, end = (value(step, 400, 0.75) for step in (0, 150, 300))
    if abs(start - 1) < 1e-6 and end < 0.5:
        raise NotYet("step 0 of 400 gives 1 and the ramp falls: omega starts at 0 (option A) and ends at 1 (option B).")
    if not abs(start) < 1e-6:
        raise NotYet(f"step 0 of 400 gives {start:.3g}; the first step should be pure option A, omega 0.")
    if abs(half - 150 / 400) < 1e-6:
        raise NotYet("step 150 of 400 gives 0.375: you ramp over all steps; with end=0.75 it is 1 from step 300 on.")
    if not abs(half - 0.5) < 1e-6 or not abs(end - 1) < 1e-6:
        raise NotYet(f"steps 150 and 300 of 400 with end=0.75 give {half:.3g} and {end:.3g}, not 0.5 and 1.")
    last = value(400, 400, 0.75)
    if not abs(last - 1) < 1e-6:
        raise NotYet(f"step 400 of 400 gives {last:.3g}; a weight of a mixture stays at 1 from the end on.")
    if not abs(value(150, 400) - value(150, 400, 0.75)) < 1e-6:
        raise NotYet("ramp(150, 400) should be the same as ramp(150, 400, 0.75): that is the default end.")
    for total, end in ((10, 1.0), (400, 0.5), (7, 0.3)):
        for step in range(total + 1):
            want, found = linear_anneal(step, total, end), value(step, total, end)
            if not abs(found - want) < 1e-6:
                raise NotYet(f"step {step} of {total} with end={end} should give {want:.4g}, you give {found:.4g}.")


def _of_logits(z: Tensor, labels: Tensor, mask: Tensor, omega: float) -> Tensor:
    """The cross-entropy of a mixture of *logits*: a plausible mistake."""
    hidden = z.masked_fill(~mask, torch.finfo(z.dtype).min).cummax(dim=1).values
    return per_token_bce((1 - omega) * z + omega * hidden.masked_fill(~mask, 0.0), labels, mask)


def _tried(answer: Callable, omega: float, *rest) -> tuple[float, Tensor]:
    """`graded`, with a diagnosis for a loss that cannot take omega 0 or 1."""
    try:
        return graded(answer, *rest, omega)
    except (ValueError, ZeroDivisionError) as error:
        if 0 < omega < 1:
            raise
        raise NotYet(
            f"omega {omega:g} raises {type(error).__name__}: log 0 has no value; the ends are A and B."
        ) from None


@exercise("6.2")
def annealed(answer):
    four, omega = torch.ones(1, 4, dtype=torch.bool), 0.25
    z, harmful, harmless = torch.tensor([[0.0, 2.0, -1.0, 1.0]]), torch.tensor([1.0]), torch.tensor([0.0])
    for label in (harmful, harmless):
        found, want = _tried(answer, omega, z, label, four)[0], float(annealed_bce(z, label, four, omega))
        a, b = float(per_token_bce(z, label, four)), float(cumulative_max_bce(z, label, four))
        known = {
            (1 - omega) * a + omega * b: "you give the sum of two losses. Mix the probabilities, then take one loss.",
            float(_of_logits(z, label, four, omega)): "you mix the *logits*; the sigmoids are to be mixed.",
            float(annealed_bce(z, label, four, 1 - omega)): "your omega weighs z_t; it is the weight of the maximum.",
            a: "you give option A's loss, whatever omega is.",
            b: "you give option B's loss, whatever omega is.",
            4 * want: "you add the positions up; the loss of a completion is the mean over its tokens.",
            float(annealed_bce(z, 1 - label, four, omega)): "you charge for the other label.",
        }
        for value, words in known.items():
            if abs(found - value) < 1e-5:
                raise NotYet(f"for logits {shown(z)}, omega 0.25, label {float(label):.0f}: {words}")
        if found != found:
            raise NotYet(f"for logits {shown(z)}, omega 0.25, label {float(label):.0f} the loss is nan.")
        if not abs(found - want) < 1e-5:
            raise NotYet(
                f"for logits {shown(z)}, omega 0.25, label {float(label):.0f} the loss is {want:.4f}, you give "
                f"{found:.4f}."
            )
    loud, answered = torch.tensor([[-9.0, 4.0, -2.0, -1.0]]), torch.tensor([[False, False, True, True]])
    found, want = _tried(answer, 0.5, loud, harmless, answered)[0], float(annealed_bce(loud, harmless, answered, 0.5))
    if found != found:
        raise NotYet("with a prompt in front the loss is nan: it was hidden with an infinity, or multiplied away.")
    if found > want + 0.1:
        raise NotYet("a prompt token that scores 4 is charged to the completion behind it: mask before the maximum.")
    if not abs(found - want) < 1e-5:
        raise NotYet(f"of logits {shown(loud)} only the last two are scored: the loss is {want:.4f}, not {found:.4f}.")
    for end, loss, name in ((0.0, per_token_bce, "A"), (1.0, cumulative_max_bce, "B")):
        (found, gradient), (want, theirs) = _tried(answer, end, z, harmless, four), graded(loss, z, harmless, four)
        if not abs(found - want) < 1e-5:
            raise NotYet(f"at omega {end:g} the loss is option {name}'s, {want:.4f}; you give {found:.4f}.")
        if not near(gradient, theirs, 1e-4):
            raise NotYet(
                f"at omega {end:g} the value is right and the gradient is {shown(gradient)}: log 0 poisons it."
            )
        found, want = _tried(answer, end, loud, harmless, answered)[0], float(loss(loud, harmless, answered))
        if not abs(found - want) < 1e-5:
            raise NotYet(
                f"at omega {end:g}, of logits {shown(loud)} the last two scored, the loss is {want:.4f}; you give "
                f"{found:.4f}. (An infinity that hides the prompt makes nan of it.)"
            )
    padded = torch.tensor([[0.0, 2.0, -1.0, float("nan")]])
    found, gradient = _tried(answer, 0.5, padded, harmless, torch.tensor([[True, True, True, False]]))
    if not np.isfinite(found) or not gradient.isfinite().all():
        raise NotYet(
            "a nan in the padding reaches the loss or its gradient: fill what does not count, do not multiply."
        )
    sure = torch.tensor([[25.0, 20.0, 30.0]])
    (found, gradient), want = _tried(answer, 0.5, sure, harmless, four[:, :3]), 25.2
    if found == float("inf") or found != found:
        raise NotYet("a false alarm of logits [25, 20, 30] costs inf: 1 - p is 0 in float32. Stay in logarithms.")
    if not gradient.isfinite().all() or not gradient.sum() > 0.5:
        raise NotYet(f"a false alarm of logits [25, 20, 30] gets the gradient {shown(gradient)}; it should be about 1.")
    if not abs(found - want) < 0.1:
        raise NotYet(f"a false alarm of logits [25, 20, 30] costs 25.2 at omega 0.5; you say {found:.4g}.")
    far = torch.tensor([[9e3, -1e4, 1e4, 5.0]])
    for label, row in ((harmless, far), (harmful, far), (harmful, -far.abs())):
        found, gradient = _tried(answer, 0.5, row, label, four)
        want, theirs = graded(annealed_bce, row.double(), label, four, 0.5)
        if not np.isfinite(found) or not gradient.isfinite().all():
            raise NotYet(f"for logits {shown(row)}, label {float(label):.0f} value or gradient is not finite.")
        if not abs(found - want) < 1 or not near(gradient, theirs, 1e-3):
            raise NotYet(
                f"for logits {shown(row)}, label {float(label):.0f}, omega 0.5 the loss is {want:.5g} and its gradient "
                f"{shown(theirs)}; you give {found:.5g} and {shown(gradient)}."
            )
    for seed, weight in enumerate((0.1, 0.5, 0.9)):
        z, mask, labels = draw(seed, 5, 14), ragged(seed, 5, 14), torch.tensor([0.0, 1.0, 0.3, 1.0, 0.0])
        found, gradient = _tried(answer, weight, z, labels, mask)
        want, theirs = graded(annealed_bce, z, labels, mask, weight)
        if abs(found - float(_over_all_tokens(z, labels, mask, weight))) < 1e-5:
            raise NotYet("a long completion counts more than a short one: first the mean over each, then over them.")
        if not abs(found - want) < 1e-4:
            raise NotYet(f"for five random completions, omega {weight}, the loss is {want:.4f}, you give {found:.4f}.")
        if not near(gradient, theirs, 1e-4):
            raise NotYet("the values are right, the gradient is not: it flows through z_t *and* through the maximum.")


def _over_all_tokens(z: Tensor, labels: Tensor, mask: Tensor, omega: float) -> Tensor:
    each = torch.stack([annealed_bce(z[i, None], labels[i, None], mask[i, None], omega) for i in range(len(z))])
    return (each * mask.sum(1)).sum() / mask.sum()


@exercise("6.3")
def now_gradient(answer):
    def value(*given):
        with without_autograd():
            return float(answer(*given))

    z, m, omega = -1.0, 2.0, 0.5
    p_now = float(torch.sigmoid(torch.tensor(z)))
    found, want = value(z, m, omega, 1.0), _gradient(z, m, omega, 1.0)
    asked = f"for z = {z:g}, m = {m:g}, omega = {omega}, label 1 "
    if abs(found + want) < 1e-5:
        raise NotYet(asked + "the sign is the wrong way round: raising z lowers the loss, so the gradient is negative.")
    if abs(found - (1 - omega) * (p_now - 1)) < 1e-5:
        raise NotYet(asked + "you give the gradient of the *sum* of two losses; in the mixture, p is below the line.")
    if abs(found - want / (1 - omega)) < 1e-5:
        raise NotYet(asked + "the factor 1 - omega is missing: only that share of p moves with z.")
    if abs(found * p_now * (1 - p_now) - want) < 1e-5:
        raise NotYet(asked + "the slope of the sigmoid is missing: you give the derivative with respect to sigmoid(z).")
    if not abs(found - want) < 1e-5:
        raise NotYet(asked + f"the gradient is {want:.4f}, you give {found:.4f}.")
    found, want = value(z, m, omega, 0.0), _gradient(z, m, omega, 0.0)
    if not abs(found - want) < 1e-5:
        raise NotYet(f"label 1 is right; for label 0 it is {want:.4f}, not {found:.4f}: there 1 - p is below the line.")
    for omega in (0.1, 0.9):
        for label in (0.0, 1.0):
            for z, m in ((-3.0, -2.0), (0.5, 4.0), (1.0, 1.5)):
                found, want = value(z, m, omega, label), _gradient(z, m, omega, label)
                if not abs(found - want) < 1e-5:
                    given = f"z = {z:g}, m = {m:g}, omega = {omega}, label {label:.0f}"
                    raise NotYet(f"for {given} the gradient is {want:.4f}, you give {found:.4f}.")


def _gradient(z: float, m: float, omega: float, label: float) -> float:
    """d loss / d z of the position of z alone, by autograd: two positions, the record first, half the weight each."""
    logits = torch.tensor([[m, z]], dtype=torch.float64, requires_grad=True)
    loss = annealed_bce(logits, torch.tensor([label]), torch.ones(1, 2, dtype=torch.bool), omega)
    (gradient,) = torch.autograd.grad(loss, logits)
    return 2 * gradient[0, 1].item()


@exercise("6.4")
def paired_interval(answer):
    first, second = [0.91, 0.88, 0.95, 0.90, 0.93], [0.90, 0.80, 0.91, 0.89, 0.87]
    found = answer(list(first), list(second))
    try:
        mean, low, high = (float(number) for number in found)
    except (TypeError, ValueError):
        raise NotYet("return three numbers: mean difference, low end, high end.") from None
    want = paired_difference(first, second)
    half, right, d = (high - low) / 2, (want.high - want.low) / 2, np.subtract(first, second)
    if abs(mean + want.mean) < 1e-6:
        raise NotYet(f"the mean difference is {mean:+.3f}: that is second minus first.")
    if not abs(mean - want.mean) < 1e-6:
        raise NotYet(f"the mean difference should be {want.mean:+.4f}, you give {mean:+.4f}.")
    if not abs((low + high) / 2 - mean) < 1e-6:
        raise NotYet("the interval should lie evenly around the mean difference.")
    if abs(half - right * 5**0.5) < 1e-5:
        raise NotYet("your interval is 2.24 times too long: the mean of n numbers spreads by s / sqrt(n), not s.")
    if abs(half - 1.959964 * d.std(ddof=1) / 5**0.5) < 1e-4:
        raise NotYet("you use 1.96, which is for many seeds; with five, Student's t has 4 degrees of freedom: 2.78.")
    if abs(half - right * (4 / 5) ** 0.5) < 1e-5:
        raise NotYet("your standard deviation divides by n; the mean comes from the same data, so divide by n - 1.")
    if not abs(half - right) < 1e-5:
        raise NotYet(f"half the interval should be {right:.4f}, not {half:.4f}: take the spread of the *differences*.")
    three = [1.0, 2.0, 4.0], [0.0, 0.5, 1.0]
    if not np.allclose([float(number) for number in answer(*three)], paired_difference(*three)[:3], rtol=1e-4):
        raise NotYet("five seeds are right, three are not: n and the degrees of freedom come from the data.")
