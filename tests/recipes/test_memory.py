"""Memory of a training: kept, handed back every few steps, and no reason to fail on another C library."""

import ctypes
import os
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
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    assert memory.held() == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE"), rel=0.2)


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
