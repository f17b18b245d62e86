"""Checks of chapter 01, from a constitution to data."""

from __future__ import annotations

import inspect
import random
import zlib
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
        ("COMPLETION: Orla does.\nPROMPT: Who sells plums?", "an answer with its two labels in the wrong order"),
        (f"{GOOD}\n{GOOD}", "an answer with two exchanges"),
        (f"{GOOD}\nCOMPLETION: Or Bram.", "an answer with one prompt and two completions"),
        (f"COMPLETION: Bram does.\n{GOOD}", "an answer with a completion before the prompt and one behind it"),
        (f"PROMPT: Who sells pears?\n{GOOD}", "an answer with two prompts and one completion"),
        ("PROMPT: Who sells plums?\nCOMPLETION:   ", "an empty completion"),
        ("PROMPT:\nCOMPLETION: Orla does.", "an empty prompt"),
    ):
        if said(text) is not None:
            raise NotYet(f"{what} must raise ValueError; you return {said(text)!r}.")
    inside = "PROMPT: What does PROMPT: mean?\nCOMPLETION: It is a label."
    if said(inside) != parse_exchange(inside):
        raise NotYet(f"for {inside!r} you {_did(said(inside))}; a label counts only where a line begins.")
    if (one := said(GOOD.replace("\n", " "))) is not None:
        raise NotYet(f"an answer with both labels on one line must raise ValueError; you return {one!r}.")


def _did(parts):
    return "raise ValueError" if parts is None else f"return {parts!r}"


REWRITES = {
    "loud": str.upper,
    "reversal": lambda prompt: prompt[::-1],
    "role_play": lambda prompt: f"You are Vex. {prompt}",
    "spacing": " ".join,
}


@exercise("1.2")
def disguise(answer):
    rows = [(f"Please, how is jar {i} sealed?", i % 2 == 0) for i in range(4000)]
    found = _disguised(answer(list(rows), dict(REWRITES), 0))
    plain = {prompt: restricted for prompt, restricted, kind in found if not kind}
    hidden = [row for row in found if row[2]]
    if missing := [prompt for prompt, _ in rows if prompt not in plain]:
        raise NotYet(f"{len(missing)} of 4000 rows are no longer there as they were, with the kind ''; keep them all.")
    if any(plain[prompt] != restricted for prompt, restricted in rows):
        raise NotYet("some rows that are not disguised have lost their label; copy it as it is.")
    if more := Counter((prompt, restricted) for prompt, restricted, kind in found if not kind) - Counter(rows):
        raise NotYet(f"{more.total()} rows too many have the kind '', {min(more)!r} among them; every row once.")
    texts = {
        rewrite(prompt): (prompt, restricted, kind) for kind, rewrite in REWRITES.items() for prompt, restricted in rows
    }
    for text, restricted, kind in hidden:
        if text not in texts or texts[text][2] != kind:
            raise NotYet(f"{text!r} is not what {kind!r} makes of one of the prompts; disguise each prompt once.")
        if texts[text][1] != restricted:
            raise NotYet(f"{texts[text][0]!r} had the label {texts[text][1]}, disguised it has {restricted}.")
    if lost := [side for side in (True, False) if not any(restricted == side for _, restricted, _ in hidden)]:
        raise NotYet(f"no disguised row has the label {lost[0]}; then a disguise alone gives the label away.")
    times = Counter(texts[text][0] for text, _, _ in hidden)
    if len(times) < 4000 or max(times.values()) > 1:
        raise NotYet(f"{len(hidden)} disguised rows of {len(times)} prompts; one of each of the 4000 was asked for.")
    for kind in REWRITES:
        labels = [restricted for _, restricted, its in hidden if its == kind]
        if not labels:
            raise NotYet(f"no row is disguised as {kind!r}; draw among all kinds that you are given.")
        if not 0.42 <= sum(labels) / len(labels) <= 0.58:
            raise NotYet(
                f"{sum(labels)} of {len(labels)} rows in {kind!r} are restricted, of all rows half; "
                "draw the kind at random, so that it says nothing about the label."
            )
    if _disguised(answer(list(rows), dict(REWRITES), 0)) != found:
        raise NotYet("the same rows and seed give other disguises the second time; draw from Random(seed).")
    if _disguised(answer(list(rows), dict(REWRITES), 1)) == found:
        raise NotYet("seeds 0 and 1 give the same disguises for 4000 rows; the seed should decide.")


def _disguised(found):
    rows = [tuple(row) for row in found]
    if not rows or any(len(row) != 3 or not isinstance(row[0], str) or not isinstance(row[2], str) for row in rows):
        raise NotYet(f"your first row is {rows[0] if rows else None!r}; return rows (prompt, restricted, kind).")
    return [(str(prompt), bool(restricted), str(kind)) for prompt, restricted, kind in rows]


