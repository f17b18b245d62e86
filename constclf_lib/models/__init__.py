"""The two bodyguards around any Hugging Face causal LM: classifiers, their value head, the backbone as they read it,
folders on disk, perplexity.
"""

from .adapters import has_adapters
from .backbone import Reading
from .cache import cache_argument, cache_of
from .checkpoints import quiet
from .classifiers import InputClassifier, OutputClassifier
from .model_card import default_card
from .perplexity import perplexity
from .value_head import ValueHead, direct

__all__ = [
    "InputClassifier",
    "OutputClassifier",
    "Reading",
    "ValueHead",
    "cache_argument",
    "cache_of",
    "default_card",
    "direct",
    "has_adapters",
    "perplexity",
    "quiet",
]
