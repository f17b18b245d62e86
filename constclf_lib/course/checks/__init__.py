"""The exercise checks: `check.NAME(your_function)` in the stub's own cell prints one line about what you wrote.

A check compares what the learner wrote with the library or with a mathematical property and says what is wrong. It
does not mark, count or store anything, and never stops a Run All. One module per chapter (ch01.py for chapter 01);
the framework is in framework.py.
"""

from importlib import import_module
from pkgutil import iter_modules

from .framework import NotYet, attempted, check, exercise

for _module in iter_modules(__path__):
    if _module.name.startswith("ch"):
        import_module(f"{__name__}.{_module.name}")

__all__ = ["NotYet", "attempted", "check", "exercise"]
