"""Checks of chapter 08, the guarded system."""

from __future__ import annotations

import random

import numpy as np

from ...guard import Reply, history_after
from .framework import NotYet, exercise
from .stage import PLANTED, NoScore, NoStream, NoToken, NoVerdict, Stage, by_the_book, shown

NAN = float("nan")


@exercise("8.1")
def guarded_reply(answer):
    _calm(answer)
    _flags(answer)
    _failures(answer)
    draw = random.Random(0)
    for _ in range(300):
        stage = Stage(
            draw.choice([0.0, 0.6, 0.61, NAN]),
            draw.choice([0.0, 0.1, 0.2, NAN]),
            [draw.choice([0.1, 0.5, 0.8, 0.81, 1.0, NAN, NoScore]) for _ in range(draw.randrange(6))],
            draw.choice([None, None, NoToken]),
            draw.randrange(6),
        )
        told = f"harm {stage.harm}, off-label {stage.off_label}, token scores {_words(stage.scores)}"
        found, wanted = (stage.run(answer), stage.released), by_the_book(stage)
        if found != wanted:
            raise NotYet(f"{told}: {wanted[0]!r} with {wanted[1]} tokens out, not {found[0]!r} with {found[1]}.")


def _words(scores) -> str:
    return "[" + ", ".join("raises" if isinstance(score, type) else f"{score:g}" for score in scores) + "]"


def _calm(answer):
    """A reply that nobody minds: everything goes out, each token after its score and before the next is written."""
    stage = Stage()
    status = stage.run(answer)
    order = stage.order("written", "scored", "released")
    if "judged" not in stage.order("judged"):
        raise NotYet("the prompt was never given to judge(): nobody read the question.")
    if stage.order("judged", "asked")[0] == "asked":
        raise NotYet("the assistant was asked before the input classifier had spoken; judge(prompt) comes first.")
    if "scored" not in order:
        raise NotYet("no token was ever pushed on a stream: nobody read the reply.")
    if stage.released == 0:
        raise NotYet("of a reply with the scores 0.1, 0.2, 0.3 nothing was released; release(text) lets a piece out.")
    if order.index("released") < order.index("scored"):
        raise NotYet("the first token was released before it was scored: what is out cannot be taken back.")
    if order != ["written", "scored", "released"] * 3:
        raise NotYet(
            f"for three tokens the order should be written, scored, released, three times over; yours is {order}. "
            "Release a token as soon as it has its score, and before the next one is asked for."
        )
    if status != "released":
        raise NotYet(f"a reply of which everything went out has the status 'released', not {status!r}.")
    if not all(stream.closed for stream in stage.streams):
        raise NotYet("the stream is still open at the end of the reply; `with watch() as stream:` closes it always.")


def _flags(answer):
    """Scores beyond their limits, and at them."""
    stage = Stage(scores=[0.1, 0.2, 0.9, 0.1, 0.1])
    status = stage.run(answer)
    if stage.released == 3:
        raise NotYet("for scores 0.1, 0.2, 0.9 the token that crossed 0.8 went out as well: three instead of two.")
    if stage.released > 3:
        raise NotYet(
            f"for scores 0.1, 0.2, 0.9, 0.1, 0.1 you release {stage.released} tokens: after a halt nothing follows, "
            "however calm it is."
        )
    if ("written", 3) in stage.log:
        raise NotYet("after the halt the assistant was asked for another token; leave the loop.")
    if (status, stage.released) != ("halted_output", 2):
        raise NotYet(
            f"for scores 0.1, 0.2, 0.9 and the limit 0.8: 'halted_output' with 2 tokens out, not {status!r} with "
            f"{stage.released}."
        )
    if not all(stream.closed for stream in stage.streams):
        raise NotYet("after the halt the stream is still open; `with watch() as stream:` closes it whatever happens.")
    stage = Stage(harm=0.6, off_label=0.1, scores=[0.8, 0.3])
    if (status := stage.run(answer)) != "released":
        raise NotYet(f"scores of exactly the limits (0.6, 0.1, 0.8) are not above them: release all, not {status!r}.")
    for harm, off_label, what in ((0.9, 0.0, "harm 0.9"), (0.1, 0.5, "off-label mass 0.5")):
        stage = Stage(harm=harm, off_label=off_label)
        if (status := stage.run(answer)) != "blocked_input":
            raise NotYet(f"{what} is above its limit: the status is 'blocked_input', not {status!r}.")
        if "asked" in stage.order("asked"):
            raise NotYet(f"{what} is above its limit, yet the assistant was asked; a blocked prompt never reaches it.")


