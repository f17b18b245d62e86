"""What the panels do, without the panels: one guarded conversation, one pair of thresholds.

Used in chapters 00 (`show_reply`) and 08 (`show_operating_point`), where a notebook has no widgets, and by `panels`,
which puts sliders and buttons in front of them.
Deliberately not here: decisions. Those are `Transcript.decide` (what if) and `GuardedModel.reply` (for real).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..evaluation import Estimate, rate_of
from ..guard import GuardedModel, Thresholds, Transcript, transcribe
from ..tokenization import token_at
from .plots import BENIGN, ONSET, Picture, bars_with_intervals, token_heatmap


def rehearse(guard: GuardedModel, prompt: str, max_new_tokens: int = 256) -> Transcript:
    """One prompt, the whole reply that the unguarded assistant would write, and every score: see `transcribe`."""
    return transcribe(guard, [prompt], max_new_tokens=max_new_tokens)


def show_reply(
    guard: GuardedModel,
    prompt: str,
    input_threshold: float | None = None,
    output_threshold: float | None = None,
    mode: str = "both",
    onset: int | None = None,
    title: str | None = None,
    max_new_tokens: int = 256,
) -> Picture:
    """The picture of one guarded conversation: where the reply would have been cut, and what would have stayed inside.

    Thresholds left out are the guard's own. mode: "both", "input", "output" or "none" (the guard off). onset: the
    character of the reply at which harm begins, if known. The twin of `guard_panel`.
    """
    rehearsal = rehearse(guard, prompt, max_new_tokens)
    return picture_of(rehearsal, moved(guard, input_threshold, output_threshold), mode, onset, title)


def moved(guard: GuardedModel, input_threshold: float | None, output_threshold: float | None) -> Thresholds:
    """The guard's thresholds with one or both of them moved. ValueError for a model that has none."""
    if guard.thresholds is None:
        raise ValueError("this model has no bodyguards, so there are no thresholds to move")
    moves = {"input": input_threshold, "output": output_threshold}
    return replace(guard.thresholds, **{side: value for side, value in moves.items() if value is not None})


def picture_of(
    rehearsal: Transcript,
    thresholds: Thresholds,
    mode: str = "both",
    onset: int | None = None,
    title: str | None = None,
) -> Picture:
    """The picture of a transcript of one prompt under these thresholds; the other arguments as in `show_reply`.

    The picture also tells `status` and `released_text`.
    """
    (result,), tokens = rehearsal.decide(thresholds, mode), rehearsal.replies[0]["tokens"]
    blocked = result["status"] == "blocked_input"
    line = thresholds.input if blocked else thresholds.output
    figure = token_heatmap(
        [] if blocked else tokens,
        [] if blocked else rehearsal.token_scores[0],
        threshold=None if mode == "none" or result["error"] else line,
        halt_index=result["halt_index"],
        onset_token=None if blocked or onset is None else token_at(tokens, onset),
        title=words_of(result, tokens) if title is None else title,
        prompt=rehearsal.prompts[0],
        input_score=float(rehearsal.input_scores.harm[0]),
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
) -> dict[str, Estimate]:
    """What a pair of thresholds does: the rate of attacks stopped, then the rate refused of every benign group.

    Arguments as in `choose_threshold_pair`: pairs of (input scores, highest output scores).
    """
    groups = {"attacks stopped": attack_scores} | {f"refused: {name}": pair for name, pair in benign_groups.items()}
    return {
        name: rate_of((np.asarray(first) > input_threshold) | (np.asarray(second) > output_threshold))
        for name, (first, second) in groups.items()
    }


def show_operating_point(
    attack_scores,
    benign_groups: Mapping[str, tuple],
    input_threshold: float,
    output_threshold: float,
    limit: float | None = None,
) -> Picture:
    """The picture of one pair of thresholds: attacks stopped, benign ones refused; the twin of `operating_panel`."""
    rates = operating_point(attack_scores, benign_groups, input_threshold, output_threshold)
    stopped, *refused = (100 * rate.value for rate in rates.values())
    return bars_with_intervals(
        rates,
        title=f"{stopped:.1f}% of the attacks stopped, at most {max(refused):.2g}% of benign requests refused",
        colours={name: BENIGN if name == "attacks stopped" else ONSET for name in rates},
        limit=limit,
    )
