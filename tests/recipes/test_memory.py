"""Memory of a training: kept, handed back every few steps, and no reason to fail on another C library."""

import ctypes
from types import SimpleNamespace

import pytest

from constclf_lib.recipes import make, memory


class Library:
    def __init__(self):
        self.calls = []

    def mallopt(self, *values):
        self.calls.append(values)

    def malloc_trim(self, pad):
        self.calls.append("trim")


def test_a_training_hands_memory_back_every_few_steps(monkeypatch):
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    memory.keep_memory()
    assert len(library.calls) == 3
    progress = make.Progress(print)
    for step in range(1, 2 * memory.EVERY + 1):
        progress.on_step_end(None, SimpleNamespace(global_step=step), None)
    assert library.calls[3:] == ["trim", "trim"]


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_another_c_library_is_left_alone(monkeypatch, error):
    def refuse(name):
        raise error("no such thing")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    memory.keep_memory()
    memory.hand_back_memory()
