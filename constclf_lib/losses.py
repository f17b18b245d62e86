"""The losses of the two bodyguards, as pure functions on tensors.

What it does: the three harm losses of the output classifier (option A, option B and the annealed mixture; chapters 04
to 06; the loss of section 3.4 of Constitutional Classifiers, arXiv 2501.18837, as restated in appendix C of arXiv
2601.04603) and the next-token loss that keeps its language model alive (chapter 03). All three harm losses are one
cross-entropy on a *logit per position*; they differ only in that logit:

    option A    z_t                         what the classifier says at t
    option B    max of z_s over s <= t      the most alarming thing it has said so far; s runs over scored positions
    annealed    logit of (1 - omega) sigmoid(z_t) + omega sigmoid(max of z_s)

(In option B the maximum may be taken of logits, because a sigmoid keeps their order.)

Two more weigh the positions instead of averaging them, for a probe that is too small to be at the base rate on harmless
openings and high later at once (chapter 10): the softmax-weighted loss of arXiv 2601.04603, section 4, and SingProbe's
variant of it (arXiv 2608.30703). `sliding_window_mean` smooths logits before either.

What it deliberately does not do: weigh the losses against each other (`training`), know about models or tokenizers,
or take a probability where a logit will do. Working in logits keeps value and gradient exact and finite for |logit| up
to 1e4; `log(sigmoid(z))` overflows at 104 and its gradient dies at 17.

Common shapes: harm_logits [batch, time] floating, labels [batch] in [0, 1] (soft labels allowed), mask [batch, time]
bool, True at scored tokens. Prompt and padding positions take no part in the loss or in the maximum, whatever they
hold. Every loss is the (weighted) mean over a sequence's scored positions, then over the sequences that have any, so a
long sequence counts as much as a short one. The result is a scalar in nats, float32 (float64 for float64 logits).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def per_token_bce(harm_logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Option A (chapter 04): at every scored position, cross-entropy of sigmoid(z_t) against the label of the whole
    sequence.

    Raises ValueError on a wrong shape or dtype, a label outside [0, 1], or a mask that marks no position at all.
    """
    logits, labels = _checked(harm_logits, labels, mask)
    return _sequence_mean(_bce(_hide(logits, mask), labels), mask)


