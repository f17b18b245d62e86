"""Texts that say almost the same: near-duplicates out, leaks between splits found. Built in chapter 01.

`near_duplicates` finds what repeats an earlier text, `leaked` tells how much of a test split a training split has seen.
Deliberately not here: MinHash. At the size of a course the exact answer is fast enough (see `NearDuplicates`).
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Sequence


def shingles(text: str, size: int = 3) -> frozenset[str]:
    """Every run of `size` words, in lower case, punctuation aside. A text shorter than that is one shingle."""
    words = re.findall(r"\w+", text.lower())
    return frozenset(" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1)))


def jaccard(a: frozenset, b: frozenset) -> float:
    """Shared shingles over all shingles, in [0, 1]. Two empty sets are equal: 1."""
    return len(a & b) / len(a | b) if a or b else 1.0


class NearDuplicates:
    """A shelf of texts that answers: is there one already that is as good as this one?

    Exact, yet without comparing all pairs: put shingles into one fixed order; two sets with Jaccard index >= t must
    share one of their first n - ceil(t n) + 1 shingles, so only those are looked up.
    Raises ValueError for a threshold outside (0, 1].
    """

    def __init__(self, threshold: float = 0.8, size: int = 3):
        if not 0 < threshold <= 1:
            raise ValueError(f"the threshold is a Jaccard index above 0 and up to 1, not {threshold}")
        self.threshold, self.size = threshold, size
        self._sets: dict[int, frozenset[str]] = {}
        self._where: dict[str, list[int]] = {}

    def twin(self, text: str) -> int | None:
        """The number under which the first near-duplicate of `text` was added, or None."""
        mine = shingles(text, self.size)
        near = {number for part in self._head(mine) for number in self._where.get(part, ())}
        return next((n for n in sorted(near) if jaccard(mine, self._sets[n]) >= self.threshold), None)

    def add(self, text: str, number: int | None = None) -> None:
        """Put a text on the shelf under a number (default: the next one)."""
        number = len(self._sets) if number is None else number
        self._sets[number] = shingles(text, self.size)
        for part in self._head(self._sets[number]):
            self._where.setdefault(part, []).append(number)

    def _head(self, parts: frozenset[str]) -> list[str]:
        keep = len(parts) - math.ceil(self.threshold * len(parts) - 1e-9) + 1
        return sorted(parts, key=lambda part: (zlib.crc32(part.encode()), part))[:keep]


def near_duplicates(texts: Sequence[str], threshold: float = 0.8, size: int = 3) -> list[int | None]:
    """For each text the index of the earlier, kept text that it repeats, or None if it is to be kept.

    The first of a family stays. `threshold`: Jaccard index of word shingles from which two texts count as one.
    """
    shelf, twins = NearDuplicates(threshold, size), []
    for i, text in enumerate(texts):
        twins.append(shelf.twin(text))
        if twins[-1] is None:
            shelf.add(text, i)
    return twins


def leaked(train: Iterable[str], test: Sequence[str], threshold: float = 0.8) -> float:
    """Share of the test texts that are near-duplicates of a training text (1 if all are). ValueError for no test."""
    if not len(test):
        raise ValueError("there is no test text")
    shelf = NearDuplicates(threshold)
    for text in train:
        shelf.add(text)
    return sum(shelf.twin(text) is not None for text in test) / len(test)
