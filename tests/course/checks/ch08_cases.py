"""Answers to the exercises of chapter 08, right and wrong."""

import math

import numpy as np
import torch

from constclf_lib.errors import ClassifierError
from constclf_lib.guard import history_after


def guarded_reply(prompt, judge, write, watch, limits, release):
    try:
        harm, off_label = judge(prompt)
        if not (math.isfinite(harm) and math.isfinite(off_label)):
            return "error"
        if harm > limits.input or off_label > limits.off_label:
            return "blocked_input"
        with watch() as stream:
            for token, text in write(prompt):
                (score,) = stream.push([token])
                if not math.isfinite(score):
                    return "error"
                if score > limits.output:
                    return "halted_output"
                release(text)
        return "released"
    except Exception:
        return "error"


def _loop(prompt, judge, write, watch, limits, release, step, check=lambda harm, off_label: None):
    """The solution with another step inside; step(stream, token, text) -> a status or None."""
    try:
        harm, off_label = judge(prompt)
        if status := check(harm, off_label):
            return status
        if not (math.isfinite(harm) and math.isfinite(off_label)):
            return "error"
        if harm > limits.input or off_label > limits.off_label:
            return "blocked_input"
        with watch() as stream:
            for token, text in write(prompt):
                if status := step(stream, token, text):
                    return status
        return "released"
    except Exception:
        return "error"


def release_then_score(prompt, judge, write, watch, limits, release):
    def step(stream, token, text):
        release(text)
        (score,) = stream.push([token])
        return "halted_output" if score > limits.output else None

    return _loop(prompt, judge, write, watch, limits, release, step)


def released_with_the_score(prompt, judge, write, watch, limits, release):
    def step(stream, token, text):
        (score,) = stream.push([token])
        release(text)
        return "halted_output" if score > limits.output else None

    return _loop(prompt, judge, write, watch, limits, release, step)


def at_the_limit(prompt, judge, write, watch, limits, release):
    def step(stream, token, text):
        stream.push([token])
        if stream.risk >= limits.output:
            return "halted_output"
        release(text)

    return _loop(prompt, judge, write, watch, limits, release, step)


def skips_the_token(prompt, judge, write, watch, limits, release):
    def step(stream, token, text):
        if stream.push([token])[0] <= limits.output:
            release(text)

    return _loop(prompt, judge, write, watch, limits, release, step)


def all_at_the_end(prompt, judge, write, watch, limits, release):
    kept = []

    def step(stream, token, text):
        (score,) = stream.push([token])
        if not math.isfinite(score):
            return "error"
        if score > limits.output:
            return "halted_output"
        kept.append(text)

    status = _loop(prompt, judge, write, watch, limits, release, step)
    for text in kept:
        release(text)
    return status


def asks_first(prompt, judge, write, watch, limits, release):
    tokens = write(prompt)
    return guarded_reply(prompt, judge, lambda _: tokens, watch, limits, release)


def reads_no_question(prompt, judge, write, watch, limits, release):
    return guarded_reply(prompt, lambda _: (0.0, 0.0), write, watch, limits, release)


def reads_no_reply(prompt, judge, write, watch, limits, release):
    return _loop(prompt, judge, write, watch, limits, release, lambda stream, token, text: release(text))


def no_off_label(prompt, judge, write, watch, limits, release):
    return guarded_reply(prompt, lambda p: (judge(p)[0], 0.0), write, watch, limits, release)


def nan_prompt_passes(prompt, judge, write, watch, limits, release):
    def known(p):
        return tuple(0.0 if math.isnan(score) else score for score in judge(p))

    return guarded_reply(prompt, known, write, watch, limits, release)


def nan_token_passes(prompt, judge, write, watch, limits, release):
    def step(stream, token, text):
        if stream.push([token])[0] > limits.output:
            return "halted_output"
        release(text)

    return _loop(prompt, judge, write, watch, limits, release, step)


def lets_errors_out(prompt, judge, write, watch, limits, release):
    harm, off_label = judge(prompt)
    if not (math.isfinite(harm) and math.isfinite(off_label)):
        return "error"
    if harm > limits.input or off_label > limits.off_label:
        return "blocked_input"
    with watch() as stream:
        for token, text in write(prompt):
            (score,) = stream.push([token])
            if not math.isfinite(score):
                return "error"
            if score > limits.output:
                return "halted_output"
            release(text)
    return "released"


def knows_one_error(prompt, judge, write, watch, limits, release):
    try:
        return lets_errors_out(prompt, judge, write, watch, limits, release)
    except (ConnectionError, ClassifierError):
        return "error"


