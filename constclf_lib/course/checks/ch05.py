"""Checks of chapter 05, option B."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...losses import cumulative_max_bce, per_token_bce
from .framework import NotYet, exercise

LOWEST = torch.finfo(torch.float32).min


def shown(values) -> str:
    return "[" + ", ".join(f"{float(value):.3g}" for value in torch.as_tensor(values).reshape(-1)) + "]"


def draw(seed: int, *size: int) -> Tensor:
    return 2 * torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def ragged(seed: int, rows: int, time: int) -> Tensor:
    """A mask with a prompt in front of some rows and padding behind some; two scored tokens or more in each."""
    random = torch.Generator().manual_seed(seed)
    first = torch.randint(0, time // 4, (rows, 1), generator=random)
    last = torch.randint(time // 4 + 2, time + 1, (rows, 1), generator=random)
    place = torch.arange(time)
    return (place >= first) & (place < last)


def numbers(found, *shape: int) -> Tensor:
    """What the learner returned (list, array, tensor of any dtype) as float64 of this shape."""
    try:
        values = torch.as_tensor(found).detach().double()
    except (TypeError, ValueError, RuntimeError):
        values = None
    if values is None or tuple(values.shape) != shape:
        got = "something else" if values is None else f"shape {tuple(values.shape)}"
        raise NotYet(f"return one number per token: the shape should be {shape}, you give {got}.")
    return values


def near(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance)


def graded(answer: Callable, z: Tensor, *rest) -> tuple[float, Tensor]:
    """(value of a loss, its gradient): what the learner's function gives, or the library's."""
    leaf = z.clone().requires_grad_()
    value = answer(leaf.clone(), *rest)  # a copy may be changed in place
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise NotYet("return the loss as one number, in a tensor from which `backward()` can start.")
    if not value.requires_grad:
        raise NotYet("no gradient leads back from your loss to the logits: a `detach`, `item` or `no_grad` cuts it.")
    value.sum().backward()
    return float(value.detach()), torch.zeros_like(z) if leaf.grad is None else leaf.grad


@contextmanager
def without_autograd() -> Iterator[None]:
    """While the learner's code runs, backward and torch.autograd.grad (torch.func uses it too) say no."""

    def refuse(*_, **__):
        raise NotYet("autograd did the work here; the exercise asks for the formula, without backward or grad.")

    places: tuple[tuple[Any, str], ...] = ((torch.autograd, "backward"), (torch.autograd, "grad"), (Tensor, "backward"))
    before = [getattr(owner, name) for owner, name in places]
    for owner, name in places:
        setattr(owner, name, refuse)
    try:
        yield
    finally:
        for (owner, name), function in zip(places, before, strict=True):
            setattr(owner, name, function)


def _highest(z: Tensor, mask: Tensor) -> Tensor:
    return z.masked_fill(~mask, LOWEST).cummax(dim=1).values


