"""Answer once, score once, decide later: what an unguarded assistant wrote, with every score, for any thresholds.

Built in chapter 08; the campaign and the attacker of chapter 09 stand on it. All configurations of bodyguards are then
compared on the very same replies, and no model runs for a comparison.
Deliberately not here: the decision (replay.py), and guards that work through text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..generation import generate_replies
from ..models import InputScores
from ..streaming import score_completions
from .model import GuardedModel
from .replay import replay, score_prompts
from .types import Thresholds

_UNASKED = {"tokens": [], "ids": [], "text": "", "error": ""}


@dataclass
class Transcript:
    """Prompts, unguarded replies and all scores; the four belong together, one entry per prompt.

    replies: as from `generate_replies`. input_scores: of the prompts, `.harm` and `.off_label`. token_scores: of each
    reply, an array [tokens].
    """

    prompts: list[str]
    replies: list[dict]
    input_scores: InputScores
    token_scores: list[np.ndarray]

    def decide(self, thresholds: Thresholds, mode: str = "both", rule=None) -> list[dict]:
        """What these thresholds would have released, one result of `replay` per prompt.

        mode: which bodyguards stand: "none", "input", "output" or "both". rule: the stop rule of the output side.
        """
        return replay(self.prompts, self.replies, self.input_scores, self.token_scores, thresholds, mode, rule)


def transcribe(
    guard: GuardedModel,
    prompts: Sequence[str],
    unless_blocked_by: Thresholds | None = None,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
) -> Transcript:
    """Let the assistant answer unguarded and unseen, and both bodyguards score all of it.

    unless_blocked_by: the assistant is not asked what these thresholds block anyway; such a reply is empty, so decide
    with the same thresholds on the input side. None: every prompt is answered. temperature: 0 is greedy; prompt i is
    sampled with seed + i.
    Raises ValueError for a guard that works through text or lacks a bodyguard: use `guard.reply` there.
    """
    if guard.input_classifier is None or guard.output_classifier is None or guard.through_text:
        raise ValueError("a transcript needs both bodyguards and one tokenizer for all; use guard.reply(prompt)")
    prompts = list(prompts)
    scores = score_prompts(guard.input_classifier, prompts)
    found = Transcript(prompts, [_UNASKED] * len(prompts), scores, [np.zeros(0, np.float32)] * len(prompts))
    asked = list(range(len(prompts)))
    if unless_blocked_by is not None:
        first = found.decide(unless_blocked_by, "input")
        asked = [i for i in asked if first[i]["status"] == "released"]
    replies = generate_replies(
        guard.assistant,
        guard.tokenizer,
        [prompts[i] for i in asked],
        max_new_tokens,
        temperature=temperature,
        seed=seed,
        max_note_tokens=guard.max_note_tokens,
    )
    token_scores = score_completions(guard.output_classifier, [reply["ids"] for reply in replies])
    for i, reply, risks in zip(asked, replies, token_scores, strict=True):
        found.replies[i], found.token_scores[i] = reply, risks
    return found
