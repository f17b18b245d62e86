"""Checks of chapter 03, the value head."""

from __future__ import annotations

import math

import torch

from .framework import NotYet, exercise


@exercise("3.1")
def bias_for(answer):
    for rate in (0.5, 0.1, 0.01, 0.9):
        bias = answer(rate)
        if isinstance(bias, torch.Tensor) and bias.numel() != 1:
            raise NotYet(f"for the rate {rate} you return {bias.numel()} numbers; a head has one bias.")
        bias = float(bias)
        wanted = math.log(rate / (1 - rate))
        if abs(bias - wanted) < 1e-4:
            continue
        said = 1 / (1 + math.exp(-max(-700.0, min(700.0, bias))))
        if abs(bias - rate) < 1e-6:
            raise NotYet(
                f"for {rate} you return the rate itself; the sigmoid makes {said:.2f} of it. You need its inverse."
            )
        if abs(bias + wanted) < 1e-4:
            raise NotYet(
                f"for {rate} the head says {said:.2f}, the share of the *harmless*: the fraction is upside down."
            )
        if abs(bias - math.log(rate)) < 1e-4:
            raise NotYet(f"log({rate}) forgets the other class: sigmoid of it is {said:.3f}, not {rate}.")
        raise NotYet(f"with your bias of {bias:.3f} an untrained head says {said:.3f}; the rate was {rate}.")


@exercise("3.2")
def next_token_targets(answer):
    ids = torch.tensor([[5, 6, 7, 8], [9, 5, 3, 3]])  # the second row ends with the token 3, and is padded with it too
    mask = torch.tensor([[True, True, True, True], [True, True, True, False]])
    wanted = torch.tensor([[6, 7, 8, -100], [5, 3, -100, -100]])
    given, given_mask = ids.clone(), mask.clone()
    targets = answer(given, given_mask)
    if not isinstance(targets, torch.Tensor) or targets.shape != ids.shape:
        shape = list(targets.shape) if isinstance(targets, torch.Tensor) else type(targets).__name__
        raise NotYet(f"for input_ids of the shape [2, 4] you return {shape}; give one target per logit, [2, 4].")
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise NotYet(f"targets are token ids, so integers; yours are {targets.dtype}.")
    if not torch.equal(given, ids) or not torch.equal(given_mask, mask):
        raise NotYet("you changed input_ids or mask in place; the caller still needs them: work on a copy.")
    first, second = targets.tolist()
    if first[:3] == [5, 6, 7]:
        raise NotYet("the target at position 0 is token 0, which those logits have read. They predict token 1.")
    if first[1:] == [5, 6, 7]:
        raise NotYet("your targets move to the right: position 1 is asked for token 0, which it has read.")
    if first[3] == 5:
        raise NotYet("your last position predicts the first token of its row: torch.roll goes round.")
    if first[3] != -100:
        raise NotYet(f"nothing follows the last token of row 0, so its target is -100, not {first[3]}.")
    if second[:2] == [5, -100]:
        raise NotYet("the real token 3 that ends row 1 is left out: do not look for padding by its id, use the mask.")
    if second[2] == 3:
        raise NotYet("row 1, position 2: the token *predicted* there is padding. Ask the mask about the target.")
    if not torch.equal(targets, wanted):
        raise NotYet(f"for the ids {ids.tolist()} the targets should be {wanted.tolist()}, not {targets.tolist()}.")
    left = torch.tensor([[False, False, True, True], [True, True, True, True]])
    if not torch.equal(answer(ids, left), torch.tensor([[-100, 7, 8, -100], [5, 3, 3, -100]])):
        raise NotYet("right for a mask that ends early, wrong for one that begins late (a prompt in front).")


@exercise("3.3")
def score_at_the_end(answer):
    scores = torch.tensor([[1.0, 5.0, 2.0, 3.0], [7.0, 4.0, 9.0, 8.0], [9.0, 6.0, 2.0, 1.0]])
    right = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    left = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]])
    got = answer(scores.clone(), right.clone())
    if not isinstance(got, torch.Tensor) or got.shape != (3,):
        shape = list(got.shape) if isinstance(got, torch.Tensor) else type(got).__name__
        raise NotYet(f"for scores of shape [3, 4] you return {shape}; a reward model gives one number per row, [3].")
    seen = [round(float(value), 2) for value in got]
    if seen == [3.0, 8.0, 1.0]:
        raise NotYet("with padding on the right you read the score of a padding token: row 1 has two tokens, not four.")
    if seen == [5.0, 7.0, 9.0]:
        raise NotYet("you return the highest score of each row; a reward model is read at the last token, high or not.")
    if seen == [2.0, 7.0, 6.0]:
        raise NotYet("you read the token before the last one: the number of real tokens minus one is already an index.")
    if seen == [2.75, 5.5, 5.67]:
        raise NotYet("you return the mean over the real tokens; a reward model is read at one token, the last.")
    if seen != [3.0, 4.0, 2.0]:
        raise NotYet(f"with padding on the right the last real scores are [3, 4, 2], not {seen}.")
    seen = [round(float(value), 2) for value in answer(scores.clone(), left.clone())]
    if seen != [3.0, 8.0, 1.0]:
        raise NotYet(
            f"right for padding on the right; on the left, where the last scores are [3, 8, 1], you return {seen}. "
            "Find the last 1 of the mask instead of counting the ones."
        )
    if not torch.equal(answer(scores.clone(), right.bool()), torch.tensor([3.0, 4.0, 2.0])):
        raise NotYet("a mask of booleans gives another answer than a mask of ones and zeros; both are in use.")