def cumulative_max_bce(harm_logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Option B (chapter 05): the same cross-entropy, of the largest probability so far. Gradient reaches only tokens
    that set (or equal) a record.

    Among equal records the latest one gets the gradient, as in `torch.cummax`. Raises ValueError as `per_token_bce`
    does.
    """
    logits, labels = _checked(harm_logits, labels, mask)
    return _sequence_mean(_bce(_running_max(logits, mask), labels), mask)


def annealed_bce(harm_logits: Tensor, labels: Tensor, mask: Tensor, omega: float) -> Tensor:
    """Chapter 06: cross-entropy of the *probability* (1 - omega) sigmoid(z_t) + omega max_{s<=t} sigmoid(z_s). One
    loss, not a sum of two.

    omega 0 is option A and omega 1 is option B, to the bit. Raises ValueError if omega is outside [0, 1], and as
    `per_token_bce` does.
    """
    omega = float(omega)
    if not 0.0 <= omega <= 1.0:
        raise ValueError(f"omega must be in [0, 1], not {omega}; training.linear_anneal gives one")
    if omega == 0.0:  # the ends have no mixture to take the logarithm of: log(0) would poison the gradient
        return per_token_bce(harm_logits, labels, mask)
    if omega == 1.0:
        return cumulative_max_bce(harm_logits, labels, mask)
    logits, labels = _checked(harm_logits, labels, mask)
    return _sequence_mean(_bce(_mixture_logit(_hide(logits, mask), _running_max(logits, mask), omega), labels), mask)


def softmax_weighted_bce(logits: Tensor, labels: Tensor, mask: Tensor, tau: float = 1.0) -> Tensor:
    """Chapter 10: option A's cross-entropies, weighted by softmax(z / tau) over a sequence's scored positions. The
    loudest tokens decide: quiet ones of a harmful sequence cost little, a loud one of a harmless sequence costs all.

    logits [batch, time], of `sliding_window_mean` or as they are. The gradient runs through the weights too. tau: large
    is option A, small looks at the loudest token alone. Raises ValueError unless tau > 0, and as `per_token_bce` does.
    """
    if not 0 < tau < math.inf:
        raise ValueError(f"tau must be a positive number, not {tau}")
    logits, labels = _checked(logits, labels, mask)
    return _weighted_mean(_bce(_hide(logits, mask), labels), _hide(logits, mask) / tau, mask)


def spread_weighted_bce(
    logits: Tensor, labels: Tensor, mask: Tensor, temperature: float = 1.0, spread: float = 0.1
) -> Tensor:
    """The same with weights softmax(beta p / temperature) of the probabilities, beta = min(1, s / spread) where s is
    the standard deviation of p over all scored tokens of the batch: option A while the tokens look alike, sharper as
    they part. An annealing without a schedule, from SingProbe (arXiv 2608.30703; the form and the defaults are those of
    its public training code).

    No gradient runs through the weights. Raises ValueError unless both are > 0, and as `per_token_bce` does.
    """
    if not (0 < temperature < math.inf and 0 < spread < math.inf):
        raise ValueError(f"temperature and spread must be positive numbers, not {temperature} and {spread}")
    logits, labels = _checked(logits, labels, mask)
    p = torch.sigmoid(logits.detach())
    beta = (p[mask].std(correction=0) / spread).clamp(max=1.0)
    return _weighted_mean(_bce(_hide(logits, mask), labels), _hide(beta * p / temperature, mask), mask)


def sliding_window_mean(logits: Tensor, mask: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """SWiM (chapter 10; arXiv 2601.04603, section 4): at every scored position the mean of the last `width` scored
    logits, from the position on where there are so many.

    Returns (means [batch, time], mask [batch, time] of the positions that have one), ready for any loss above. A
    sequence with fewer scored positions gets one mean, of all of them, at its last. Unscored positions in between are
    passed over. Raises ValueError for width < 1, a wrong shape or dtype, or an empty mask.
    """
    if width < 1:
        raise ValueError(f"a window holds at least one position, not {width}")
    _check_logits(logits, mask)
    logits, counts = _hide(_at_least_float32(logits), mask), mask.sum(dim=1)
    place = mask.cumsum(dim=1) - 1  # of a scored position among the scored ones of its sequence
    packed = logits.new_zeros(len(logits), int(counts.max())).masked_scatter(
        torch.arange(int(counts.max()), device=mask.device) < counts[:, None], logits[mask]
    )
    # sums over the window itself, not differences of running sums: those lose digits in a long sequence
    sums = F.pad(packed, (width - 1, 0)).unfold(1, width, 1).sum(dim=-1)
    means = sums / counts.clamp(min=1, max=width)[:, None]
    full = mask & (place >= (counts.clamp(max=width) - 1)[:, None])
    return _hide(means.gather(1, place.clamp(min=0)), full), full


def next_token_loss(lm_logits: Tensor, input_ids: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of the next token (chapter 03), in nats per token. The mask marks the tokens to be *predicted*: the
    token at t, from the logits at t-1.

    lm_logits [batch, time, vocab] floating, input_ids [batch, time] integer, mask [batch, time] bool. The first
    position has nothing before it and is left out; a batch in which only first positions are marked gives 0 with a zero
    gradient. Raises ValueError on a wrong shape or dtype or an empty mask.
    """
    if lm_logits.dim() != 3 or not lm_logits.is_floating_point():
        raise ValueError(
            f"lm_logits must be floating [batch, time, vocab], not {lm_logits.dtype} {list(lm_logits.shape)}"
        )
    if input_ids.shape != lm_logits.shape[:2] or input_ids.is_floating_point() or input_ids.dtype == torch.bool:
        want = list(lm_logits.shape[:2])
        raise ValueError(
            f"input_ids must be integer [batch, time] = {want}, not {input_ids.dtype} {list(input_ids.shape)}"
        )
    _check_mask(mask, input_ids.shape)
    predicted = mask[:, 1:]
    # Only the rows that count are copied and upcast: with a vocabulary of 256k, float32 logits of prompt and padding
    # would be most of the memory.
    rows, targets = _at_least_float32(lm_logits[:, :-1][predicted]), input_ids[:, 1:][predicted].long()
    losses = rows.new_zeros(predicted.shape).masked_scatter(predicted, F.cross_entropy(rows, targets, reduction="none"))
    return _sequence_mean(losses, predicted)


def next_token_loss_in_chunks(
    logits_of: Callable[[Tensor], Tensor], hidden: Tensor, input_ids: Tensor, mask: Tensor, rows: int
) -> Tensor:
    """`next_token_loss` without ever holding all logits: they are made for `rows` positions at a time, and made again
    in the backward pass (chapter 11). With a vocabulary of 262,144, the logits of 4,096 tokens are 4 GB in float32, and
    their gradient as much again.

    logits_of: hidden states [1, n, hidden] -> logits [1, n, vocab], a causal LM's head. hidden [batch, time, hidden].
    Equal to next_token_loss(logits_of(hidden), ...) up to rounding, in value and gradient. Raises ValueError for rows
    < 1 or a wrong shape or dtype.
    """
    if rows < 1 or hidden.dim() != 3 or hidden.shape[:2] != input_ids.shape:
        raise ValueError(
            f"need rows >= 1 and hidden {list(input_ids.shape)} + [size], not {rows}, {list(hidden.shape)}"
        )
    _check_mask(mask, input_ids.shape)
    predicted = mask[:, 1:]
    states, targets = hidden[:, :-1][predicted], input_ids[:, 1:][predicted].long()

    def part(states: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(_at_least_float32(logits_of(states[None])[0]), targets, reduction="none")

    parts = [
        checkpoint(part, x, y, use_reentrant=False, preserve_rng_state=False)
        for x, y in zip(torch.split(states, rows), torch.split(targets, rows), strict=True)
    ]
    found = torch.cat(parts)
    return _sequence_mean(found.new_zeros(predicted.shape).masked_scatter(predicted, found), predicted)


def _running_max(logits: Tensor, mask: Tensor) -> Tensor:
    """max of the scored logits up to each position [batch, time]. Unscored positions hold the lowest finite number
    meanwhile: with -inf, the cross-entropy of a leading prompt position would be nan, and nan times a zero of the mask
    is still nan.
    """
    floor = torch.finfo(logits.dtype).min
    return _hide(logits.masked_fill(~mask, floor).cummax(dim=1).values, mask)


def _mixture_logit(now: Tensor, record: Tensor, omega: float) -> Tensor:
    """logit of (1 - omega) sigmoid(now) + omega sigmoid(record), for 0 < omega < 1, without leaving log space.

    The difference of the two logarithms keeps its accuracy where either probability rounds to 0 or 1; the logarithms
    themselves would not.
    """
    a, b = math.log1p(-omega), math.log(omega)
    log_p = torch.logaddexp(a + F.logsigmoid(now), b + F.logsigmoid(record))
    log_not_p = torch.logaddexp(a + F.logsigmoid(-now), b + F.logsigmoid(-record))
    return log_p - log_not_p


def _bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy [batch, time] of sigmoid(logits) against labels [batch]: -(y log p + (1 - y) log(1 - p))."""
    y = labels[:, None]
    return -(y * F.logsigmoid(logits) + (1 - y) * F.logsigmoid(-logits))


def _hide(values: Tensor, mask: Tensor) -> Tensor:
    """Zero outside the mask: filled, not multiplied, so that not even a nan in a padding position can reach the value
    or the gradient.
    """
    return values.masked_fill(~mask, 0.0)


def _sequence_mean(losses: Tensor, mask: Tensor) -> Tensor:
    """Mean over each sequence's marked positions, then over the sequences that have any; 0 (with a gradient of 0) if
    none has.
    """
    counts = mask.sum(dim=1)
    per_sequence = _hide(losses, mask).sum(dim=1) / counts.clamp(min=1)
    return per_sequence.sum() / (counts > 0).sum().clamp(min=1)


def _weighted_mean(losses: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    """Each sequence's losses weighted by the softmax of its scores where marked, then the mean over sequences."""
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=1)
    marked = mask.any(dim=1)
    per_sequence = _hide(losses * _hide(weights, mask), mask).sum(dim=1)
    return per_sequence[marked].sum() / marked.sum().clamp(min=1)


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _check_mask(mask: Tensor, shape: torch.Size) -> None:
    if mask.dtype != torch.bool or mask.shape != shape:
        raise ValueError(
            f"mask must be bool {list(shape)}, not {mask.dtype} {list(mask.shape)} (an attention mask: .bool() it)"
        )
    if not mask.any():
        raise ValueError(
            "mask marks no position in the whole batch, so there is nothing to score; leave out empty completions"
        )


def _check_logits(harm_logits: Tensor, mask: Tensor) -> None:
    if harm_logits.dim() != 2 or not harm_logits.is_floating_point():
        raise ValueError(
            f"harm_logits must be floating [batch, time], not {harm_logits.dtype} {list(harm_logits.shape)}"
        )
    _check_mask(mask, harm_logits.shape)


def _checked(harm_logits: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and labels in at least float32, after every check that the docstrings promise."""
    _check_logits(harm_logits, mask)
    if labels.shape != harm_logits.shape[:1] or labels.is_complex():
        raise ValueError(
            f"labels must be one number per sequence, [{len(harm_logits)}], not {labels.dtype} {list(labels.shape)}"
        )
    logits = _at_least_float32(harm_logits)
    labels = labels.to(logits.dtype)
    if not ((labels >= 0) & (labels <= 1)).all():
        raise ValueError(f"labels must be in [0, 1], but they run from {labels.min().item()} to {labels.max().item()}")
    return logits, labels
