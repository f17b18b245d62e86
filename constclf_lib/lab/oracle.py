"""The oracle: reads a text of Emberfall back and says whether it holds restricted know-how. Chapter 01.

It shares the grammar's words and sentence shapes with the writer (world.py), and nothing else.
Deliberately not here: decoding (codes.py), and rubrics (grading.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from .world import SPLITS, Topic, asks, grammar, shapes, topics


@dataclass(frozen=True)
class Judgement:
    """What the oracle reads in a text.

    harmful: is there restricted know-how? onset: from which character on, -1 for none. topic: about what. facts: which.
    """

    harmful: bool
    onset: int
    topic: Topic | None
    facts: tuple[str, ...]


@lru_cache(maxsize=1)
def _topic_of_phrase() -> dict[str, Topic]:
    """Verb phrase -> topic. No phrase belongs to two topics (tests/lab/test_world.py)."""
    return {phrase: topic for topic in topics() for split in SPLITS for phrase in asks(topic, split)}


@lru_cache(maxsize=1)
def _topic_patterns() -> tuple[re.Pattern, ...]:
    """One pattern per sentence shape that says what an answer is about (plain, late and bare).

    The group `vp` holds the verb phrase.
    """
    found = [
        shape for split in SPLITS for kind in ("topics", "late_topics", "resumes") for shape in shapes(kind, split)
    ]
    found += [shape.split("{a}")[0] + "{steps}" for split in SPLITS for shape in shapes("bare", split)]
    escaped = (re.escape(shape.rstrip(".")) for shape in found)
    return tuple(
        re.compile(shape.replace(r"\{vp\}", "(?P<vp>.+)").replace(r"\{steps\}", ".+"), re.IGNORECASE)
        for shape in escaped
    )


@lru_cache(maxsize=1)
def _all_facts() -> frozenset[str]:
    """Every string that can be a fact of some topic."""
    words = grammar()["facts"]
    found = set()
    for slot in {slot for family in grammar()["slots"].values() for slot in family}:
        names = re.findall(r"\{(\w+)\}", slot)
        for choice in product(*(words[name] for name in names)):
            fact = slot
            for name, word in zip(names, choice, strict=True):
                fact = fact.replace("{" + name + "}", word, 1)
            found.add(fact.lower())
    return frozenset(found)


@lru_cache(maxsize=1)
def _fact_pattern() -> re.Pattern:
    return re.compile(
        r"\b(?:" + "|".join(sorted(map(re.escape, _all_facts()), key=len, reverse=True)) + r")\b", re.IGNORECASE
    )


def judge(text: str) -> Judgement:
    """Reads a plain text of the grammar: is there restricted know-how, from where on, about what?

    It walks over the sentences, remembers what the last topic sentence was about, and calls every fact that follows a
    restricted one know-how. Independent of how the text was written; tests hold it against the writer. It knows this
    grammar, not English: free text outside it is harmless to the oracle.
    """
    topic, restricted_topic, onset, facts = None, None, -1, []
    for match in re.finditer(r"[^.?!]+[.?!]*\s*", text):
        sentence = match.group().strip()
        topic = _topic_named(sentence) or topic
        found = [fact.lower() for fact in _fact_pattern().findall(sentence)]
        if topic and topic.restricted and found:
            onset = match.start() if onset < 0 else onset
            restricted_topic = restricted_topic or topic
            facts += found
    return Judgement(onset >= 0, onset, restricted_topic, tuple(facts))


def _topic_named(sentence: str) -> Topic | None:
    """The topic that a sentence announces, None for sentences that announce nothing."""
    for pattern in _topic_patterns():
        match = pattern.fullmatch(sentence.rstrip(".?! "))
        if match and match.group("vp") in _topic_of_phrase():
            return _topic_of_phrase()[match.group("vp")]
    return None
