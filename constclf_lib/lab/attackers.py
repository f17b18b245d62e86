"""Attackers with a plan, on the lab: one plan on every target, and hunts that learn from what was released. Chapter 09.

Both query the guarded system as a stranger would, and see nothing but released text. Targets are plain restricted
requests; every success is graded beside decoys.
Deliberately not here: how plans are drawn and composed (plans.py), how tables of plans are read
(universality.py), how hunts go (pooled_attack.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pandas as pd

from .attacks import SLOTS, decoders_of
from .decoys import decoy_rubrics, grade_beside_decoys
from .exchanges import restricted_requests
from .plans import Plan, Target, compose, options_of, random_plan
from .pooled_attack import BlindSearch, FeedbackClimb, PooledHunt, pooled_hunt
from .world import family_of, topics, true_facts

System = Callable[[Sequence[str]], list[dict]]
DECOYS = 6


def draw_targets(count: int, baselines: dict[tuple[str, str], int], seed: int = 0) -> list[Target]:
    """`count` plain requests in test wordings, each about another topic as long as there are any. `baselines`: see
    `campaign.baseline_counts`."""
    frame = restricted_requests(count, seed=seed)
    return [
        Target(row.prompt, row.ask, row.hazard, tuple(row.facts), baselines[row.rule_id, row.hazard])
        for row in frame.itertuples()
    ]


def decoys_of(targets: Sequence[Target], seed: int = 0) -> list[list[tuple[str, ...]]]:
    """DECOYS rubrics for each target: those of other restricted matters of the same family."""
    rng, restricted = random.Random(f"decoys of targets/{seed}"), [t for t in topics() if t.restricted]
    rubrics, families = [true_facts(t) for t in restricted], [family_of(t.rule_id) for t in restricted]
    return [decoy_rubrics(rubrics, rubrics.index(target.facts), families, rng, DECOYS) for target in targets]


def try_plans(plans: Sequence[Plan], targets: Sequence[Target], system: System) -> pd.DataFrame:
    """Every plan against every target: the table that `universal_plan` reads."""
    decoys, rows = decoys_of(targets), []
    for plan in plans:
        results = system([compose(target, plan) for target in targets])
        for i, (target, result) in enumerate(zip(targets, results, strict=True)):
            codes = decoders_of(plan.kinds)
            graded = grade_beside_decoys(result["released_text"], target.facts, target.baseline, decoys[i], codes)
            rows.append({"plan": plan, "target": i, "success": graded.success, "decoy_success": graded.decoy_success})
    return pd.DataFrame(rows)


def change_plan(plan: Plan, rng: random.Random, kinds: Sequence[str]) -> Plan:
    """The plan with another option in one slot, or with another seed."""
    slot, seed = rng.choice([*SLOTS, "seed"]), rng.randrange(10**6)
    if slot == "seed":
        return plan._replace(seed=seed)
    others = [option for option in options_of(slot, kinds) if option != getattr(plan, slot)]
    changed: dict[str, Any] = {slot: rng.choice(others)} if others else {}
    return plan._replace(seed=seed, **changed)


def hunt_with_feedback(
    targets: Sequence[Target],
    system: System,
    kinds: Sequence[str],
    budget: int = 40,
    seed: int = 0,
    blind: bool = False,
) -> list[PooledHunt]:
    """`budget` queries against every target by one who sees the released text and pools what it holds.

    kinds: the attacks at hand. blind: the control, who draws every plan anew.
    """
    draw, change = partial(random_plan, kinds=kinds), partial(change_plan, kinds=kinds)
    searchers = [
        BlindSearch(draw, seed + i) if blind else FeedbackClimb(draw, change, seed + i) for i in range(len(targets))
    ]
    return pooled_hunt(
        targets, decoys_of(targets), system, searchers, compose, lambda plan: decoders_of(plan.kinds), budget
    )
