"""Near-duplicates are found exactly, and leakage is counted."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constclf_lib.lab import jaccard, leaked, load_split, near_duplicates, shingles
from constclf_lib.lab.dedup import NearDuplicates


def test_shingles_are_runs_of_words():
    assert shingles("The red, red Door!", 2) == {"the red", "red red", "red door"}
    assert shingles("Hello", 3) == {"hello"}
    assert shingles("", 3) == {""}


def test_jaccard():
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 0.5
    assert jaccard(frozenset(), frozenset()) == 1


def brute_force(texts, threshold, size):
    kept, twins = [], []
    for i, text in enumerate(texts):
        near = [j for j in kept if jaccard(shingles(text, size), shingles(texts[j], size)) >= threshold]
        twins.append(near[0] if near else None)
        kept += [i] * (not near)
    return twins


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcde"), max_size=9).map(" ".join), max_size=25),
    st.sampled_from([0.2, 0.5, 2 / 3, 0.8, 1.0]),
    st.integers(1, 3),
)
def test_the_short_cut_finds_what_all_pairs_find(texts, threshold, size):
    assert near_duplicates(texts, threshold, size) == brute_force(texts, threshold, size)


def test_the_first_of_a_family_stays():
    texts = ["one two three four five six", "something else entirely here", "One two three four, five six!", "one two"]
    assert near_duplicates(texts) == [None, None, 0, None]


@pytest.mark.parametrize("threshold", [0, -1, 1.5])
def test_threshold_is_checked(threshold):
    with pytest.raises(ValueError, match="Jaccard"):
        NearDuplicates(threshold)


def test_leaked_counts_the_test_texts_that_training_has_seen():
    train = ["a b c d e f g h", "k l m n o p q r"]
    assert leaked(train, ["A b c d e f g h!", "x y z w v u t s"]) == 0.5
    assert leaked(train, train) == 1
    with pytest.raises(ValueError, match="no test"):
        leaked(train, [])


def test_the_labs_splits_share_no_near_duplicate_prompt():
    rows = {name: load_split(name) for name in ("train", "test")}
    prompts = {name: list(frame[frame.attack == ""].prompt.head(1500)) for name, frame in rows.items()}
    random.Random(0).shuffle(prompts["test"])
    assert leaked(prompts["train"], prompts["test"][:400]) == 0
