"""Scoring a completion while it is being written: a scorer opens streams of tokens, of text, or of many at once;
whatever fails, fails closed. Built in chapter 07.
"""

from .cascade import Cascade, cascade_scores
from .fail_closed import probability, within
from .probe_stream import ProbeScorer
from .row import Row
from .running_batch import RunningBatch
from .scorer import StreamingScorer, score_completions
from .shared_scorer import SharedScorer
from .stop_rules import AnyOf, ExponentialAverage, KInARow, RunningMax, SlidingMean, crosses, halt_index, running_risk
from .text_stream import MAX_PIECE, Characters, Pieces

__all__ = [
    "AnyOf",
    "Cascade",
    "Characters",
    "ExponentialAverage",
    "KInARow",
    "MAX_PIECE",
    "Pieces",
    "ProbeScorer",
    "Row",
    "RunningBatch",
    "RunningMax",
    "SharedScorer",
    "SlidingMean",
    "StreamingScorer",
    "cascade_scores",
    "crosses",
    "halt_index",
    "probability",
    "running_risk",
    "score_completions",
    "within",
]
