"""Answers to the exercises of chapter 08, right and wrong."""

import math

import numpy as np

from constclf_lib.guard import history_after


def decide_one(harm, off_label, token_scores, limits):
    if math.isnan(harm) or math.isnan(off_label):
        return "error", 0
    if harm > limits.input or off_label > limits.off_label:
        return "blocked_input", 0
    for count, score in enumerate(token_scores):
        if math.isnan(score):
            return "error", count
        if score > limits.output:
            return "halted_output", count
    return "released", len(token_scores)


def release_then_score(harm, off_label, token_scores, limits):
    status, count = decide_one(harm, off_label, token_scores, limits)
    return status, count + (status == "halted_output")


def at_the_threshold(harm, off_label, token_scores, limits):
    for count, score in enumerate(token_scores):
        if score >= limits.output:
            return "halted_output", count
    return decide_one(harm, off_label, token_scores, limits)


def output_first(harm, off_label, token_scores, limits):
    for count, score in enumerate(token_scores):
        if score > limits.output:
            return "halted_output", count
    return decide_one(harm, off_label, token_scores, limits)


def no_off_label(harm, off_label, token_scores, limits):
    return decide_one(harm, 0.0 if off_label == 0.5 else off_label, token_scores, limits)


def fails_open(harm, off_label, token_scores, limits):
    if harm > limits.input or off_label > limits.off_label:
        return "blocked_input", 0
    for count, score in enumerate(token_scores):
        if score > limits.output:
            return "halted_output", count
    return "released", len(token_scores)


def nan_tokens_pass(harm, off_label, token_scores, limits):
    return decide_one(harm, off_label, [0.0 if math.isnan(score) else score for score in token_scores], limits)


def looks_ahead(harm, off_label, token_scores, limits):
    for count, score in enumerate(token_scores):
        if math.isnan(score) and not math.isnan(harm):
            return "error", count
    return decide_one(harm, off_label, token_scores, limits)


def best_pair(attacks, benign, allowed):
    def flagged(pair, t_in, t_out):
        return int(((pair[0] > t_in) | (pair[1] > t_out)).sum())

    fitting = [
        (flagged(attacks, t_in, t_out), t_in, t_out)
        for t_in in np.unique(benign[0])
        for t_out in np.unique(benign[1])
        if flagged(benign, t_in, t_out) <= allowed
    ]
    _, t_in, t_out = max(fitting)
    return t_in, t_out


def each_alone(attacks, benign, allowed):
    return np.sort(benign[0])[::-1][allowed], np.sort(benign[1])[::-1][allowed]


def half_each(attacks, benign, allowed):
    return np.sort(benign[0])[::-1][allowed // 2], np.sort(benign[1])[::-1][allowed // 2]


def one_side_only(attacks, benign, allowed):
    return np.sort(benign[0])[::-1][allowed], max(benign[1])


def at_least(attacks, benign, allowed):
    def flagged(pair, t_in, t_out):
        return int(((pair[0] >= t_in) | (pair[1] >= t_out)).sum())

    fitting = [
        (flagged(attacks, t_in, t_out), t_in, t_out)
        for t_in in np.unique(benign[0])
        for t_out in np.unique(benign[1])
        if flagged(benign, t_in, t_out) <= allowed
    ]
    return max(fitting)[1:] if fitting else (max(benign[0]), max(benign[1]))


def one_number(attacks, benign, allowed):
    return best_pair(attacks, benign, allowed)[0]


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


def no_marker(turns, message):
    kept = [f"{said} {reply.released_text}" for said, reply in turns if reply.status != "blocked_input"]
    return " ".join([*kept, message])


def replies_only(turns, message):
    return " ".join([history_after(reply) for _, reply in turns if reply.status != "blocked_input"] + [message])


def message_first(turns, message):
    return f"{message} {next_prompt(turns, '')}".strip()


def turned_round(turns, message):
    return next_prompt(turns[::-1], message)


CASES = {
    "decide_one": {
        "solution": decide_one,
        "wrong": {
            "released before it was scored": release_then_score,
            "at the threshold": at_the_threshold,
            "the output is looked at first": output_first,
            "no off-label mass": no_off_label,
            "NaN passes": fails_open,
            "NaN tokens pass": nan_tokens_pass,
            "looks ahead": looks_ahead,
        },
    },
    "best_pair": {
        "solution": best_pair,
        "wrong": {
            "the budget twice": each_alone,
            "half the budget each": half_each,
            "one side only": one_side_only,
            "ties are flagged": at_least,
            "one number": one_number,
        },
    },
    "next_prompt": {
        "solution": next_prompt,
        "wrong": {
            "withheld text kept": keeps_the_rest,
            "the note kept": keeps_the_note,
            "blocked messages kept": keeps_the_blocked,
            "no marker": no_marker,
            "replies only": replies_only,
            "message first": message_first,
            "turned round": turned_round,
        },
    },
}