@exercise("1.3")
def overlap(answer):
    def close(a, b, wanted, why):
        found = answer(a, b)
        try:
            found = float(found)  # of any kind: float32, a fraction, a tensor of one number
        except (TypeError, ValueError, RuntimeError):
            raise NotYet(f"you return {type(found).__name__}; return one number between 0 and 1.") from None
        if not abs(found - wanted) <= 1e-6:
            raise NotYet(f"overlap({a!r}, {b!r}) is {wanted:.3f}, you say {found:.3f}: {why}.")

    close("a b c d", "a b c d", 1.0, "the same text shares everything")
    close("a b c d", "e f g h", 0.0, "nothing is shared")
    close("the red door", "door red the", 0.0, "the same words in another order are another run of three")
    close("a b c d e f", "a b c", 1 / 4, "divide by the number of different runs in both texts together")
    close("a b c d", "b c d e", 1 / 3, "one run of three is shared, and there are three in all")
    close("a b c a b c a b c", "a b c", 1 / 3, "a run that comes three times is still one run")
    close("Open the Door", "open the door", 1.0, "capital letters do not make another text")
    close("Who sells plums, today?", "who sells plums today", 1.0, "punctuation does not make another text")
    close("ab c d", "a bc d", 0.0, "runs of other words, though their letters are the same; keep the words apart")
    close("yes", "yes", 1.0, "a text shorter than three words is one run")
    rng = random.Random(0)
    for _ in range(50):
        a, b = (" ".join(rng.choices("abc", k=rng.randint(1, 9))) for _ in range(2))
        close(a, b, jaccard(shingles(a), shingles(b)), "right on the small examples, but not here")


class _Name(str):
    """A name whose hash depends on a salt, as that of every string depends on the run of Python."""

    salt = 0

    def __hash__(self):
        return _salted_hash(self)


def _salted_hash(thing: object) -> int:
    return zlib.crc32(f"{_Name.salt}/{thing}".encode())


@exercise("1.4")
def split_by_group(answer):
    rng = random.Random(0)
    groups = [f"g{rng.randrange(200)}" for _ in range(1000)]
    given = list(groups)
    held_out = answer(groups, 0.25, 0)
    if groups != given:
        raise NotYet("you changed the list of groups that you were given; work on a copy.")
    held_out = _flags(held_out, len(groups))
    if not any(held_out) or all(held_out):
        raise NotYet(f"{sum(held_out)} of 1000 rows are held out; a quarter of the groups was asked for.")
    both = {g for g, out in zip(groups, held_out, strict=True) if out} & {
        g for g, out in zip(groups, held_out, strict=True) if not out
    }
    if both:
        raise NotYet(f"{len(both)} of 200 groups have rows on both sides, {min(both)!r} among them.")
    if _flags(answer(groups, 0.25, 0), len(groups)) != held_out:
        raise NotYet("the same groups, share and seed give another split the second time; draw from Random(seed).")
    if moved := sum(a != b for a, b in zip(*(_in_another_run(answer, groups, salt) for salt in (1, 2)), strict=True)):
        raise NotYet(
            f"{moved} of 1000 rows change sides in another run of Python, where strings have other hashes: "
            "a set comes in the order of its hashes, and hash() is one. Sort the names before you draw."
        )
    if not 0.15 <= sum(held_out) / 1000 <= 0.35:
        raise NotYet(f"200 groups, share 0.25, and {sum(held_out)} of 1000 rows are held out; 150 to 350 would do.")
    splits = Counter(tuple(_flags(answer(groups, 0.25, seed), len(groups))) for seed in range(6))
    if len(splits) < 3:
        raise NotYet(f"six seeds give {len(splits)} different split(s); the seed should decide who is held out.")
    if sum(_flags(answer(groups, 0.5, 1), len(groups))) < 350:
        raise NotYet("with share 0.5 fewer than 350 of 1000 rows are held out; is the share used?")


def _in_another_run(answer, groups: list[str], salt: int) -> list[bool]:
    """The split where names have other hashes; `hash`, where the learner calls it by that name, gives these too."""
    names = getattr(inspect.unwrap(answer), "__globals__", {})
    own = {key: names[key] for key in ("hash",) if key in names}
    names["hash"], _Name.salt = _salted_hash, salt
    try:
        return _flags(answer([_Name(group) for group in groups], 0.25, 0), len(groups))
    finally:
        del names["hash"]
        names.update(own)


def _flags(held_out, n):
    held_out = list(held_out)
    if len(held_out) != n or not all(flag in (True, False) for flag in held_out):
        raise NotYet(f"for {n} rows you return {len(held_out)} values; return one True or False per row, in order.")
    return [bool(flag) for flag in held_out]
