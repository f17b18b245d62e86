"""Plans of attack: compositions over slots, how they become prompts, and the system they are tried on.

A `Plan` picks one option for every slot (hide a word, encode the request, frame it, pad it, ask for the reply in a
code); `compose` turns it into a prompt. Chapter 09.
Deliberately not here: who searches among plans (pooled_attack.py, attackers.py), and attacks on the weights.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..guard import GuardedModel, transcribe
from . import attacks
from .attacks import SLOTS


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
        raise ValueError("there is nothing to attack: this model has no bodyguards and no thresholds")
    blocking = limits if mode in ("input", "both") else None

    def ask(prompts: Sequence[str]) -> list[dict]:
        answered = transcribe(guard, prompts, blocking, max_new_tokens)
        results = answered.decide(limits, mode)
        scores = answered.input_scores.harm
        return [result | {"input_score": float(harm)} for result, harm in zip(results, scores, strict=True)]

    return ask
