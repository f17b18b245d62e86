"""Checks of chapter 10's streams: a sliding mean that releases, and a cascade's decision."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ...streaming import cascade_scores
from .ch10 import close_to, number_of
from .framework import NotYet, attempted, exercise


def _run(answer: Callable, logits, width: int, threshold: float) -> list[int]:
    """The tokens 0, 1, ... that are released."""
    out: list[int] = []
    steps = ((token, float(z)) for token, z in enumerate(logits))
    stream = attempted(answer(steps, width, threshold))
    for token in stream:
        out.append(int(token))
    return out


def _cleared(logits, width: int, threshold: float) -> list[int]:
    out: list[int] = []
    for t in range(len(logits)):
        window = logits[max(0, t + 1 - width) : t + 1]
        mean = sum(window) / len(window)
        if not 1 / (1 + math.exp(-max(-700.0, min(700.0, mean)))) <= threshold:
            return out
        out.append(t)
    return out


@exercise("10.4")
def watch(answer):
    calm = [-4.0] * 12
    out = _run(answer, calm, 8, 0.3)
    if not out:
        raise NotYet(
            "a calm reply (logits -4, width 8, threshold 0.3) is stopped at its first token: divide by the tokens that "
            "are there, not by the width, or the window starts full of zeros, each of them a probability of 1/2."
        )
    if out != list(range(12)):
        raise NotYet(f"of a calm reply of 12 tokens (logits -4, width 8, threshold 0.3) you release {out}.")
    logits = [-4.0, -4.0, 1.0, 6.0, -8.0, -8.0, -8.0]
    out, wanted = _run(answer, logits, 2, 0.5), [0, 1, 2]
    told = f"logits {logits}, width 2, threshold 0.5: tokens {wanted} may go out; you release {out}."
    if out == [0, 1, 2, 3]:
        raise NotYet(told + " The token that crossed the line is out: judge first, then yield.")
    if out == [0, 1, 2, 5, 6] or out == [0, 1, 2, 4, 5, 6]:
        raise NotYet(told + " A halt is final: nothing follows it.")
    if out == [0, 1]:
        raise NotYet(told + " Token 2 is loud, the mean of its window is not; your window is too short, or no mean.")
    if len(out) == len(logits):
        raise NotYet(told + " Your mean never forgets: a window holds the last two logits and no more.")
    if out != wanted:
        raise NotYet(told)
    if _run(answer, [3.0, 3.0, -9.0, -9.0], 4, 0.5):
        raise NotYet(
            "logits 3, 3 at the very start, width 4, threshold 0.5: nothing may go out. First tokens are judged too, "
            "by the mean of those that are there."
        )
    peak = [-6.0, 2.0, -6.0, 2.0]
    if _run(answer, peak, 2, 0.4) != [0, 1, 2, 3]:
        raise NotYet(
            f"logits {peak}, width 2, threshold 0.4: the mean logit is -2, so all may go out. A mean of "
            "*probabilities* would be 0.44."
        )
    even = _run(answer, [0.0, 0.0, 0.0], 2, 0.5)
    if even != [0, 1, 2]:
        raise NotYet(
            "a probability of exactly the threshold is not above it: halt at p > threshold, as it was calibrated."
        )
    _check_watch_is_a_stream(answer)
    _check_watch_fails_closed(answer)
    rng = np.random.default_rng(0)
    for width in (1, 3, 16):
        for _ in range(5):
            logits = rng.normal(-2, 3, 40).tolist()
            if (out := _run(answer, logits, width, 0.6)) != (wanted := _cleared(logits, width, 0.6)):
                raise NotYet(
                    f"40 random logits, width {width}: {len(wanted)} tokens may go out, you release {len(out)}."
                )


def _check_watch_is_a_stream(answer: Callable) -> None:
    pulled = []

    def steps():
        for token in range(6):
            pulled.append(token)
            yield token, -4.0

    stream = iter(answer(steps(), 4, 0.5))
    if next(stream, None) != 0 or len(pulled) > 1:
        raise NotYet(f"before the first token was out the assistant had to write {len(pulled)}: that is no stream.")


def _check_watch_fails_closed(answer: Callable) -> None:
    def released(logits) -> list[int]:
        out: list[int] = []
        try:
            for token in answer(((t, z) for t, z in enumerate(logits)), 2, 0.5):
                out.append(int(token))
        except (ValueError, ArithmeticError, RuntimeError):  # to raise is one way to stop
            if any(map(math.isfinite, logits[len(out) : len(out) + 1])):
                raise
        return out

    for size in (-2000.0, -1e4):
        try:
            out = released([size] * 3)
        except OverflowError:
            raise NotYet(
                f"logits of {size:.0f} overflow in your sigmoid: compare in a form that bears them, "
                "e.g. exp of minus the size of the logit."
            ) from None
        if out != [0, 1, 2]:
            raise NotYet(f"logits of {size:.0f} are as calm as can be; you release {out} of [0, 1, 2].")
    if released([-4.0, 1e4, -4.0]) != [0]:
        raise NotYet("after a logit of 1e4 nothing may go out.")
    out = released([-4.0, -4.0, math.nan, -4.0, -4.0, -4.0])
    if out != [0, 1]:
        raise NotYet(
            f"the logit of token 2 is nan: only 0 and 1 may be out, you release {out}. nan > threshold is False, so "
            "ask the other way round: is it known to be at most the threshold?"
        )


class _Stage:
    """A stream whose scores are known, one per token in the order of reading. None: it fails there."""

    def __init__(self, scores, log):
        self.given, self.scores, self.risk, self.log = scores, [], 0.0, log

    def push(self, token_ids):
        tokens = list(token_ids)
        self.log += tokens
        places = range(len(self.scores), len(self.scores) + len(tokens))
        new = [self.given[min(place, len(self.given) - 1)] for place in places]
        if None in new:
            raise RuntimeError("the stage failed")
        self.scores += new
        self.risk = max([self.risk, *new])  # like Python's max, it does not see a nan
        return list(new)

    def close(self):
        pass


class _Pair:
    """A learner's cascade on two stages, and what was asked of them."""

    def __init__(self, answer, first, second, weight=0.5, above=0.5):
        self.read_first: list[int] = []
        self.read_second: list[int] = []
        self.opened = 0
        self.second = second
        self.cascade = answer(_Stage(first, self.read_first), self._open, weight, above)
        if self.opened:
            raise NotYet("the second stage is opened before the first has seen anything; open it when it is needed.")

    def _open(self):
        self.opened += 1
        return _Stage(self.second, self.read_second)

    def push(self, token: int) -> float:
        return number_of(self.cascade.push(token), "push")

    @property
    def risk(self) -> float:
        return number_of(self.cascade.risk, "risk")


