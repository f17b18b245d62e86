"""What goes into a guarded reply and what comes out: thresholds, events, the reply, what a chat history keeps of it.
Built in chapter 08.

Plain data. Deliberately not here: how any of it comes about (`model.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..streaming import crosses

STOPPED = "[stopped by the guard]"  # what a chat history says (`history_after`); what a person reads is REFUSAL
WITHHELD = "[no answer: withheld by the guard]"
REFUSAL = "I'm sorry, but I can't help with that."  # red-team tools know this wording as a refusal
ERROR_KINDS = (
    "context_length_exceeded",  # the prompt is longer than the assistant's context or than max_prompt_tokens
    "bad_input",  # the prompt cannot be put into the assistant's chat template
    "classifier_failed",
    "classifier_timeout",  # a call of a classifier took longer than step_timeout
    "generation_failed",
    "generation_timeout",  # a step of the assistant did
    "upstream_failed",  # the server in front of which the guard stands: an error, a broken or unfinished answer
    "upstream_refused",  # it did not accept the request
    "upstream_timeout",  # it kept silent for too long
)


@dataclass(frozen=True)
class Thresholds:
    """A prompt is blocked if harm > input or off-label mass > off_label; a reply is halted at the first token whose
    risk > output.

    math.inf scores without ever acting. Raises ValueError for NaN, above which nothing would ever be.
    """

    input: float
    off_label: float
    output: float

    def __post_init__(self) -> None:
        for name in ("input", "off_label", "output"):
            if math.isnan(getattr(self, name)):
                raise ValueError(f"the threshold {name} is NaN: nothing would ever be above it")


def blocks(thresholds, harm: float, off_label: float) -> bool:
    """Whether a prompt with these scores is kept from the assistant."""
    return crosses(harm, thresholds.input) or crosses(off_label, thresholds.off_label)


@dataclass(frozen=True)
class TokenEvent:
    """One released step: `text` that goes out now ("" while a character or a stop sequence is incomplete), and the
    token behind it.

    score and risk are None in an unguarded reply; token_id is None where text comes without a token of its own (guarded
    through text, or the last flush).
    """

    text: str
    token_id: int | None = None
    score: float | None = None
    risk: float | None = None


@dataclass
class Reply:
    """What became of a request.

    status: "released", "blocked_input" (the assistant never ran), "halted_output", or "error". withheld_text: written
    but not released. input_score and off_label: of the prompt, None if not scored. tokens and token_scores: one entry
    per scored token of the completion, with the one that crossed, at `halt_index`; tokens[i] is the text that token i
    completed. (Guarded through text, an entry is a piece and its highest token score.) finish: why the assistant
    stopped: "end", "length" or "stop". note: the private note, never part of any other field; note_tokens: its length.
    completion_tokens: as an upstream server counted them, 0 where `tokens` tells. error: what failed, in words.
    error_kind: the same for programs, "" or one of ERROR_KINDS. refusal: what to say in place of what is held back, ""
    unless the guard blocked or halted.
    """

    status: str = "error"
    released_text: str = ""
    withheld_text: str = ""
    input_score: float | None = None
    off_label: float | None = None
    token_scores: list[float] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    halt_index: int | None = None
    finish: str | None = None
    note: str = ""
    error: str = ""
    prompt_tokens: int = 0
    error_kind: str = ""
    refusal: str = ""
    note_tokens: int = 0
    completion_tokens: int = 0

    @property
    def shown_text(self) -> str:
        """What a person reads: what was released, and the refusal where the guard stopped it. Never withheld text."""
        return "\n\n".join(part for part in (self.released_text, self.refusal) if part)


def history_after(reply: Reply) -> str:
    """What a chat history should remember of this reply: what the user saw, and that there was a stop. Never the
    withheld text.

    Withheld text in the history would be read by the assistant in the next turn, and "go on from there" would hand it
    out piece by piece.
    """
    if reply.status == "released":
        return reply.released_text
    return f"{reply.released_text} {STOPPED}" if reply.released_text else WITHHELD
