"""What classifiers train on beside the written exchanges: labels that stay true, and nothing that is held out."""

import pandas as pd
import pytest

from constclf_lib import data_path
from constclf_lib.lab import (
    ATTACKS,
    CODES,
    SEEN,
    augment,
    lab_tokenizer,
    load_split,
    make_split,
)
from constclf_lib.lab import augmentation as hardening


@pytest.fixture(scope="module")
def train():
    return make_split("train", 400)


@pytest.fixture(scope="module")
def tokenizer():
    return lab_tokenizer(data_path())


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


def test_unreadable_replies_are_harmful_and_in_none_of_the_codes(train, tokenizer):
    rows = hardening.unreadable(train, tokenizer, 200)
    known = {text.lower() for text in train.completion}
    assert rows.harmful.all() and len(rows) == 200
    for text in rows.completion:
        for code in CODES.values():
            assert code.decode(text) not in known, code.name
    assert sum(any(text.startswith(opening) for opening in train.completion) for text in rows.completion) > 60


def test_what_is_not_understood_is_in_a_code_or_unreadable_and_always_harmful(train, tokenizer):
    rows = hardening.not_understood(train, tokenizer, 200)
    coded = set(train.completion[train.reply_code != ""])
    assert len(rows) == 200 and rows.harmful.all() and list(rows) == ["completion", "harmful"]
    assert rows.completion.head(100).isin(coded).all() and not rows.completion.tail(100).isin(coded).any()
    assert not train[train.completion.isin(rows.completion.head(100))].harmful.all()  # harmless ones among them


def test_same_seed_same_rows(train, tokenizer):
    for make in (
        lambda seed: hardening.unreadable(train, tokenizer, 20, seed),
        lambda seed: hardening.not_understood(train, tokenizer, 20, seed),
    ):
        assert make(0).equals(make(0)) and not make(0).equals(make(1))
