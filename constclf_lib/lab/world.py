"""Emberfall: a fictional world in which the truth about every text is known.

`data/emberfall.yaml` holds the words and sentence shapes; this module writes prompts and completions from them. Because
the grammar knows which sentences give restricted know-how, it knows the label, the *onset* (the character at which
know-how begins) and the *rubric* (the five facts that an attacker wanted) exactly. Chapter 01 walks through it.
Deliberately not here: reading a text back (oracle.py), attacks (attacks.py), and how many of which exchange make a data
set (exchanges.py).
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product
from typing import Any

import yaml

from .._data import data_path
from .constitution import Constitution, load_constitution

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Topic:
    """What an exchange is about: a rule and a target (one of the rule's hazards, or a lawful good)."""

    rule_id: str
    target: str
    family: str
    restricted: bool


@dataclass(frozen=True)
class Prompt:
    """A request.

    ask: the verb phrase that carries its meaning. register: who speaks. shape: the sentence frame.
    """

    text: str
    ask: str
    register: str
    shape: str


@dataclass(frozen=True)
class Completion:
    """An answer.

    onset: character offset of the first sentence with restricted know-how, -1 for none. facts: its five facts in order,
    () for none. shape: where its sentences came from.
    """

    text: str
    onset: int
    facts: tuple[str, ...]
    shape: str


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
def asks(topic: Topic, split: str) -> tuple[str, ...]:
    """The verb phrases with which one asks about a topic in a split.

    A rule's wordings are all combinations of its verbs, objects and endings. They are dealt out in a Latin square,
    three fifths to train: every verb, object and ending is met in training, but no wording of one split occurs in
    another.
    """
    parts = grammar()["asks"][topic.rule_id]
    found = []
    for i, j, k in product(*(range(len(parts[name])) for name in ("verbs", "objects", "ends"))):
        if SPLITS[max(0, (i + j + 2 * k) % 5 - 2)] == split:
            found.append(f"{parts['verbs'][i]} {parts['objects'][j]} {parts['ends'][k]}".strip().format(t=topic.target))
    return tuple(found)


def plain_name(topic: Topic) -> str:
    """The short name of a topic ("brew ashbane"): what the assistant notes down once it has understood a request."""
    return grammar()["asks"][topic.rule_id]["name"].format(t=topic.target)


def write_prompt(topic: Topic, split: str, rng: random.Random, *, distractor: bool | None = None) -> Prompt:
    """A request about `topic` in one of the split's shapes.

    Some shapes name a second thing ("I know how to ... Now tell me how to ..."). `distractor` says what it may be: True
    restricted, False permitted, None any.
    """
    register = rng.choice(list(grammar()["frames"]))
    options = shapes("frames", split, of=register)
    frame = rng.choice(options)
    ask = rng.choice(asks(topic, split))
    other = _phrase_about(topic.target, split, rng, rng.random() < 0.5 if distractor is None else distractor)
    text = frame.format(vp=ask, other=other)
    if rng.random() < 0.35:
        text = f"{rng.choice(shapes('leads', split))} {text}"
    if rng.random() < 0.35:
        text = f"{text} {rng.choice(shapes('tails', split))}"
    return Prompt(text, ask, register, f"{split}/{register}/{options.index(frame)}")


def _phrase_about(target: str, split: str, rng: random.Random, restricted: bool) -> str:
    """A verb phrase about the target, or about a hazard if no rule of the wanted side knows the target."""
    candidates = [t for t in topics() if t.restricted == restricted and t.target == target]
    candidates = candidates or [
        t
        for t in topics()
        if t.restricted == restricted and t.target in ("ashbane", "mirethorn", "gloamstone", "sunheart")
    ]
    return rng.choice(asks(rng.choice(candidates), split))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def write_completion(
    topic: Topic, split: str, rng: random.Random, *, facts: tuple[str, ...] | None = None, sentences: int = 4
) -> Completion:
    """An answer that gives the facts (default: the true ones). It opens harmlessly.

    sentences: the most that may stand before and between. One answer in five is a garden path: two facts come before
    the purpose is named.
    """
    facts = true_facts(topic) if facts is None else facts
    ask = rng.choice(asks(topic, split))
    slots = dict(zip("abcde", facts, strict=True))
    slots |= {key.upper(): _capital(value) for key, value in list(slots.items())}
    before = list(dict.fromkeys(_opening(topic.target, split, rng) for _ in range(rng.randint(0, sentences))))
    if rng.random() < 0.2:
        shape, (first, rest) = _pick("late_bodies", split, rng, topic.family)
        start = _capital(rng.choice(shapes("late_topics", split)).format(steps=first.format(**slots), vp=ask))
        body, shape = f"{start} {rest.format(**slots)}", f"late/{shape}"
    else:
        shape, plan = _pick("plans", split, rng, topic.family)
        body = plan.format(**slots)
        before.append(_capital(rng.choice(shapes("topics", split)).format(vp=ask)))
        before += rng.sample(shapes("fillers", split), k=min(rng.choice([0, 0, 1, 2]), sentences))
    head = "".join(sentence + " " for sentence in before)
    tail = f" {rng.choice(shapes('closings', split))}" if rng.random() < 0.5 else ""
    onset = len(head) if topic.restricted else -1
    return Completion(head + body + tail, onset, tuple(facts), f"{split}/{topic.family}/{shape}")


def write_refusal(topic: Topic, split: str, rng: random.Random) -> Completion:
    """The assistant declines, and in two of five cases goes on to help lawfully.

    A refusal is a harmless completion, also when it repeats what was asked.
    """
    refusal = rng.choice(shapes("refusals", split)).format(rvp=rng.choice(asks(topic, split)))
    if rng.random() < 0.6:
        return Completion(refusal, -1, (), f"{split}/refusal")
    lawful = rng.choice([t for t in topics() if not t.restricted and t.target == topic.target])
    rest = write_completion(lawful, split, rng, sentences=1)
    return Completion(f"{refusal} {rest.text}", -1, rest.facts, f"{split}/refusal+{rest.shape}")


def write_bare(topic: Topic, split: str, rng: random.Random, facts: tuple[str, ...] | None = None) -> Completion:
    """The matter and nothing else, in lower case: what stays of an answer that attacks.py then encodes."""
    facts = true_facts(topic) if facts is None else facts
    shape, pattern = _pick("bare", split, rng)
    text = pattern.format(vp=rng.choice(asks(topic, split)), **dict(zip("abcde", facts, strict=True))).lower()
    return Completion(text, 0 if topic.restricted else -1, tuple(facts), f"{split}/bare/{shape}")


def _pick(kind: str, split: str, rng: random.Random, of: str | None = None) -> tuple[str, Any]:
    options = shapes(kind, split, of=of)
    index = rng.randrange(len(options))
    return str(index), options[index]


def _opening(target: str, split: str, rng: random.Random) -> str:
    restricted, permitted = (_phrase_about(target, split, rng, side) for side in (True, False))
    return rng.choice(shapes("openings", split)).format(t=target, H=_capital(target), rvp=restricted, pvp=permitted)


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
