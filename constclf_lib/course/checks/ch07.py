"""Checks of chapter 07, streaming inference."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import torch

from ...evaluation import calibrate_threshold
from .framework import NotYet, attempted, exercise


class _Classifier:
    """What a stream asks of an output classifier. A token's logit: its own, and 0.3 for every token read before."""

    LOGITS = (-3.0, -2.0, 2.0, -1.0, -4.0, math.nan)

    def __init__(self):
        self.device, self.positions, self.asked = torch.device("cpu"), 0, False  # positions read; was a cache wanted?
        self.parameters = lambda: iter([torch.zeros(1)])  # for who asks the weights where they are

    def __call__(self, input_ids, attention_mask=None, past_key_values=None, use_cache=False, with_lm_logits=True):
        if not isinstance(input_ids, torch.Tensor) or input_ids.ndim != 2 or len(input_ids) != 1:
            raise NotYet("the classifier reads a batch: a tensor [1, n] of ids, so torch.tensor([ids]).")
        self.positions += input_ids.numel()
        self.asked = self.asked or bool(use_cache)
        past = 0 if past_key_values is None else past_key_values.length
        own = torch.tensor([self.LOGITS[i] for i in input_ids[0].tolist()])
        logits = own + 0.3 * (past + torch.arange(len(own)))
        if past_key_values is not None:
            past_key_values.length = past + len(own)  # as a real cache does: it grows in place
        cache = past_key_values or SimpleNamespace(length=past + len(own))
        return SimpleNamespace(harm_logits=logits[None], lm_logits=None, past_key_values=cache if use_cache else None)

    def eval(self):
        return self


def _logits_of(ids):
    return [_Classifier.LOGITS[token] + 0.3 * t for t, token in enumerate(ids)]


def _sigmoid(z):
    return 1 / (1 + math.exp(-z))


def _numbers(values, count, what):
    """What a learner returned as a flat list of `count` floats: a list, a tuple, an array and a tensor all do."""
    values = attempted(values)
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    found = np.asarray(values, dtype=float)
    if found.ndim != 1 or len(found) != count:
        raise NotYet(f"{what}: return one number per token, {count} in a flat list; you return {values!r}.")
    return found.tolist()


def _near(found, wanted):
    return len(found) == len(wanted) and all(abs(a - b) < 1e-4 for a, b in zip(found, wanted, strict=True))


@exercise("7.1")
def stream(answer):
    ids = [0, 1, 2, 3, 4]
    wanted = [_sigmoid(z) for z in _logits_of(ids)]
    classifier = _Classifier()
    one = answer(classifier)
    got, risks = [], []
    for token in ids:
        got += _numbers(one.push([token]), 1, "push of one token")
        risks.append(float(one.risk))
    if _near(got, _logits_of(ids)):
        raise NotYet(f"your scores, {got[0]:.2g} for the first token, are logits; a sigmoid makes them probabilities.")
    if _near(got, [_sigmoid(_Classifier.LOGITS[i]) for i in ids]):
        raise NotYet("each token is scored as if nothing stood before it: hand the cache of one call to the next.")
    if not _near(got, wanted):
        raise NotYet(f"one token at a time you give {np.round(got, 3)}; one pass over all gives {np.round(wanted, 3)}.")
    if classifier.positions != len(ids):
        told = f"the scores are right, and cost {classifier.positions} positions for {len(ids)} tokens: "
        if classifier.asked:
            raise NotYet(told + "a cache is asked for and then all is read again. Read the new tokens only.")
        raise NotYet(told + "every push reads the text again from its beginning. Keep the keys and values.")
    _check_risk(answer, wanted, risks)
    _check_chunks(answer, ids, wanted)
    first, second = answer(_Classifier()), answer(_Classifier())
    first.push([0, 2]), second.push([0])
    if not _near(_numbers(first.push([3]), 1, "push"), [_sigmoid(_Classifier.LOGITS[3] + 0.6)]) or second.risk > 0.5:
        raise NotYet("two streams take turns and disturb each other: the cache and the risk belong in __init__.")
    broken = answer(_Classifier())
    broken.push([0])
    for part in ([5], [0]):
        try:
            broken.push(part)
        except Exception:  # raising is one way to fail closed, if the risk tells it too
            pass
        if not float(broken.risk) == math.inf:
            when = "afterwards" if part == [5] else "one token later"
            raise NotYet(
                f"a score is NaN and the risk {when} is {broken.risk}; it must be infinity and stay so. "
                "(Python's max(0.1, nan) is 0.1.)"
            )


