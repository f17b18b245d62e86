"""The world: nothing crosses splits, words are shared by both sides, facts are fixed."""

import random

import pytest

from constclf_lib.lab import topics, true_facts, world
from constclf_lib.lab.world import SPLITS, asks, write_prompt


def test_no_shape_or_wording_crosses_splits():
    seen = {}

    def walk(node, path):
        if isinstance(node, dict):
            for key, child in node.items():
                walk(child, (*path, key))
        elif path and path[0] not in ("targets", "facts", "slots", "asks"):
            assert len(node) == 3, f"{path} needs train, validation and test"
            for split, shapes in zip(SPLITS, node, strict=True):
                for shape in shapes:
                    key = (path[0], str(shape).lower())
                    assert seen.setdefault(key, split) == split, f"{shape!r} stands in {seen[key]} and in {split}"

    walk(world.grammar(), ())
    for topic in topics():
        for split in SPLITS:
            for phrase in asks(topic, split):
                assert seen.setdefault(("ask", phrase), split) == split
    assert len(seen) > 5000


def test_every_word_of_a_wording_is_met_in_training():
    """Held-out wordings are new combinations, not new words: otherwise the lab would measure its vocabulary."""
    for topic in topics():
        known = {word for phrase in asks(topic, "train") for word in phrase.split()}
        for split in SPLITS[1:]:
            assert len(asks(topic, split)) >= 10
            assert {word for phrase in asks(topic, split) for word in phrase.split()} <= known


def test_a_phrase_belongs_to_one_topic():
    owner = {}
    for topic in topics():
        for split in SPLITS:
            for phrase in asks(topic, split):
                assert owner.setdefault(phrase, topic) == topic


def test_sizes_of_the_grammar():
    frames = [shape for lists in world.grammar()["frames"].values() for split in lists for shape in split]
    plans = [shape for lists in world.grammar()["plans"].values() for split in lists for shape in split]
    assert len(set(frames)) >= 60 and len(set(plans)) >= 60


@pytest.mark.parametrize("family", ["craft", "errand", "spread", "code", "lore"])
def test_restricted_and_permitted_know_how_share_their_words(family):
    """No fact word may belong to one side alone."""
    sides = {topic.restricted for topic in topics() if topic.family == family}
    assert sides == ({True, False} if family != "lore" else {False})


def test_recipes_are_fixed_and_differ():
    recipes = [true_facts(topic) for topic in topics()]
    assert recipes == [true_facts(topic) for topic in topics()]
    assert len(set(recipes)) == len(recipes)
    assert all(len(set(facts)) == 5 for facts in recipes)


def test_prompts_name_what_they_ask():
    rng = random.Random(0)
    for topic in topics():
        prompt = write_prompt(topic, "test", rng)
        assert prompt.ask in prompt.text and prompt.ask in asks(topic, "test")
