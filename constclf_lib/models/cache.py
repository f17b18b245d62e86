"""The one place that knows what a language model calls its KV cache. Built in chapter 07.

transformers up to 5.23 says `past_key_values`, from 5.24 on `cache`, and some recurrent models `cache_params`. The name
is read off the forward's signature and off the output, never off a version number.

Deliberately not here: what a cache holds, and whether it works (a scorer checks that for itself when it is made).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

CACHE_NAMES = ("cache", "past_key_values", "cache_params", "state")


def cache_argument(forward: Callable) -> str | None:
    """The keyword under which `forward` takes its cache, or None if its signature names none. A keyword that would
    disappear in **kwargs does not count: the model would forget everything it has read, without an error.
    """
    parameters = inspect.signature(forward).parameters
    return next((name for name in CACHE_NAMES if name in parameters), None)


def cache_of(output):
    """The cache in a model's output, or None if there is none."""
    # the fields themselves, not attributes: a deprecated name may answer too, with a warning
    fields = output.keys() if isinstance(output, Mapping) else vars(output)
    return next((getattr(output, name) for name in CACHE_NAMES if name in dict.fromkeys(fields)), None)
