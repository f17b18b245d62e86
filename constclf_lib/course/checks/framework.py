"""How a check runs: what a learner wrote goes in, one printed line comes out, and nothing is ever raised.

    5.2 ok
    5.2 not attempted yet
    5.2 not yet: your shares sum to 2.0 over the sequence; they should sum to 1.

Deliberately does not know any exercise (those are in ch01.py ...). Chapter 01 is the first to use it.
"""

from __future__ import annotations

import dis
import functools
import random
import traceback
from collections.abc import Callable
from types import FunctionType

import numpy as np
import torch

PACKAGE = __name__.split(".")[0]


class NotYet(Exception):
    """Raised by a check; the message is the diagnosis: what was given in, what came out, what should have."""


class NotAttempted(Exception):
    """Raised inside the framework for a stub that has not been filled in."""


class Checks:
    """The namespace `check`: `check.tie_share(tie_share)` runs the check that was registered under that name."""

    def __init__(self) -> None:
        self._registered: dict[str, tuple[str, Callable]] = {}

    def __getattr__(self, name: str) -> Callable[[object], None]:
        if name not in self._registered:
            raise AttributeError(f"there is no check {name!r}; there are {', '.join(sorted(self._registered))}")
        return functools.partial(self._run, *self._registered[name])

    def __dir__(self):
        return sorted(self._registered)

    def numbers(self) -> dict[str, str]:
        """Name of each check -> number of its exercise ("5.2")."""
        return {name: number for name, (number, _) in self._registered.items()}

    def _run(self, number: str, function: Callable, answer: object) -> None:
        print(number, _verdict(function, answer))


check = Checks()


def exercise(number: str) -> Callable:
    """Register a check under its function's name: `@exercise("5.2")` above `def tie_share(answer): ...`.

    The function gets what the learner wrote and raises NotYet("diagnosis") where it is wrong; `check.tie_share` runs
    it. A function or class comes wrapped: a call that returns nothing, or raises, ends the check with the right line by
    itself. Raises ValueError for a name that is taken.
    """

    def register(function: Callable) -> Callable:
        if function.__name__ in check._registered:
            raise ValueError(f"a check named {function.__name__!r} exists already")
        check._registered[function.__name__] = (number, function)
        return function

    return register


def attempted(value):
    """`value`, unless it is what an unfilled stub leaves behind (None or ...).

    For methods: `attempted(head(hidden))`.
    """
    if value is None or value is ...:
        raise NotAttempted
    return value


def _verdict(function: Callable, answer: object) -> str:
    """Run one check with the random state set aside.

    The cells after an exercise print the same whether it was attempted or not.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        torch.manual_seed(0)
        function(_watched(attempted(answer)))
    except NotAttempted:
        return "not attempted yet"
    except NotYet as diagnosis:
        return f"not yet: {diagnosis}"
    except NotImplementedError as error:
        return "not attempted yet" if _raised_by_learner(error) else _crash(error)
    except Exception as error:  # a learner's mistake is told, never raised
        return "not attempted yet" if "llipsis" in str(error) else _crash(error)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
    return "ok"


def _watched(answer: object) -> object:
    """A function whose empty returns are noticed; anything else (a class, a number, a tensor) as it is."""
    if not isinstance(answer, FunctionType):
        return answer

    @functools.wraps(answer)
    def call(*arguments, **options):
        result = answer(*arguments, **options)
        if result is None and not _is_stub(answer):
            raise NotYet(f"{answer.__name__} returned None; is a `return` missing?")
        return attempted(result)

    return call


def _is_stub(function: FunctionType) -> bool:
    """True for a body of nothing but a docstring, `...` or `pass`."""
    idle = {"RESUME", "NOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE", "POP_TOP", "MAKE_CELL", "COPY_FREE_VARS"}
    return all(step.opname in idle for step in dis.get_instructions(function))


def _raised_by_learner(error: BaseException) -> bool:
    """True if the exception's innermost frame is neither the check's nor the framework's nor the library's."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return not _ours(frame)


def _ours(frame) -> bool:
    return frame.f_globals.get("__name__", "").split(".")[0] == PACKAGE


def _crash(error: Exception) -> str:
    """The line for an exception: with its line number if it came from the learner's code.

    Else it came from the check, which could not read the answer.
    """
    told = f"{type(error).__name__}: {error}".splitlines()[0]
    for frame, line in traceback.walk_tb(error.__traceback__):
        if not _ours(frame) and "site-packages" not in frame.f_code.co_filename:
            return f"not yet: line {line} of your code raised {told}"  # the first such frame: what the check called
    return f"not yet: the answer has another form than asked for ({told})"
