"""How a training on a CPU uses memory, where the C library is glibc; elsewhere these do nothing. No result changes.

Rows of many lengths make glibc give large pieces back and ask for them again at every step, and on some machines that
takes as long as the training. Told to keep all of it, a process grows for hours (17 GB after 9,000 steps of the
assistant). So: keep it, and every few steps hand back what is free, if there is much of it.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

EVERY = 20  # steps of a training between two looks at what it holds
MUCH = 8e9  # bytes: what a step needs, and some more


def keep_memory() -> None:
    """From now on the process keeps the memory that it freed."""
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # names of mallopt(3)
    with suppress(OSError, AttributeError, TypeError):  # no such library, no such function; Windows has neither
        mallopt = ctypes.CDLL(None).mallopt
        for name, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 2**28)):
            mallopt(name, value)


def hand_back_memory() -> None:
    """Gives what is free just now back to the system, if the process holds more than MUCH."""
    with suppress(OSError, AttributeError, TypeError):
        if held() > MUCH:
            ctypes.CDLL(None).malloc_trim(0)


def held() -> int:
    """Bytes of memory that the process holds. OSError where Linux's /proc is not."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) * 1024
