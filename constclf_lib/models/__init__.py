"""The two bodyguards around any Hugging Face causal LM: classifiers, their value head, the backbone as they read it,
folders on disk, perplexity.
"""

from .adapters import has_adapters
from .backbone import Reading, Seen
from .cache import cache_argument, cache_of
from .checkpoints import quiet, save_language_model
from .classifiers import InputClassifier, InputScores, OutputClassifier
from .model_card import default_card
from .perplexity import perplexity
from .value_head import ValueHead

__all__ = [
    "InputClassifier",
    "InputScores",
    "OutputClassifier",
    "Reading",
    "Seen",
    "ValueHead",
    "cache_argument",
    "cache_of",
    "default_card",
    "has_adapters",
    "perplexity",
    "quiet",
    "save_language_model",
]
