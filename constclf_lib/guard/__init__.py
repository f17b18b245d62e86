"""The guarded system: GuardedModel around any assistant (model; many at once: engine; on disk: folder) or somebody
else's server (upstream), a provider's stream of text (text), all with the same decision (gates, answer); stored scores
decided again (replay) and made (transcript); what goes in and comes out (types).
"""

from .answer import Answer
from .engine import BatchedGuard, TooManyRequests
from .folder import read_card
from .gates import ScoredRow, TokenGate
from .in_thread import in_thread
from .model import GuardedModel
from .replay import MODES, replay, score_prompts
from .text import guard_text_stream
from .transcript import Transcript, transcribe
from .types import ERROR_KINDS, REFUSAL, Reply, Thresholds, TokenEvent, blocks, history_after
from .upstream import GuardedUpstream

__all__ = [
    "Answer",
    "BatchedGuard",
    "ERROR_KINDS",
    "GuardedModel",
    "GuardedUpstream",
    "MODES",
    "REFUSAL",
    "Reply",
    "ScoredRow",
    "Thresholds",
    "TokenEvent",
    "TokenGate",
    "TooManyRequests",
    "Transcript",
    "blocks",
    "guard_text_stream",
    "history_after",
    "in_thread",
    "read_card",
    "replay",
    "score_prompts",
    "transcribe",
]
