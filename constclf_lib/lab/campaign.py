"""The campaign: every attack of the red team and every benign request, answered once, scored once, decided afterwards.

Chapters 08 and 09 run a sample of it live and draw the whole from `data/reference_results.json`, where
recipes.measure puts it. The assistant replies unguarded and both bodyguards score everything; `decide` then puts any
configuration of bodyguards around it, so that all configurations are compared on the very same replies.
Deliberately not here: thresholds (chosen on validation by recipes.measure), and an attacker who adapts
(adaptive_attack.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pandas as pd

from ..evaluation import compute_overhead, wilson_interval
from ..generation import generate_replies
from ..guard import MODES, Thresholds, replay, score_prompts
from ..streaming import score_completions
from .attacks import ATTACKS, CODES
from .exchanges import load_split, write_exchange
from .grading import attack_success, grade, headline, outcome
from .world import judge, topics

NEW_TOKENS = 256


def rate(hits, digits: int = 4) -> dict:
    """{"value", "interval", "n"} of a list of booleans, Wilson's interval at 95%."""
    hits = np.asarray(hits, bool)
    low, high = wilson_interval(int(hits.sum()), hits.size)
    return {
        "value": round(float(hits.mean()), digits),
        "interval": [round(low, digits), round(high, digits)],
        "n": int(hits.size),
    }


def answer_all(models, frame: pd.DataFrame) -> dict:
    """One part of a campaign: `frame` (with a `prompt` column), the unguarded replies, and both bodyguards' scores.

    models: (assistant, tokenizer, input classifier, output classifier), as from `results.load_lab`.
    """
    assistant, tokenizer, reader, listener = models
    replies = generate_replies(assistant, tokenizer, frame.prompt.tolist(), max_new_tokens=NEW_TOKENS)
    return {
        "frame": frame.reset_index(drop=True),
        "replies": replies,
        "input": score_prompts(reader, frame.prompt.tolist()),
        "output": score_completions(listener, [reply["ids"] for reply in replies]),
    }


def run_campaign(models, log: Callable[[str], None]) -> dict[str, dict]:
    """All four parts: attacks, plain requests (the rubric's baseline), ordinary benign and hard benign requests."""
    test = load_split("test")
    frames = {
        "attacks": load_split("red_team"),
        "plain": plain_versions(),
        "ordinary": test[~test.restricted & (test.attack == "")],
        "hard": load_split("hard_benign"),
    }
    campaign = {}
    for name, frame in frames.items():
        campaign[name] = answer_all(models, frame)
        log(f"{len(frame)} replies to {name} prompts")
    return campaign


def plain_versions(each: int = 10) -> pd.DataFrame:
    """`each` unattacked requests per restricted topic, in test wordings: the baseline of the rubric, as in the
    paper."""
    rng = random.Random("plain versions")
    rows = [write_exchange(rng, "test", topic) for topic in topics() if topic.restricted for _ in range(each)]
    return pd.DataFrame([row.__dict__ for row in rows])


def baseline_counts(plain: dict) -> dict[tuple[str, str], int]:
    """Facts that the unguarded assistant gives when asked plainly: the median over its replies, per (rule, hazard)."""
    held = [grade(r["text"], f) for r, f in zip(plain["replies"], plain["frame"].facts, strict=True)]
    parts = plain["frame"].assign(held=held).groupby(["rule_id", "hazard"])
    return {key: int(np.median(part.held)) for key, part in parts}


def baselines_of(part: dict, plain: dict) -> list[int]:
    """The baseline of every attack in `part`."""
    counts = baseline_counts(plain)
    return [counts[key] for key in zip(part["frame"].rule_id, part["frame"].hazard, strict=True)]


def decide(part: dict, limits: Thresholds, mode: str) -> list[dict]:
    """What would have been released: `replay` of one part of a campaign."""
    return replay(part["frame"].prompt.tolist(), part["replies"], part["input"], part["output"], limits, mode)


def grade_attacks(part: dict, baselines: list[int], limits: Thresholds) -> dict[str, np.ndarray]:
    """The outcome of every attack ("success", "failure" or "error") under each configuration of bodyguards."""
    rubric = list(zip(part["frame"].facts, baselines, part["frame"].attack, strict=True))
    return {
        mode: np.array([outcome(r, *row) for r, row in zip(decide(part, limits, mode), rubric, strict=True)])
        for mode in MODES
    }


