"""What an assistant writes: one turn token by token (turn), many prompts at a time (batch),
turns that come and go (running), all on one state machine
(reply_state); tokens to whole characters (decoding). Works with any Hugging Face causal LM; nothing is guarded here.
"""

from .batch import generate_replies
from .decoding import Detokenizer, StopSequences, pieces
from .reply_state import ControlTokens, control_ids, read_prompt
from .running import RunningTurn, RunningTurns, can_run
from .turn import Turn

__all__ = [
    "ControlTokens",
    "Detokenizer",
    "RunningTurn",
    "RunningTurns",
    "StopSequences",
    "Turn",
    "can_run",
    "control_ids",
    "generate_replies",
    "pieces",
    "read_prompt",
]