def fails_open(prompt, judge, write, watch, limits, release):
    def step(stream, token, text):
        try:
            (score,) = stream.push([token])
        except ClassifierError:
            release(text)
            return None
        if not math.isfinite(score):
            return "error"
        if score > limits.output:
            return "halted_output"
        release(text)

    return _loop(prompt, judge, write, watch, limits, release, step)


def calls_it_a_halt(prompt, judge, write, watch, limits, release):
    status = guarded_reply(prompt, judge, write, watch, limits, release)
    return "halted_output" if status == "error" else status


def leaves_it_open(prompt, judge, write, watch, limits, release):
    class Kept:
        def __enter__(self):
            return watch()

        def __exit__(self, *_):
            pass

    return guarded_reply(prompt, judge, write, Kept, limits, release)


def text_too(prompt, judge, write, watch, limits, release):
    return guarded_reply(prompt, judge, write, watch, limits, release), ""


def best_pair(attacks, groups, allowed):
    def flagged(pair, t_in, t_out):
        return int(((pair[0] > t_in) | (pair[1] > t_out)).sum())

    sides = [np.unique(np.concatenate([pair[side] for pair in groups.values()])) for side in (0, 1)]
    fitting = [
        (flagged(attacks, t_in, t_out), t_in, t_out)
        for t_in in sides[0]
        for t_out in sides[1]
        if all(flagged(pair, t_in, t_out) <= allowed[name] for name, pair in groups.items())
    ]
    _, t_in, t_out = max(fitting)
    return t_in, t_out


def _first(groups, allowed):
    name = next(iter(groups))
    return groups[name], allowed[name]


def each_alone(attacks, groups, allowed):
    benign, spared = _first(groups, allowed)
    return np.sort(benign[0])[::-1][spared], np.sort(benign[1])[::-1][spared]


