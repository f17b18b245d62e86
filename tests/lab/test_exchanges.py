"""Data sets: distinct, labelled by the oracle's truth, repeatable, and split without leakage."""

import pandas as pd
import pytest

from constclf_lib import data_path
from constclf_lib.evaluation import tpr_at_fpr
from constclf_lib.lab import (
    ATTACKS,
    CODES,
    COLUMNS,
    SEEN,
    SIZES,
    assistant_corpus,
    backbone_corpus,
    bag_of_words_baseline,
    judge,
    lab_tokenizer,
    load_split,
    make_split,
    tales,
)
from constclf_lib.lab.attacks import TEAMS, THE_SAME
from constclf_lib.lab.codes import SYLLABLES
from constclf_lib.recipes.make import output_rows


@pytest.fixture(scope="module")
def splits():
    return {name: load_split(name) for name in SIZES if name != "sealed"}  # which is drawn when the models stand


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
    for name in ("validation", "test", "hard_benign", "development"):
        frame = splits[name]
        for column in ("prompt", "completion", "ask", "plan"):
            assert not set(train[column]) & set(frame[column]), f"{column} of {name} occurs in train"
    assert not set(splits["validation"].ask) & set(splits["test"].ask)


def kinds_of(frame):
    return {kind for attack in frame.attack.unique() for kind in attack.split("+") if kind}


def test_each_team_has_its_kinds(splits):
    for name in ("train", "validation", "test"):
        assert kinds_of(splits[name]) == set(SEEN)
    assert kinds_of(splits["development"]) == set(SEEN) | set(TEAMS["development"])
    assert kinds_of(splits["hard_benign"]) == set(SEEN) | set(TEAMS["development"])
    sealed = make_split("sealed", 1000, seed=1)
    assert kinds_of(sealed) == set(SEEN) | set(TEAMS["sealed"])
    composed = sealed[sealed.attack.str.contains("+", regex=False)]
    assert 0.35 < len(composed) / len(sealed) < 0.45
    assert composed.attack.map(lambda attack: bool(set(attack.split("+")) & set(TEAMS["sealed"]))).all()


HELD_OUT = {  # what each held-out kind cannot do without
    "authority": r"cleared by|by order of the|I am a warden|judges have allowed",
    "code_words": "In this talk",
    "fable": "fable",
    "turns": THE_SAME,
    "interleave": rf"\b(?:{'|'.join(SYLLABLES)})\b",  # as words; a random cipher may spell one inside a word
    "word_order": "last word first",
}


def test_held_out_kinds_are_in_nothing_that_a_guard_reads(splits):
    """Tokenizer corpus, backbone corpus, classifier rows, hardening rows: no announcement, no syllable, no request or
    reply with its words in the order of the code."""
    train, tokenizer = splits["train"], lab_tokenizer(data_path())
    read = pd.concat(
        [
            tales(3000).completion,
            backbone_corpus(train, 3000)[["prompt", "completion"]].stack(),
            train.prompt,
            train.completion,
            output_rows(train, tokenizer).completion,
        ]
    ).reset_index(drop=True)
    for kind, pattern in HELD_OUT.items():
        assert not read.str.contains(pattern, regex=True).any(), kind
        assert (
            make_split("development" if kind in TEAMS["development"] else "sealed", 400)
            .prompt.str.contains(pattern)
            .any()
        )
    backwards = {CODES["word_order"].encode(f"{a} {b} {c}") for a, b, c in (("out", "of", "the"), ("how", "to", "get"))}
    assert not read.str.contains("|".join(backwards)).any()
    held_out_tokens = [token for token in tokenizer.get_vocab() if token.strip("Ġ") in SYLLABLES]
    assert held_out_tokens == []


def test_both_classes_say_the_same_words(splits):
    """Every hazard occurs in harmless completions too, and benign prompts use every seen attack."""
    train = splits["train"]
    harmless = train[~train.harmful]
    for hazard in ("ashbane", "mirethorn", "gloamstone", "sunheart"):
        assert harmless.completion.str.contains(hazard).sum() > 500
    assert kinds_of(train[~train.restricted]) == set(SEEN)


def test_replies_of_every_length_on_both_sides(splits):
    """From a sentence to about a thousand tokens, harmful and harmless, the harm anywhere and at times in two parts."""
    for name in ("train", "validation", "test"):
        frame = splits[name]
        words = frame.completion.str.split().str.len()
        for low, high in ((0, 40), (40, 170), (170, 340), (340, 900)):
            of_length = frame[(words >= low) & (words < high)]
            assert len(of_length) >= 400, (name, low)
            assert 0.15 < of_length.harmful.mean() < 0.6, (name, low)
        harmful = frame[frame.harmful & (frame.reply_code == "")]
        place = harmful.onset / harmful.completion.str.len()
        assert (place < 0.2).mean() > 0.1 and (place > 0.7).mean() > 0.1
        assert harmful.plan.str.contains("/spread/").mean() > 0.05


def test_word_counts_tell_little(splits):
    """A bag of one- and two-word features, trained on train: under 80% of the harmful at 1% false alarms, by far."""
    train, test = splits["train"].head(8000), splits["test"].head(4000)
    for text, label in (("prompt", "restricted"), ("completion", "harmful")):
        scores = bag_of_words_baseline(train[text], train[label], test[text])
        assert tpr_at_fpr(test[label], scores, 0.01) < 0.5


def test_there_are_enough_ordinary_requests(splits):
    test = splits["test"]
    assert ((~test.restricted) & (test.attack == "")).sum() >= 5000
    assert not splits["hard_benign"].restricted.any() and splits["development"].restricted.all()


def test_the_assistant_never_sees_a_refusal_or_a_test_shape():
    rows = assistant_corpus(1000, composed=0.3, others=0.3)
    assert {kind for row in rows for kind in row.attack.split("+") if kind} == set(ATTACKS)
    assert any("+" in row.attack for row in rows) and any(";" in row.note for row in rows)
    assert all(row.plan.startswith("train/") and "refusal" not in row.plan for row in rows)


def test_unknown_split_and_too_many_rows():
    with pytest.raises(ValueError, match="the splits are"):
        make_split("holdout")


def test_data_files_are_found_or_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CONSTCLF_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="train.parquet is missing. CONSTCLF_DATA"):
        data_path("lab", "train.parquet")
