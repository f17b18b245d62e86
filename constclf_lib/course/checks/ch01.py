"""Checks of chapter 01, from a constitution to data."""

from __future__ import annotations

import random
from collections import Counter

from ...lab import jaccard, shingles
from ...lab.writers import parse_exchange
from .framework import NotYet, exercise

GOOD = "PROMPT: Who sells plums?\nCOMPLETION: Orla does, at noon."


@exercise("1.1")
def read_answer(answer):
    def said(text):
        """The parts, or None where the learner's function refuses. Any other exception is told by the framework."""
        try:
            parts = answer(text)
        except ValueError:
            return None
        if not (isinstance(parts, tuple | list) and len(parts) == 2 and all(isinstance(p, str) for p in parts)):
            raise NotYet(f"you return {parts!r}; return two strings, (prompt, completion), or raise ValueError.")
        return tuple(parts)

    wanted = ("Who sells plums?", "Orla does, at noon.")
    found = said(GOOD)
    if found is None:
        raise NotYet(f"{GOOD!r} is in the form asked for, and you raise ValueError.")
    if any(part.upper().startswith(("PROMPT", "COMPLETION", ":")) for part in found):
        raise NotYet(f"the labels are still in the parts: {found!r}; what stands behind the colon is wanted.")
    if found != wanted:
        raise NotYet(f"for {GOOD!r} you return {found!r}, not {wanted!r}.")
    chatty = said("Of course! Here is one:\n\n" + GOOD + "\n\n")
    if chatty != wanted:
        raise NotYet(f"a friendly sentence before PROMPT:, blank lines behind, and you {_did(chatty)}.")
    long = said("PROMPT: one\ntwo\nCOMPLETION: three\nfour")
    if long != ("one\ntwo", "three\nfour"):
        raise NotYet(f"parts of two lines, and you {_did(long)}; keep all lines of a part.")
    for text, what in (
        ("I would rather not.", "an answer without labels"),
        ("PROMPT: Who sells plums?", "an answer without COMPLETION:"),
        (f"{GOOD}\n{GOOD}", "an answer with two exchanges"),
        ("PROMPT: Who sells plums?\nCOMPLETION:   ", "an empty completion"),
        ("PROMPT:\nCOMPLETION: Orla does.", "an empty prompt"),
    ):
        if said(text) is not None:
            raise NotYet(f"{what} must raise ValueError; you return {said(text)!r}.")
    inside = "PROMPT: What does PROMPT: mean?\nCOMPLETION: It is a label."
    if said(inside) != parse_exchange(inside):
        raise NotYet(f"for {inside!r} you {_did(said(inside))}; a label counts only where a line begins.")


def _did(parts):
    return "raise ValueError" if parts is None else f"return {parts!r}"


@exercise("1.2")
def overlap(answer):
    def close(a, b, wanted, why):
        found = answer(a, b)
        if not isinstance(found, int | float):
            raise NotYet(f"you return {type(found).__name__}; return one number between 0 and 1.")
        if abs(found - wanted) > 1e-9:
            raise NotYet(f"overlap({a!r}, {b!r}) is {wanted:.3f}, you say {found:.3f}: {why}.")

    close("a b c d", "a b c d", 1.0, "the same text shares everything")
    close("a b c d", "e f g h", 0.0, "nothing is shared")
    close("the red door", "door red the", 0.0, "the same words in another order are another run of three")
    close("a b c d e f", "a b c", 1 / 4, "divide by the number of different runs in both texts together")
    close("a b c d", "b c d e", 1 / 3, "one run of three is shared, and there are three in all")
    close("a b c a b c a b c", "a b c", 1 / 3, "a run that comes three times is still one run")
    close("Open the Door", "open the door", 1.0, "capital letters do not make another text")
    close("yes", "yes", 1.0, "a text shorter than three words is one run")
    rng = random.Random(0)
    for _ in range(50):
        a, b = (" ".join(rng.choices("abc", k=rng.randint(1, 9))) for _ in range(2))
        close(a, b, jaccard(shingles(a), shingles(b)), "right on the small examples, but not here")


@exercise("1.3")
def split_by_group(answer):
    rng = random.Random(0)
    groups = [f"g{rng.randrange(40)}" for _ in range(1000)]
    given = list(groups)
    held_out = answer(groups, 0.25, 0)
    if groups != given:
        raise NotYet("you changed the list of groups that you were given; work on a copy.")
    held_out = _flags(held_out, len(groups))
    if not any(held_out) or all(held_out):
        raise NotYet(f"{sum(held_out)} of 1000 rows are held out; a quarter was asked for.")
    both = {g for g, out in zip(groups, held_out, strict=True) if out} & {
        g for g, out in zip(groups, held_out, strict=True) if not out
    }
    if both:
        raise NotYet(f"{len(both)} of 40 groups have rows on both sides, {sorted(both)[0]!r} among them.")
    if not 0.15 <= sum(held_out) / 1000 <= 0.35:
        raise NotYet(f"40 groups, share 0.25, and {sum(held_out)} of 1000 rows are held out; 150 to 350 would do.")
    if _flags(answer(groups, 0.25, 0), len(groups)) != held_out:
        raise NotYet("the same groups, share and seed give another split the second time; draw from Random(seed).")
    splits = Counter(tuple(_flags(answer(groups, 0.25, seed), len(groups))) for seed in range(6))
    if len(splits) < 3:
        raise NotYet(f"six seeds give {len(splits)} different split(s); the seed should decide who is held out.")
    if sum(_flags(answer(groups, 0.5, 1), len(groups))) < 350:
        raise NotYet("with share 0.5 fewer than 350 of 1000 rows are held out; is the share used?")


def _flags(held_out, n):
    held_out = list(held_out)
    if len(held_out) != n or not all(flag in (True, False) for flag in held_out):
        raise NotYet(f"for {n} rows you return {len(held_out)} values; return one True or False per row, in order.")
    return [bool(flag) for flag in held_out]
