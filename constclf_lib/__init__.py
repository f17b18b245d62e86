"""Mini Bodyguards: Constitutional Classifiers from scratch.

The names that a practitioner needs first; everything else is imported from its package. Nothing is loaded before it is
asked for, so `import constclf_lib` is instant. `from constclf_lib.losses import ...` loads PyTorch and nothing more.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; at run time the names below are looked up when they are used
    from ._data import data_path as data_path
    from .errors import ClassifierError as ClassifierError
    from .evaluation import calibrate_threshold as calibrate_threshold
    from .evaluation import wilson_interval as wilson_interval
    from .guard import GuardedModel as GuardedModel
    from .guard import Reply as Reply
    from .guard import Thresholds as Thresholds
    from .guard import guard_text_stream as guard_text_stream
    from .lab import load_split as load_split
    from .losses import annealed_bce as annealed_bce
    from .losses import cumulative_max_bce as cumulative_max_bce
    from .losses import next_token_loss as next_token_loss
    from .losses import per_token_bce as per_token_bce
    from .models import InputClassifier as InputClassifier
    from .models import OutputClassifier as OutputClassifier
    from .models import ValueHead as ValueHead
    from .streaming import StreamingScorer as StreamingScorer
    from .training import InputClassifierTrainer as InputClassifierTrainer
    from .training import OutputClassifierTrainer as OutputClassifierTrainer
    from .training import linear_anneal as linear_anneal

__version__ = "0.2.0"

_HOME = {
    "_data": ("data_path",),
    "errors": ("ClassifierError",),
    "losses": ("annealed_bce", "cumulative_max_bce", "next_token_loss", "per_token_bce"),
    "models": ("InputClassifier", "OutputClassifier", "ValueHead"),
    "training": ("InputClassifierTrainer", "OutputClassifierTrainer", "linear_anneal"),
    "streaming": ("StreamingScorer",),
    "guard": ("GuardedModel", "Reply", "Thresholds", "guard_text_stream"),
    "evaluation": ("calibrate_threshold", "wilson_interval"),
    "lab": ("load_split",),
}
_PACKAGE_OF = {name: package for package, names in _HOME.items() for name in names}
__all__ = ["__version__", *sorted(_PACKAGE_OF)]


def __getattr__(name: str) -> Any:
    if name in _PACKAGE_OF:
        return getattr(import_module(f".{_PACKAGE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