def _failures(answer):
    """What is no number, and what does not come at all."""
    for name, stage in (("harm", Stage(harm=NAN)), ("off-label mass", Stage(off_label=NAN))):
        status = stage.run(answer)
        if (status, stage.released) != ("error", 0):
            raise NotYet(
                f"{name} is NaN: 'error' and nothing out, not {status!r} with {stage.released} tokens out. Every "
                "comparison with NaN is false."
            )
    stage = Stage(scores=[0.1, NAN, 0.1])
    status = stage.run(answer)
    if (status, stage.released) != ("error", 1):
        raise NotYet(
            f"for token scores 0.1, NaN, 0.1: 'error' with 1 token out, not {status!r} with {stage.released}. A score "
            "that is no number clears nothing."
        )
    for stage, out in (
        (Stage(fails=NoVerdict, fails_at=-1), 0),
        (Stage(fails=NoStream, fails_at=-2), 0),
        (Stage(scores=[0.1, NoScore, 0.1]), 1),
        (Stage(fails=NoToken, fails_at=2), 2),
    ):
        who = PLANTED[stage.fails or NoScore]
        status = stage.run(answer)
        if stage.released > out:
            raise NotYet(
                f"{who} failed, and {stage.released} tokens went out instead of {out}: an outage of the guard must not "
                "open it."
            )
        if (status, stage.released) != ("error", out):
            raise NotYet(f"{who} failed: 'error' with {out} tokens out, not {status!r} with {stage.released}.")
        if not all(stream.closed for stream in stage.streams):
            raise NotYet(f"{who} failed, and the stream was left open.")


def _flagged(pair, t_in, t_out) -> int:
    return int(((pair[0] > t_in) | (pair[1] > t_out)).sum())


def _two_numbers(found) -> tuple[float, float]:
    """Two thresholds in whatever two numbers come in."""
    try:
        t_in, t_out = found
        return float(t_in), float(t_out)
    except (TypeError, ValueError):
        raise NotYet("return two numbers, the threshold of the input side and that of the output side.") from None


def _most(attacks, groups, allowed) -> int:
    """How many attacks the best pair of benign scores catches, by trying all of them."""
    sides = [np.unique(np.concatenate([pair[side] for pair in groups.values()])) for side in (0, 1)]
    return max(
        _flagged(attacks, t_in, t_out)
        for t_in in sides[0]
        for t_out in sides[1]
        if all(_flagged(pair, t_in, t_out) <= allowed[name] for name, pair in groups.items())
    )


def _in_steps(values) -> np.ndarray:
    """Scores that are the same numbers in float32 and float64."""
    return np.round(np.asarray(values, float) * 64) / 64


@exercise("8.2")
def best_pair(answer):
    def got(attacks, groups, allowed):
        copies = {name: tuple(side.copy() for side in pair) for name, pair in groups.items()}
        return _two_numbers(answer(tuple(side.copy() for side in attacks), copies, dict(allowed)))

    # ten short requests: both guards dislike the same two, so two refusals pay for both thresholds
    short = (
        _in_steps([0.9, 0.8, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2]),
        _in_steps([0.7, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.3, 0.1]),
    )
    attacks = _in_steps([0.5, 0.1, 0.6, 0.1, 0.95]), _in_steps([0.1, 0.5, 0.1, 0.6, 0.95])
    t_in, t_out = got(attacks, {"short": short}, {"short": 2})
    refused, caught = _flagged(short, t_in, t_out), _flagged(attacks, t_in, t_out)
    if refused > 2:
        raise NotYet(
            f"of ten benign requests 2 may be refused in all; your pair ({t_in:.2g}, {t_out:.2g}) refuses {refused}."
        )
    if caught < 5 and not refused:
        raise NotYet(
            f"your pair ({t_in:.2g}, {t_out:.2g}) refuses nobody and catches {caught} of 5; two refusals may be spent."
        )
    if caught < 5:
        raise NotYet(
            f"your pair ({t_in:.2g}, {t_out:.2g}) catches {caught} of 5 attacks for {refused} refusals; 5 can be "
            "caught, because two benign requests trouble both guards and are refused only once."
        )
    if t_in not in short[0] or t_out not in short[1]:
        raise NotYet(f"({t_in:g}, {t_out:g}) are no benign scores; asked for are thresholds that lie on one.")
    # long replies reach higher scores: what the short ones allow would refuse half of them
    long = short[0][:4], _in_steps([0.95, 0.6, 0.6, 0.2])
    groups, allowed = {"short": short, "long": long}, {"short": 2, "long": 1}
    t_in, t_out = got(attacks, groups, allowed)
    for name, pair in groups.items():
        if (refused := _flagged(pair, t_in, t_out)) > allowed[name]:
            raise NotYet(
                f"of the {name} requests {allowed[name]} may be refused, and your pair refuses {refused}: every group "
                "has a limit of its own, and all of them have to hold."
            )
    draw = np.random.default_rng(0)
    for spared in ((0, 0), (1, 0), (0, 2), (3, 1), (6, 6), (6, 0)):
        groups = {name: tuple(_in_steps(draw.beta(1, 6, 20)) for _ in range(2)) for name in ("short", "long")}
        attacks = tuple(_in_steps(draw.beta(2, 2, 25)) for _ in range(2))
        allowed = dict(zip(groups, spared, strict=True))
        t_in, t_out = got(attacks, groups, allowed)
        for name, pair in groups.items():
            if (refused := _flagged(pair, t_in, t_out)) > allowed[name]:
                raise NotYet(f"with {allowed} allowed, your pair refuses {refused} of the {name} requests.")
        if (caught := _flagged(attacks, t_in, t_out)) < (most := _most(attacks, groups, allowed)):
            raise NotYet(f"with {allowed} allowed, you catch {caught} of 25 attacks; {most} can be.")