def half_each(attacks, groups, allowed):
    benign, spared = _first(groups, allowed)
    return np.sort(benign[0])[::-1][spared // 2], np.sort(benign[1])[::-1][spared // 2]


def one_side_only(attacks, groups, allowed):
    benign, spared = _first(groups, allowed)
    return np.sort(benign[0])[::-1][spared], max(benign[1])


def refuses_nobody(attacks, groups, allowed):
    return max(max(pair[0]) for pair in groups.values()), max(max(pair[1]) for pair in groups.values())


def one_limit_for_all(attacks, groups, allowed):
    together = tuple(np.concatenate([pair[side] for pair in groups.values()]) for side in (0, 1))
    return best_pair(attacks, {"all": together}, {"all": sum(allowed.values())})


def the_first_group_only(attacks, groups, allowed):
    name = next(iter(groups))
    return best_pair(attacks, {name: groups[name]}, {name: allowed[name]})


def one_threshold(attacks, groups, allowed):
    return best_pair(attacks, groups, allowed)[0]


def next_prompt(turns, message):
    kept = []
    for said, reply in turns:
        if reply.status != "blocked_input":
            kept += [said, history_after(reply)]
    return " ".join([*kept, message])


def keeps_the_rest(turns, message):
    return " ".join([f"{said} {reply.released_text}{reply.withheld_text}" for said, reply in turns] + [message])


def keeps_the_note(turns, message):
    return " ".join([f"{said} {reply.note} {reply.released_text}" for said, reply in turns] + [message])


def keeps_the_blocked(turns, message):
    return " ".join([f"{said} {history_after(reply)}" for said, reply in turns] + [message])


def what_was_shown(turns, message):
    kept = [f"{said} {reply.shown_text}" for said, reply in turns if reply.status != "blocked_input"]
    return " ".join([*kept, message])


def no_marker(turns, message):
    kept = [f"{said} {reply.released_text}" for said, reply in turns if reply.status != "blocked_input"]
    return " ".join([*kept, message])


def replies_only(turns, message):
    return " ".join([history_after(reply) for _, reply in turns if reply.status != "blocked_input"] + [message])


def message_first(turns, message):
    return f"{message} {next_prompt(turns, '')}".strip()


def turned_round(turns, message):
    return next_prompt(turns[::-1], message)


def by_the_risk(prompt, judge, write, watch, limits, release):
    """Another shape: the risk instead of the score, nothing caught by name, the stream closed by hand."""
    stream = None
    try:
        harm, off_label = map(np.float32, judge(prompt))
        if np.isnan(harm) or np.isnan(off_label):
            return "error"
        if not (harm <= np.float32(limits.input) and off_label <= np.float32(limits.off_label)):
            return "blocked_input"
        stream = watch()
        for token, text in write(prompt):
            stream.push([token])
            if math.isnan(stream.risk):
                return "error"
            if stream.risk > limits.output:
                return "halted_output"
            release(text)
    except Exception:
        return "error"
    finally:
        if stream is not None:
            stream.close()
    return "released"


def pair_in_float32(attacks, groups, allowed):
    return np.array(best_pair(attacks, groups, allowed), np.float32)


def pair_as_tensor(attacks, groups, allowed):
    return torch.tensor(best_pair(attacks, groups, allowed))


def answer_for(reply):
    if reply.status == "error":
        return (400 if reply.error_kind == "context_length_exceeded" else 500), "", None
    if reply.status != "released":
        return 200, reply.shown_text, "content_filter"
    return 200, reply.shown_text, "length" if reply.finish == "length" else "stop"


def _but(**changes):
    """The solution with another answer for replies of one status."""

    def changed(reply):
        found = changes.get(reply.status)
        return found(reply) if found else answer_for(reply)

    return changed


CASES = {
    "answer_for": {
        "solution": answer_for,
        "right": {"a list": lambda reply: list(answer_for(reply))},
        "wrong": {
            "a refusal is an error": _but(blocked_input=lambda reply: (403, reply.refusal, "content_filter")),
            "a halt is an error": _but(halted_output=lambda reply: (500, "", None)),
            "an error is an answer": _but(error=lambda reply: (200, reply.shown_text, "content_filter")),
            "an error is a refusal": _but(error=lambda reply: (200, "I am sorry.", "content_filter")),
            "the error's words": _but(error=lambda reply: (answer_for(reply)[0], reply.error, None)),
            "always 500": _but(error=lambda reply: (500, "", None)),
            "always 400": _but(error=lambda reply: (400, "", None)),
            "half a reply": _but(error=lambda reply: (answer_for(reply)[0], reply.released_text, None)),
            "withheld text": _but(
                halted_output=lambda reply: (200, reply.released_text + reply.withheld_text, "content_filter")
            ),
            "no refusal": _but(halted_output=lambda reply: (200, reply.released_text, "content_filter")),
            "a halt is a stop": _but(halted_output=lambda reply: (200, reply.shown_text, "stop")),
            "never length": _but(released=lambda reply: (200, reply.shown_text, "stop")),
            "finish as it is": _but(released=lambda reply: (200, reply.shown_text, reply.finish)),
            "a finish reason for an error": _but(error=lambda reply: (answer_for(reply)[0], "", "stop")),
            "no text": _but(error=lambda reply: (answer_for(reply)[0], None, None)),
            "two things": lambda reply: answer_for(reply)[:2],
        },
    },
    "guarded_reply": {
        "solution": guarded_reply,
        "right": {"by the risk": by_the_risk},
        "wrong": {
            "released before it was scored": release_then_score,
            "the one that crossed goes out": released_with_the_score,
            "at the limit": at_the_limit,
            "goes on after the halt": skips_the_token,
            "all at the end": all_at_the_end,
            "the assistant is asked first": asks_first,
            "nobody reads the question": reads_no_question,
            "nobody reads the reply": reads_no_reply,
            "no off-label mass": no_off_label,
            "NaN prompts pass": nan_prompt_passes,
            "NaN tokens pass": nan_token_passes,
            "errors get out": lets_errors_out,
            "one kind of error gets out": knows_one_error,
            "fails open": fails_open,
            "an error is called a halt": calls_it_a_halt,
            "the stream stays open": leaves_it_open,
            "returns the text too": text_too,
        },
    },
    "best_pair": {
        "solution": best_pair,
        "right": {"float32": pair_in_float32, "a tensor": pair_as_tensor},
        "wrong": {
            "the budget twice": each_alone,
            "half the budget each": half_each,
            "one side only": one_side_only,
            "refuses nobody": refuses_nobody,
            "one limit for all groups": one_limit_for_all,
            "one number": one_threshold,
        },
    },
    "next_prompt": {
        "solution": next_prompt,
        "wrong": {
            "withheld text kept": keeps_the_rest,
            "the note kept": keeps_the_note,
            "blocked messages kept": keeps_the_blocked,
            "what a person was shown": what_was_shown,
            "no marker": no_marker,
            "replies only": replies_only,
            "message first": message_first,
            "turned round": turned_round,
        },
    },
}
