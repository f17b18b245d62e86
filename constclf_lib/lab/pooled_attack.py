"""An attacker who learns from released text alone and pools it over all queries. Chapter 09.

The attacker sees the released text and nothing else: no score, no rubric. Facts are pooled over all queries against one
target, for the rubric and, in exactly the same way, for its decoys; with forty queries chance alone goes far. No hunt
stops early: the attacker cannot know that half a rubric is out, and a hunt that stopped there would give the rubric the
last word over decoys that were still collecting.

Deliberately not here: plans and how they become prompts (`draw`, `change` and `compose` are handed in), the guard
(`guarded_system`; both in plans.py), and attackers who see scores or weights.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from .decoys import AgainstDecoys, Beside, Decoder, against_decoys, grade_beside_decoys, pool


def words_released(released_text: str) -> int:
    """How far a reply came before it was stopped, in words: feedback that anyone has."""
    return len(released_text.split())


class Searcher(Protocol):
    """One attacker against one target: `propose` gives the next plan, `learn` is told what it released."""

    def propose(self) -> Any: ...

    def learn(self, plan: Any, released_text: str) -> None: ...


class BlindSearch:
    """Draws every plan anew and learns nothing: what feedback has to beat. draw: random.Random -> plan."""

    def __init__(self, draw: Callable[[random.Random], Any], seed: int) -> None:
        self.draw, self.rng = draw, random.Random(seed)

    def propose(self) -> Any:
        return self.draw(self.rng)

    def learn(self, plan: Any, released_text: str) -> None:
        pass


class FeedbackClimb:
    """Changes the best plan so far, and moves there if what was released is worth no less.

    draw: random.Random -> plan; change: (plan, random.Random) -> a neighbour of it. feedback: released text -> how much
    it is worth to the attacker, higher is better; it must need nothing that an attacker does not have. After `patience`
    queries without a better text it starts again from a random plan.
    """

    def __init__(
        self,
        draw: Callable[[random.Random], Any],
        change: Callable[[Any, random.Random], Any],
        seed: int,
        feedback: Callable[[str], float] = words_released,
        patience: int = 12,
    ) -> None:
        self.draw, self.change, self.rng = draw, change, random.Random(seed)
        self.feedback, self.patience = feedback, patience
        self._restart()

    def _restart(self) -> None:
        self.best, self.worth, self.waited = None, -math.inf, 0

    def propose(self) -> Any:
        return self.draw(self.rng) if self.best is None else self.change(self.best, self.rng)

    def learn(self, plan: Any, released_text: str) -> None:
        worth = self.feedback(released_text)
        self.waited = 0 if worth > self.worth else self.waited + 1
        if worth >= self.worth:
            self.best, self.worth = plan, worth
        if self.waited >= self.patience:
            self._restart()


class PooledQuery(NamedTuple):
    """One attempt, what it released, and that text graded alone. Errors are attempts, too."""

    plan: Any
    prompt: str
    status: str
    released_text: str
    graded: Beside


@dataclass
class PooledHunt:
    """All queries against one target."""

    target: Any
    queries: list[PooledQuery] = field(default_factory=list)

    def pooled(self, after: int | None = None) -> Beside:
        """The facts of the first `after` queries together, of all by default. ValueError if that is none."""
        return pool([query.graded for query in self.queries[:after]])

    @property
    def broken_at(self) -> float:
        """Queries until the pool first held half of the baseline; math.inf if it never did."""
        return next((n for n in range(1, len(self.queries) + 1) if self.pooled(n).success), math.inf)


def pooled_hunt(
    targets: Sequence[Any],
    decoys: Sequence[Sequence[Sequence[str]]],
    system: Callable[[list[str]], Sequence[dict]],
    searchers: Sequence[Searcher],
    compose: Callable[[Any, Any], str],
    decoders: Callable[[Any], Sequence[Decoder]] | None = None,
    budget: int = 40,
) -> list[PooledHunt]:
    """`budget` queries against every target, one searcher each; targets are queried side by side.

    targets: each with `facts` and `baseline`; decoys: as many rubrics for each, from `decoy_rubrics`. system: prompts
    -> results with `released_text` and `status`, as from `guarded_system`. compose: (target, plan) -> prompt. decoders:
    plan -> further readings of the reply, where the plan asked for a code.
    Raises ValueError if targets, decoys and searchers do not pair up, if the system leaves a prompt without a result,
    or for a budget under 1.
    """
    if not len(targets) == len(decoys) == len(searchers):
        raise ValueError(
            f"{len(targets)} targets, {len(decoys)} sets of decoys, {len(searchers)} searchers: "
            "each target needs its own"
        )
    if budget < 1:
        raise ValueError(f"a budget of {budget} queries releases nothing")
    hunts = [PooledHunt(target) for target in targets]
    for _ in range(budget if targets else 0):
        plans = [searcher.propose() for searcher in searchers]
        prompts = [compose(target, plan) for target, plan in zip(targets, plans, strict=True)]
        results = system(prompts)
        if len(results) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts, {len(results)} results: an error is a result, too")
        for i, (plan, result) in enumerate(zip(plans, results, strict=True)):
            text, target = result["released_text"], targets[i]
            readings = decoders(plan) if decoders else ()
            graded = grade_beside_decoys(text, target.facts, target.baseline, decoys[i], readings)
            hunts[i].queries.append(PooledQuery(plan, prompts[i], result["status"], text, graded))
            searchers[i].learn(plan, text)
    return hunts


def pooled_outcome(hunts: Sequence[PooledHunt], after: int | None = None) -> AgainstDecoys:
    """Success with pooled facts, decoy success, and the excess, over all targets; `after` so many queries each."""
    return against_decoys([hunted.pooled(after) for hunted in hunts])
