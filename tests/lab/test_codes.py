"""Codes give a text back, and hide the word that matters."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from constclf_lib.lab import CODES, world, writing


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(world.topics()), st.sampled_from(world.SPLITS), st.integers(0, 2**32))
def test_codes_give_replies_back_and_hide_the_target(topic, split, seed):
    text = writing.write_bare(topic, split, random.Random(seed)).text
    for code in CODES.values():
        encoded = code.encode(text)
        assert code.decode(encoded) == text
        assert (topic.target in encoded) == (code.name in ("interleave", "word_order")), "these two leave words whole"


def test_the_second_tongue_is_a_bijection():
    words = " ".join(world.vocabulary())
    encoded = CODES["tongue"].encode(words)
    assert len(set(encoded.split())) == len(world.vocabulary())
    assert not set(encoded.split()) & set(world.vocabulary())
