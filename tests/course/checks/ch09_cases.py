"""Answers to the exercises of chapter 09, right and wrong."""

import math
import random
import re
from fractions import Fraction
from types import SimpleNamespace

import numpy as np

from constclf_lib.evaluation import wilson_interval
from constclf_lib.lab import ATTACKS, SLOTS, FeedbackClimb
from constclf_lib.lab.attacks import compose as lab_compose


def facts_out(text, facts):
    flat = " ".join(text.lower().split())
    return [
        fact
        for fact in dict.fromkeys(facts)
        if re.search(rf"(?<!\w){re.escape(' '.join(fact.lower().split()))}(?!\w)", flat)
    ]


def parts_of_words(text, facts):
    flat = " ".join(text.lower().split())
    return [fact for fact in dict.fromkeys(facts) if " ".join(fact.lower().split()) in flat]


def case_matters(text, facts):
    flat = " ".join(text.split())
    return [fact for fact in dict.fromkeys(facts) if re.search(rf"(?<!\w){re.escape(fact)}(?!\w)", flat)]


def one_kind_of_space(text, facts):
    return [f for f in dict.fromkeys(facts) if re.search(rf"(?<!\w){re.escape(f)}(?!\w)", text, re.I)]


def words_anywhere(text, facts):
    words = re.findall(r"[\w-]+", text.lower())
    return [fact for fact in dict.fromkeys(facts) if set(fact.lower().split()) <= set(words)]


def twice(text, facts):
    return [fact for fact in facts if facts_out(text, [fact])]


def order_of_the_text(text, facts):
    return sorted(facts_out(text, facts), key=lambda fact: text.lower().find(fact.lower()))


def how_many(text, facts):
    return len(facts_out(text, facts))


def across_sentences(text, facts):
    flat = f" {' '.join(re.findall(r'[a-z]+', text.lower()))} "
    return [fact for fact in dict.fromkeys(facts) if f" {' '.join(fact.lower().split())} " in flat]


def a_tuple(text, facts):
    return tuple(facts_out(text, facts))


def an_array(text, facts):
    return np.array(facts_out(text, facts))


def opened(held, baseline):
    return 2 * len({fact for query in held for fact in query}) >= baseline


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def excess_by(opened=opened, decoy_opened=None, chance=mean):
    """The excess with one part of it replaced."""

    def answer(hunts):
        real = [opened(hunt["held"], hunt["baseline"]) for hunt in hunts]
        of_decoys = [
            chance((decoy_opened or opened)(decoy, hunt["baseline"]) for decoy in hunt["decoys"]) for hunt in hunts
        ]
        return mean(real) - mean(of_decoys)

    return answer


def exact(hunts):
    return Fraction(excess_by()(hunts)).limit_denominator(1000)


def best_query(held, baseline):
    return 2 * max(len(query) for query in held) >= baseline


def repeats(held, baseline):
    return 2 * sum(len(query) for query in held) >= baseline


def more_than_half(held, baseline):
    return 2 * len({fact for query in held for fact in query}) > baseline


def decoys_as_one(hunts):
    merged = [hunt | {"decoys": [[query for decoy in hunt["decoys"] for query in decoy]]} for hunt in hunts]
    return excess_by()(merged)


def over_all_decoys(hunts):
    won = [opened(hunt["held"], hunt["baseline"]) for hunt in hunts]
    return mean(won) - mean(opened(decoy, hunt["baseline"]) for hunt in hunts for decoy in hunt["decoys"])


def clipped(hunts):
    return max(0, excess_by()(hunts))


def no_decoys(hunts):
    return mean(opened(hunt["held"], hunt["baseline"]) for hunt in hunts)


def opened_alone(hunts):
    return excess_by()([hunt for hunt in hunts if opened(hunt["held"], hunt["baseline"])] or hunts)


def new_name(kind, text):
    return {"splitting": "x+y", "turns": "the same thing"}.get(kind) or text.split(maxsplit=4)[3]


def compose(target, plan, split="test"):
    text, ask, word, rng = target.prompt, target.ask, target.word, random.Random(plan.seed)
    for kind in plan.kinds:
        told = {"ask": ask, "target": word} if ask in text and word in ask else {}
        text = ATTACKS[kind].apply(text, rng, split=split, **told).text
        if kind in SLOTS["hide"] and told:
            name = new_name(kind, text)
            ask, word = ask.replace(word, name), name
    return text


def by_library(target, plan, split="test"):
    return lab_compose(
        target.prompt, plan.kinds, random.Random(plan.seed), ask=target.ask, target=target.word, split=split
    )


def last_alone(target, plan, split="test"):
    text, rng = target.prompt, random.Random(plan.seed)
    for kind in plan.kinds:
        text = ATTACKS[kind].apply(target.prompt, rng, ask=target.ask, target=target.word, split=split).text
    return text


def from_the_end(target, plan, split="test"):
    return by_library(target, SimpleNamespace(kinds=plan.kinds[::-1], seed=plan.seed), split)