@exercise("5.1")
def running_max(answer):
    z = torch.tensor([[5.0, 9.0, 1.0, 0.0, 2.0, 7.0], [2.0, -1.0, 0.5, 1.0, 3.0, -2.0]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]).bool()
    given = z.clone()
    found = answer(given, mask.clone())
    if not isinstance(found, Tensor):
        raise NotYet("return a tensor: gradient has to flow through it.")
    values, want = numbers(found, 2, 6), _highest(z, mask).double()
    if not torch.equal(given, z):
        raise NotYet("you changed the logits that you were given; fill a copy (masked_fill, not masked_fill_).")
    all_scored, asked = values[1], f"for logits {shown(z[1])}, all scored, "
    if near(all_scored, z[1]):
        raise NotYet(asked + "you give the logits as they are: option A. The maximum so far is asked for.")
    if near(all_scored, z.masked_fill(~mask, LOWEST).cummax(dim=0).values[1]):
        raise NotYet(asked + "you compare with the completion above it in the batch; time is dimension 1.")
    if near(all_scored, torch.full((6,), 3.0)):
        raise NotYet(asked + "position 0 holds 3, the maximum of the *whole* text: no stream can know token 4 there.")
    if near(all_scored, torch.tensor([2.0, 2.0, 0.5, 1.0, 3.0, 3.0])):
        raise NotYet(asked + "you compare with the neighbour before; a record stands until a higher one comes.")
    if not near(all_scored, want[1]):
        raise NotYet(asked + f"the running maximum is {shown(want[1])}, you give {shown(all_scored)}.")
    behind_a_prompt = values[0][mask[0]]
    if near(behind_a_prompt, torch.full((3,), 9.0)):
        raise NotYet("a prompt token that scores 9 stands at every token of the completion: mask before the maximum.")
    if not near(behind_a_prompt, want[0][mask[0]]):
        raise NotYet(
            f"for logits {shown(z[0])} of which positions 2 to 4 are scored, those should hold [1, 1, 2], you give "
            f"{shown(behind_a_prompt)}."
        )
    if not values.isfinite().all():
        raise NotYet("outside the mask you leave an infinity: 0 times infinity in the loss is nan. Keep it finite.")
    low = torch.tensor([[0.0, -9000.0, -9500.0]])
    behind = torch.tensor([[False, True, True]])
    floor = float(answer(low.clone(), behind.clone()).detach()[0, 1])
    if abs(floor + 9000) > 1:
        raise NotYet(f"logits of -9000 come out as {floor:.3g}: what you hide the prompt with is not low enough.")
    z, mask = draw(0, 6, 12), ragged(0, 6, 12)
    leaf = z.clone().requires_grad_()
    found = answer(leaf.clone(), mask.clone())
    if not found.requires_grad:
        raise NotYet("the values are right, but no gradient leads back to the logits: a `detach` or `no_grad` cuts it.")
    found[mask].sum().backward()
    twin = z.clone().requires_grad_()
    _highest(twin, mask)[mask].sum().backward()
    if not near(found.detach()[mask], twin.detach().masked_fill(~mask, LOWEST).cummax(1).values[mask]):
        raise NotYet("for random rows with prompts in front and padding behind, other numbers come out than cummax's.")
    if not near(leaf.grad, twin.grad):
        raise NotYet("the values are right, the gradient is not: each position should hand its gradient to one owner.")


@exercise("5.2")
def tie_share(answer):
    z = torch.tensor([1.0, 1.0, 0.0])
    given = z.clone()
    share = numbers(answer(given), 3)
    if not torch.equal(given, z) or given.requires_grad:
        raise NotYet("you changed the tensor that you were given; work on a clone of it.")
    if abs(float(share.sum()) - 1) > 1e-5:
        raise NotYet(f"your shares sum to {float(share.sum()):.1f} over the sequence; they should sum to 1.")
    if near(share, torch.tensor([1.0, 0.0, 0.0])):
        raise NotYet("for scores [1, 1, 0] you credit the first of the tied tokens; cummax credits the latest.")
    if near(share, torch.tensor([0.5, 0.5, 0.0])):
        raise NotYet("for scores [1, 1, 0] you split evenly; cummax credits one token a position, the latest tie.")
    if near(share, torch.tensor([0.0, 1.0, 0.0])):
        raise NotYet("for scores [1, 1, 0] you leave the first token out; at position 0 it is the maximum all alone.")
    for scores in (z, torch.zeros(5), torch.tensor([0.0, 2.0, 2.0, 1.0, 2.0]), draw(1, 9)):
        want = torch.bincount(scores.cummax(0).indices, minlength=len(scores)) / len(scores)
        if not near(numbers(answer(scores.clone()), len(scores)), want):
            raise NotYet(f"for scores {shown(scores)} the shares should be {shown(want)}.")