def _check_chunks(answer, ids, wanted):
    for cut in range(1, len(ids)):
        classifier = _Classifier()
        two = answer(classifier)
        got = [p for part in (ids[:cut], ids[cut:]) for p in _numbers(two.push(part), len(part), f"push of {part}")]
        if not _near(got, wanted):
            raise NotYet(f"pushed as {ids[:cut]} and {ids[cut:]} the scores are other ones than token by token.")
        if abs(float(two.risk) - max(wanted)) > 1e-4:
            raise NotYet(
                f"pushed as {ids[:cut]} and {ids[cut:]} the risk is {float(two.risk):.3f}; the highest score, of any "
                f"token of any push, is {max(wanted):.3f}."
            )


def _check_risk(answer, wanted, risks):
    if any(b < a for a, b in pairwise(risks)):
        raise NotYet(f"token by token your risks are {np.round(risks, 3)}: the risk falls. It is the highest so far.")
    if not _near(risks, np.maximum.accumulate(wanted).tolist()):
        raise NotYet(f"token by token your risks are {np.round(risks, 3)} for the scores {np.round(wanted, 3)}.")
    if float(answer(_Classifier()).risk) != 0:
        raise NotYet("before the first token the risk is 0.")


def _cut(text, longest):
    """The pieces of a whole text, as the task defines them."""
    pieces, start = [], 0
    while start < len(text):
        stop = start + longest
        inside = range(start + 1, min(stop, len(text) - 1))
        begins = (i for i in inside if text[i].isspace() and not text[i + 1].isspace())
        cut = next(begins, min(stop, len(text)))
        pieces.append(text[start:cut])
        start = cut
    return pieces


def _run(make, deltas):
    cutter, out = make(), []
    for delta in deltas:
        out += _strings(cutter.push(delta))
    rest = attempted(cutter.end())
    if not isinstance(rest, str):
        raise NotYet(f"end() returns the text that was held, '' for none; you return {rest!r}.")
    return out + [rest] * bool(rest)


def _strings(pieces):
    if isinstance(attempted(pieces), str):
        raise NotYet(f"push returns a list of pieces; you return the text {pieces!r}.")
    return list(pieces)


@exercise("7.2")
def pieces(answer):
    text, wanted = "to drop  it at dawn", ["to", " drop ", " it", " at", " dawn"]
    got = _run(lambda: answer(64), [text])
    told = f"{text!r} as one delta: wanted {wanted}, you give {got}."
    if "".join(got) != text:
        raise NotYet(told + " The pieces must join back to the text.")
    if got and any(piece.endswith(" ") and piece.strip() and piece != " drop " for piece in got):
        raise NotYet(told + " The space belongs to the word behind it.")
    if any(piece.isspace() for piece in got):
        raise NotYet(told + " Of several spaces only the last one begins the next piece.")
    if got != wanted:
        raise NotYet(told)
    out = _strings(answer(64).push("to drop it"))
    if out == ["to", " drop", " it"]:
        raise NotYet("after 'to drop it' you have let ' it' go; the next delta may be 'em'. Hold the last word.")
    if out != ["to", " drop"]:
        raise NotYet(f"after 'to drop it' the pieces 'to' and ' drop' are certain; push gives {out}.")
    got = _run(lambda: answer(4), ["abcdefghij"])
    if got != ["abcd", "efgh", "ij"]:
        raise NotYet(f"'abcdefghij' has no space, and longest=4: wanted 'abcd', 'efgh', 'ij'; you give {got}.")
    if _strings(answer(4).push("abcdefghij")) != ["abcd", "efgh"]:
        raise NotYet("'abcdefghij' with longest=4: 'abcd' and 'efgh' are certain before the end; let them go.")
    _check_splits(answer)
    first, second = answer(64), answer(64)
    first.push("dro"), second.push("car")
    if first.end() != "dro" or second.end() != "car":
        raise NotYet("two texts take turns and get mixed: what is held belongs to one object, so into __init__.")


