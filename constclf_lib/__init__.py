"""Mini Bodyguards: Constitutional Classifiers from scratch.

The names that a notebook or a practitioner needs first; everything else is imported from its module. Nothing is loaded
before it is asked for, so `import constclf_lib` is instant.
"""

from importlib import import_module

_HOME = {
    "losses": ("annealed_bce", "cumulative_max_bce", "next_token_loss", "per_token_bce"),
    "models": ("ClassifierError", "InputClassifier", "OutputClassifier", "ValueHead"),
    "training": ("InputClassifierTrainer", "OutputClassifierTrainer", "linear_anneal"),
    "streaming": ("StreamingScorer",),
    "guard": ("GuardedModel", "Reply", "Thresholds", "guard_text_stream"),
    "evaluation": ("calibrate_threshold", "wilson_interval"),
    "synthesis": ("load_split",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
