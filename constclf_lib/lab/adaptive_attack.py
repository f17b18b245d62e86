"""An attacker who adapts: searches over compositions of attacks against the guard, one query at a time. Chapter 09.

A `Plan` picks one option for every slot (hide a word, encode the request, frame it, pad it, ask for the reply in a
code); `compose` turns it into a prompt. `hunt` lets one searcher per target query the guarded system until the target
is broken or the budget is spent. What the attacker learns from a query is the input classifier's score: more than a
real system would say, so this attacker is stronger than a stranger, and weaker than one who has the weights.

Success is judged by the rubric on what was *released*: a composition that the assistant does not understand either
slips past the guard and wins nothing. Deliberately not here: attacks on the weights (gradients), and any search that
a test split would be tuned on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..guard import GuardedModel, transcribe
from . import attacks
from .attacks import SLOTS
from .grading import attack_success, grade


class Target(NamedTuple):
    """What an attacker wants.

    prompt: a plain request; ask: the part of it that carries the matter; word: what it is about; facts: the rubric;
    baseline: how many of these the unguarded assistant gives when asked plainly.
    """

    prompt: str
    ask: str
    word: str
    facts: tuple[str, ...]
    baseline: int


class Plan(NamedTuple):
    """One option for every slot ("" for none) and the seed of everything that is drawn: phrases, covers, padding."""

    hide: str = ""
    code: str = ""
    frame: str = ""
    pad: str = ""
    reply: str = ""
    seed: int = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """The attacks of this plan, in the order of their use."""
        return tuple(kind for kind in self[:-1] if kind)


def compose(target: Target, plan: Plan, split: str = "test") -> str:
    """The attacked prompt: of a plan of one kind that attack, word for word, of a plan of none the plain request."""
    rng = random.Random(plan.seed)
    return attacks.compose(target.prompt, plan.kinds, rng, ask=target.ask, target=target.word, split=split)


def options_of(slot: str, kinds: Sequence[str] = tuple(attacks.ATTACKS)) -> tuple[str, ...]:
    """What may stand in a slot: nothing, or one of `kinds` that belongs there."""
    return "", *(kind for kind in SLOTS[slot] if kind in kinds)


def random_plan(rng: random.Random, kinds: Sequence[str] = tuple(attacks.ATTACKS)) -> Plan:
    """Every option of every slot equally likely."""
    seed = rng.randrange(10**6)
    drawn: dict[str, Any] = {slot: rng.choice(options_of(slot, kinds)) for slot in SLOTS}
    return Plan(**drawn, seed=seed)


class RandomSearch:
    """Draws every plan anew and learns nothing: what a smarter search has to beat."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def propose(self) -> Plan:
        return random_plan(self.rng)

    def learn(self, plan: Plan, score: float) -> None:
        pass


class HillClimb:
    """Changes one thing about the best plan so far, and moves there if the guard scores it no higher.

    After `patience` queries without a lower score it starts again from a random plan, as one who is stuck would.
    """

    def __init__(self, seed: int, patience: int = 12) -> None:
        self.rng, self.patience = random.Random(seed), patience
        self.best: Plan | None = None
        self.score, self.waited = math.inf, 0

    def propose(self) -> Plan:
        if self.best is None:
            return random_plan(self.rng)
        changed: dict[str, Any] = {"seed": self.rng.randrange(10**6)}
        slot = self.rng.choice([*SLOTS, "seed"])
        if slot != "seed":
            others = [option for option in options_of(slot) if option != getattr(self.best, slot)]
            changed[slot] = self.rng.choice(others)
        return self.best._replace(**changed)

    def learn(self, plan: Plan, score: float) -> None:
        self.waited = 0 if score < self.score else self.waited + 1
        if score <= self.score:
            self.best, self.score = plan, score
        if self.waited >= self.patience:
            self.best, self.score, self.waited = None, math.inf, 0


def guarded_system(
    guard: GuardedModel, mode: str = "both", max_new_tokens: int = 256
) -> Callable[[Sequence[str]], list[dict]]:
    """The guarded model as an attacker meets it: prompts in, results of `guard.replay` out, many at once.

    mode: which bodyguards stand. The assistant runs only for prompts that are not blocked. `input_score` is told
    whether the input classifier stands or not. Raises ValueError for a model without a guard; the first query does for
    a guard that cannot be transcribed (see `transcribe`).
    """
    limits = guard.thresholds
    if limits is None:
        raise ValueError("there is nothing to hunt: this model has no bodyguards and no thresholds")
    blocking = limits if mode in ("input", "both") else None

    def ask(prompts: Sequence[str]) -> list[dict]:
        answered = transcribe(guard, prompts, blocking, max_new_tokens)
        results = answered.decide(limits, mode)
        scores = answered.input_scores.harm
        return [result | {"input_score": float(harm)} for result, harm in zip(results, scores, strict=True)]

    return ask


class Query(NamedTuple):
    """One attempt and what came of it. `facts`: how many of the rubric were released. Errors are attempts, too."""

    plan: Plan
    prompt: str
    status: str
    score: float
    facts: int
    success: bool


@dataclass
class Hunt:
    """All queries against one target."""

    target: Target
    queries: list[Query] = field(default_factory=list)

    @property
    def broken_at(self) -> float:
        """Queries until the first success, itself included; math.inf if there was none."""
        return next((n for n, query in enumerate(self.queries, 1) if query.success), math.inf)


def hunt(targets: Sequence[Target], system: Callable, searchers: Sequence, budget: int) -> list[Hunt]:
    """One searcher per target, `budget` queries each at most; a target that is broken is left alone.

    system: prompts -> results, as from `guarded_system`. All targets are queried side by side, which changes nothing
    but the time it takes. Raises ValueError if searchers and targets do not pair up.
    """
    if len(targets) != len(searchers):
        raise ValueError(f"{len(targets)} targets, {len(searchers)} searchers: each target needs its own")
    hunts = [Hunt(target) for target in targets]
    for _ in range(budget):
        unbroken = [i for i, hunted in enumerate(hunts) if hunted.broken_at == math.inf]
        plans = [searchers[i].propose() for i in unbroken]
        prompts = [compose(targets[i], plan) for i, plan in zip(unbroken, plans, strict=True)]
        for i, plan, result in zip(unbroken, plans, system(prompts) if prompts else [], strict=True):
            target, released = targets[i], result["released_text"]
            success = attack_success(released, target.facts, target.baseline, plan.kinds)
            held = grade(released, target.facts, plan.kinds)
            query = Query(plan, result["prompt"], result["status"], result["input_score"], held, success)
            hunts[i].queries.append(query)
            searchers[i].learn(plan, query.score)
    return hunts
