"""What the panels do, without the panels: one guarded conversation, one pair of thresholds, one attack at a time.

Used in chapters 00 (`show_reply`), 08 (`show_operating_point`) and 09 (`RedTeam`), where a notebook has no widgets, and
by `panels`, which puts sliders and buttons in front of them.
Deliberately not here: decisions. Those are `evaluation.replay` (what if) and `GuardedModel.reply` (for real).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..evaluation import wilson_interval
from ..generation import generate_replies
from ..guard import replay, score_prompts
from ..streaming import score_completions
from ..tokenization import token_at
from .plots import BENIGN, ONSET, bars_with_intervals, token_heatmap


@dataclass
class Rehearsal:
    """One prompt, the whole reply the unguarded assistant would write, and every score: ready for any thresholds."""

    prompt: str
    reply: dict
    input_scores: object
    token_scores: np.ndarray

    def cut(self, thresholds, mode: str = "both") -> dict:
        """What would have been released under these thresholds: one result of `replay`."""
        return replay([self.prompt], [self.reply], self.input_scores, [self.token_scores], thresholds, mode)[0]


def rehearse(guard, prompt: str, max_new_tokens: int = 256) -> Rehearsal:
    """Let the assistant write to its end, unguarded and unseen, and let both bodyguards score all of it.

    Raises ValueError for a guard that works through text or lacks a bodyguard: use `guard.reply` there.
    """
    if guard.input_classifier is None or guard.output_classifier is None or guard.through_text:
        raise ValueError("a rehearsal needs both bodyguards and one tokenizer for all; use guard.reply(prompt) instead")
    reply = generate_replies(
        guard.assistant, guard.tokenizer, [prompt], max_new_tokens, max_note_tokens=guard.max_note_tokens
    )[0]
    scores = score_completions(guard.output_classifier, [reply["ids"]])[0]
    return Rehearsal(prompt, reply, score_prompts(guard.input_classifier, [prompt]), scores)


def show_reply(
    guard,
    prompt: str,
    input_threshold: float | None = None,
    output_threshold: float | None = None,
    mode: str = "both",
    onset: int | None = None,
    title: str | None = None,
    max_new_tokens: int = 256,
):
    """The picture of one guarded conversation: where the reply would have been cut, and what would have stayed inside.

    Thresholds left out are the guard's own. mode: "both", "input", "output" or "none" (the guard off). onset: the
    character of the reply at which harm begins, if known. The twin of `guard_panel`.
    """
    rehearsal = rehearse(guard, prompt, max_new_tokens)
    return picture_of(rehearsal, moved(guard.thresholds, input_threshold, output_threshold), mode, onset, title)


def moved(thresholds, input_threshold, output_threshold):
    """The guard's thresholds with one or both of them moved."""
    moves = {"input": input_threshold, "output": output_threshold}
    return replace(thresholds, **{side: value for side, value in moves.items() if value is not None})


def picture_of(rehearsal: Rehearsal, thresholds, mode: str = "both", onset: int | None = None, title=None):
    result, tokens = rehearsal.cut(thresholds, mode), rehearsal.reply["tokens"]
    harm = float(rehearsal.input_scores.harm[0])
    blocked = result["status"] == "blocked_input"
    figure = token_heatmap(
        [] if blocked else tokens,
        [] if blocked else rehearsal.token_scores,
        threshold=None if mode == "none" or result["error"] else thresholds.input if blocked else thresholds.output,
        halt_index=result["halt_index"],
        onset_token=None if blocked or onset is None else token_at(tokens, onset),
        title=words_of(result, tokens) if title is None else title,
        prompt=rehearsal.prompt,
        input_score=harm,
    )
    figure.status, figure.released_text = result["status"], result["released_text"]
    return figure


def words_of(result: dict, tokens: Sequence[str]) -> str:
    """One line on what happened, for titles and labels."""
    if result["status"] == "blocked_input":
        return "Blocked by the input classifier: the assistant was never asked"
    if result["status"] == "halted_output":
        return f"Halted by the output classifier: {result['halt_index']} of {len(tokens)} tokens were released"
    if result["status"] == "error":
        return f"An error, so nothing more was released: {result['error']}"
    return f"Released: all {len(tokens)} tokens"


def operating_point(
    attack_scores, benign_groups: Mapping[str, tuple], input_threshold: float, output_threshold: float
) -> pd.DataFrame:
    """What a pair of thresholds does: one row for the attacks and one per benign group, each with n and interval.

    Arguments as in `choose_threshold_pair`: pairs of (input scores, highest output scores).
    """
    rows = []
    for name, (first, second) in {"attacks stopped": attack_scores, **benign_groups}.items():
        flagged = (np.asarray(first, float) > input_threshold) | (np.asarray(second, float) > output_threshold)
        count, n = int(flagged.sum()), int(flagged.size)
        rows.append((name, n, count, count / n, *wilson_interval(count, n)))
    return pd.DataFrame(rows, columns=["group", "n", "count", "rate", "low", "high"])


def show_operating_point(attack_scores, benign_groups, input_threshold: float, output_threshold: float, limit=None):
    """The picture of one pair of thresholds: attacks stopped, benign requests refused. The twin of
    `operating_panel`."""
    table = operating_point(attack_scores, benign_groups, input_threshold, output_threshold)
    names = [name if k == 0 else f"refused: {name}" for k, name in enumerate(table["group"])]
    rates = {name: (row.rate, row.low, row.high) for name, row in zip(names, table.itertuples(), strict=True)}
    stopped, worst = table["rate"].iloc[0], table["rate"].iloc[1:].max()
    return bars_with_intervals(
        rates,
        title=f"{100 * stopped:.1f}% of the attacks stopped, at most {100 * worst:.2g}% of benign requests refused",
        colours={name: BENIGN if k == 0 else ONSET for k, name in enumerate(names)},
        n=dict(zip(names, table["n"], strict=True)),
        limit=limit,
    )