@exercise("5.3")
def option_b(answer):
    z, calm, all_four = torch.tensor([[1.0, 0.0, -1.0, 2.0]]), torch.tensor([0.0]), torch.ones(1, 4, dtype=torch.bool)
    (found, _), (want, _) = graded(answer, z, calm, all_four), graded(cumulative_max_bce, z, calm, all_four)
    asked = f"for logits {shown(z)}, all scored, label 0, "
    known = {
        graded(per_token_bce, z, calm, all_four)[0]: "you give option A's loss: each token answers for itself there.",
        graded(per_token_bce, torch.full((1, 4), 2.0), calm, all_four)[0]: "every position is charged for the maximum "
        "of the *whole* text; position 0 cannot know token 3.",
        4 * want: "you add the positions up; the loss of a completion is the mean over its tokens.",
        graded(cumulative_max_bce, z, 1 - calm, all_four)[0]: "you charge for the other label.",
        -want: "the sign is the wrong way round: a cross-entropy is never negative.",
    }
    for value, words in known.items():
        if abs(found - value) < 1e-5:
            raise NotYet(asked + words)
    if not abs(found - want) < 1e-5:
        raise NotYet(asked + f"the loss is {want:.4f}, you give {found:.4f}.")
    loud = torch.tensor([[-9.0, 4.0, -2.0, -1.0]])
    answered = torch.tensor([[False, False, True, True]])
    (found, _), (want, _) = graded(answer, loud, calm, answered), graded(cumulative_max_bce, loud, calm, answered)
    if found != found:
        raise NotYet("with a prompt in front the loss is nan: it was hidden with an infinity, or multiplied away.")
    if found > 3:
        raise NotYet("a prompt token that scores 4 is charged to the completion behind it: mask before the maximum.")
    if abs(found - want / 2) < 1e-5:
        raise NotYet("you divide by the width of the batch; a completion of two scored tokens is a mean over two.")
    if not abs(found - want) < 1e-5:
        raise NotYet(f"of logits {shown(loud)} only the last two are scored: the loss is {want:.4f}, not {found:.4f}.")
    short = torch.tensor([[3.0, 0.0, 0.0, 0.0, 0.0, 0.0], [-2.0, -1.0, -3.0, -2.5, -2.0, -1.5]])
    labels, lengths = torch.zeros(2), torch.tensor([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    (found, _), (want, _) = graded(answer, short, labels, lengths), graded(cumulative_max_bce, short, labels, lengths)
    each = [graded(cumulative_max_bce, short[i, None], labels[:1], lengths[i, None])[0] for i in (0, 1)]
    if abs(found - (2 * each[0] + 6 * each[1]) / 8) < 1e-5:
        raise NotYet("a completion of six tokens counts three times as much as one of two: first the mean over each.")
    if abs(found - sum(each)) < 1e-5:
        raise NotYet("you add the completions up; the loss of a batch is the mean over them.")
    if not abs(found - want) < 1e-5:
        raise NotYet(f"for two completions of 2 and 6 tokens the loss is {want:.4f}, you give {found:.4f}.")
    alarm = torch.tensor([[20.0, 25.0, 18.0]])
    found, gradient = graded(answer, alarm, calm, all_four[:, :3])
    if not gradient.abs().sum() > 0.5:
        raise NotYet("a false alarm of logits [20, 25, 18] gets no gradient: never leave the logits for probabilities.")
    for sign, label in ((1.0, 0.0), (-1.0, 1.0)):
        far = sign * torch.tensor([[9000.0, 8000.0, 10000.0]])
        found, gradient = graded(answer, far, torch.tensor([label]), all_four[:, :3])
        want, theirs = graded(cumulative_max_bce, far, torch.tensor([label]), all_four[:, :3])
        if not abs(found - want) < 1 or not near(gradient, theirs, 1e-3):
            raise NotYet(f"for logits {shown(far)} and label {label:.0f} the loss is {want:.5g}, you give {found:.5g}.")
    for seed in range(6):
        z, mask, labels = draw(seed, 5, 14), ragged(seed, 5, 14), torch.tensor([0.0, 1.0, 0.3, 1.0, 0.0])
        (found, gradient), (want, theirs) = graded(answer, z, labels, mask), graded(cumulative_max_bce, z, labels, mask)
        if not abs(found - want) < 1e-4:
            raise NotYet(
                f"for five random completions (one label is 0.3) the loss is {want:.4f}, you give {found:.4f}."
            )
        if not near(gradient, theirs, 1e-4):
            raise NotYet("the values are right, the gradient is not: it should flow through the maximum to its owner.")


@exercise("5.4")
def record_gradient(answer):
    def found_and_wanted(z, labels, mask):
        with without_autograd():
            given = answer(z.clone(), labels.clone(), mask.clone())
        return numbers(given, *z.shape), graded(cumulative_max_bce, z, labels, mask)[1].double()

    z, everything = torch.tensor([[1.0, 0.0, -1.0, 2.0]]), torch.ones(1, 4, dtype=torch.bool)
    found, want = found_and_wanted(z, torch.zeros(1), everything)  # token 0 owns three positions, token 3 one
    p, asked = z.sigmoid(), f"for one completion, logits {shown(z)}, label 0, "
    if near(found, -want):
        raise NotYet(asked + "your signs are the wrong way round: the gradient is positive, the step lowers the score.")
    if near(found, p / 4):
        raise NotYet(asked + "every token gets its own gradient: that is option A. Only owners of a maximum get any.")
    if near(found, 4 * want):
        raise NotYet(asked + "you forgot the mean: each of the 4 positions carries weight 1/4.")
    if near(found, torch.tensor([[1.0, 0.0, 0.0, 1.0]]) * p / 4):
        raise NotYet(asked + "token 0 is the maximum at three positions; you count it once.")
    if not near(found, want):
        raise NotYet(asked + f"the gradient is {shown(want)}, you give {shown(found)}.")
    found, want = found_and_wanted(z, torch.ones(1), everything)
    if not near(found, want):
        raise NotYet(f"label 0 is right; for label 1 the gradient is {shown(want)}, you give {shown(found)}.")
    z = torch.tensor([[1.0, 1.0, 0.0]])
    found, want = found_and_wanted(z, torch.zeros(1), everything[:, :3])
    if not near(found, want):
        raise NotYet(
            f"for tied logits {shown(z)} the latest owns what follows: {shown(want)}, you give {shown(found)}."
        )
    z, mask = torch.tensor([[9.0, 1.0, 2.0, 7.0]]), torch.tensor([[False, True, True, False]])
    found, want = found_and_wanted(z, torch.zeros(1), mask)
    if float(found[0, 0]) or float(found[0, 3]):
        raise NotYet("a token outside the mask gets gradient: prompt and padding own nothing.")
    if near(found, want * 2 / 4):
        raise NotYet("with two of four positions scored, each carries weight 1/2, not 1/4.")
    if not near(found, want):
        raise NotYet(f"for logits {shown(z)}, the two in the middle scored: {shown(want)}, you give {shown(found)}.")
    z, labels = draw(3, 2, 6), torch.tensor([0.0, 1.0])
    mask = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    found, want = found_and_wanted(z, labels, mask)
    if near(found, 2 * want):
        raise NotYet("for a batch of two your gradient is twice as large: the batch is a mean over completions.")
    if near(found, want * mask.sum(1, keepdim=True) * 2 / 8):
        raise NotYet("each completion is a mean over its *own* tokens; you divide by the tokens of the whole batch.")
    for seed in range(6):
        z, mask, labels = draw(seed, 5, 14), ragged(seed, 5, 14), torch.tensor([0.0, 1.0, 0.3, 1.0, 0.0])
        found, want = found_and_wanted(z, labels, mask)
        if not near(found, want):
            row = int((found - want).abs().sum(1).argmax())
            raise NotYet(
                f"for a random batch of five, row {row} (label {labels[row]:.1f}) differs from autograd by up to "
                f"{float((found - want).abs().max()):.2g}."
            )


@exercise("5.5")
def best_opening(answer):
    def value(q, unsure, length):
        return float(answer(q, unsure, length))

    q, unsure, length = 0.4, 10, 40
    found, want = value(q, unsure, length), 0.4 * 10 / (0.4 * 10 + 0.6 * 40)
    known = {
        q: "that is option A's answer, the share itself; under option B a harmless text pays to its last token.",
        q / (q + (1 - q) * length): "you charge the harmful text for one token; it pays for all that are unsure.",
        q * unsure / (q * unsure + (1 - q) * (length - unsure)): "a harmless text pays at *every* token, the unsure "
        "ones too, not only after them.",
        1 - want: "you give what is left to 1: raise a and a *harmful* text pays less.",
        q * unsure / ((1 - q) * length): "these are the odds a / (1 - a), not a itself.",
        q * length / (q * length + (1 - q) * unsure): "you have the two lengths the wrong way round.",
    }
    for given, words in known.items():
        if abs(found - given) < 1e-6:
            raise NotYet(f"for q = 0.4, 10 unsure tokens of 40: {words}")
    if not abs(found - want) < 1e-6:
        raise NotYet(f"for q = 0.4, 10 unsure tokens of 40, the loss is lowest at {want:.4f}; you give {found:.4f}.")
    if not abs(value(0.4, 40, 40) - 0.4) < 1e-6:
        raise NotYet("if nothing is ever known (40 unsure tokens of 40), the best score is q itself.")
    for q, unsure, length in ((0.1, 5, 100), (0.5, 1, 2), (0.9, 30, 31)):
        want = q * unsure / (q * unsure + (1 - q) * length)
        if not abs(value(q, unsure, length) - want) < 1e-6:
            raise NotYet(f"for q = {q}, {unsure} unsure tokens of {length}, it is {want:.4f}.")
