"""Emberfall: a fictional world in which the truth about every text is known.

`data/emberfall.yaml` holds the words and sentence shapes; here are its topics, what people call them, and their facts.
Chapter 01 walks through it.
Deliberately not here: whole prompts and completions (writing.py), reading a text back (oracle.py), attacks
(attacks.py), and how many of which exchange make a data set (exchanges.py).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product

import yaml

from .._data import data_path
from .constitution import Constitution, load_constitution

SPLITS = ("train", "validation", "test")
ANY = "any"  # the phrases of every split: what the assistant is asked
TOLD = "told"  # the words of every split in other phrases: what a language has before anybody fine-tunes a model on it


@dataclass(frozen=True)
class Topic:
    """What an exchange is about: a rule and a target (one of the rule's hazards, or a lawful good)."""

    rule_id: str
    target: str
    family: str
    restricted: bool


@lru_cache(maxsize=1)
def grammar() -> dict:
    """The words and shapes of `data/emberfall.yaml`. Treat as read-only."""
    return yaml.safe_load(data_path("emberfall.yaml").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def constitution() -> Constitution:
    return load_constitution()


@lru_cache(maxsize=1)
def topics() -> tuple[Topic, ...]:
    """Every (rule, target) pair of the world."""
    return tuple(
        Topic(rule.id, target, rule.family, rule.restricted)
        for rule in constitution().rules
        for target in (rule.hazards or grammar()["targets"][rule.id])
    )


def family_of(rule_id: str) -> str:
    """The kind of know-how that answers about a rule hold."""
    return constitution()[rule_id].family


def shapes(kind: str, split: str, *, of: str | None = None) -> list:
    """The sentence shapes of one kind in one split; `of` is a rule, family or register where the kind has them."""
    entry = grammar()[kind]
    return (entry[of] if of else entry)[SPLITS.index(split)]


def true_facts(topic: Topic) -> tuple[str, ...]:
    """The five facts that are true of a topic in Emberfall: fixed once and for all, so an assistant can know them."""
    return random_facts(topic, random.Random(f"emberfall/{topic.rule_id}/{topic.target}"))


def random_facts(topic: Topic, rng: random.Random) -> tuple[str, ...]:
    """Five facts of the right form but drawn at random.

    Data with such facts keep a classifier from learning the true ones by heart.
    """
    words = grammar()["facts"]
    facts: list[str] = []
    for slot in grammar()["slots"][topic.family]:
        fact = _fill_at_random(slot, words, rng)
        while fact in facts:
            fact = _fill_at_random(slot, words, rng)
        facts.append(fact)
    return tuple(facts)


def _fill_at_random(slot: str, words: dict, rng: random.Random) -> str:
    return re.sub(r"\{(\w+)\}", lambda m: rng.choice(words[m.group(1)]), slot)


@cache
def asks(topic: Topic, words: str) -> tuple[str, ...]:
    """The verb phrases with which one asks about a topic in the words of a split, of ANY, or of TOLD.

    Where a rule has axes, its phrase says who does what to whom: a way ("slip {x} into the well") and a thing ("grains
    of ashbane"), neither of which tells a restricted request from a permitted one. No phrase of one split occurs in
    another. A held-out split's phrases are new combinations of the train words, dealt out in a Latin square, and two
    fifths of those that hold a word which only this split has. The other three fifths, and those of train, are for
    TOLD: no phrase of a held-out split is told in any.
    """
    if words == ANY:
        return tuple(phrase for split in SPLITS for phrase in asks(topic, split))
    if not _cell(topic.rule_id):
        return tuple(dict.fromkeys(_of_parts(topic, "train" if words == TOLD else words)))
    if words == TOLD:
        told = (phrase for split in SPLITS[1:] for phrase in _of_axes(topic, split, told=True))
        return tuple(dict.fromkeys([*asks(topic, "train"), *told]))
    return tuple(dict.fromkeys(_of_axes(topic, words)))


@cache
def _cell(rule_id: str) -> tuple[dict, str, str] | None:
    """(axes, way, thing) of a rule that has them."""
    for axes in grammar()["axes"].values():
        if rule_id in axes["cells"]:
            way, thing = axes["cells"][rule_id]
            return axes, way, thing
    return None


def _of_axes(topic: Topic, split: str, told: bool = False) -> Iterator[str]:
    """The phrases of a split; or (told) those of its own words that are left to tales."""
    axes, way, thing = _cell(topic.rule_id)  # type: ignore[misc]  # asks() has looked
    ways, things = axes["ways"][way], axes["things"][thing]
    own, between, ends = SPLITS.index(split), axes.get("between", [""]), axes["ends"]
    for y, end in product(range(len(between)), range(len(ends))):
        shared = product(enumerate(ways[0]), enumerate(things[0]))
        chosen = [(v, x) for (i, v), (j, x) in shared if _dealt_to(i + j + 2 * y + end) == split and not told]
        if own:
            new = [*product(ways[own], things[0] + things[own]), *product(ways[0], things[own])]
            chosen += [pair for n, pair in enumerate(new) if ((n + 2 * y + end) % 5 < 3) == told]
        for v, x in chosen:
            yield phrase_of(v, x, between[y], ends[end], topic.target)


def phrase_of(way: str, thing: str, between: str, end: str, target: str) -> str:
    shape = way if "{x}" in way else f"{way} {{x}}"
    return f"{shape} {end}".strip().replace("{x}", thing).replace("{y}", between).replace("{t}", target)


def _dealt_to(number: int) -> str:
    """A Latin square with three fifths for train."""
    return SPLITS[max(0, number % 5 - 2)]


def _of_parts(topic: Topic, split: str) -> Iterator[str]:
    parts = grammar()["asks"][topic.rule_id]
    objects = [o.replace("{r}", r) for o in parts["objects"] for r in (_misdeeds(topic.target) if "{r}" in o else [""])]
    for i, j, k in product(range(len(parts["verbs"])), range(len(objects)), range(len(parts["ends"]))):
        if _dealt_to(i + j + 2 * k) == split:
            yield f"{parts['verbs'][i]} {objects[j]} {parts['ends'][k]}".strip().format(t=topic.target)


@cache
def _misdeeds(target: str) -> tuple[str, ...]:
    """The short names of everything restricted about a target: law and history speak of them, and are permitted."""
    return tuple(plain_name(t) for t in topics() if t.restricted and t.target == target)


def plain_name(topic: Topic) -> str:
    """The short name of a topic ("brew a pot of ashbane"): what the assistant notes down once it has understood."""
    if cell := _cell(topic.rule_id):
        axes, way, thing = cell
        between = axes.get("between", [""])[0]
        return phrase_of(axes["ways"][way][0][0], axes["things"][thing][0][0], between, "", topic.target)
    return grammar()["asks"][topic.rule_id]["name"].format(t=topic.target)


@lru_cache(maxsize=1)
def vocabulary() -> tuple[str, ...]:
    """Every lower-case word of Emberfall, sorted: the dictionary of the second tongue is made from it."""

    def strings(node):
        if isinstance(node, str):
            yield node
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from strings(child)

    text = " ".join(strings(grammar())) + " " + " ".join(t.target for t in topics())
    return tuple(sorted(set(re.findall(r"[a-z]+", re.sub(r"\{\w+\}", " ", text.lower())))))
