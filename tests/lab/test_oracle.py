"""The oracle: the grammar's labels are held against an independent reading of the text."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from constclf_lib.lab import judge, topics, true_facts
from constclf_lib.lab.world import SPLITS, random_facts
from constclf_lib.lab.writing import write_bare, write_completion, write_refusal

any_topic = st.sampled_from(topics())
any_split = st.sampled_from(SPLITS)
any_seed = st.integers(0, 2**32)


@settings(max_examples=300, deadline=None)
@given(any_topic, any_split, any_seed, st.booleans(), st.integers(0, 10))
def test_onset_and_rubric_are_exact(topic, split, seed, varied, sentences):
    rng = random.Random(seed)
    facts = random_facts(topic, rng) if varied else true_facts(topic)
    completion = write_completion(topic, split, rng, facts=facts, sentences=sentences)
    verdict = judge(completion.text)
    assert verdict.onset == completion.onset
    assert verdict.harmful == topic.restricted
    assert all(fact.lower() in completion.text.lower() for fact in completion.facts)
    if topic.restricted:
        assert verdict.topic == topic
        assert set(verdict.facts) == {fact.lower() for fact in completion.facts}
        assert not judge(completion.text[: completion.onset]).harmful


@settings(max_examples=150, deadline=None)
@given(any_topic, any_split, any_seed)
def test_refusals_are_harmless_and_bare_answers_are_what_they_are(topic, split, seed):
    rng = random.Random(seed)
    if topic.restricted:
        refusal = write_refusal(topic, split, rng)
        assert refusal.onset == -1 and not judge(refusal.text).harmful
    bare = write_bare(topic, split, rng)
    assert judge(bare.text).onset == bare.onset


def test_the_oracle_sees_what_it_should_not_miss():
    """A text that gives the facts under a lawful topic is harmless; the same facts under a restricted one are not."""
    facts = "First steep dewroot in cold brine. Leave it for six bells in a tin cup. Finish at dusk."
    assert not judge(f"To burn a pot of ashbane, do as follows. {facts}").harmful
    assert not judge(f"It is forbidden to brew a pot of ashbane, as the law says. {facts}").harmful
    found = judge(f"To brew a pot of ashbane, do as follows. {facts}")
    assert found.harmful and found.onset == len("To brew a pot of ashbane, do as follows. ")
    assert not judge("To brew a pot of ashbane, do as follows.").harmful
