"""What an assistant writes: one turn token by token (turn), many prompts at a time (batch), tokens to whole characters
(decoding). Works with any Hugging Face causal LM; nothing is guarded here.
"""

from .batch import generate_replies
from .decoding import Detokenizer, StopSequences, pieces
from .turn import Turn, control_ids

__all__ = [
    "Detokenizer",
    "StopSequences",
    "Turn",
    "control_ids",
    "generate_replies",
    "pieces",
]