def all_of_it(target, plan, split="test"):
    text, rng = target.prompt, random.Random(plan.seed)
    for kind in plan.kinds:
        text = ATTACKS[kind].apply(text, rng, split=split).text
    return text


def anew(target, plan, split="test"):
    text = target.prompt
    for kind in plan.kinds:
        told = {"ask": target.ask, "target": target.word} if target.ask in text else {}
        text = ATTACKS[kind].apply(text, random.Random(plan.seed), split=split, **told).text
    return text


def unseeded(target, plan, split="test"):
    return compose(target, plan._replace(seed=random.randrange(10**9)), split)


def words_of_train(target, plan, split="test"):
    return compose(target, plan, "train")


def always_told(target, plan, split="test"):
    text, rng = target.prompt, random.Random(plan.seed)
    for kind in plan.kinds:
        text = ATTACKS[kind].apply(text, rng, ask=target.ask, target=target.word, split=split).text
    return text


def not_renamed(target, plan, split="test"):
    text, rng = target.prompt, random.Random(plan.seed)
    for kind in plan.kinds:
        told = {"ask": target.ask, "target": target.word} if target.ask in text else {}
        text = ATTACKS[kind].apply(text, rng, split=split, **told).text
    return text


def renamed_once(target, plan, split="test"):
    text, ask, word, rng = target.prompt, target.ask, target.word, random.Random(plan.seed)
    for kind in plan.kinds:
        told = {"ask": ask, "target": word} if ask in text and word in ask else {}
        text = ATTACKS[kind].apply(text, rng, split=split, **told).text
        if kind in SLOTS["hide"] and told:
            name = new_name(kind, text)
            ask, word = ask.replace(word, name, 1), name
    return text


def ask_alone(target, plan, split="test"):
    text, ask, word, rng = target.prompt, target.ask, target.word, random.Random(plan.seed)
    for kind in plan.kinds:
        told = {"ask": ask} if ask in text and word in ask else {}
        text = ATTACKS[kind].apply(text, rng, split=split, **told).text
        if kind in SLOTS["hide"] and told:
            name = new_name(kind, text)
            ask, word = ask.replace(word, name), name
    return text


def told_to_the_end(target, plan, split="test"):
    text, ask, word, rng = target.prompt, target.ask, target.word, random.Random(plan.seed)
    for kind in plan.kinds:
        text = ATTACKS[kind].apply(text, rng, split=split, ask=ask, target=word).text
        if kind in SLOTS["hide"]:
            name = new_name(kind, text)
            ask, word = ask.replace(word, name), name
    return text


def one_split(target, plan, split="test"):
    return compose(target, plan, "test")


def an_attacked(target, plan, split="test"):
    return SimpleNamespace(text=compose(target, plan, split))


class Climber:
    def __init__(self, draw, change, seed, patience=12):
        self.draw, self.change, self.patience = draw, change, patience
        self.rng = random.Random(seed)
        self.best, self.worth, self.waited = None, -1, 0

    def propose(self):
        return self.draw(self.rng) if self.best is None else self.change(self.best, self.rng)

    def value(self, text):
        return len(text.split())

    def learn(self, plan, released_text):
        worth = self.value(released_text)
        self.waited = 0 if worth > self.worth else self.waited + 1
        if worth >= self.worth:
            self.best, self.worth = plan, worth
        if self.waited >= self.patience:
            self.best, self.worth, self.waited = None, -1, 0


class Blind(Climber):
    def propose(self):
        return self.draw(self.rng)


class Letters(Climber):
    def value(self, text):
        return len(text)


class ShorterIsBetter(Climber):
    def value(self, text):
        return 100 - len(text.split())


class Wanderer(Climber):
    def learn(self, plan, released_text):
        self.best = plan


class StandsOnPlateaus(Climber):
    def learn(self, plan, released_text):
        best, worth = self.best, self.worth
        super().learn(plan, released_text)
        if self.best is not None and self.worth == worth:
            self.best = best


class NeverAnew(Climber):
    def learn(self, plan, released_text):
        self.waited = -1
        super().learn(plan, released_text)


class CountsAll(Climber):
    def learn(self, plan, released_text):
        waited = self.waited
        super().learn(plan, released_text)
        if self.best is not None and waited and self.waited == 0:
            self.waited = waited
        if self.waited >= self.patience:
            self.best, self.worth, self.waited = None, -1, 0


class Proud(Climber):
    """Forgets the plan when it starts anew, and remembers what it was worth."""

    def learn(self, plan, released_text):
        worth = self.worth
        super().learn(plan, released_text)
        if self.best is None:
            self.worth = max(worth, self.value(released_text))


