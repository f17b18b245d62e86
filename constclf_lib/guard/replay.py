"""Stored scores decided again under any thresholds, by the guard's own rule, without a model. Built in chapter 08."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..streaming import halt_index
from .types import blocks

MODES = ("none", "input", "output", "both")


def score_prompts(input_classifier, prompts: Sequence[str], batch_size: int = 64):
    """The input classifier's scores, `.harm` and `.off_label`, one per prompt."""
    return input_classifier.score(list(prompts), batch_size=batch_size)


def replay(prompts, replies, input_scores, token_scores, thresholds, mode: str = "both", rule=None) -> list[dict]:
    """What would have been released: stored scores, any thresholds, no model. Equal to `GuardedModel.reply` (tested).

    replies: from `generate_replies`; input_scores: from `score_prompts`; token_scores: from `score_completions` on the
    replies' ids; thresholds: with .input, .off_label and .output; mode: which bodyguards stand: "none", "input",
    "output" or "both". Scores of a bodyguard that does not stand may be None.
    One dict per prompt: status ("released", "blocked_input", "halted_output", "error"), released_text, withheld_text,
    halt_index (of the first token not released, or None), input_score, off_label, error. A score that is not finite is
    an error, and nothing is released from there on; so is a reply that failed after its last token. A prompt that is
    too long is an error before anything is scored.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, not {mode!r}")
    if len(prompts) != len(replies):
        raise ValueError(f"{len(prompts)} prompts, {len(replies)} replies: they must belong together")
    results = []
    for i, reply in enumerate(replies):
        harm = off_label = None
        if mode in ("input", "both"):
            harm, off_label = float(input_scores.harm[i]), float(input_scores.off_label[i])
        scores = token_scores[i] if mode in ("output", "both") else None
        result = _decide(reply, harm, off_label, scores, thresholds, rule)
        results.append({"prompt": prompts[i], **result, "input_score": harm, "off_label": off_label})
    return results


def _decide(reply: dict, harm, off_label, scores, thresholds, rule) -> dict:
    """One decision of `replay`; what is None is not looked at."""
    tokens, status, cut, error = reply["tokens"], "released", None, ""
    if reply.get("error_kind") == "context_length_exceeded":
        status, cut, error = "error", 0, reply["error"]
    elif harm is not None and not (np.isfinite(harm) and np.isfinite(off_label)):
        status, cut, error = "error", 0, "the input score is not finite"
    elif harm is not None and blocks(thresholds, harm, off_label):
        status, cut = "blocked_input", 0
    else:
        if scores is not None:
            if len(scores) != len(tokens):
                raise ValueError(f"{len(scores)} scores for {len(tokens)} tokens: score the replies' own ids")
            finite = np.isfinite(np.asarray(scores, float))
            sound = len(finite) if finite.all() else int(finite.argmin())
            cut = halt_index(np.asarray(scores, float)[:sound], thresholds.output, rule)
            if cut is not None:
                status = "halted_output"
            elif sound < len(finite):
                status, cut, error = "error", sound, f"the score of token {sound} is not finite"
        if status == "released" and reply["error"]:  # the assistant failed: what it wrote before is out
            status, error = "error", reply["error"]
    return {
        "status": status, "released_text": "".join(tokens[:cut]), "error": error,
        "withheld_text": "" if cut is None else "".join(tokens[cut:]),
        "halt_index": cut if status == "halted_output" else None,
    }  # fmt: skip
