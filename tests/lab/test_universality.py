"""One plan on every target, and the winner's curse that the best of many plans carries."""

import random

import pandas as pd
import pytest

from constclf_lib.lab import plan_shares, universal_plan


def table(outcomes: dict, decoy_success: float = 0.0, name: str = "t") -> pd.DataFrame:
    """outcomes: plan -> one bool per target."""
    return pd.DataFrame(
        [
            {"plan": plan, "target": f"{name}{i}", "success": success, "decoy_success": decoy_success}
            for plan, found in outcomes.items()
            for i, success in enumerate(found)
        ]
    )


def lucky_plans(seed: int, plans: int = 80, targets: int = 40, rate: float = 0.05) -> pd.DataFrame:
    """Plans that differ in luck alone."""
    rng = random.Random(seed)
    return table({f"plan {p}": [rng.random() < rate for _ in range(targets)] for p in range(plans)})


def test_shares_per_plan_the_widest_first():
    tried = table({("hide", "leet"): [True, False, False, False], "b": [True] * 3 + [False], 3: [False] * 4}, 0.25)
    found = plan_shares(tried)
    assert found["plan"].tolist() == ["b", ("hide", "leet"), 3]
    assert found["rate"].tolist() == [0.75, 0.25, 0] and found["count"].tolist() == [3, 1, 0]
    assert (found["n"] == 4).all() and (found["decoy_rate"] == 0.25).all()
    assert ((found["low"] <= found["rate"]) & (found["rate"] < found["high"])).all()


def test_plans_of_one_rate_keep_their_order():
    assert plan_shares(table({name: [True, False] for name in "zax"}))["plan"].tolist() == [*"zax"]


def test_every_plan_meets_every_target_once():
    tried = table({"a": [True, False], "b": [True, True]})
    for wrong in (tried.iloc[:-1], pd.concat([tried, tried]), pd.concat([tried.iloc[:-1], tried.iloc[:1]])):
        with pytest.raises(ValueError, match="every plan on every target, once"):
            plan_shares(wrong)
    with pytest.raises(ValueError, match="no decoy_success"):
        plan_shares(tried.drop(columns="decoy_success"))
    with pytest.raises(ValueError, match="no rows"):
        plan_shares(tried.iloc[:0])
    for share in (1.5, None):
        with pytest.raises(ValueError, match="between 0 and 1"):
            plan_shares(tried.assign(decoy_success=share))
    with pytest.raises(ValueError, match="have no 'success'"):
        plan_shares(tried.assign(success=[True, None, False, True]))


def test_luck_alone_makes_a_naive_maximum_but_no_universal_plan():
    """The control: every plan breaks 5%. The best on its own targets looks far better; on other targets it is not."""
    found = [universal_plan(lucky_plans(seed), seed=seed) for seed in range(30)]
    honest = sum(one.share.value for one in found) / 30
    naive = sum(one.naive_maximum.value for one in found) / 30
    assert naive > 0.12 and 0.03 < honest < 0.07
    assert all(one.share.n == 20 and one.picked_on == 20 and one.naive_maximum.n == 40 for one in found)


def test_a_universal_plan_is_found_and_keeps_its_share():
    tried = pd.concat([lucky_plans(0), table({"master key": [True] * 36 + [False] * 4}, 0.1)])
    found = universal_plan(tried)
    assert found.plan == found.naive_plan == "master key" and found.naive_maximum.value == 0.9
    assert found.share.value >= 0.8 and found.decoy_share == pytest.approx(0.1)


def test_the_plan_is_picked_on_one_half_only():
    """A plan that wins only where it is measured is never picked, one that wins only where it is picked is shown up."""
    names = [f"t{i}" for i in range(9)]
    chosen = set(random.Random(4).sample(names, 4))
    tried = table({"inside": [name in chosen for name in names], "outside": [name not in chosen for name in names]})
    found = universal_plan(tried, seed=4)
    assert found.plan == "inside" and found.share.value == 0 and (found.picked_on, found.share.n) == (4, 5)
    assert found.naive_plan == "outside" and found.naive_maximum.value == 5 / 9


def test_a_plan_may_be_picked_in_development():
    development = table({"a": [True, True, False], "b": [False] * 3}, name="d")
    sealed = table({"b": [True] * 4, "a": [True, False, False, False]})
    found = universal_plan(sealed, development)
    assert found.plan == "a" and found.share[0::3] == (0.25, 4) and found.picked_on == 3
    assert found.naive_plan == "b" and found.naive_maximum.value == 1
    with pytest.raises(ValueError, match="targets are in both"):
        universal_plan(sealed, sealed)
    with pytest.raises(ValueError, match="'a', was not tried"):
        universal_plan(sealed[sealed.plan == "b"], development)


def test_one_target_is_not_enough():
    with pytest.raises(ValueError, match="one target"):
        universal_plan(table({"a": [True]}))