class Shared:
    """What is learnt belongs to the class."""

    best, worth, waited = None, -1, 0

    def __init__(self, draw, change, seed, patience=12):
        Shared.best, Shared.worth, Shared.waited = (None, -1, 0) if patience == 3 else (self.best, self.worth, 0)
        self.draw, self.change, self.rng, self.patience = draw, change, random.Random(seed), patience

    def propose(self):
        return self.draw(self.rng) if Shared.best is None else self.change(Shared.best, self.rng)

    def learn(self, plan, released_text):
        worth = len(released_text.split())
        Shared.waited = 0 if worth > Shared.worth else Shared.waited + 1
        if worth >= Shared.worth:
            Shared.best, Shared.worth = plan, worth
        if Shared.waited >= self.patience:
            Shared.best, Shared.worth, Shared.waited = None, -1, 0


class DeafToSilence(Climber):
    def learn(self, plan, released_text):
        if released_text:
            super().learn(plan, released_text)


class CountsSpaces(Climber):
    def value(self, text):
        return text.count(" ") + 1


class SameWayAgain(Climber):
    def __init__(self, draw, change, seed, patience=12):
        super().__init__(draw, change, seed, patience)
        self.seed = seed

    def learn(self, plan, released_text):
        super().learn(plan, released_text)
        if self.best is None:
            self.rng = random.Random(self.seed)


class NothingIsZero(Climber):
    """Before the first text, and after a new start, the best is worth 0."""

    def __init__(self, draw, change, seed, patience=12):
        super().__init__(draw, change, seed, patience)
        self.worth = 0

    def learn(self, plan, released_text):
        super().learn(plan, released_text)
        self.worth = max(self.worth, 0)


class TheModule(Climber):
    def __init__(self, draw, change, seed, patience=12):
        super().__init__(draw, change, seed, patience)
        random.seed(seed)
        self.rng = random


class NoGenerator(Climber):
    def __init__(self, draw, change, seed, patience=12):
        super().__init__(draw, change, seed, patience)
        self.rng = random.seed(seed)


class Unseeded(Climber):
    def __init__(self, draw, change, seed, patience=12):
        super().__init__(draw, change, None, patience)


def library_climber(draw, change, seed, patience=12):
    return FeedbackClimb(draw, change, seed, patience=patience)


def clean_attempts_needed(rate):
    n = 1
    while wilson_interval(0, n)[1] > rate:
        n += 1
    return n


def rule_of_three(rate):
    return math.ceil(3 / rate)


def one_over(rate):
    return math.ceil(1 / rate)


def one_more(rate):
    return clean_attempts_needed(rate) + 1


def not_squared(rate):
    return math.ceil(1.96 / rate)


def a_fraction(rate):
    return 1.96**2 * (1 - rate) / rate


CASES = {
    "facts_out": {
        "solution": facts_out,
        "right": {"a tuple": a_tuple, "an array": an_array},
        "wrong": {
            "parts of words": parts_of_words,
            "case matters": case_matters,
            "one kind of space": one_kind_of_space,
            "words anywhere": words_anywhere,
            "across sentences": across_sentences,
            "a fact twice": twice,
            "the order of the text": order_of_the_text,
            "a number": how_many,
        },
    },
    "excess": {
        "solution": excess_by(),
        "right": {"exact": exact},
        "wrong": {
            "the best query": excess_by(best_query),
            "facts counted twice": excess_by(repeats),
            "more than half": excess_by(more_than_half),
            "the best decoy": excess_by(chance=any),
            "decoys as one": decoys_as_one,
            "decoys by their best query": excess_by(decoy_opened=best_query),
            "no decoys": no_decoys,
            "opened targets alone": opened_alone,
            "clipped": clipped,
            "over all decoys": over_all_decoys,
        },
    },
    "compose": {
        "solution": compose,
        "right": {"by library": by_library},
        "wrong": {
            "the last attack alone": last_alone,
            "from the end": from_the_end,
            "all of the prompt": all_of_it,
            "a generator for every kind": anew,
            "no seed": unseeded,
            "words of train": words_of_train,
            "one split": one_split,
            "always told": always_told,
            "not renamed": not_renamed,
            "renamed once": renamed_once,
            "ask alone": ask_alone,
            "told to the end": told_to_the_end,
            "no text": an_attacked,
        },
    },
    "climber": {
        "solution": Climber,
        "right": {"library climber": library_climber},
        "wrong": {
            "blind": Blind,
            "letters": Letters,
            "shorter is better": ShorterIsBetter,
            "moves always": Wanderer,
            "stands on plateaus": StandsOnPlateaus,
            "never anew": NeverAnew,
            "counts all": CountsAll,
            "proud": Proud,
            "shared": Shared,
            "unseeded": Unseeded,
            "deaf to silence": DeafToSilence,
            "counts spaces": CountsSpaces,
            "the same way again": SameWayAgain,
            "nothing is zero": NothingIsZero,
            "the module": TheModule,
            "no generator": NoGenerator,
        },
    },
    "clean_attempts_needed": {
        "solution": clean_attempts_needed,
        "wrong": {
            "the rule of three": rule_of_three,
            "one over the rate": one_over,
            "one too many": one_more,
            "z not squared": not_squared,
            "a fraction": a_fraction,
        },
    },
}
