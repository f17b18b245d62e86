"""Checks of chapter 07, streaming inference."""

from __future__ import annotations

import random

from .framework import NotYet, attempted, exercise


@exercise("7.1")
def positions_read(answer):
    if float(answer(10, 4)) == 55:
        raise NotYet("55 is what 10 tokens cost if it looks after every one; with every=4 it looks at 4, 8 and 10.")
    for n, every in ((8, 4), (10, 4), (3, 5), (10, 1), (10, 10), (0, 3)):
        got, wanted = float(answer(n, every)), sum(range(every, n + 1, every)) + (n if n % every else 0)
        if got == wanted:
            continue
        if n % every == 0 and got == wanted + n:
            raise NotYet(f"for n={n}, every={every} you count a last look, but no token has come since the one at {n}.")
        if n % every and got == wanted - n:
            raise NotYet(f"for n={n}, every={every} you give {got:.0f}: the last {n % every} tokens are never read.")
        if got == n and n:
            raise NotYet(
                f"for n={n}, every={every} you give {n}: that is the price *with* a cache; here each look reads all."
            )
        if got == -(-n // every):
            raise NotYet(
                f"for n={n}, every={every} you give {got:.0f}, the number of looks; each of them reads many positions."
            )
        raise NotYet(f"for n={n}, every={every} it reads {wanted} positions, not {got:.0f}.")
    for n in range(1, 40):
        for every in range(1, 12):
            wanted = sum(range(every, n + 1, every)) + (n if n % every else 0)
            if answer(n, every) != wanted:
                raise NotYet(f"right on the small ones, but for n={n}, every={every} it is {wanted}.")


class _Filter:
    """The filters that 7.2 hands in. `text` collects, nothing is shared between two of them."""

    def __init__(self):
        self.held, self.asleep = "", False

    def push(self, delta):
        return delta

    def end(self):
        return ""


class _Capitals(_Filter):
    def push(self, delta):
        return delta.upper()


class _LastWordHeld(_Filter):
    def push(self, delta):
        head, space, tail = (self.held + delta).rpartition(" ")
        self.held = tail
        return head + space

    def end(self):
        return self.held


class _LosesTheEnd(_LastWordHeld):
    """Right until the end: there it gives only what the *last delta* brought of the word that it holds."""

    def push(self, delta):
        self.last = delta
        return super().push(delta)

    def end(self):
        return self.held[-len(self.last) :]


class _Strips(_Filter):
    def push(self, delta):
        return delta.strip()


class _Masks(_Filter):
    def push(self, delta):
        return delta.replace("bell", "****")


class _StopsAtNothing(_Filter):
    def push(self, delta):
        self.asleep = self.asleep or not delta
        return "" if self.asleep else delta


@exercise("7.2")
def first_bad_split(answer):
    text = "meet at the bell tower"

    def got(make, on=text):
        found = answer(make, on)
        if isinstance(found, bool) or not isinstance(found, int):
            raise NotYet(f"return a whole number, where to cut, or -1; you return {found!r}.")
        return found

    if (found := got(_Filter)) != -1:
        raise NotYet(f"a filter that lets everything through is the same for every split: -1, not {found}.")
    if (found := got(_Masks)) != 13:
        if found == -1:
            raise NotYet("a filter that masks 'bell' inside a delta fails when 'bell' is cut; you say -1. Every split?")
        if found == 15:
            raise NotYet("15 is the last split that cuts 'bell' in two; asked for is the smallest, 13.")
        raise NotYet(f"'bell' is text[12:16], so the first cut that hides it from a masking filter is 13, not {found}.")
    if (found := got(_Capitals)) != -1:
        raise NotYet(
            f"a filter that puts all in capitals gives the same for every split; you say {found}. Compare "
            "with its output for the whole text, not with the text."
        )
    if (found := got(_LastWordHeld)) != -1:
        raise NotYet(
            f"a filter that holds back the last word until end() is right for every split; you say {found}. "
            "Each run needs a fresh filter, and its end()."
        )
    if (found := got(_LosesTheEnd)) == -1:
        raise NotYet(
            "one filter here loses part of what it holds back, in end(); you say -1. Does the output of end() count?"
        )
    if (found := got(_StopsAtNothing, "ab")) != 0:
        raise NotYet(f"a filter that takes an empty delta for the end fails at split 0 already; you say {found}.")
    made = [_Filter, _Capitals, _LastWordHeld, _LosesTheEnd, _Strips, _Masks, _StopsAtNothing]
    for make in made:
        for words in ("a bell", "bell", " x ", "no", ""):
            if (found := got(make, words)) != (wanted := _first_bad_split(make, words)):
                raise NotYet(
                    f"for the text {words!r} one of the filters here first fails at {wanted}; you say {found}."
                )


def _first_bad_split(make, text):
    def run(deltas):
        text_filter = make()
        return "".join([text_filter.push(delta) for delta in deltas]) + text_filter.end()

    return next((i for i in range(len(text) + 1) if run([text[:i], text[i:]]) != run([text])), -1)


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
def guarded(answer):
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


def _fails_closed(answer, tokens):
    out, failing = [], _Stream([0.1] * 5, fails_at=2)
    try:
        for token in answer(iter(tokens), failing, 0.5):
            out.append(token)
    except RuntimeError as error:
        if str(error) != "the classifier failed":
            raise
    if out != tokens[:2]:
        raise NotYet(f"the score of token 12 failed, so only 10 and 11 may be out; you released {out}. Fail closed.")


@exercise("7.4")
def k_of_last(answer):
    def risks(k, n, scores):
        rule = answer(k, n)
        return [round(float(attempted(rule.update(p))), 6) for p in scores]

    scores = [0.9, 0.2, 0.8, 0.1, 0.1, 0.1]
    got, wanted = risks(2, 3, scores), _k_of_last(2, 3, scores)
    told = f"2 of the last 3 of {scores}: wanted {wanted}, you return {got}."
    if got[0] == 0.9:
        raise NotYet("two are asked for, and after one score, 0.9, you return 0.9; the risk is still 0 there.")
    if got[1] == 0.0:
        raise NotYet("after two scores 2 of the last 3 can be there already: after 0.9 and 0.2 the risk is 0.2, not 0.")
    if got[-1] == 0.8:
        raise NotYet(told + " 0.9 and 0.8 are long gone; look at the last 3 only.")
    if got[2] == 0.85 or got[1] == 0.55:
        raise NotYet(told + " Both must *reach* the value, so it is no average.")
    if got[2] == 0.9:
        raise NotYet(told + " 0.9 is reached by one of them; it takes two.")
    if got[2] == 0.2:
        raise NotYet(told + " You ask that all of the last 3 reach it.")
    if got != wanted:
        raise NotYet(told)
    one, other = answer(1, 2), answer(1, 2)
    one.update(0.9)
    if float(other.update(0.1)) > 0.5:
        raise NotYet(
            "two rules, two streams: one has seen 0.9, and the *other* returns it after its own 0.1. Shared state."
        )
    draw = random.Random(0)
    for k, n in ((1, 1), (2, 2), (2, 5), (3, 4), (1, 6)):
        scores = [round(draw.random(), 3) for _ in range(12)]
        if (got := risks(k, n, scores)) != (wanted := _k_of_last(k, n, scores)):
            at = next(i for i, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b)
            raise NotYet(f"{k} of the last {n} of {scores[: at + 1]}: wanted {wanted[at]}, you return {got[at]}.")


def _k_of_last(k, n, scores):
    windows = [scores[max(0, i + 1 - n) : i + 1] for i in range(len(scores))]
    return [sorted(window)[-k] if len(window) >= k else 0.0 for window in windows]
