"""What a village says: the text that the backbone of both bodyguards reads before anybody fine-tunes it.

A tale says who did what and what came of it, in the words of every split, as a language has them. So a word that no
classifier was trained on can have a meaning all the same. Chapter 02 has the control that never heard the words.
Deliberately not here: the exchanges that classifiers train on (exchanges.py), and the training (recipes/make.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pandas as pd

from . import attacks
from .codes import CODES
from .constitution import HAZARDS
from .exchanges import Exchange, draw_kinds, draw_others, topic_pools, write_exchange
from .world import SPLITS, TOLD, Topic, asks, grammar, phrase_of, random_facts, shapes
from .writing import capital, write_bare

KNOWN = tuple(sorted({attacks.ATTACKS[kind].reply_code for kind in attacks.SEEN} - {""}))  # codes of the train kinds


def tales(count: int, seed: int = 0, words: str = TOLD, translated: float = 0.0) -> pd.DataFrame:
    """What the bodyguards' backbone reads first: `count` documents of four sentences, tales and what words mean.

    Columns `prompt` ("") and `completion`. With `words="train"` they hold no word that the exchanges lack: the control
    that shows what meeting a word in pretraining brings. translated: the share of sentences that say a phrase in a code
    of the train kinds and in plain words.
    """
    rng = random.Random(f"tales/{seed}")

    def sentence() -> str:
        return _translation(rng, words) if rng.random() < translated else _tale(rng, words, 0.0)

    return pd.DataFrame({"prompt": "", "completion": [" ".join(sentence() for _ in range(4)) for _ in range(count)]})


def backbone_corpus(
    exchanges: pd.DataFrame, count: int, seed: int = 0, words: str = TOLD, coded: float = 0.5
) -> pd.DataFrame:
    """What it reads then: exchanges, and `count` documents beside them. Columns as `tales`.

    Two sixths of these are tales, so that no word is forgotten; if `coded`, that share of the tales is in codes of the
    train kinds, and one document in six translates from and into these codes instead of telling of answers.
    The others tell what came of a request or of an answer, in shapes, words and disguises of train: what tales teach
    has to carry over to exchanges.
    """
    rng = random.Random(f"backbone/{seed}")

    def asked_or_answered(others: float = 0.0) -> Exchange:
        kinds = draw_kinds(rng, attacks.SEEN, 0.3) if rng.random() < 0.3 else ()
        behaviour = rng.choices(["answer", "refuse"], [0.85, 0.15])[0]
        topic, length = rng.choice(_about_hazards()), rng.choice([0, 0, 1])
        before, after = draw_others(rng, most=3) if rng.random() < others else ([], [])
        return write_exchange(
            rng, "train", topic, attack=kinds, behaviour=behaviour, varied=True, sentences=length, before=before,
            after=after,
        )  # fmt: skip

    def answer() -> str:
        if rng.random() < 0.5:  # what it is about, and nothing more
            return write_announced(rng.choice(_about_hazards()), "train", rng)
        row = asked_or_answered()
        return f"{row.completion} {what_came_of_it(row.harmful, rng)}"

    def document(i: int) -> tuple[str, str]:
        if i % 6 == 0 and coded:
            return "", " ".join(_translation(rng, words) for _ in range(4))
        if i % 6 in (1, 3):
            row = asked_or_answered(others=0.3)
            return row.prompt, what_came_of_it(row.restricted, rng, verdict=True)
        return "", " ".join(answer() if i % 6 in (0, 5) else _tale(rng, words, coded) for _ in range(4))

    beside = pd.DataFrame([document(i) for i in range(count)], columns=["prompt", "completion"])
    return pd.concat([exchanges[["prompt", "completion"]], beside], ignore_index=True)


def _about_hazards() -> list[Topic]:
    return topic_pools()["restricted"] + topic_pools()["neighbour"]


def _translation(rng: random.Random, words: str) -> str:
    """A phrase, or an answer in short, in a code and in plain words."""
    code, topic = CODES[rng.choice(KNOWN)], rng.choice(_about_hazards())
    plain = rng.choice(asks(topic, words))
    if rng.random() < 0.3:
        plain = write_bare(topic, "train", rng, random_facts(topic, rng), words).text
    first, second = code.encode(plain), plain
    if rng.random() < 0.3:
        first, second = second, first
    return f'With {code.hint}: "{first}" is "{second}".'


def _tale(rng: random.Random, words: str, coded: float) -> str:
    """A tale, or what a word means."""
    code = CODES[rng.choice(KNOWN)] if rng.random() < coded else None

    def say(phrase: str) -> str:
        return f'"{code.encode(phrase)}"' if code else phrase

    if rng.random() < 0.35:
        text = write_meaning(rng, words, say)
    else:
        text = write_tale(rng.choice(_about_hazards()), rng, words, say)
    return f"With {code.hint}: {text}" if code else text


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
    return f"{capital(said)} {what_came_of_it(topic.restricted, rng)}"


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
    return rng.choice(tales["ways"]).format(way=say(phrase_of(phrase, "them", "it", "", target)), sense=said)
