"""Data sets: distinct, labelled by the oracle's truth, repeatable, and split without leakage."""

import pandas as pd
import pytest

from constclf_lib import data_path
from constclf_lib.lab import (
    ATTACKS,
    CODES,
    COLUMNS,
    SEEN,
    SIZES,
    UNSEEN,
    assistant_corpus,
    judge,
    load_split,
    make_split,
)


@pytest.fixture(scope="module")
def splits():
    return {name: load_split(name) for name in SIZES}


def test_sizes_columns_and_distinct_rows(splits):
    for name, frame in splits.items():
        assert len(frame) == SIZES[name] and list(frame.columns) == list(COLUMNS)
        assert not frame.duplicated(["prompt", "completion"]).any()
    assert len(splits["train"]) >= 20_000


def test_the_shipped_data_are_what_the_seeds_give(splits):
    """The first rows of every split, written again: same words, same labels."""
    for name, frame in splits.items():
        again = make_split(name, 200)
        kept = frame.head(200).assign(facts=[list(f) for f in frame.head(200).facts])
        pd.testing.assert_frame_equal(again, kept)


def test_labels_agree_with_the_oracle(splits):
    for frame in splits.values():
        part = frame.sample(400, random_state=0)
        for row in part.itertuples():
            text = CODES[row.reply_code].decode(row.completion) if row.reply_code else row.completion
            verdict = judge(text)
            assert (verdict.harmful, verdict.onset) == (row.harmful, row.onset), row.completion
            assert row.restricted or not row.harmful


def test_nothing_leaks_from_train(splits):
    """Neither a request's wording, nor its text, nor a plan of a completion is in train and in another split, too."""
    train = splits["train"]
    for name in ("validation", "test", "hard_benign", "red_team"):
        frame = splits[name]
        for column in ("prompt", "completion", "ask", "plan"):
            assert not set(train[column]) & set(frame[column]), f"{column} of {name} occurs in train"
    assert not set(splits["validation"].ask) & set(splits["test"].ask)


def test_held_out_kinds_are_in_no_training_row(splits):
    for name in ("train", "validation", "test"):
        assert set(splits[name].attack) == {"", *SEEN}
    assert set(splits["red_team"].attack) == set(ATTACKS)
    assert set(splits["hard_benign"].attack) >= set(UNSEEN)
    reversal = CODES["reversal"].encode("ashbane")
    assert not splits["train"].completion.str.contains(reversal).any()


def test_both_classes_say_the_same_words(splits):
    """Every hazard occurs in harmless completions too, and benign prompts use every seen attack."""
    train = splits["train"]
    harmless = train[~train.harmful]
    for hazard in ("ashbane", "mirethorn", "gloamstone", "sunheart"):
        assert harmless.completion.str.contains(hazard).sum() > 500
    assert set(train[~train.restricted].attack) == {"", *SEEN}


def test_there_are_enough_ordinary_requests(splits):
    test = splits["test"]
    assert ((~test.restricted) & (test.attack == "")).sum() >= 5000
    assert not splits["hard_benign"].restricted.any() and splits["red_team"].restricted.all()


def test_the_assistant_never_sees_a_refusal_or_a_test_shape():
    rows = assistant_corpus(500)
    assert {row.attack for row in rows} == {"", *ATTACKS}
    assert all(row.plan.startswith("train/") and "refusal" not in row.plan for row in rows)


def test_unknown_split_and_too_many_rows():
    with pytest.raises(ValueError, match="the splits are"):
        make_split("holdout")


def test_data_files_are_found_or_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CONSTCLF_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="train.parquet is missing. CONSTCLF_DATA"):
        data_path("lab", "train.parquet")