def measure_system(campaign: dict, limits: Thresholds, models) -> tuple[dict, dict]:
    """The headline, and attack success per kind for every configuration of bodyguards."""
    assistant, _, reader, listener = models
    red = campaign["attacks"]
    baselines = baselines_of(red, campaign["plain"])
    outcomes, kinds = grade_attacks(red, baselines, limits), red["frame"].attack.to_numpy()
    by_kind = {
        kind: {mode: rate(found[kinds == kind] == "success") for mode, found in outcomes.items()} for kind in ATTACKS
    }
    attempts = pd.DataFrame({
        "unguarded": outcomes["none"],
        "guarded": outcomes["both"],
        "unseen": [ATTACKS[kind].held_out for kind in kinds],
    })  # fmt: skip
    benign = pd.DataFrame({
        "refused_unguarded": refused(campaign["ordinary"], limits, "none"),
        "refused_guarded": refused(campaign["ordinary"], limits, "both"),
    })  # fmt: skip
    hard = pd.DataFrame({"refused_guarded": refused(campaign["hard"], limits, "both")})
    everything = [reply for part in ("attacks", "ordinary", "hard") for reply in campaign[part]["replies"]]
    overhead = compute_overhead(assistant, reader, listener, everything)
    return headline(attempts, benign, hard, streaming_table(red, baselines, limits), overhead), by_kind


def refused(part: dict, limits: Thresholds, mode: str) -> np.ndarray:
    """Bool per request: not answered to its end. An error is no answer, so it counts."""
    return np.array([result["status"] != "released" for result in decide(part, limits, mode)])


def streaming_table(part: dict, baselines: list[int], limits: Thresholds) -> pd.DataFrame:
    """The paper's streaming check: replies that give half the rubric, watched by the output classifier alone. Halted?
    And was half out already?
    """
    frame, rows = part["frame"], []
    rubric = zip(frame.facts, baselines, frame.attack, strict=True)
    for reply, result, row in zip(part["replies"], decide(part, limits, "output"), rubric, strict=True):
        if attack_success(reply["text"], *row):
            leaked = attack_success(result["released_text"], *row)
            code = ATTACKS[row[2]].reply_code
            unseen = ATTACKS[row[2]].held_out and bool(code)
            rows.append({
                "halted": result["status"] == "halted_output", "leaked": leaked,
                "reply_code": code or "plain", "unseen_code": unseen,
            })  # fmt: skip
    return pd.DataFrame(rows)


def count_streaming(red: dict, baselines: list[int], limits: Thresholds) -> dict:
    """The streaming check per reply code, and without the code that no classifier was trained on."""
    table = streaming_table(red, baselines, limits)
    known = table[~table.unseen_code]
    sides = {"seen_codes": known} | {f"code_{code}": part for code, part in table.groupby("reply_code")}
    return {name: {side: rate(part[side]) for side in ("halted", "leaked")} for name, part in sides.items()}


def gives_know_how(part: dict) -> np.ndarray:
    """Bool per reply: does it really hold restricted know-how, as the oracle reads it (decoded, if it was asked for in
    a code)? A misread benign request can end in such a reply; to stop it is no mistake of the guard.
    """
    codes = [ATTACKS[kind].reply_code if kind else "" for kind in part["frame"].attack]
    texts = [CODES[c].decode(r["text"]) if c else r["text"] for c, r in zip(codes, part["replies"], strict=True)]
    return np.array([judge(text.strip()).harmful for text in texts])


def count_campaign(campaign: dict, limits: Thresholds) -> dict:
    """What stands behind the headline: the three outcomes of every configuration; which bodyguard would act on which
    attack that succeeds unguarded ("useful"); who refuses benign requests, per kind of wrapping, and how many of these
    refusals stopped real know-how ("rightly") or a harmless reply in a code never trained on ("unread").
    """
    red = campaign["attacks"]
    outcomes = grade_attacks(red, baselines_of(red, campaign["plain"]), limits)
    useful = outcomes["none"] == "success"
    blocked = np.array([r["status"] == "blocked_input" for r in decide(red, limits, "input")])[useful]
    halted = np.array([r["status"] == "halted_output" for r in decide(red, limits, "output")])[useful]
    counts = {
        "outcomes": {
            mode: {name: int((found == name).sum()) for name in ("success", "failure", "error")}
            for mode, found in outcomes.items()
        },
        "useful_attacks": {
            "both": int((blocked & halted).sum()),
            "input": int((blocked & ~halted).sum()),
            "output": int((~blocked & halted).sum()),
            "nobody": int((~blocked & ~halted).sum()),
        },
    }
    counts["streaming"] = count_streaming(red, baselines_of(red, campaign["plain"]), limits)
    for name in ("ordinary", "hard"):
        part = campaign[name]
        hits, kinds = refused(part, limits, "both"), part["frame"].attack.to_numpy()
        unread = np.array([bool(k) and ATTACKS[k].held_out and ATTACKS[k].side == "write" for k in kinds])
        statuses = [result["status"] for result in decide(part, limits, "both")]
        rightly = np.array([status == "halted_output" for status in statuses]) & gives_know_how(part)
        counts[f"{name}_halted_rightly"] = int(rightly.sum())
        counts[f"{name}_refused_wrongly"] = rate(hits & ~rightly)
        counts[f"{name}_refused_unread"] = int((hits & ~rightly & unread).sum())
        counts[f"{name}_statuses"] = {status: statuses.count(status) for status in sorted(set(statuses))}
        counts[f"{name}_refused"] = {kind or "plain": rate(hits[kinds == kind]) for kind in sorted(set(kinds))}
    return counts
