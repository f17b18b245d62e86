"""The guarded system: GuardedModel around any assistant (model), a provider's stream of text (text), stored scores
decided again (replay) and made (transcript), and what goes in and comes out (types).
"""

from .model import GuardedModel
from .replay import MODES, replay, score_prompts
from .text import guard_text_stream
from .transcript import Transcript, transcribe
from .types import Reply, Thresholds, TokenEvent, history_after

__all__ = [
    "GuardedModel",
    "MODES",
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
