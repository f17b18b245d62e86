"""The two bodyguards around any Hugging Face causal LM: classifiers, their value head, the backbone as they read it,
folders on disk, perplexity.
"""

from .adapters import has_adapters
from .backbone import Reading, Seen, load_backbone
from .cache import cache_argument, cache_of
from .checkpoints import quiet, save_language_model
from .classifiers import ExchangeClassifier, InputClassifier, InputScores, OutputClassifier
from .model_card import default_card
from .perplexity import perplexity
from .probe import LinearProbe, hidden_states_of, model_fingerprint, reply_states
from .running_cache import RunningCache, keeps_every_token
from .self_check import advice
from .value_head import ValueHead

__all__ = [
    "ExchangeClassifier",
    "InputClassifier",
    "InputScores",
    "LinearProbe",
    "OutputClassifier",
    "Reading",
    "RunningCache",
    "Seen",
    "ValueHead",
    "advice",
    "cache_argument",
    "cache_of",
    "default_card",
    "has_adapters",
    "hidden_states_of",
    "keeps_every_token",
    "load_backbone",
    "model_fingerprint",
    "perplexity",
    "quiet",
    "reply_states",
    "save_language_model",
]
