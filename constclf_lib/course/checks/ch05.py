"""Checks of chapter 05, option B."""

from __future__ import annotations

import torch

from ...losses import cumulative_max_bce
from .framework import NotYet, exercise

ALL_DIFFERENT = (0.5, -1.0, 2.0, 1.0, 3.0, -2.0, 2.5)


def shown(values) -> str:
    return "[" + ", ".join(f"{float(value):.3g}" for value in values) + "]"


def flags(values) -> str:
    return "[" + ", ".join("1" if value else "0" for value in values) + "]"


def draw(seed: int, size: int):
    return 2 * torch.randn(size, generator=torch.Generator().manual_seed(seed))


@exercise("5.1")
def records(answer):
    z, everything = torch.tensor(ALL_DIFFERENT), torch.ones(7, dtype=torch.bool)
    found = answer(z.clone(), everything.clone())
    if not isinstance(found, torch.Tensor) or tuple(found.shape) != (7,) or found.dtype != torch.bool:
        raise NotYet("for 7 logits, return a bool tensor of shape (7,): True where a token sets a record.")
    asked = f"for logits {shown(z)}, all scored, "
    if not found[0]:
        raise NotYet(asked + "the first token is missing: nothing stands before it, so it sets the first record.")
    if found.tolist() == [True, False, True, True, True, False, True]:
        raise NotYet(asked + "you compare with the neighbour before; a record beats *every* token before it.")
    if found.tolist() != [True, False, True, False, True, False, False]:
        raise NotYet(asked + f"you mark {flags(found)}; the records are {flags([1, 0, 1, 0, 1, 0, 0])}.")
    z, mask = torch.tensor([5.0, 9.0, 1.0, 0.0, 2.0, 7.0]), torch.tensor([0, 0, 1, 1, 1, 0]).bool()
    found = answer(z.clone(), mask.clone())
    if found[~mask].any():
        raise NotYet("you mark a position outside the mask; prompt and padding set no records.")
    if not found.any():
        raise NotYet("a prompt that scores 9 hides every record of the completion: the maximum runs over it too.")
    for seed in range(20):
        z, mask = draw(seed, 12), torch.arange(12) >= seed % 5
        hidden = z.masked_fill(~mask, -1e30)
        if not torch.equal(answer(z.clone(), mask.clone()), mask & (hidden == hidden.cummax(0).values)):
            raise NotYet(f"for logits {shown(z)}, scored from position {seed % 5} on, cummax has other records.")


@exercise("5.2")
def tie_share(answer):
    z = torch.tensor([1.0, 1.0, 0.0])
    given = z.clone()
    share = answer(given)
    if not isinstance(share, torch.Tensor) or tuple(share.shape) != (3,):
        raise NotYet("for 3 scores, return a tensor of shape (3,): one share for each token.")
    if not torch.equal(given, z) or given.requires_grad:
        raise NotYet("you changed the tensor that you were given; work on a clone of it.")
    share = share.detach().float()
    if abs(float(share.sum()) - 1) > 1e-5:
        raise NotYet(f"your shares sum to {float(share.sum()):.1f} over the sequence; they should sum to 1.")
    if torch.allclose(share, torch.tensor([1.0, 0.0, 0.0])):
        raise NotYet("for scores [1, 1, 0] you credit the first of the tied tokens; cummax credits the latest.")
    if torch.allclose(share, torch.tensor([0.5, 0.5, 0.0])):
        raise NotYet("for scores [1, 1, 0] you split evenly; cummax credits one token a position, the latest tie.")
    if torch.allclose(share, torch.tensor([0.0, 1.0, 0.0])):
        raise NotYet("for scores [1, 1, 0] you leave the first token out; at position 0 it is the maximum all alone.")
    for scores in (z, torch.zeros(5), torch.tensor([0.0, 2.0, 2.0, 1.0, 2.0]), draw(1, 9)):
        want = torch.bincount(scores.cummax(0).indices, minlength=len(scores)) / len(scores)
        if not torch.allclose(answer(scores.clone()).detach().float(), want, atol=1e-5):
            raise NotYet(f"for scores {shown(scores)} the shares should be {shown(want)}.")


@exercise("5.3")
def record_gradient(answer):
    z = torch.tensor([1.0, 0.0, -1.0, 2.0])  # token 0 stands for three positions, token 3 for one
    found = answer(z.clone(), 0.0)
    if not isinstance(found, torch.Tensor) or tuple(found.shape) != (4,):
        raise NotYet("for 4 logits, return a tensor of shape (4,): one gradient for each token.")
    p, found = z.sigmoid(), found.detach().float()
    want = torch.tensor([3.0, 0.0, 0.0, 1.0]) * p / 4
    if torch.allclose(found, -want, atol=1e-5):
        raise NotYet("your signs are the wrong way round: for label 0 the gradient is positive (the step lowers).")
    if torch.allclose(found, p / 4, atol=1e-5):
        raise NotYet("every token gets its own gradient: that is option A. Here only the owner of a maximum gets any.")
    if torch.allclose(found, 4 * want, atol=1e-5):
        raise NotYet("you forgot the mean: each of the 4 positions carries weight 1/4.")
    if torch.allclose(found, torch.tensor([1.0, 0.0, 0.0, 1.0]) * p / 4, atol=1e-5):
        raise NotYet("for logits [1, 0, -1, 2] token 0 is the maximum at three positions; you count it once.")
    for seed, label in ((0, 0.0), (1, 1.0), (2, 1.0)):
        logits = draw(seed, 10).requires_grad_()
        cumulative_max_bce(logits[None], torch.tensor([label]), torch.ones(1, 10, dtype=torch.bool)).backward()
        z, want = logits.detach(), logits.grad
        found = answer(z.clone(), label).detach().float()
        if not torch.allclose(found, want, atol=1e-5):
            raise NotYet(f"label {label:.0f}, logits {shown(z)}: autograd gives {shown(want)}, you {shown(found)}.")