def _check_splits(answer):
    draw = random.Random(0)
    texts = ["abc de", "to drop  it", "a\n\nb", " x ", "abcd efgh", "abcd  efgh", ""]
    texts += ["".join(draw.choice("ab  \n") for _ in range(12)) for _ in range(20)]
    for longest in (64, 4, 2):
        for text in texts:
            whole = _cut(text, longest)
            ways = [[text]] + [[text[:i], text[i:]] for i in range(len(text) + 1)] + [list(text)]
            for deltas in ways:
                if (got := _run(lambda: answer(longest), deltas)) != whole:  # noqa: B023 called at once
                    raise NotYet(f"longest={longest}, deltas {deltas}: wanted {whole}, you give {got}.")


class _Stream:
    """Plays back scores and risks; `fails_at` is the push that raises."""

    def __init__(self, scores, risks=None, fails_at=None):
        self.scores, self.risks, self.fails_at = scores, risks, fails_at
        self.risk, self.pushed = 0.0, []

    def push(self, token_ids):
        self.pushed += list(token_ids)
        at = len(self.pushed) - 1
        if at == self.fails_at:
            raise RuntimeError("the classifier failed")
        self.risk = max(self.risk, self.scores[at]) if self.risks is None else self.risks[at]
        return [self.scores[at]]


@exercise("7.3")
def release(answer):
    tokens, scores = [10, 11, 12, 13, 14], [0.1, 0.2, 0.9, 0.3, 0.1]
    stream = _Stream(scores)
    out = list(answer(iter(tokens), stream, 0.5))
    told = f"scores {scores}, threshold 0.5: 10 and 11 may go out; you release {out}."
    if out == [10, 11, 12]:
        raise NotYet(told + " The token that crossed the line is out.")
    if out == [10, 11, 13, 14]:
        raise NotYet(told + " A halt is final: nothing follows it.")
    if out != [10, 11]:
        raise NotYet(told)
    if stream.pushed != [10, 11, 12]:
        raise NotYet(f"to release 10 and 11 it takes three scores; you asked for {len(stream.pushed)}.")
    if list(answer(iter(tokens), _Stream([0.5] * 5), 0.5)) != tokens:
        raise NotYet("a risk of exactly the threshold does not halt: risk > threshold, strictly, as it was calibrated.")
    calm = _Stream([0.9, 0.1, 0.9, 0.9, 0.9], risks=[0.0, 0.1, 0.1, 0.9, 0.9])
    if (out := list(answer(iter(tokens), calm, 0.5))) != tokens[:3]:
        raise NotYet(
            "with another stop rule the risk is not the score: risks 0, 0.1, 0.1, 0.9 release three tokens, "
            f"you release {len(out)}. Act on stream.risk."
        )
    pulled = []

    def assistant():
        for token in tokens:
            pulled.append(token)
            yield token

    first = next(iter(answer(assistant(), _Stream([0.1] * 5), 0.5)), None)
    if first != 10 or len(pulled) > 1:
        raise NotYet(
            f"before the first token was released the assistant had to write {len(pulled)}; that is no stream."
        )
    _fails_closed(answer, tokens)


def _released(answer, tokens, stream, told):
    """What goes out before the loop ends by itself or by an exception; `told`: the message of the one that may pass."""
    out = []
    try:
        for token in answer(iter(tokens), stream, 0.5):
            out.append(token)
    except Exception as error:
        if told and str(error) != told:
            raise
    return out


def _fails_closed(answer, tokens):
    out = _released(answer, tokens, _Stream([0.1] * 5, fails_at=2), "the classifier failed")
    if out != tokens[:2]:
        raise NotYet(f"the score of token 12 failed, so only 10 and 11 may be out; you released {out}. Fail closed.")
    out = _released(answer, tokens, _Stream([0.1] * 5, risks=[0.1, math.nan, math.nan, 0.1, 0.1]), "")
    if out != tokens[:1]:
        raise NotYet(
            f"risks 0.1, nan, nan: only 10 may go out, you release {out}. nan > threshold is False, so ask the other "
            "way round: is the risk known to be at most the threshold?"
        )


