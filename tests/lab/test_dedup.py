"""Near-duplicates are found exactly, augmentation keeps labels, leakage is counted."""

import random

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constclf_lib.lab import ATTACKS, CODES, SEEN, augment, jaccard, leaked, load_split, near_duplicates, shingles
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


@pytest.fixture(scope="module")
def plain():
    train = load_split("train")
    return train[train.attack == ""].head(300)


def test_augmented_exchanges_keep_their_labels_and_can_be_undone(plain):
    copies = augment(plain, SEEN, copies=2, seed=1)
    assert len(copies) == 600 and list(copies.columns) == list(plain.columns)
    assert set(copies.attack) == set(SEEN)
    for column in ("restricted", "harmful", "rule_id", "ask"):
        assert (copies[column].to_numpy() == plain[column].repeat(2).to_numpy()).all()
    for copy, original in zip(copies.itertuples(), plain.loc[plain.index.repeat(2)].itertuples(), strict=True):
        undo = ATTACKS[copy.attack].undo
        if copy.attack != "many_shot":
            assert undo(copy.prompt).lower() == original.prompt.lower()
        if copy.reply_code:
            assert CODES[copy.reply_code].decode(copy.completion) == original.completion.lower()
            assert copy.onset == (0 if copy.harmful else -1)
        else:
            assert (copy.completion, copy.onset) == (original.completion, original.onset)


def test_augmentation_repeats(plain):
    first, again, other = (augment(plain.head(50), seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


def test_augmentation_works_without_ask_and_hazard(plain):
    """Rows of a language model writer have neither."""
    rows = plain.head(40).assign(ask="", hazard="", plan="writer/any")
    assert len(augment(rows)) == 40


def test_attacked_rows_are_not_attacked_again(plain):
    with pytest.raises(ValueError, match="plain"):
        augment(plain.assign(attack="leet"))


def test_the_labs_splits_share_no_near_duplicate_prompt():
    rows = {name: load_split(name) for name in ("train", "test")}
    prompts = {name: list(frame[frame.attack == ""].prompt.head(1500)) for name, frame in rows.items()}
    random.Random(0).shuffle(prompts["test"])
    assert leaked(prompts["train"], prompts["test"][:400]) == 0