def _pushed(pair: _Pair, count: int) -> list[float]:
    return [pair.push(10 + t) for t in range(count)]


def _sigmoid_of(a: float, p: float, q: float) -> float:
    z = a * math.log(p / (1 - p)) + (1 - a) * math.log(q / (1 - q))
    return 1 / (1 + math.exp(-z))


@exercise("10.5")
def cascade(answer):
    p, q, a = [0.1, 0.2, 0.7, 0.3, 0.9], [0.2, 0.1, 0.6, 0.8, 0.4], 0.25
    pair = _Pair(answer, p, q, a)
    got = _pushed(pair, 5)
    wanted = cascade_scores(p, q, a, 0.5).tolist()
    mixed = [_sigmoid_of(a, x, y) for x, y in zip(p, q, strict=True)]
    told = f"first stage {p}, second {q}, weight 0.25, escalate above 0.5: "
    if got[0] != 0 or got[1] != 0:
        if close_to(got[:2], p[:2]):
            raise NotYet(
                told + "the first two tokens get the first stage's score; it escalates, it never halts: give 0."
            )
        if pair.opened and close_to(got[:2], mixed[:2]):
            raise NotYet(told + "the second stage reads from the first token on; it is asked only from token 2 on.")
        raise NotYet(told + f"the first two tokens are not escalated, their score is 0; you give {got[0]:.3g}.")
    if got[3] == 0:
        raise NotYet(
            told + "token 3 is quiet again and you let it go by. Escalated is escalated: to the end of the reply."
        )
    if pair.opened > 1:
        raise NotYet(told + f"you open the second stage {pair.opened} times; one stream reads the whole reply.")
    if pair.read_second == [12, 13, 14]:
        raise NotYet(
            told + "the second stage is given tokens 2, 3, 4 and not what stood before them: it reads a torso."
        )
    if pair.read_second != [10, 11, 12, 13, 14]:
        raise NotYet(told + f"the second stage should read 10 to 14, each once; you push {pair.read_second}.")
    known = {
        "you mix the probabilities; mix the logits, then take the sigmoid.": [
            a * x + (1 - a) * y for x, y in zip(p, q, strict=True)
        ],
        "your weight is the second stage's; a belongs to the first.": [
            _sigmoid_of(1 - a, x, y) for x, y in zip(p, q, strict=True)
        ],
        "you give the second stage's score; both stages have a say from there on.": q,
    }
    for words, values in known.items():
        if close_to(got[3:], values[3:]):
            raise NotYet(told + words)
    if not close_to(got[2:], wanted[2:]):
        raise NotYet(
            told + f"from token 2 on {np.round(wanted[2:], 3).tolist()}, you give {np.round(got[2:], 3).tolist()}."
        )
    if abs(pair.risk - max(wanted)) > 1e-6:
        raise NotYet(f"the risk is the highest score so far, {max(wanted):.3f}; yours is {pair.risk:.3f}.")
    early = _Pair(answer, [0.1, 0.1, 0.6], [0.1, 0.999, 0.1], 0.2)
    score = _pushed(early, 3)[-1]
    if abs(score - _sigmoid_of(0.2, 0.6, 0.1)) < 1e-6:
        raise NotYet(
            "the second stage finds token 1 at 0.999 when it reads what waited, and you look at token 2 alone: what it "
            "says of earlier tokens counts for the token that escalates."
        )
    if abs(score - _sigmoid_of(0.2, 0.1, 0.999)) > 1e-6:
        raise NotYet(
            f"scores [0.1, 0.1, 0.6] and [0.1, 0.999, 0.1], weight 0.2: the token that escalates gets the highest mix "
            f"of the three, {_sigmoid_of(0.2, 0.1, 0.999):.3f}; you give {score:.3f}."
        )
    if _pushed(_Pair(answer, [0.5] * 3, [0.9] * 3), 3) != [0.0] * 3:
        raise NotYet("a risk of exactly escalate_above does not escalate: strictly above, as everywhere in the course.")
    _check_cascade_costs_nothing(answer)
    _check_cascade_bears_certainty(answer)
    _check_cascade_fails_closed(answer)
    rng = np.random.default_rng(0)
    for weight in (0.0, 0.6, 1.0):
        p, q = rng.uniform(0.01, 0.99, 20).tolist(), rng.uniform(0.01, 0.99, 20).tolist()
        got, wanted = _pushed(_Pair(answer, p, q, weight, 0.8), 20), cascade_scores(p, q, weight, 0.8).tolist()
        if not close_to(got, wanted):
            at = next(t for t in range(20) if abs(got[t] - wanted[t]) > 1e-6)
            raise NotYet(
                f"20 random scores, weight {weight}: token {at} should get {wanted[at]:.3f}, not {got[at]:.3f}."
            )


