"""Checks of chapter 04, option A."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ...losses import per_token_bce
from .framework import NotYet, exercise


@exercise("4.1")
def option_a(answer):
    _plain_value(answer)
    _masked_value(answer)
    _awkward_rows(answer)
    _large_logits(answer)
    _gradients(answer)


def _loss_of(answer, z, labels, mask) -> float:
    """The value of one call; what was given must come out untouched."""
    given = z.clone(), labels.clone(), mask.clone()
    loss = answer(*given)
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        kind = list(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise NotYet(f"a loss is one number, as a tensor that carries its gradient; yours is {kind}.")
    for name, before, after in zip(("harm_logits", "labels", "mask"), (z, labels, mask), given, strict=True):
        if not torch.equal(before.nan_to_num(), after.nan_to_num()):
            raise NotYet(f"you changed `{name}` in place; the other losses of the same step need it.")
    return float(loss.detach())


def _tell(got: float, wanted: float, where: str, mistakes: dict[str, float]) -> None:
    if abs(got - wanted) <= 1e-5 * max(1.0, abs(wanted)):
        return
    for words, value in mistakes.items():
        if abs(got - value) <= 1e-5 * max(1.0, abs(value)):
            raise NotYet(f"{where} you return {got:.4g} instead of {wanted:.4g}: {words}")
    raise NotYet(f"{where} the loss is {wanted:.4g}, not {got:.4g}.")


def _bce(z, labels):
    return F.binary_cross_entropy_with_logits(z, labels[:, None].expand_as(z), reduction="none")


def _plain_value(answer):
    z, labels = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.0, -3.0]]), torch.tensor([1.0, 0.0])
    everything = torch.ones(2, 3, dtype=torch.bool)
    right = _bce(z, labels)
    mistakes = {
        "the label is upside down; sigmoid(z) is the probability of *harm*, label 1.": float(
            _bce(z, 1 - labels).mean()
        ),
        "you add a text's tokens up; take their mean, or long texts shout.": float(right.sum(1).mean()),
        "you add the texts up; take their mean.": float(right.mean(1).sum()),
        "only the last token is told the label; option A tells every one.": float(right[:, -1].mean()),
        "that is the loss of the *highest* score; this is option B's idea.": float(
            _bce(z.max(1, keepdim=True).values, labels).mean()
        ),
        "the sign is wrong; a loss is minus the logarithm.": -float(right.mean()),
    }
    _tell(_loss_of(answer, z, labels, everything), float(right.mean()), "for two texts of three tokens", mistakes)


def _masked_value(answer):
    z = torch.tensor([[4.0, 0.5, -1.0, 2.0, 1.0, -0.5], [3.0, -2.0, 1.5, 9.0, 9.0, 9.0]])
    labels, mask = torch.tensor([1.0, 0.0]), torch.tensor([[0, 1, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0]]).bool()
    at_token = _bce(z, labels)
    inside = at_token * mask
    mistakes = {
        "the mask has no effect; the prompt and the padding are scored too.": float(at_token.mean()),
        "`.mean()` divides by all positions, padding included: a long neighbour makes a short text quiet.": float(
            inside.mean()
        ),
        "you divide by the scored tokens of the whole *batch*, so a text of 5 tokens outvotes one of 2. First each "
        "text's own mean, then the mean over texts.": float(inside.sum() / mask.sum()),
        "you divide each text by the width of the batch; divide by its own number of scored tokens.": float(
            inside.mean(1).sum()
        ),
    }
    wanted = float((inside.sum(1) / mask.sum(1)).mean())
    _tell(_loss_of(answer, z, labels, mask), wanted, "for texts of 5 and of 2 scored tokens", mistakes)


def _awkward_rows(answer):
    z, mask = torch.tensor([[0.5, -1.0], [2.0, 1.0]]), torch.ones(2, 2, dtype=torch.bool)
    soft = torch.tensor([0.3, 0.9])
    rounded = {
        "you round the labels; 0.3 means that three of ten graders said harmful.": float(_bce(z, soft.round()).mean())
    }
    _tell(_loss_of(answer, z, soft, mask), float(_bce(z, soft).mean()), "for labels 0.3 and 0.9", rounded)

    labels, mask = torch.tensor([1.0, 0.0]), torch.tensor([[True, True], [False, False]])
    wanted = float(_bce(z, labels)[0].mean())
    got = _loss_of(answer, z, labels, mask)
    if got != got:
        raise NotYet("the second of two texts has no scored token: 0 / 0 made the whole batch NaN. Leave it out.")
    counted = {"the text without a scored token is counted with a loss of 0; leave it out.": wanted / 2}
    _tell(got, wanted, "beside a text without a scored token", counted)

    z, mask = torch.tensor([[0.5, float("nan")], [2.0, 1.0]]), torch.tensor([[True, False], [True, True]])
    if not np.isfinite(_loss_of(answer, z, labels, mask)):
        raise NotYet("a NaN in a padding position reached the loss: NaN * 0 is NaN. Fill, do not multiply.")


def _large_logits(answer):
    one, mask = torch.ones(1), torch.ones(1, 1, dtype=torch.bool)
    for logit, label, wanted in (
        (1e4, 0.0, 1e4),
        (-1e4, 1.0, 1e4),
        (1e4, 1.0, 0.0),
        (-1e4, 0.0, 0.0),
        (30.0, 0.0, 30.0),
    ):
        got = _loss_of(answer, torch.tensor([[logit]]), one * label, mask)
        if not np.isfinite(got):
            raise NotYet(
                f"logit {logit:g}, label {label:g}: the loss is {got}, it should be {wanted:g}. The sigmoid has "
                "rounded to 0 or 1 before the logarithm saw it; stay in logits."
            )
        if abs(got - wanted) > 1e-4 * max(1.0, wanted):
            raise NotYet(
                f"logit {logit:g}, label {label:g}: the loss is {wanted:g}, yours {got:.4g}. A clamped probability "
                "is finite and wrong: the most confident mistakes no longer count."
            )


def _gradients(answer):
    nan = float("nan")
    z = torch.tensor([[0.0, 2.0, 1e4, -1e4, 0.0], [0.0, -1.0, 1e4, nan, nan]])
    labels, mask = torch.tensor([1.0, 0.0]), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    given, library = z.clone().requires_grad_(), z.clone().requires_grad_()
    loss = answer(given, labels.clone(), mask.clone())
    if not loss.requires_grad:
        raise NotYet("the loss carries no gradient; is there a .item(), .detach() or no_grad on the way?")
    loss.sum().backward()
    per_token_bce(library, labels, mask).backward()
    got, wanted = given.grad, library.grad
    if got is None:
        raise NotYet("no gradient reaches harm_logits, so nothing would be learnt.")
    if not got[~mask].isfinite().all():
        raise NotYet(
            "the value survives a NaN in the padding, the gradient does not: backward multiplies by zero, and NaN * 0 "
            "is NaN. Fill the *logits* before the cross-entropy."
        )
    if (got[~mask] != 0).any():
        raise NotYet("a position outside the mask receives gradient; prompt and padding should not.")
    for i, t in mask.nonzero().tolist():
        if not torch.isclose(got[i, t], wanted[i, t], rtol=1e-4, atol=1e-7):
            raise NotYet(
                f"at logit {z[i, t]:g}, label {labels[i]:g}, in a text of {int(mask[i].sum())} tokens, the gradient is "
                f"{got[i, t]:.4g}; (p - y) / tokens / texts is {wanted[i, t]:.4g}."
                + (" A max(z, 0) has no slope of one half at 0, where a new head begins." if z[i, t] == 0 else "")
            )


@exercise("4.2")
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
def for_another_mix(answer):
    same = torch.tensor([0.1, 0.5, 0.9])
    got = _numbers(answer(same.clone(), 0.4, 0.4))
    if got.shape != same.shape:
        raise NotYet("for three forecasts give three forecasts back, in the same shape.")
    if not torch.allclose(got, same, atol=1e-5):
        raise NotYet(f"the mix did not change (0.4 to 0.4), but 0.1, 0.5, 0.9 became {_told(got)}.")
    known = float(_numbers(answer(torch.tensor([0.4]), 0.4, 0.1)))
    if abs(known - 0.1) > 1e-4:
        raise NotYet(
            f"a forecast that says only the old base rate, 0.4, should say the new one, 0.1; yours says {known:.3f}."
        )
    got = _numbers(answer(torch.tensor([0.0, 1.0, 0.9]), 0.4, 0.1))
    if not got.isfinite().all():
        raise NotYet(f"from 0.4 to 0.1 the forecasts 0, 1 and 0.9 became {_told(got)}: certainty has infinite odds.")
    if got.min() < -1e-5 or got.max() > 1 + 1e-5:
        raise NotYet(f"from 0.4 to 0.1 the forecasts 0, 1 and 0.9 became {_told(got)}; a probability stays in [0, 1].")
    if abs(float(got[1]) - 1) > 1e-4:
        raise NotYet(
            f"a certain forecast, 1.0, became {float(got[1]):.3f}: scaling the probability makes certainty impossible. "
            "Scale the odds."
        )
    for p, old, new in ((0.9, 0.4, 0.1), (0.2, 0.3, 0.8), (0.05, 0.5, 0.02)):
        wanted = p / (1 - p) * (new / (1 - new)) / (old / (1 - old))
        wanted = wanted / (1 + wanted)
        moved = float(_numbers(answer(torch.tensor([p]), old, new)))
        if abs(moved - wanted) > 1e-4:
            raise NotYet(f"from {old} to {new} a forecast of {p} becomes {wanted:.3f}, not {moved:.3f}. Work in odds.")


@exercise("4.4")
def at_the_halt(answer):
    rows = [[0.2, 0.6, 0.95, 0.3], [0.7, 0.1], [0.1, 0.2], [0.5, 0.4], [0.1, 0.8, 0.3], [0.52], [], [0.1, 0.3, 0.2]]
    harmful = np.array([True, False, True, False, True, True, False, True])
    given = [np.array(row) for row in rows]
    found = answer(given, harmful.copy(), 0.5)
    if any(not np.array_equal(a, b) for a, b in zip(given, rows, strict=True)):
        raise NotYet("you changed the scores in place; work on a copy.")
    if np.size(found) != 2 or (isinstance(found, torch.Tensor) and found.dim() != 1):
        raise NotYet("return two numbers: what was said on average at the halt, and the share of halts that are right.")
    said, right = (float(value) for value in found)
    asked = "of 8 texts, 4 cross 0.5, at 0.6, 0.7, 0.8 and 0.52; 3 of them are harmful: "
    if abs(said - 0.75) < 1e-6 and abs(right - 0.655) < 1e-6:
        raise NotYet(asked + "the two numbers come in the other order; first what was said.")
    means = {
        0.7425: "you take the *highest* score. The guard is gone by then; it halted at the first crossing.",
        0.305: "you take the *last* score, which a halted text never reaches.",
        0.624: "a score that equals the threshold halts nobody: score > threshold, strictly.",
        0.65: "that is a median; take the mean.",
        0.714: "you count every score above the threshold; a guard halts a text once.",
    }
    shares = {
        0.6: "that is how many of the *harmful* texts are halted; ask how many of the *halted* are harmful.",
        0.375: "you divide by all texts; texts that are never halted take no part.",
        0.25: "that is the share of halts that are *wrong*.",
        3.0: "that is a count; give a share.",
    }
    for told, got, mistakes in (("said", said, means), ("right", right, shares)):
        for value, words in mistakes.items():
            if abs(got - value) < 1e-6:
                raise NotYet(f"{asked}{told} = {got:.3g}: {words}")
    if abs(said - 0.655) > 1e-6 or abs(right - 0.75) > 1e-6:
        raise NotYet(f"{asked}so (0.655, 0.75), not ({said:.3g}, {right:.3g}).")
    said, right = (
        float(value) for value in answer([np.array([0.4, 0.3]), np.array([0.2])], np.array([True, False]), 0.35)
    )
    if abs(said - 0.4) > 1e-6 or right != 1:
        raise NotYet(
            "with the threshold at 0.35 one text halts, harmful, at 0.4: so (0.4, 1). Use the threshold given."
        )


def _numbers(found) -> torch.Tensor:
    """A tensor, array, list or number as float32."""
    return torch.as_tensor(found).detach().float()


def _told(values):
    return ", ".join(f"{float(value):.2f}" for value in values)
