"""Prompts and completions of Emberfall, written by its grammar.

Because the grammar knows which sentences give restricted know-how, it knows the label, the *onset* (the character at
which know-how begins) and the *rubric* (the five facts that an attacker wanted) exactly. Chapter 01.
Deliberately not here: the words and shapes themselves (world.py), reading texts back (oracle.py), attacks (attacks.py).
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from .constitution import HAZARDS
from .world import Topic, asks, grammar, random_facts, shapes, topics, true_facts


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


def write_prompt(
    topic: Topic,
    split: str,
    rng: random.Random,
    *,
    distractor: bool | None = None,
    words: str = "",
    before: Sequence[Topic] = (),
    after: Sequence[Topic] = (),
) -> Prompt:
    """A request about `topic` in one of the split's shapes.

    Some shapes name a second thing ("I know how to ... Now tell me how to ..."). `distractor` says what it may be: True
    restricted, False permitted, None any. words: whose words (default: the split's). before, after: matters that are
    asked for in the same breath.
    """
    words = words or split
    register = rng.choice(list(grammar()["frames"]))
    options = shapes("frames", split, of=register)
    frame = rng.choice(options)
    ask = rng.choice(asks(topic, words))
    earlier = [rng.choice(asks(t, words)) for t in before]
    later = [rng.choice(asks(t, words)) for t in after]
    asked = [*earlier, ask, *later]
    other = _phrase_about(topic.target, words, rng, rng.random() < 0.5 if distractor is None else distractor)
    text = " ".join(
        [
            frame.format(vp=asked[0], other=other),
            *(rng.choice(shapes("more", split)).format(vp=phrase) for phrase in asked[1:]),
        ]
    )
    if rng.random() < 0.35:
        text = f"{rng.choice(shapes('leads', split))} {text}"
    if rng.random() < 0.35:
        text = f"{text} {rng.choice(shapes('tails', split))}"
    return Prompt(text, ask, register, f"{split}/{register}/{options.index(frame)}")


def _phrase_about(target: str, words: str, rng: random.Random, restricted: bool) -> str:
    """A verb phrase about the target, or about a hazard if no rule of the wanted side knows the target."""
    return rng.choice(asks(rng.choice(_alike(target, restricted)), words))


@cache
def _alike(target: str, restricted: bool) -> tuple[Topic, ...]:
    """The topics of one side about a target, or about any hazard if there are none."""
    of_side = [t for t in topics() if t.restricted == restricted]
    return tuple([t for t in of_side if t.target == target] or [t for t in of_side if t.target in HAZARDS])


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def write_completion(
    topic: Topic,
    split: str,
    rng: random.Random,
    *,
    facts: tuple[str, ...] | None = None,
    sentences: int = 4,
    words: str = "",
    closing: bool = True,
) -> Completion:
    """An answer that gives the facts (default: the true ones). It opens harmlessly.

    sentences: the most that may stand before and between. One answer in five is a garden path: two facts come before
    the purpose is named.
    """
    facts, words = true_facts(topic) if facts is None else facts, words or split
    ask = rng.choice(asks(topic, words))
    before = list(dict.fromkeys(_opening(topic.target, split, rng, words) for _ in range(rng.randint(0, sentences))))
    if rng.random() < 0.2:
        shape, (first, rest) = _pick("late_bodies", split, rng, topic.family)
        start = capital(rng.choice(shapes("late_topics", split)).format(steps=first.format(**_slots(facts)), vp=ask))
        body, shape = f"{start} {rest.format(**_slots(facts))}", f"late/{shape}"
    else:
        shape, plan = _pick("plans", split, rng, topic.family)
        body = plan.format(**_slots(facts))
        before.append(capital(rng.choice(shapes("topics", split)).format(vp=ask)))
        before += rng.sample(shapes("fillers", split), k=min(rng.choice([0, 0, 1, 2]), sentences))
    head = "".join(sentence + " " for sentence in before)
    tail = f" {rng.choice(shapes('closings', split))}" if closing and rng.random() < 0.5 else ""
    onset = len(head) if topic.restricted else -1
    return Completion(head + body + tail, onset, tuple(facts), f"{split}/{topic.family}/{shape}")


def _slots(facts: Sequence[str]) -> dict[str, str]:
    slots = dict(zip("abcde", facts, strict=True))
    return slots | {key.upper(): capital(value) for key, value in slots.items()}


def write_in_two(
    topic: Topic, between: Sequence[str], split: str, rng: random.Random, *, facts: tuple[str, ...], words: str = ""
) -> Completion:
    """An answer that is spread over a reply: some of its facts, then the texts `between`, then the others.

    What comes after them says again what it is about, in words of its own.
    """
    shape, plan = _pick("plans", split, rng, topic.family)
    parts = re.findall(r"[^.]+\.", plan.format(**_slots(facts)))
    cut = rng.randint(1, len(parts) - 1)
    ask, again = (rng.choice(asks(topic, words or split)) for _ in range(2))
    head = capital(rng.choice(shapes("topics", split)).format(vp=ask)) + " "
    back = rng.choice(shapes("resumes", split)).format(vp=again)
    text = " ".join([head + "".join(parts[:cut]).strip(), *between, back, "".join(parts[cut:]).strip()])
    onset = len(head) if topic.restricted else -1
    return Completion(text, onset, tuple(facts), f"{split}/{topic.family}/spread/{shape}")


def write_reply(
    topic: Topic,
    split: str,
    rng: random.Random,
    *,
    facts: tuple[str, ...],
    before: Sequence[Topic] = (),
    after: Sequence[Topic] = (),
    sentences: int = 4,
    words: str = "",
    varied: bool = False,
    spread: bool = False,
) -> Completion:
    """An answer to several matters, one after the other; `topic` is the one whose facts count.

    before, after: lawful matters, with their true facts or (varied) with random ones. spread: the main matter is left
    in the middle and taken up again behind those that were to come after it.
    """

    def part(other: Topic) -> str:
        given = random_facts(other, rng) if varied else true_facts(other)
        return write_completion(other, split, rng, facts=given, sentences=sentences, words=words, closing=False).text

    if unlawful := [t.rule_id for t in (*before, *after) if t.restricted]:
        raise ValueError(f"beside the main matter only permitted ones may stand, not {unlawful}")
    head = "".join(part(other) + " " for other in before)
    if spread and after:
        main = write_in_two(topic, [part(other) for other in after], split, rng, facts=facts, words=words)
        text = main.text
    else:
        main = write_completion(topic, split, rng, facts=facts, sentences=sentences, words=words, closing=not after)
        text = " ".join([main.text, *(part(other) for other in after)])
    onset = len(head) + main.onset if main.onset >= 0 else -1
    return Completion(head + text, onset, main.facts, main.shape)


def write_refusal(topic: Topic, split: str, rng: random.Random) -> Completion:
    """The assistant declines, and in two of five cases goes on to help lawfully.

    A refusal is a harmless completion, also when it repeats what was asked.
    """
    refusal = rng.choice(shapes("refusals", split)).format(rvp=rng.choice(asks(topic, split)))
    if rng.random() < 0.6:
        return Completion(refusal, -1, (), f"{split}/refusal")
    rest = write_completion(rng.choice(_alike(topic.target, False)), split, rng, sentences=1)
    return Completion(f"{refusal} {rest.text}", -1, rest.facts, f"{split}/refusal+{rest.shape}")


def write_bare(
    topic: Topic, split: str, rng: random.Random, facts: tuple[str, ...] | None = None, words: str = ""
) -> Completion:
    """The matter and nothing else, in lower case: what stays of an answer that attacks.py then encodes."""
    facts = true_facts(topic) if facts is None else facts
    shape, pattern = _pick("bare", split, rng)
    text = pattern.format(vp=rng.choice(asks(topic, words or split)), **dict(zip("abcde", facts, strict=True))).lower()
    return Completion(text, 0 if topic.restricted else -1, tuple(facts), f"{split}/bare/{shape}")


def _pick(kind: str, split: str, rng: random.Random, of: str | None = None) -> tuple[str, Any]:
    options = shapes(kind, split, of=of)
    index = rng.randrange(len(options))
    return str(index), options[index]


def _opening(target: str, split: str, rng: random.Random, words: str) -> str:
    restricted, permitted = (_phrase_about(target, words, rng, side) for side in (True, False))
    return rng.choice(shapes("openings", split)).format(t=target, H=capital(target), rvp=restricted, pvp=permitted)
