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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product
from typing import Any

import yaml

from .._data import data_path
from .constitution import HAZARDS, Constitution, load_constitution

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
            yield _phrase(v, x, between[y], ends[end], topic.target)


def _phrase(way: str, thing: str, between: str, end: str, target: str) -> str:
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
        return _phrase(axes["ways"][way][0][0], axes["things"][thing][0][0], between, "", topic.target)
    return grammar()["asks"][topic.rule_id]["name"].format(t=topic.target)


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


def _capital(text: str) -> str:
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
        start = _capital(rng.choice(shapes("late_topics", split)).format(steps=first.format(**_slots(facts)), vp=ask))
        body, shape = f"{start} {rest.format(**_slots(facts))}", f"late/{shape}"
    else:
        shape, plan = _pick("plans", split, rng, topic.family)
        body = plan.format(**_slots(facts))
        before.append(_capital(rng.choice(shapes("topics", split)).format(vp=ask)))
        before += rng.sample(shapes("fillers", split), k=min(rng.choice([0, 0, 1, 2]), sentences))
    head = "".join(sentence + " " for sentence in before)
    tail = f" {rng.choice(shapes('closings', split))}" if closing and rng.random() < 0.5 else ""
    onset = len(head) if topic.restricted else -1
    return Completion(head + body + tail, onset, tuple(facts), f"{split}/{topic.family}/{shape}")


def _slots(facts: Sequence[str]) -> dict[str, str]:
    slots = dict(zip("abcde", facts, strict=True))
    return slots | {key.upper(): _capital(value) for key, value in slots.items()}


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
    head = _capital(rng.choice(shapes("topics", split)).format(vp=ask)) + " "
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


def write_tale(topic: Topic, rng: random.Random, words: str = TOLD, say: Callable[[str], str] = str) -> str:
    """What a village says of a deed, in words of every split, as a language is: a tale of one who did it and what
    came of it, a saying, or that two wordings mean the same.

    Only the backbone of the bodyguards reads tales. What is said depends on who does what to whom, so that a word that
    no classifier was ever trained on can have a meaning all the same. say: how its phrases are written, in a code say.
    """
    tales, side = grammar()["tales"], "bad" if topic.restricted else "good"
    who, asked = rng.choice(grammar()["facts"]["person"]), say(rng.choice(asks(topic, words)))
    kind = rng.choices(["frames", "sayings", "same"], [0.6, 0.3, 0.1])[0]
    if kind == "same":
        return rng.choice(tales["same"]).format(a=asked, b=rng.choice(asks(topic, words)))
    if kind == "sayings":
        return rng.choice(tales["sayings"][side]).format(who=who, vp=asked)
    return rng.choice(tales["frames"]).format(who=who, vp=asked, end=what_came_of_it(topic.restricted, rng))


def what_came_of_it(harm: bool, rng: random.Random, verdict: bool = False) -> str:
    """The end of a tale; every other one is the plain `verdict` that it was harmful, or harmless."""
    tales, side = grammar()["tales"], "bad" if harm else "good"
    return tales["verdicts"][side] if verdict or rng.random() < 0.5 else rng.choice(tales["ends"][side])


def write_announced(topic: Topic, split: str, rng: random.Random) -> str:
    """What an answer says that it is about, and what came of it."""
    said = rng.choice(shapes("topics", split)).format(vp=rng.choice(asks(topic, split)))
    return f"{_capital(said)} {what_came_of_it(topic.restricted, rng)}"


def write_meaning(rng: random.Random, words: str = TOLD, say: Callable[[str], str] = str) -> str:
    """What one way or one thing means by itself ("When you amplify them, it is stronger."): of two such bits, neither
    says whether a deed is wicked, but a reader who has them needs only to put them together.
    """
    tales, axes = grammar()["tales"], rng.choice(list(grammar()["axes"].values()))
    kind, sense = rng.choice([("ways", "up"), ("ways", "down"), ("things", "bane"), ("things", "boon")])
    lists, said, target = axes[kind][sense], axes["senses"][sense], rng.choice(HAZARDS)
    mine = lists if words == TOLD else [lists[SPLITS.index(words)]]
    phrase = rng.choice([phrase for of_split in mine for phrase in of_split])
    if kind == "things":
        return rng.choice(tales["things"]).format(thing=say(phrase.replace("{t}", target)), sense=said)
    return rng.choice(tales["ways"]).format(way=say(_phrase(phrase, "them", "it", "", target)), sense=said)


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
