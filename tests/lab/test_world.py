"""The world: nothing crosses splits, words are shared by both sides, facts are fixed."""

import random
import re

import pytest

from constclf_lib.lab import judge, topics, true_facts, world
from constclf_lib.lab.language import write_meaning, write_tale
from constclf_lib.lab.world import ANY, SPLITS, TOLD, asks
from constclf_lib.lab.writing import write_prompt, write_reply


def test_no_shape_or_wording_crosses_splits():
    seen = {}

    def walk(node, path):
        if isinstance(node, dict):
            for key, child in node.items():
                walk(child, (*path, key))
        elif path and path[0] not in ("targets", "facts", "slots", "asks", "axes", "tales"):
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


def words_of(phrases):
    return {word for phrase in phrases for word in re.findall(r"[a-z']+", phrase)}


def test_held_out_wordings_hold_words_that_training_lacks():
    """Paraphrase: every rule with axes is asked about in words of the split's own, and also in new combinations."""
    of_axes = [t for t in topics() if t.restricted]
    trained = words_of(phrase for topic in topics() for phrase in asks(topic, "train"))
    for split in SPLITS[1:]:
        own = {topic: [p for p in asks(topic, split) if not words_of([p]) <= trained] for topic in of_axes}
        for topic, phrases in own.items():
            assert len(phrases) >= 10 and len(asks(topic, split)) - len(phrases) >= 5, topic
    validation, test = (words_of(p for t in of_axes for p in asks(t, split)) - trained for split in SPLITS[1:])
    assert len(validation) > 15 and len(test) > 40 and not validation & test


def test_a_language_model_can_meet_every_word_in_tales():
    rng = random.Random(0)
    told = words_of(write_tale(rng.choice(topics()), rng) for _ in range(40_000))
    assert words_of(phrase for topic in topics() if topic.restricted for phrase in asks(topic, ANY)) <= told
    held_out = {phrase for topic in topics() for split in SPLITS[1:] for phrase in asks(topic, split)}
    assert not held_out & {phrase for topic in topics() for phrase in asks(topic, TOLD)}
    trained = words_of(phrase for topic in topics() for phrase in asks(topic, "train"))
    control = words_of(write_tale(rng.choice(topics()), rng, "train") for _ in range(5_000))
    control |= words_of(write_meaning(rng, "train") for _ in range(5_000))
    tested = words_of(phrase for topic in topics() for phrase in asks(topic, "test")) - trained
    assert not tested & control


def test_what_one_word_means_does_not_say_whether_a_deed_is_wicked():
    """Every sense that a tale gives to a way or a thing stands in restricted and in permitted requests alike."""
    for name, axes in world.grammar()["axes"].items():
        assert set(axes["senses"]) == {"up", "down", "bane", "boon"}
        for rule, cell in axes["cells"].items():
            restricted = next(t for t in topics() if t.rule_id == rule).restricted
            if name != "trade_in":
                for sense in cell:
                    others = [r for r, c in axes["cells"].items() if sense in c and r != rule]
                    assert {next(t for t in topics() if t.rule_id == r).restricted for r in others} == {not restricted}


def test_neither_who_nor_what_tells_a_restricted_request():
    """Of every way and of every thing of the axes, half of the phrases are restricted: only both together tell."""
    for name, axes in world.grammar()["axes"].items():
        cells = {cell: rule for rule, cell in ((rule, tuple(cell)) for rule, cell in axes["cells"].items())}
        restricted = {cell for cell, rule in cells.items() if next(t for t in topics() if t.rule_id == rule).restricted}
        assert len(cells) == 4
        if name != "trade_in":  # to give a hazard back to its keepers is lawful as well
            assert restricted in ({("up", "bane"), ("down", "boon")}, {("up", "boon"), ("down", "bane")})


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


def test_replies_to_several_matters_know_where_the_harm_begins():
    rng = random.Random(0)
    permitted = [t for t in topics() if not t.restricted]
    spread = 0
    for topic in rng.sample(topics(), 150):
        before, after = rng.sample(permitted, rng.randint(0, 3)), rng.sample(permitted, rng.randint(0, 3))
        facts, split = world.random_facts(topic, rng), rng.choice(SPLITS)
        reply = write_reply(
            topic, split, rng, facts=facts, before=before, after=after, varied=True, spread=rng.random() < 0.5
        )
        verdict = judge(reply.text)
        assert (verdict.harmful, verdict.onset) == (topic.restricted, reply.onset), reply.text
        if topic.restricted:
            assert sorted(verdict.facts) == sorted(fact.lower() for fact in facts)
            spread += "/spread/" in reply.shape
    assert spread > 10


def test_beside_the_matter_only_permitted_ones_may_stand():
    bad = next(t for t in topics() if t.restricted)
    with pytest.raises(ValueError, match="only permitted"):
        write_reply(bad, "train", random.Random(0), facts=true_facts(bad), before=[bad])


def test_prompts_name_what_they_ask():
    rng = random.Random(0)
    for topic in topics():
        prompt = write_prompt(topic, "test", rng)
        assert prompt.ask in prompt.text and prompt.ask in asks(topic, "test")
