"""The guarded system: GuardedModel around any assistant (model; on disk: folder), a provider's stream of text (text),
both with the same decision (gates); stored scores decided again (replay) and made (transcript); what goes in and comes
out (types).
"""

from .model import GuardedModel
from .replay import MODES, replay, score_prompts
from .text import guard_text_stream
from .transcript import Transcript, transcribe
from .types import ERROR_KINDS, REFUSAL, Reply, Thresholds, TokenEvent, history_after

__all__ = [
    "ERROR_KINDS",
    "GuardedModel",
    "MODES",
    "REFUSAL",
    "Reply",
    "Thresholds",
    "TokenEvent",
    "Transcript",
    "guard_text_stream",
    "history_after",
    "replay",
    "score_prompts",
    "transcribe",
]
