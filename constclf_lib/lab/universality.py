"""One plan tried on every target: how many does the best one break? Built in chapter 09.

The best of many plans on the very targets it was picked on is partly luck (the winner's curse). So the plan is picked
on one half of the targets, or on a development table, and its share is reported on the others. The naive maximum stands
beside it under that name.
Deliberately not here: how plans are made or tried, and how a success is graded (decoys.py).
"""

from __future__ import annotations

import random
from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..evaluation import Estimate
from .metrics import rate_table


def plan_shares(table: pd.DataFrame) -> pd.DataFrame:
    """Per plan, the widest first: plan, n (targets), count, rate, low, high (Wilson), decoy_rate.

    table: a row per plan and target: `plan`, `target` (both hashable), `success` (bool), `decoy_success` (the share of
    decoys that succeed on the same text). Plans of one rate keep the order in which they appear. The limits are those
    of a plan that was named beforehand; the first row was not, see `universal_plan`.
    Raises ValueError for missing columns or values, and unless every plan was tried on every target, once.
    """
    missing = {"plan", "target", "success", "decoy_success"} - set(table)
    if missing or table.empty:
        raise ValueError(f"the table of plans has no {', '.join(sorted(missing)) or 'rows'}")
    decoys = table["decoy_success"].to_numpy(dtype=float)
    if not ((decoys >= 0) & (decoys <= 1)).all():
        raise ValueError("decoy_success is a share of decoys, between 0 and 1, in every row")
    plans, targets = list(dict.fromkeys(table["plan"])), set(table["target"])
    if len(table) != len(plans) * len(targets) or len(set(_tried(table))) != len(table):
        raise ValueError(
            f"{len(table)} rows for {len(plans)} plans and {len(targets)} targets: try every plan on every target, once"
        )
    # grouped by number: a plan may be a tuple, or anything else that pandas cannot sort
    number = {plan: i for i, plan in enumerate(plans)}
    data = table.assign(plan=[number[plan] for plan in table["plan"]])
    found = rate_table(data, "plan", "success")
    found["decoy_rate"] = data.groupby("plan")["decoy_success"].mean().to_numpy(dtype=float)
    found["plan"] = pd.Series([plans[i] for i in found["plan"]], dtype=object)
    return found.sort_values("rate", ascending=False, kind="stable", ignore_index=True)


def _tried(table: pd.DataFrame) -> zip:
    return zip(table["plan"], table["target"], strict=True)


class UniversalPlan(NamedTuple):
    """The best plan and what it does to targets on which it was not picked.

    share: of these targets. decoy_share: what its texts give decoys there. picked_on: targets it was picked on.
    naive_plan, naive_maximum: the best of all plans on the very targets that chose it; too high, the more so the more
    plans were tried, and its interval does not know.
    """

    plan: Hashable
    share: Estimate
    decoy_share: float
    picked_on: int
    naive_plan: Hashable
    naive_maximum: Estimate


def universal_plan(table: pd.DataFrame, development: pd.DataFrame | None = None, seed: int = 0) -> UniversalPlan:
    """The plan that breaks most targets, picked on some and measured on others (`table`: see `plan_shares`).

    development: a table of other targets, on which the plan is picked; its share is then over all of `table`. Without
    one, a random half of the targets picks (the smaller half of an odd number), and the rest measures.
    Raises ValueError with fewer than two targets, for targets on both sides, and if `table` lacks the picked plan.
    """
    everywhere = plan_shares(table)
    targets = list(dict.fromkeys(table["target"]))
    if development is None:
        if len(targets) < 2:
            raise ValueError("one target cannot both pick a plan and measure it: give two, or a development table")
        chosen = set(random.Random(seed).sample(targets, len(targets) // 2))
        inside = np.array([target in chosen for target in table["target"]])
        development, rest = table[inside], table[~inside]
    else:
        rest = table
        if both := set(development["target"]) & set(targets):
            raise ValueError(f"{len(both)} targets are in both tables: a plan is not measured where it was picked")
    plan = plan_shares(development)["plan"][0]
    measured = [row for row in plan_shares(rest).itertuples() if row.plan == plan]
    if not measured:
        raise ValueError(f"the plan picked in development, {plan!r}, was not tried on the targets that measure")
    naive = next(everywhere.itertuples())
    return UniversalPlan(
        plan,
        _share(measured[0]),
        float(measured[0].decoy_rate),
        int(development["target"].nunique()),
        naive.plan,
        _share(naive),
    )


def _share(row) -> Estimate:
    return Estimate(float(row.rate), float(row.low), float(row.high), int(row.n))