def _check_cascade_costs_nothing(answer: Callable) -> None:
    calm = _Pair(answer, [0.1] * 6, [0.9] * 6)
    _pushed(calm, 6)
    if calm.opened or calm.read_second:
        raise NotYet("nothing was escalated, and the second stage was asked all the same: that is no saving.")
    if calm.risk != 0:
        raise NotYet(f"nothing was escalated, so the risk is 0; yours is {calm.risk:.3g}.")
    if calm.read_first != list(range(10, 16)):
        raise NotYet(f"the first stage sees every token once; six tokens, and you push {calm.read_first}.")
    one, other = _Pair(answer, [0.1, 0.9], [0.9] * 2), _Pair(answer, [0.1] * 2, [0.1] * 2)
    one.push(1), other.push(2), one.push(3)
    if other.risk != 0 or one.read_second != [1, 3] or other.opened:
        raise NotYet("two replies take turns and get mixed: what was read and the risk belong to one object.")


def _check_cascade_bears_certainty(answer: Callable) -> None:
    for p, q, low, high in ((1.0, 0.3, 0.9, 1.0), (0.6, 0.0, 0.0, 0.1), (1.0, 0.0, 0.0, 1.0), (1.0, 1.0, 0.9, 1.0)):
        pair = _Pair(answer, [p], [q])
        try:
            score = pair.push(10)
        except (ValueError, ArithmeticError):
            raise NotYet(
                f"scores {p:g} and {q:g}: your logit has no value there. A sigmoid in floats does reach 0 and 1; clip "
                "a hair before."
            ) from None
        if not low <= score <= high:
            raise NotYet(f"scores {p:g} and {q:g}, weight 0.5, are mixed to {score:.3g}.")


def _check_cascade_fails_closed(answer: Callable) -> None:
    calm = [0.9, 0.9, 0.9]
    broken = {
        "the first stage fails before anything is escalated": ([0.1, None, 0.1], calm),
        "the first stage fails after the escalation": ([0.9, None, 0.9], calm),
        "the second stage fails": (calm, [0.1, None, 0.1]),
        "the first stage's score is nan": ([0.1, math.nan, 0.1], calm),
        "the second stage's score is nan": (calm, [0.1, math.nan, 0.1]),
    }
    for what, (first, second) in broken.items():
        pair = _Pair(answer, first, second)
        pair.push(10)
        for when in ("", ", and one token later"):
            try:
                pair.cascade.push(11)
            except Exception:  # raising is one way to fail closed, if the risk tells it too
                pass
            if pair.risk != math.inf:
                raise NotYet(f"{what}{when}: the risk is {pair.risk:.3g}; it must be infinity, and stay so.")
