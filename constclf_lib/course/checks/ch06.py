"""Checks of chapter 06, annealing."""

from __future__ import annotations

import numpy as np
import torch

from ...evaluation import paired_difference
from ...losses import annealed_bce
from ...training import linear_anneal
from .framework import NotYet, exercise


@exercise("6.1")
def ramp(answer):
    start, half, end = (answer(step, 400, 0.75) for step in (0, 150, 300))
    if abs(start - 1) < 1e-9 and end < 0.5:
        raise NotYet("step 0 of 400 gives 1 and the ramp falls: omega starts at 0 (option A) and ends at 1 (option B).")
    if abs(start) > 1e-9:
        raise NotYet(f"step 0 of 400 gives {start:.3g}; the first step should be pure option A, omega 0.")
    if abs(half - 150 / 400) < 1e-9:
        raise NotYet("step 150 of 400 gives 0.375: you ramp over all steps; with end=0.75 it is 1 from step 300 on.")
    if abs(half - 0.5) > 1e-9 or abs(end - 1) > 1e-9:
        raise NotYet(f"steps 150 and 300 of 400 with end=0.75 give {half:.3g} and {end:.3g}, not 0.5 and 1.")
    last = answer(400, 400, 0.75)
    if last != 1.0:
        raise NotYet(f"step 400 of 400 gives {last:.3g}; a weight of a mixture stays at 1 from the end on.")
    if answer(150, 400) != answer(150, 400, 0.75):
        raise NotYet("ramp(150, 400) should be the same as ramp(150, 400, 0.75): that is the default end.")
    for total, end in ((10, 1.0), (400, 0.5), (7, 0.3)):
        for step in range(total + 1):
            want = linear_anneal(step, total, end)
            if abs(answer(step, total, end) - want) > 1e-9:
                raise NotYet(f"step {step} of {total} with end={end} should give {want:.4g}.")


@exercise("6.2")
def now_gradient(answer):
    z, m, omega = -1.0, 2.0, 0.5
    p_now, p_record = (float(torch.sigmoid(torch.tensor(x))) for x in (z, m))
    found, want = float(answer(z, m, omega, 1.0)), _gradient(z, m, omega, 1.0)
    asked = f"for z = {z:g}, m = {m:g}, omega = {omega}, label 1 "
    if abs(found + want) < 1e-5:
        raise NotYet(asked + "the sign is the wrong way round: raising z lowers the loss, so the gradient is negative.")
    if abs(found - (1 - omega) * (p_now - 1)) < 1e-5:
        raise NotYet(asked + "you give the gradient of the *sum* of two losses; in the mixture, p is below the line.")
    if abs(found - want / (1 - omega)) < 1e-5:
        raise NotYet(asked + "the factor 1 - omega is missing: only that share of p moves with z.")
    if abs(found * p_now * (1 - p_now) - want) < 1e-5:
        raise NotYet(asked + "the slope of the sigmoid is missing: you give the derivative with respect to sigmoid(z).")
    if abs(found - want) > 1e-5:
        raise NotYet(asked + f"the gradient is {want:.4f}, you give {found:.4f}.")
    found, want = float(answer(z, m, omega, 0.0)), _gradient(z, m, omega, 0.0)
    if abs(found - want) > 1e-5:
        raise NotYet(f"label 1 is right; for label 0 it is {want:.4f}, not {found:.4f}: there 1 - p is below the line.")
    for omega in (0.1, 0.9):
        for label in (0.0, 1.0):
            for z, m in ((-3.0, -2.0), (0.5, 4.0), (1.0, 1.5)):
                found, want = float(answer(z, m, omega, label)), _gradient(z, m, omega, label)
                if abs(found - want) > 1e-5:
                    given = f"z = {z:g}, m = {m:g}, omega = {omega}, label {label:.0f}"
                    raise NotYet(f"for {given} the gradient is {want:.4f}, you give {found:.4f}.")


def _gradient(z: float, m: float, omega: float, label: float) -> float:
    """d loss / d z of the position of z alone, by autograd: two positions, the record first, half the weight each."""
    logits = torch.tensor([[m, z]], dtype=torch.float64, requires_grad=True)
    loss = annealed_bce(logits, torch.tensor([label]), torch.ones(1, 2, dtype=torch.bool), omega)
    (gradient,) = torch.autograd.grad(loss, logits)
    return 2 * gradient[0, 1].item()


@exercise("6.3")
def paired_interval(answer):
    first, second = [0.91, 0.88, 0.95, 0.90, 0.93], [0.90, 0.80, 0.91, 0.89, 0.87]
    found = answer(list(first), list(second))
    if not isinstance(found, tuple) or len(found) != 3:
        raise NotYet("return a tuple of three numbers: mean difference, low end, high end.")
    mean, low, high = map(float, found)
    want = paired_difference(first, second)
    half, right, d = (high - low) / 2, (want.high - want.low) / 2, np.subtract(first, second)
    if abs(mean + want.mean) < 1e-9:
        raise NotYet(f"the mean difference is {mean:+.3f}: that is second minus first.")
    if abs(mean - want.mean) > 1e-9:
        raise NotYet(f"the mean difference should be {want.mean:+.4f}, you give {mean:+.4f}.")
    if abs((low + high) / 2 - mean) > 1e-9:
        raise NotYet("the interval should lie evenly around the mean difference.")
    if abs(half - right * 5**0.5) < 1e-6:
        raise NotYet("your interval is 2.24 times too long: the mean of n numbers spreads by s / sqrt(n), not s.")
    if abs(half - 1.959964 * d.std(ddof=1) / 5**0.5) < 1e-4:
        raise NotYet("you use 1.96, which is for many seeds; with five, Student's t has 4 degrees of freedom: 2.78.")
    if abs(half - right * (4 / 5) ** 0.5) < 1e-6:
        raise NotYet("your standard deviation divides by n; the mean comes from the same data, so divide by n - 1.")
    if abs(half - right) > 1e-6:
        raise NotYet(f"half the interval should be {right:.4f}, not {half:.4f}: take the spread of the *differences*.")
    three = [1.0, 2.0, 4.0], [0.0, 0.5, 1.0]
    if not np.allclose(answer(*three), paired_difference(*three)[:3]):
        raise NotYet("five seeds are right, three are not: n and the degrees of freedom come from the data.")
