"""What goes into a guarded reply and what comes out: thresholds, events, the reply, what a chat history keeps of it.
Built in chapter 08.

Plain data. Deliberately not here: how any of it comes about (`model.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

STOPPED = "[stopped by the guard]"
WITHHELD = "[no answer: withheld by the guard]"


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
    stopped: "end", "length" or "stop". note: the private note, never part of any other field. error: what failed, in
    words.
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


def history_after(reply: Reply) -> str:
    """What a chat history should remember of this reply: what the user saw, and that there was a stop. Never the
    withheld text.

    Withheld text in the history would be read by the assistant in the next turn, and "go on from there" would hand it
    out piece by piece.
    """
    if reply.status == "released":
        return reply.released_text
    return f"{reply.released_text} {STOPPED}" if reply.released_text else WITHHELD