TURNS = [
    ("Tell me of the bells.", Reply(status="released", released_text="They ring at noon.", note="chat about bells")),
    (
        "And of the lamp?",
        Reply(
            status="halted_output",
            released_text="The lamp is",
            withheld_text=" under the stone.",
            note="lamp",
            refusal="I am sorry.",
        ),
    ),
    ("Say it plainly.", Reply(status="blocked_input", refusal="I am sorry.")),
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
        raise NotYet(f"return one string, the text of the next prompt, not {shown(text)}.")
    if "under the stone" in text or "about to" in text:
        raise NotYet("withheld text is in the next prompt: the assistant reads it there, and can hand it out.")
    if "chat about bells" in text:
        raise NotYet("the private note is in the next prompt; it is a channel of its own and stays there.")
    if "Say it plainly." in text:
        raise NotYet(
            "a blocked message is in the next prompt; the assistant never saw it, and each later turn is judged by it."
        )
    if "sorry" in text:
        raise NotYet(
            "the refusal is in the next prompt; that is what a person reads. `history_after` says what a history keeps."
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


REPLIES = {
    "a released reply": (Reply("released", "They ring at noon.", finish="end"), (200, "stop")),
    "a reply cut at its longest length": (Reply("released", "They ring at", finish="length"), (200, "length")),
    "a halted reply": (
        Reply("halted_output", "The lamp is", " under the stone.", finish="length", refusal="No more."),
        (200, "content_filter"),
    ),
    "a blocked request": (Reply("blocked_input", refusal="No more."), (200, "content_filter")),
    "a prompt that is too long": (
        Reply("error", error="my aunt's secret is longer than 96 tokens", error_kind="context_length_exceeded"),
        (400, None),
    ),
    "a classifier that fails": (
        Reply("error", "They ring", " at noon.", error="OSError: my aunt's secret", error_kind="classifier_failed"),
        (500, None),
    ),
}


@exercise("8.4")
def answer_for(answer):
    for name, (reply, (status, finish)) in REPLIES.items():
        try:
            code, text, why = answer(reply)
        except (TypeError, ValueError):
            raise NotYet("return three things: the HTTP status, the text, and the finish reason.") from None
        if not isinstance(text, str):
            raise NotYet(f'{name}: the text is a string, "" where there is none, not {shown(text)}.')
        if reply.withheld_text and reply.withheld_text.strip() in text:
            raise NotYet(f"{name}: withheld text is in the answer. It was withheld from this very client.")
        if "secret" in text:
            raise NotYet(f"{name}: the error's own words are in the answer, and they can quote a prompt.")
        if code == 200 and reply.status == "error" and text.strip():
            raise NotYet(f"{name}: a fault dressed as a refusal. The client cannot tell an outage from its own fault.")
        if code == 200 and reply.status == "error":
            raise NotYet(f"{name}: a fault that looks like an answer (200) is counted as one; nobody will mend it.")
        if code != 200 and reply.status != "error":
            raise NotYet(f"{name}: nothing is broken, yet a client that gets {code} raises; a refusal is an answer.")
        if code != status:
            raise NotYet(f"{name}: {status}, not {code}. 4xx is what the client can mend, 5xx what it cannot.")
        if (text, why) == ("They ring", None):
            raise NotYet(f"{name}: half a reply beside an error is taken for a whole one; the text is empty.")
        if why != finish:
            raise NotYet(f"{name}: the finish reason is {finish!r}, not {why!r}.")
        wanted = reply.shown_text if status == 200 else ""
        if text != wanted:
            raise NotYet(f"{name}: the text should be {wanted!r}, yours is {text!r}.")
