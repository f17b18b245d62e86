"""The two bodyguards around any Hugging Face causal LM: classifiers, their value head, the backbone as they read it,
folders on disk, perplexity.
"""

from .backbone import Reading
from .cache import cache_argument, cache_of
from .checkpoints import quiet
from .classifiers import InputClassifier, InputScores, OutputClassifier
from .perplexity import perplexity
from .value_head import ValueHead, direct

__all__ = [
    "InputClassifier",
    "InputScores",
    "OutputClassifier",
    "Reading",
    "ValueHead",
    "cache_argument",
    "cache_of",
    "direct",
    "perplexity",
    "quiet",
]
