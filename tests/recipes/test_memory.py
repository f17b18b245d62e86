"""Memory of a training: kept, handed back every few steps, and no reason to fail on another C library."""

import ctypes
from pathlib import Path
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


def test_a_training_hands_memory_back_every_few_steps_if_it_holds_much(monkeypatch):
    library, holds = Library(), [memory.MUCH, memory.MUCH + 1, memory.MUCH + 1]
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(memory, "held", lambda: holds.pop(0))
    memory.keep_memory()
    assert len(library.calls) == 3
    progress = make.Progress(print)
    for step in range(1, 3 * memory.EVERY + 1):
        progress.on_step_end(None, SimpleNamespace(global_step=step), None)
    assert library.calls[3:] == ["trim", "trim"] and not holds


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no Linux: nothing is handed back")
def test_what_a_process_holds_is_read_in_bytes():
    before, block = memory.held(), bytearray(b"x") * (64 << 20)
    assert 60 << 20 < memory.held() - before < 200 << 20
    del block


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_another_c_library_is_left_alone(monkeypatch, error):
    def refuse(name):
        raise error("no such thing")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setattr(memory, "held", lambda: 2 * memory.MUCH)
    memory.keep_memory()
    memory.hand_back_memory()


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_another_system_is_left_alone(monkeypatch, error):
    def refuse():
        raise error("no /proc")

    monkeypatch.setattr(memory, "held", refuse)
    memory.hand_back_memory()
