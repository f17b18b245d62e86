"""Checks of chapter 02, the input classifier."""

from __future__ import annotations

import numpy as np
import torch

from ...evaluation import calibrate_threshold
from .framework import NotYet, exercise


@exercise("2.1")
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
    far = torch.tensor([[30.0, 28.0, 0.0, -1.0]])
    off, truth = float(torch.as_tensor(answer(far, (0, 1)))[0]), float(_exact(far, (0, 1))[0])
    if not np.isfinite(off):
        raise NotYet(f"for logits {far[0].tolist()} you return {off}; stay in log space until the last step.")
    if abs(off / truth - 1) > 1e-2:
        raise NotYet(f"the others of {far[0].tolist()} hold {truth:.1e}; you say {off:.1e}, mostly rounding.")
    huge = torch.tensor([[900.0, 899.0, 880.0]])
    off, truth = float(torch.as_tensor(answer(huge, (0, 1)))[0]), float(_exact(huge, (0, 1))[0])
    if not abs(off / truth - 1) < 1e-2:
        raise NotYet(f"for logits {huge[0].tolist()} you return {off}; exp(900) overflows, logsumexp does not.")
    logits = 4 * torch.randn(64, 50)
    if not torch.allclose(torch.as_tensor(answer(logits, (7, 3))).double(), _exact(logits, (7, 3)), rtol=1e-3):
        raise NotYet("right on the small examples, wrong on random logits with verdicts 7 and 3; are the ids used?")


def _exact(logits, verdict_ids):
    p = logits.double().softmax(dim=1)
    return p.index_fill(1, torch.tensor(verdict_ids), 0.0).sum(dim=1)


@exercise("2.4")
def verdict_logits(answer):
    logits = torch.arange(2 * 4 * 3, dtype=torch.float32).reshape(2, 4, 3)
    right = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    rows = answer(logits.clone(), right.clone())
    if tuple(rows.shape) != (2, 3):
        raise NotYet(f"for logits [2, 4, 3] you return {list(rows.shape)}; give one row of the vocabulary per prompt.")
    if torch.equal(rows, logits[:, -1]):
        raise NotYet("the first prompt has 2 tokens and you read position 3: that is what follows the padding.")
    if torch.equal(rows[0], logits[0, 2]):
        raise NotYet("the first prompt has 2 tokens and you read position 2, the first pad; positions count from 0.")
    if torch.equal(rows, logits[:, 0]):
        raise NotYet("you read position 0; argmax of a mask of ones and zeros is its *first* one.")
    if torch.equal(rows[1], logits[1, 1]) and torch.equal(rows[0], logits[0, 1]):
        raise NotYet("you read position 1 in both rows; every prompt has its own last token.")
    if not torch.equal(rows, logits[[0, 1], [1, 3]]):
        raise NotYet("with 2 and 4 real tokens the verdicts follow positions 1 and 3; you read something else.")
    left = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    if not torch.equal(answer(logits.clone(), left), logits[:, -1]):
        raise NotYet("right padding works; with padding on the left, [0, 0, 1, 1], the last real token is position 3.")


@exercise("2.2")
def threshold_within_budget(answer):
    scores = np.arange(1, 11) / 10
    threshold = float(answer(scores.copy(), 0.2))
    flagged = int((scores > threshold).sum())
    if flagged > 2:
        raise NotYet(f"of ten scores 0.1 ... 1.0, a budget of 20% allows two; above {threshold:.3f} lie {flagged}.")
    if flagged < 2:
        raise NotYet(f"above {threshold:.3f} lie {flagged} of ten scores; a budget of 20% allows two: go lower.")
    shuffled = np.array([0.3, 0.9, 0.1, 0.7, 0.5])
    if not 0.7 <= float(answer(shuffled.copy(), 0.2)) < 0.9:
        raise NotYet(f"scores {shuffled.tolist()}, budget 20%: one may be flagged, 0.9; are the scores sorted?")
    ties = np.array([0.1, 0.2, 0.9, 0.9, 0.9])
    threshold = float(answer(ties.copy(), 0.4))
    if (ties > threshold).mean() > 0.4:
        raise NotYet(f"scores {ties.tolist()}: above {threshold:.3f} lie three of five, and the budget is two. Ties!")
    if (np.ones(50) > float(answer(np.ones(50), 0.01))).any():
        raise NotYet("fifty scores of exactly 1.0: no threshold below 1.0 keeps a 1% budget, yet you flag them all.")
    if not np.isfinite(answer(scores.copy(), 0.0)) or (scores > float(answer(scores.copy(), 0.0))).any():
        raise NotYet("a budget of 0 flags nothing: the threshold is the highest benign score.")
    rng = np.random.default_rng(0)
    for n, budget in ((100, 0.29), (1000, 0.01), (37, 0.05), (250, 0.1)):
        scores = rng.random(n).round(3)
        mine, library = float(answer(scores.copy(), budget)), calibrate_threshold(scores, budget)
        if (scores > mine).sum() != (scores > library).sum():
            raise NotYet(
                f"{n} scores, budget {budget:.0%}: you flag {(scores > mine).sum()}, "
                f"the most that fits is {(scores > library).sum()}."
            )


@exercise("2.3")
def worst_group(answer):
    # group a: 1 of 10 benign flagged; b: 2 of 4 benign flagged, and 6 attacks, all caught; c: attacks only
    groups = np.array(["a"] * 10 + ["b"] * 10 + ["c"] * 5)
    restricted = np.array([False] * 10 + [False] * 4 + [True] * 6 + [True] * 5)
    flagged = np.array([True] + [False] * 9 + [True, True, False, False] + [True] * 6 + [True] * 5)
    found = answer(groups.copy(), restricted.copy(), flagged.copy())
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise NotYet("return two things, the name of the group and its false-positive rate: `return name, rate`.")
    name, rate = str(found[0]), float(found[1])
    if name == "c":
        raise NotYet("group c holds attacks only, and flagging an attack is no false alarm; look at benign rows alone.")
    if name == "a":
        raise NotYet("you name group a (1 of 10 benign rows flagged); in group b it is 2 of 4.")
    if name != "b":
        raise NotYet(f"you name {name!r}; the groups are a, b and c, and the worst false-positive rate is in b.")
    if abs(rate - 0.8) < 1e-9:
        raise NotYet("you divide 8 flagged by 10 rows of group b; six of them are attacks, which should be flagged.")
    if abs(rate - 2 / 10) < 1e-9:
        raise NotYet("you divide by all 10 rows of group b; a false-positive rate is a share of its 4 benign rows.")
    if abs(rate - 2 / 14) < 1e-9 or abs(rate - 3 / 14) < 1e-9:
        raise NotYet(f"you say {rate:.3f}, a share of the benign rows of *all* groups; divide within the group.")
    if abs(rate - 0.5) > 1e-9:
        raise NotYet(f"2 of the 4 benign rows of group b are flagged, a rate of 0.5; you say {rate:.3f}.")
    rng = np.random.default_rng(0)
    groups, restricted, flagged = rng.choice(list("xyz"), 300), rng.random(300) < 0.4, rng.random(300) < 0.3
    name, rate = answer(groups, restricted, flagged)
    rates = {g: flagged[(groups == g) & ~restricted].mean() for g in "xyz"}
    if str(name) != max(rates, key=rates.get) or abs(float(rate) - max(rates.values())) > 1e-9:
        raise NotYet(f"right on the small example; where the rates are {_told(rates)} you say {name}, {rate:.2f}.")


def _told(rates):
    return ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items())
