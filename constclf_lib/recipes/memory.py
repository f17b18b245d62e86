"""How a training on a CPU uses memory, where the C library is glibc; elsewhere these do nothing. No result changes.

Rows of many lengths make glibc give large pieces back and ask for them again at every step, and on some machines that
takes as long as the training. Told to keep all of it, a process grows for hours (17 GB after 9,000 steps of the
assistant). So: keep it, and hand back what is free every few steps (peaks of about 8 GB).
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

EVERY = 20  # steps of a training between two handings back


def keep_memory() -> None:
    """From now on the process keeps the memory that it freed."""
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # names of mallopt(3)
    with suppress(OSError, AttributeError, TypeError):  # no such library, no such function; Windows has neither
        mallopt = ctypes.CDLL(None).mallopt
        for name, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 2**28)):
            mallopt(name, value)


def hand_back_memory() -> None:
    """Gives what is free just now back to the system."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
