"""Attacks round-trip, announce nothing across splits, and refuse what they cannot hide."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constclf_lib.lab import ATTACKS, SEEN, UNSEEN, world, writing
from constclf_lib.lab.attacks import _PHRASES, SLOTS, TEAMS, compose, draw_composition


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(world.topics()), st.sampled_from(world.SPLITS), st.integers(0, 2**32))
def test_every_attack_round_trips(topic, split, seed):
    rng = random.Random(seed)
    prompt = writing.write_prompt(topic, split, rng)
    for attack in ATTACKS.values():
        attacked = attack.apply(prompt.text, rng, ask=prompt.ask, target=topic.target, split=split)
        assert attack.undo(attacked.text).lower() == prompt.text.lower(), attack.name
        assert attacked.text != prompt.text
        assert attacked.reply_code == attack.reply_code


def test_reading_codes_hide_what_matters():
    rng = random.Random(3)
    for name in ("spacing", "leet", "reversal", "shift", "tongue", "code_words", "splitting"):
        for _ in range(20):
            prompt = writing.write_prompt(world.topics()[0], "test", rng, distractor=False)
            attacked = ATTACKS[name].apply(prompt.text, rng, ask=prompt.ask, target="ashbane", split="test")
            if name == "code_words":
                assert attacked.text.count("ashbane") == 1  # only where the code is agreed
            else:
                assert prompt.ask not in attacked.text


def test_kinds():
    assert len(ATTACKS) >= 14 and len(UNSEEN) >= 3
    assert set(SEEN) | set(UNSEEN) == set(ATTACKS) and not set(SEEN) & set(UNSEEN)
    for team in ("development", "sealed"):
        assert {ATTACKS[name].side for name in TEAMS[team]} == {"read", "write"}
    assert set(UNSEEN) == set(TEAMS["development"]) | set(TEAMS["sealed"])
    assert sorted(kind for kinds in SLOTS.values() for kind in kinds) == sorted(ATTACKS)


def test_compositions_are_of_kinds_that_go_together():
    rng = random.Random(0)
    drawn = [draw_composition(rng, list(ATTACKS), TEAMS["sealed"]) for _ in range(500)]
    assert {len(kinds) for kinds in drawn} == {2, 3}
    for kinds in drawn:
        assert set(kinds) & set(TEAMS["sealed"])
        assert all(len(set(kinds) & set(slot)) <= 1 for slot in SLOTS.values())
    assert {kind for kinds in drawn for kind in kinds} == set(ATTACKS)


def test_a_composition_is_undone_from_the_outside_in():
    rng = random.Random(0)
    for _ in range(300):
        topic = rng.choice(world.topics())
        prompt = writing.write_prompt(topic, "test", rng)
        kinds = draw_composition(rng, list(ATTACKS))
        text = compose(prompt.text, kinds, rng, ask=prompt.ask, target=topic.target, split="test")
        for kind in reversed(kinds):
            text = ATTACKS[kind].undo(text)
        assert text.lower() == prompt.text.lower(), kinds


def test_announcements_do_not_cross_splits():
    for kind, lists in _PHRASES.items():
        flat = [shape for split in lists for shape in split]
        assert len(flat) == len(set(flat)), kind


@pytest.mark.parametrize("name", list(ATTACKS))
def test_bad_input_is_named(name):
    rng = random.Random(0)
    with pytest.raises(ValueError, match="empty"):
        ATTACKS[name].apply("   ", rng)
    with pytest.raises(ValueError, match="must occur"):
        ATTACKS[name].apply("How to brew tea?", rng, ask="bake bread", target="bread")
    if name not in ("many_shot", "dilution"):  # these take what they find
        with pytest.raises(ValueError, match="not"):
            ATTACKS[name].undo("no announcement here")


def test_any_text_can_be_attacked_without_knowing_the_grammar():
    for attack in ATTACKS.values():
        assert attack.apply("How would a person bake bread at home?", random.Random(1)).text