def _windows(count, room):
    found = [(0, 0, min(count, room))]
    while found[-1][2] < count:
        new = found[-1][2]
        found.append((new - room // 2, new, min(count, new - room // 2 + room)))
    return found


@exercise("7.4")
def windows(answer):
    def got(count, room):
        found = attempted(answer(count, room))
        try:
            return [tuple(int(number) for number in window) for window in found]
        except TypeError:
            raise NotYet(f"return a list of (start, new, end); you return {found!r}.") from None

    if (found := got(7, 10)) != [(0, 0, 7)]:
        raise NotYet(f"7 tokens fit a window of 10: one window, (0, 0, 7); you give {found}.")
    if (found := got(10, 10)) != [(0, 0, 10)]:
        raise NotYet(f"10 tokens just fit a window of 10: one window; you give {found}.")
    found, wanted = got(18, 10), [(0, 0, 10), (5, 10, 15), (10, 15, 18)]
    told = f"18 tokens, room for 10: wanted {wanted}, you give {found}."
    if any(end - start > 10 for start, _, end in found):
        raise NotYet(told + " A window of yours holds more than it has room for.")
    unscored = [t for t in range(18) if not any(new <= t < end for _, new, end in found)]
    if unscored:
        raise NotYet(told + f" Token {unscored[0]} never gets a score.")
    if sum(end - new for _, new, end in found) > 18:
        raise NotYet(told + " Some tokens are scored twice; what is read again keeps its score.")
    if any(start == new for start, new, _ in found[1:]):
        raise NotYet(told + " Yours start afresh: they have forgotten the half that should be read again.")
    if found != wanted:
        raise NotYet(told)
    for count in range(1, 60):
        for room in (2, 3, 7, 10, 96):
            if (found := got(count, room)) != (wanted := _windows(count, room)):
                raise NotYet(f"right on the small ones; {count} tokens, room for {room}: {wanted}, you give {found}.")


@exercise("7.5")
def lowest_threshold(answer):
    draw = np.random.default_rng(0)
    lengths = np.array([20] * 100 + [64] * 100 + [65] * 100 + [200] * 100 + [500] * 200)
    scores = np.round(draw.beta(1, 6, len(lengths)) * np.where(lengths > 64, 0.9, 0.6), 4)
    scores[(lengths == 65)] += 0.3
    edges = (64, 256, 512, 1024)
    inside = {edge: (lengths > low) & (lengths <= edge) for low, edge in zip((-1, *edges), edges, strict=False)}
    each = {edge: calibrate_threshold(scores[at], 0.01) for edge, at in inside.items() if at.any()}
    wanted, got = max(each.values()), float(attempted(answer(scores, lengths, edges, 0.01)))
    shares = {edge: float((scores[at] > got).mean()) for edge, at in inside.items() if at.any()}
    told = f"a budget of 1% in every bucket: {wanted:.4f}, you give {got:.4f}."
    if math.isnan(got) or abs(got - wanted) < 1e-9:
        if math.isnan(got):
            raise NotYet(told + " One bucket here is empty: it sets no limit.")
    elif abs(got - calibrate_threshold(scores, 0.01)) < 1e-9:
        raise NotYet(told + f" That keeps 1% of all together, and flags {max(shares.values()):.1%} of one bucket.")
    elif abs(got - min(each.values())) < 1e-9:
        raise NotYet(told + " That is the threshold of the easiest bucket; the hardest one decides.")
    elif abs(got - np.mean(list(each.values()))) < 1e-9:
        raise NotYet(told + " The mean of the buckets' thresholds keeps the budget in some of them only.")
    elif max(shares.values()) > 0.01:
        raise NotYet(told + f" It flags {max(shares.values()):.1%} of the bucket to {max(shares, key=shares.get)}.")
    else:
        raise NotYet(told + " Yours keeps the budget too, and a lower one would do; catch what you can.")
    for budget in (0.0, 0.05, 0.3):
        each = [calibrate_threshold(scores[at], budget) for at in inside.values() if at.any()]
        if abs((found := float(answer(scores, lengths, edges, budget))) - max(each)) > 1e-9:
            raise NotYet(f"right at a budget of 1%; at {budget:.0%} it is {max(each):.4f}, you give {found:.4f}.")
