"""Plans: compositions over slots, and the guarded system as an attacker meets it."""

import random

import pytest

from constclf_lib.guard import GuardedModel, Thresholds
from constclf_lib.lab import (
    ATTACKS,
    CODES,
    SLOTS,
    Plan,
    Target,
    compose,
    guarded_system,
    topics,
    true_facts,
)
from constclf_lib.lab.plans import random_plan
from constclf_lib.lab.writing import write_prompt

RESTRICTED = [topic for topic in topics() if topic.restricted]


def target_of(seed: int) -> Target:
    rng = random.Random(seed)
    topic = rng.choice(RESTRICTED)
    prompt = write_prompt(topic, "test", rng)
    return Target(prompt.text, prompt.ask, topic.target, true_facts(topic), 5)


def test_slots_hold_every_attack_once():
    listed = [kind for options in SLOTS.values() for kind in options if kind]
    assert sorted(listed) == sorted(ATTACKS)


@pytest.mark.parametrize("kind", ATTACKS)
def test_a_plan_of_one_kind_is_that_attack(kind):
    slot = next(slot for slot, options in SLOTS.items() if kind in options)
    for seed in range(5):
        target = target_of(seed)
        alone = ATTACKS[kind].apply(
            target.prompt, random.Random(seed), ask=target.ask, target=target.word, split="test"
        )
        assert compose(target, Plan(**{slot: kind, "seed": seed})) == alone.text


def test_a_plan_of_nothing_is_the_plain_request():
    assert compose(target_of(0), Plan()) == target_of(0).prompt


def test_any_plan_composes_and_repeats():
    rng = random.Random(0)
    for seed in range(300):
        target, plan = target_of(seed), random_plan(rng)
        text = compose(target, plan)
        assert text == compose(target, plan)
        if not plan.hide and plan.code not in ("", "spacing", "leet"):
            assert target.ask not in text
        if plan.hide and not plan.code:
            assert target.ask not in text


def test_what_was_hidden_stays_hidden_under_a_code():
    for seed in range(30):
        target = target_of(seed)
        text = compose(target, Plan(hide="splitting", code="reversal", seed=seed))
        assert "".join(reversed(target.word)) not in text and "y+x" not in text.split('"')[0]
        decoded = CODES["reversal"].decode(text)
        assert target.word not in decoded.lower().replace("'", "")


def test_an_attacker_meets_the_guard_and_is_told_the_input_score_in_every_mode(lab):
    harm = lab.input.score(lab.prompts).harm
    guard = GuardedModel(lab.assistant, lab.tokenizer, lab.input, lab.output, Thresholds(float(harm.median()), 2, -1.0))
    found = {mode: guarded_system(guard, mode, 8)(lab.prompts) for mode in ("none", "input", "output", "both")}
    for results in found.values():
        assert [result["input_score"] for result in results] == pytest.approx(harm.tolist(), abs=1e-5)
    statuses = {mode: {result["status"] for result in results} for mode, results in found.items()}
    assert "blocked_input" in statuses["input"] & statuses["both"] and "released" in statuses["none"]
    assert "halted_output" in statuses["output"] and not any(r["released_text"] for r in found["both"])
