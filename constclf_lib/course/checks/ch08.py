"""Checks of chapter 08, the guarded system."""

from __future__ import annotations

import math
import random

import numpy as np

from ...evaluation import choose_threshold_pair
from ...guard import Reply, Thresholds, history_after
from .framework import NotYet, exercise

LIMITS = Thresholds(input=0.6, off_label=0.1, output=0.8)
NAN = float("nan")


def _decision(harm, off_label, scores):
    """What the system does, by the book."""
    if math.isnan(harm) or math.isnan(off_label):
        return "error", 0
    if harm > LIMITS.input or off_label > LIMITS.off_label:
        return "blocked_input", 0
    for count, score in enumerate(scores):
        if math.isnan(score):
            return "error", count
        if score > LIMITS.output:
            return "halted_output", count
    return "released", len(scores)


@exercise("8.1")
def decide_one(answer):
    def got(harm, off_label, scores):
        found = answer(harm, off_label, list(scores), LIMITS)
        if not isinstance(found, tuple | list) or len(found) != 2 or not isinstance(found[0], str):
            raise NotYet("return two things, the status and the number of tokens released, as in ('released', 12).")
        return tuple(found)

    if (found := got(0.1, 0.0, [0.1, 0.2, 0.9, 0.1])) != ("halted_output", 2):
        if found == ("halted_output", 3):
            raise NotYet("for scores [0.1, 0.2, 0.9, 0.1] you release 3 tokens: the one that crossed went out as well.")
        raise NotYet(
            f"for scores [0.1, 0.2, 0.9, 0.1] and the threshold 0.8 you give {found}, not ('halted_output', 2)."
        )
    if (found := got(0.1, 0.0, [0.8, 0.3])) != ("released", 2):
        raise NotYet(f"a score of exactly the threshold, 0.8, is not above it: release all, not {found}.")
    if (found := got(0.9, 0.0, [0.9])) != ("blocked_input", 0):
        raise NotYet(
            f"an input score of 0.9 over the threshold 0.6 ends it before the assistant is asked, not as {found}."
        )
    if (found := got(0.1, 0.5, [0.1])) != ("blocked_input", 0):
        raise NotYet(
            f"off-label mass 0.5 over the threshold 0.1 blocks as well, whatever the harm score; you give {found}."
        )
    if (found := got(NAN, 0.0, [0.1])) != ("error", 0):
        raise NotYet(
            f"an input score of NaN is an error and releases nothing; you give {found}. Every > with NaN is False."
        )
    if (found := got(0.1, NAN, [0.1])) != ("error", 0):
        raise NotYet(f"an off-label mass of NaN is an error as well; you give {found}.")
    if (found := got(0.1, 0.0, [0.1, NAN, 0.1])) != ("error", 1):
        raise NotYet(
            f"for token scores [0.1, NaN, 0.1] the answer is ('error', 1): one is out, no more. You give {found}."
        )
    if (found := got(0.1, 0.0, [0.1, 0.95, NAN])) != ("halted_output", 1):
        raise NotYet(
            f"for [0.1, 0.95, NaN] the halt at token 1 comes before the NaN is ever computed; you give {found}."
        )
    draw = random.Random(0)
    for _ in range(300):
        scores = [draw.choice([0.1, 0.5, 0.8, 0.81, 1.0, NAN]) for _ in range(draw.randrange(6))]
        harm, off_label = draw.choice([0.0, 0.6, 0.61, NAN]), draw.choice([0.0, 0.1, 0.2, NAN])
        if (found := got(harm, off_label, scores)) != (wanted := _decision(harm, off_label, scores)):
            raise NotYet(f"harm {harm}, off-label {off_label}, token scores {scores}: {wanted}, not {found}.")


def _flagged(pair, t_in, t_out) -> int:
    return int(((pair[0] > t_in) | (pair[1] > t_out)).sum())


