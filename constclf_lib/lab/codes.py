"""Seven codes of the lab, letter by letter or word by word, each with an exact inverse on lower-case text.

Requests and replies are hidden in them (attacks.py, chapter 09). Honest limits: a code is applied to lower-case words,
so its inverse gives the text back up to case; and the lab's assistant learns the encoded forms as synonyms, it does not
learn the ciphers.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_lowercase

from .world import vocabulary


@dataclass(frozen=True)
class Code:
    """An encoding of text; `hint` says in a prompt which one.

    `decode(encode(text)) == text.lower()` for text without digits and hyphens (for the tongue: of known words).
    """

    name: str
    encode: Callable[[str], str]
    decode: Callable[[str], str]
    hint: str


def _by_word(change: Callable[[str], str]) -> Callable[[str], str]:
    """Changes every run of letters, digits, hyphens and apostrophes; the rest stays where it is."""
    return lambda text: re.sub(r"[\w'’-]+", lambda match: change(match.group()), text.lower())


def _by_letter(these: str, those: str) -> Callable[[str], str]:
    return lambda text: text.lower().translate(str.maketrans(these, those))


def _shift(by: int) -> Callable[[str], str]:
    there = ascii_lowercase[by:] + ascii_lowercase[:by]
    return _by_letter(ascii_lowercase, there)


def _backwards(word: str) -> str:
    return word[::-1]


@lru_cache(maxsize=1)
def _tongue() -> tuple[dict[str, str], dict[str, str]]:
    """The second tongue of Emberfall: one invented word for every word of the first, and back.

    Made of syllables. Each word has a seed of its own: a new word in the grammar leaves the others' as they are.
    """
    there: dict[str, str] = {}
    taken = set(vocabulary())
    for word in vocabulary():
        rng = random.Random(f"the second tongue/{word}")
        new = _invented(rng, len(word))
        while new in taken:
            new = _invented(rng, len(word))
        taken.add(new)
        there[word] = new
    return there, {new: word for word, new in there.items()}


def _invented(rng: random.Random, length: int) -> str:
    syllables = [rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3 if length > 5 else 2)]
    return "".join(syllables) + rng.choice("lnrs")


def _to_tongue(text: str) -> str:
    return re.sub("[a-z]+", lambda match: _tongue()[0].get(match.group(), match.group()), text.lower())


def _from_tongue(text: str) -> str:
    return re.sub("[a-z]+", lambda match: _tongue()[1].get(match.group(), match.group()), text.lower())


SYLLABLES = ("lala", "tumtum", "deedee", "ohoh")  # no word of Emberfall


def _interleave(text: str) -> str:
    """A syllable behind every word, each in its turn."""
    return " ".join(f"{word} {SYLLABLES[i % len(SYLLABLES)]}" for i, word in enumerate(text.lower().split()))


def _without_syllables(text: str) -> str:
    return " ".join(word for word in text.lower().split() if word.strip(".,:;!?") not in SYLLABLES)


def _from_the_end(text: str) -> str:
    return " ".join(reversed(text.lower().split()))


CODES = {
    code.name: code
    for code in (
        Code("spacing", _by_word("-".join), _by_word(lambda w: w.replace("-", "")), "hyphens between the letters"),
        Code("leet", _by_letter("aeiost", "431057"), _by_letter("431057", "aeiost"), "numbers for letters"),
        Code("reversal", _by_word(_backwards), _by_word(_backwards), "every word backwards"),
        Code("shift", _shift(3), _shift(-3), "letters moved by three"),
        Code("tongue", _to_tongue, _from_tongue, "the second tongue"),
        Code("interleave", _interleave, _without_syllables, "a syllable behind every word"),
        Code("word_order", _from_the_end, _from_the_end, "the last word first"),
    )
}
