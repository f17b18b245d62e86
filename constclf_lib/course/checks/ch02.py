"""Checks of chapter 02, the input classifier."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import torch

from ...evaluation import calibrate_threshold
from .framework import NotYet, exercise


@exercise("2.1")
def verdict_loss(answer):
    logits = torch.randn(3, 5, 6)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    words = torch.tensor([4, 2, 4])  # the right verdicts; 2 and 4 are the two words of this vocabulary of six
    given = logits.clone().requires_grad_()
    loss = answer(given, mask.clone(), words.clone())
    if not torch.is_tensor(loss) or loss.numel() != 1:
        form = f"a tensor of shape {list(loss.shape)}" if torch.is_tensor(loss) else f"a {type(loss).__name__}"
        raise NotYet(f"you return {form}; a loss is one number, as a tensor, so that it can be differentiated.")
    if not loss.requires_grad:
        raise NotYet("no gradient reaches the logits: something between them and the loss left the graph (.item()?).")
    loss.sum().backward()
    said, right = float(loss.detach()), float(_verdict_loss(logits, mask, words))
    if not np.isclose(said, right, rtol=1e-4):
        raise NotYet(_wrong_loss(said, right, logits, mask, words))
    elsewhere = given.grad.abs().sum(dim=2) > 0
    elsewhere[torch.arange(3), mask.sum(dim=1) - 1] = False
    if elsewhere.any():
        raise NotYet("the number is right, but positions other than the last real token get a gradient.")
    padding = (mask == 0).sum(dim=1).tolist()  # now in front: the same prompts, padded on the left
    moved = torch.stack([row.roll(pads, 0) for row, pads in zip(logits, padding, strict=True)])
    said = float(answer(moved, mask.flip(1), words))
    if not np.isclose(said, right, rtol=1e-4):
        raise NotYet(
            f"right with padding on the right; with the same prompts padded on the left you say {said:.3f}, not "
            f"{right:.3f}: where is the last 1 of the mask?"
        )
    far = torch.tensor([[[0.0, 0.0, 0.0], [200.0, 0.0, 0.0]]])
    said = float(answer(far, torch.tensor([[1, 1]]), torch.tensor([2])))
    if not np.isclose(said, 200, rtol=1e-4):
        raise NotYet(f"logits 200, 0, 0 and the third is right: the loss is 200, you say {said:.3g}; log of a softmax?")


def _verdict_loss(logits, mask, words):
    last = (mask * torch.arange(mask.shape[1])).argmax(dim=1)
    logits = logits[torch.arange(len(logits)), last]
    return (logits.logsumexp(dim=1) - logits.gather(1, words[:, None])[:, 0]).mean()


def _wrong_loss(said, right, logits, mask, words):
    """What `said` looks like: the mistakes that are made most often, each recognised by the number it gives."""
    rows, last = torch.arange(len(words)), mask.sum(dim=1) - 1
    every = logits.logsumexp(dim=2) - logits.gather(2, words[:, None, None].expand(-1, logits.shape[1], 1))[..., 0]
    pair = logits[rows, last][:, words.unique()]
    only_two = (pair.logsumexp(dim=1) - logits[rows, last, words]).mean()
    real = mask.bool()
    mistakes = (
        (-right, "the sign: the loss is *minus* the logarithm of the right word's probability."),
        (3 * right, "the sum over the 3 prompts; take their mean, or a larger batch takes larger steps."),
        (3 * right / real.sum(), "the sum divided by all 10 real tokens; only 3 positions have a loss."),
        (3 * right / real.numel(), "the sum divided by all 15 positions; only 3 of them have a loss."),
        (every[:, -1].mean(), "what the last *column* gives: behind a short prompt that is padding."),
        (
            every[rows, last - 1].mean(),
            "one position too early: logits at t speak of token t + 1, so read them *at* it.",
        ),
        (every[rows, (last + 1).clamp(max=4)].mean(), "one position too late: positions count from 0."),
        (every[:, 0].mean(), "what position 0 gives: argmax of ones and zeros is the *first* one."),
        (every[real].mean(), "a loss at every real token; only the last one of each prompt speaks of the verdict."),
        (every.mean(), "a loss at every position, padding included."),
        (only_two, "a softmax over the two verdict words alone; the loss runs over the whole vocabulary."),
        (-logits[rows, last].softmax(dim=1)[rows, words].mean(), "minus the probability; take its logarithm."),
    )
    for value, told in mistakes:
        if np.isclose(said, float(value), rtol=1e-4):
            return f"your {said:.3f} (instead of {right:.3f}) is {told}"
    return f"for three prompts of 5, 2 and 3 tokens you say {said:.3f}; it is {right:.3f}."


@exercise("2.2")
def off_label_mass(answer):
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    given = logits.clone()
    off = torch.as_tensor(answer(given, (0, 2)))
    if not torch.equal(given, logits):
        raise NotYet("you changed the logits that you were given; work on a copy (index_fill, masked_fill, clone).")
    if tuple(off.shape) != (2,):
        raise NotYet(f"for 2 rows of logits you return the shape {tuple(off.shape)}; give one number per row.")
    probabilities = logits.softmax(dim=1)
    if torch.allclose(off, probabilities[:, [0, 2]].sum(dim=1).to(off.dtype)):
        raise NotYet("you return the mass on the two verdicts; off-label is everything else.")
    if torch.allclose(off, (1 - probabilities[:, 0]).to(off.dtype)):
        raise NotYet('you leave " harmless" among the other tokens; both verdicts are on the label.')
    if abs(float(off[1]) - 0.6) > 1e-5:
        raise NotYet(f"five equal logits, two of them verdicts: 3/5 is off the label, you say {float(off[1]):.3f}.")
    if not torch.allclose(off.double(), 1 - probabilities[:, [0, 2]].sum(dim=1).double(), atol=1e-5):
        raise NotYet(f"for {logits[0].tolist()} with verdicts 0 and 2 you say {float(off[0]):.3f}, not 0.129.")
    far = torch.tensor([[30.0, 28.0, 3.0, 2.0]])  # the others hold 2e-12, which float64 still shows next to 1
    off, truth = float(torch.as_tensor(answer(far, (0, 1)))[0]), float(_exact(far, (0, 1))[0])
    if not np.isfinite(off):
        raise NotYet(f"for logits {far[0].tolist()} you return {off}; stay in log space until the last step.")
    if abs(off / truth - 1) > 1e-2:
        raise NotYet(f"the others of {far[0].tolist()} hold {truth:.1e}; you say {off:.1e}, mostly rounding.")
    sure = torch.tensor([[40.0, 0.0, -1.0]])  # 1.6e-18: next to 1 float64 does not show it either
    off, truth = float(torch.as_tensor(answer(sure, (0, 1)))[0]), float(_exact(sure, (0, 1))[0])
    if not abs(off / truth - 1) < 1e-2:
        raise NotYet(
            f"the other of {sure[0].tolist()} holds {truth:.1e}; you say {off:.1e}. float64 is finer, and what is left "
            "of 1 is rounding all the same: add up the others."
        )
    huge = torch.tensor([[900.0, 899.0, 880.0], [0.0, 0.0, 0.0]])
    off, truth = torch.as_tensor(answer(huge, (0, 1))).double(), _exact(huge, (0, 1))
    if not abs(float(off[0] / truth[0]) - 1) < 1e-2:
        raise NotYet(f"for logits {huge[0].tolist()} you return {off[0]}; exp(900) overflows, logsumexp does not.")
    if not abs(float(off[1] / truth[1]) - 1) < 1e-2:
        raise NotYet(
            f"in one batch with {huge[0].tolist()}, the row 0, 0, 0 gets {off[1]:.3f}, not 1/3; what you subtract "
            "before exp is to be the row's own maximum."
        )
    logits = 4 * torch.randn(64, 50)
    if not torch.allclose(torch.as_tensor(answer(logits, (7, 3))).double(), _exact(logits, (7, 3)), rtol=1e-3):
        raise NotYet("right on the small examples, wrong on random logits with verdicts 7 and 3; are the ids used?")


def _exact(logits, verdict_ids):
    p = logits.double().softmax(dim=1)
    return p.index_fill(1, torch.tensor(verdict_ids), 0.0).sum(dim=1)


@exercise("2.3")
def threshold_within_budget(answer):
    scores = np.arange(1, 9) / 8  # eighths: float32 and float64 hold them exactly
    threshold = float(answer(scores.copy(), 0.25))
    flagged = int((scores > threshold).sum())
    if flagged > 2:
        raise NotYet(f"of eight scores 1/8 ... 8/8, a budget of 25% allows two; above {threshold:.3f} lie {flagged}.")
    if flagged < 2:
        raise NotYet(f"above {threshold:.3f} lie {flagged} of eight scores; a budget of 25% allows two: go lower.")
    shuffled = np.array([0.25, 0.875, 0.75, 0.125, 0.5])
    if not 0.75 <= float(answer(shuffled.copy(), 0.2)) < 0.875:
        raise NotYet(f"scores {shuffled.tolist()}, budget 20%: one may be flagged, 0.875; are the scores sorted?")
    if abs(threshold - 0.75) > 1e-6:
        raise NotYet(
            f"{threshold:.4f} flags two of 1/8 ... 8/8, and so does 0.75, which is lower. Between two scores nothing "
            "changes, so the lowest threshold is one of the scores."
        )
    ties = np.array([0.125, 0.25, 0.875, 0.875, 0.875])
    threshold = float(answer(ties.copy(), 0.4))
    if (ties > threshold).mean() > 0.4:
        raise NotYet(f"scores {ties.tolist()}: above {threshold:.3f} lie three of five, and the budget is two. Ties!")
    if (np.ones(50) > float(answer(np.ones(50), 0.01))).any():
        raise NotYet("fifty scores of exactly 1.0: no threshold below 1.0 keeps a 1% budget, yet you flag them all.")
    none = float(answer(scores.copy(), 0.0))
    if not np.isfinite(none) or (scores > none).any():
        raise NotYet("a budget of 0 flags nothing: the threshold is the highest benign score.")
    rng = np.random.default_rng(0)
    for n, budget in ((100, 0.29), (1000, 0.01), (37, 0.05), (250, 0.1)):
        scores = rng.integers(0, 1024, n) / 1024
        mine, library = float(answer(scores.copy(), budget)), calibrate_threshold(scores, budget)
        if (scores > mine).sum() != (scores > library).sum():
            raise NotYet(
                f"{n} scores, budget {budget:.0%}: you flag {(scores > mine).sum()}, "
                f"the most that fits is {(scores > library).sum()}."
            )
        if abs(mine - library) > 1e-6:
            raise NotYet(f"{n} scores, budget {budget:.0%}: you say {mine:.5f}, but {library:.5f} flags no more.")


@exercise("2.4")
def worst_group(answer):
    # first: 1 of 10 benign flagged; second: 2 of 4 benign flagged, and 6 attacks, all caught; third: attacks only,
    # 9 of 10 caught
    restricted = np.array([False] * 10 + [False] * 4 + [True] * 6 + [True] * 10)
    flagged = np.array([True] + [False] * 9 + [True, True, False, False] + [True] * 6 + [True] * 9 + [False])
    for low, worst, attacks in permutations("abc"):
        groups = np.array([low] * 10 + [worst] * 10 + [attacks] * 10)
        found = answer(groups.copy(), restricted.copy(), flagged.copy())
        if isinstance(found, str) or not hasattr(found, "__len__") or len(found) != 2:
            raise NotYet("return two things, the name of the group and its false-positive rate: `return name, rate`.")
        name, rate = str(found[0]), float(found[1])
        if np.isnan(rate):
            raise NotYet(
                f"your rate is nan. Group {attacks} holds attacks only: 0 of 0 benign rows. What `max` makes of a nan "
                "depends on where it stands; leave such a group out."
            )
        _judge_group(name, rate, low, worst, attacks)
    rng = np.random.default_rng(0)
    groups, restricted, flagged = rng.choice(list("xyz"), 300), rng.random(300) < 0.4, rng.random(300) < 0.3
    name, rate = answer(groups, restricted, flagged)
    rates = {g: flagged[(groups == g) & ~restricted].mean() for g in "xyz"}
    if str(name) != max(rates, key=rates.get) or abs(float(rate) - max(rates.values())) > 1e-6:
        shown = ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items())
        raise NotYet(f"right on the small example; where the rates are {shown} you say {name}, {float(rate):.2f}.")
    nobody = np.zeros(4, bool)
    name, rate = answer(np.array(list("aabb")), nobody, nobody.copy())
    if str(name) not in ("a", "b") or abs(float(rate)) > 1e-6:
        raise NotYet(f"where nobody is flagged every rate is 0, and any group is the worst; you say {name}, {rate}.")


def _judge_group(name, rate, low, worst, attacks):
    def is_rate(count, of):
        return abs(rate - count / of) < 1e-6

    if name == attacks and is_rate(9, 10):
        raise NotYet(
            f"9 of 10 rows of group {attacks} are flagged, but all of them are attacks, and flagging an attack is no "
            "false alarm; look at benign rows alone."
        )
    if name == attacks:
        raise NotYet(f"group {attacks} has no benign rows, so it has no false-positive rate; leave it out.")
    if name == low:
        raise NotYet(f"you name group {low} (1 of 10 benign rows flagged); in group {worst} it is 2 of 4.")
    if name != worst:
        raise NotYet(f"you name {name!r}; the groups are a, b and c, the worst false-positive rate is in {worst}.")
    if is_rate(8, 10):
        raise NotYet(f"you divide 8 flagged by 10 rows of group {worst}; six of them are attacks, rightly flagged.")
    if is_rate(2, 10):
        raise NotYet(f"you divide by all 10 rows of group {worst}; a false-positive rate is a share of its 4 benign.")
    if is_rate(2, 14) or is_rate(3, 14):
        raise NotYet(f"you say {rate:.3f}, a share of the benign rows of *all* groups; divide within the group.")
    if not is_rate(2, 4):
        raise NotYet(f"2 of the 4 benign rows of group {worst} are flagged, a rate of 0.5; you say {rate:.3f}.")