@exercise("8.2")
def best_pair(answer):
    def got(attacks, benign, allowed):
        pairs = [tuple(side.copy() for side in pair) for pair in (attacks, benign)]
        found = answer(*pairs, allowed)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise NotYet("return two numbers, the threshold of the input side and that of the output side.")
        return float(found[0]), float(found[1])

    # ten benign requests; both guards dislike the same two, so two refusals pay for both thresholds
    benign = (
        np.array([0.9, 0.8, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2]),
        np.array([0.7, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.3, 0.1]),
    )
    attacks = (np.array([0.5, 0.1, 0.6, 0.1, 0.95]), np.array([0.1, 0.5, 0.1, 0.6, 0.95]))
    t_in, t_out = got(attacks, benign, 2)
    refused, caught = _flagged(benign, t_in, t_out), _flagged(attacks, t_in, t_out)
    if refused > 2:
        raise NotYet(
            f"of ten benign requests 2 may be refused in all; your pair ({t_in:g}, {t_out:g}) refuses {refused}."
        )
    if caught < 5 and not refused:
        raise NotYet(
            f"your pair ({t_in:g}, {t_out:g}) refuses nobody and catches {caught} of 5; two refusals may be spent."
        )
    if caught < 5:
        raise NotYet(
            f"your pair ({t_in:g}, {t_out:g}) catches {caught} of 5 attacks for {refused} refusals; 5 can be "
            "caught, because two benign requests trouble both guards and are refused only once."
        )
    if t_in not in benign[0] or t_out not in benign[1]:
        raise NotYet(f"({t_in:g}, {t_out:g}) are no benign scores; asked for are thresholds that lie on one.")
    draw = np.random.default_rng(0)
    for allowed in (0, 1, 3, 6, 6, 0):
        benign = tuple(np.round(draw.beta(1, 6, 30), 2) for _ in range(2))
        attacks = tuple(np.round(draw.beta(2, 2, 25), 2) for _ in range(2))
        t_in, t_out = got(attacks, benign, allowed)
        if (refused := _flagged(benign, t_in, t_out)) > allowed:
            raise NotYet(f"with {allowed} of 30 allowed, your pair refuses {refused}, both sides taken together.")
        best = choose_threshold_pair(attacks, {"all": benign}, {"all": allowed / 30})
        if (caught := _flagged(attacks, t_in, t_out)) < round(best.detection * 25):
            raise NotYet(
                f"with {allowed} of 30 allowed, you catch {caught} of 25 attacks; {round(best.detection * 25)} can be."
            )


TURNS = [
    ("Tell me of the bells.", Reply(status="released", released_text="They ring at noon.", note="chat about bells")),
    (
        "And of the lamp?",
        Reply(status="halted_output", released_text="The lamp is", withheld_text=" under the stone.", note="lamp"),
    ),
    ("Say it plainly.", Reply(status="blocked_input")),
    ("Hello?", Reply(status="error", withheld_text="I was about to", error="timeout")),
]


def _conversation(turns, message):
    kept = [part for said, reply in turns if reply.status != "blocked_input" for part in (said, history_after(reply))]
    return " ".join([*kept, message])


@exercise("8.3")
def next_prompt(answer):
    message = "Go on from there."
    text = answer(list(TURNS), message)
    if not isinstance(text, str):
        raise NotYet(f"return one string, the text of the next prompt, not a {type(text).__name__}.")
    if "under the stone" in text or "about to" in text:
        raise NotYet("withheld text is in the next prompt: the assistant reads it there, and can hand it out.")
    if "chat about bells" in text:
        raise NotYet("the private note is in the next prompt; it is a channel of its own and stays there.")
    if "Say it plainly." in text:
        raise NotYet(
            "a blocked message is in the next prompt; the assistant never saw it, and each later turn is judged by it."
        )
    if "[" not in text:
        raise NotYet("after the halt nothing says that there was one: the assistant reads a sentence that breaks off.")
    if "They ring at noon." not in text or "Tell me of the bells." not in text:
        raise NotYet("the first turn is missing; what was asked and what was released belong to the conversation.")
    if not text.endswith(message):
        raise NotYet("the new message should come last, after all turns.")
    if text.find("bells") > text.find("lamp"):
        raise NotYet("the turns come in the wrong order; the oldest goes first.")
    if text != (wanted := _conversation(TURNS, message)):
        raise NotYet(f"the next prompt should read {wanted!r}, yours reads {text!r}.")
    for turns in (TURNS[:1], TURNS[1:2], [], TURNS[2:]):
        if answer(list(turns), "And now?") != _conversation(turns, "And now?"):
            raise NotYet(f"four turns are right, {len(turns)} are not: {answer(list(turns), 'And now?')!r}.")
