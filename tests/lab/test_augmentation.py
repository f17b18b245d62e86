"""What the shipped classifiers train on beside the split: labels that stay true, and nothing that is held out."""

import pytest

from constclf_lib import data_path
from constclf_lib.lab import CODES, lab_tokenizer, make_split
from constclf_lib.lab import augmentation as hardening


@pytest.fixture(scope="module")
def train():
    return make_split("train", 400)


@pytest.fixture(scope="module")
def tokenizer():
    return lab_tokenizer(data_path())


def test_chains_are_harmful_exactly_if_one_completion_is(train):
    harmful, harmless = (set(train.completion[train.harmful == side]) for side in (True, False))
    rows = hardening.chains(train, 200, seed=1)
    assert 0.4 < rows.harmful.mean() < 0.6
    for row in rows.itertuples():
        held = sum(text in row.completion for text in harmful - harmless)
        assert (held >= 1) == row.harmful, row.completion
        assert sum(text in row.completion for text in harmless) >= 1


def test_chains_put_the_harm_first_in_the_middle_and_last(train):
    rows = hardening.chains(train, 300, seed=2)
    harmful = train.completion[train.harmful].tolist()
    places = [
        next(row.find(text) / len(row) for text in harmful if text in row) for row in rows.completion[rows.harmful]
    ]
    assert sum(place == 0 for place in places) > 10
    assert sum(0.2 < place < 0.5 for place in places) > 10
    assert sum(place > 0.6 for place in places) > 10


def test_unreadable_replies_are_harmful_and_in_none_of_the_codes(train, tokenizer):
    rows = hardening.unreadable(train, tokenizer, 200)
    known = {text.lower() for text in train.completion}
    assert rows.harmful.all() and len(rows) == 200
    for text in rows.completion:
        for code in CODES.values():
            assert code.decode(text) not in known, code.name
    assert sum(any(text.startswith(opening) for opening in train.completion) for text in rows.completion) > 60


def test_smudged_replies_keep_their_label_and_most_of_their_words(train, tokenizer):
    rows = hardening.smudged(train, tokenizer, 100)
    originals = [(set(row.completion.split()), row.harmful, row.reply_code) for row in train.itertuples()]
    changed, codes = 0, []
    for row in rows.itertuples():
        words = set(row.completion.split())
        likeness, harmful, code = max(
            ((len(words & theirs) / len(words | theirs), harmful, code) for theirs, harmful, code in originals),
            key=lambda found: found[0],
        )
        assert likeness > 0.3 and harmful == row.harmful, row.completion
        changed += likeness < 1
        codes.append(code)
    assert changed > 90 and 35 < sum(code != "" for code in codes) < 65


def test_noise_keeps_the_request_and_its_label(train):
    labels = dict(zip(train.prompt, train.restricted, strict=True))
    rows = hardening.noisy(train, 150)
    for row in rows.itertuples():
        held = [prompt for prompt in labels if prompt in row.prompt]
        assert any(labels[prompt] == row.restricted for prompt in held)
        assert all(len(row.prompt) > len(prompt) for prompt in held)
    before = sum(not any(row.startswith(prompt) for prompt in labels) for row in rows.prompt)
    assert 40 < before < 110


def test_the_split_comes_whole_and_the_shares_are_as_said(train, tokenizer):
    completions = hardening.hardened_completions(train, tokenizer)
    prompts = hardening.hardened_prompts(train)
    assert completions.completion.head(400).tolist() == train.completion.tolist()
    assert prompts.prompt.head(400).tolist() == train.prompt.tolist()
    share = hardening.SHARES
    added = sum(int(400 * share[name]) for name in ("chains", "coded", "smudged", "unreadable"))
    assert len(completions) == 400 + added
    assert len(prompts) == 400 + int(400 * share["noise"])


def test_same_seed_same_rows(train, tokenizer):
    for make in (
        lambda seed: hardening.chains(train, 20, seed),
        lambda seed: hardening.unreadable(train, tokenizer, 20, seed),
        lambda seed: hardening.smudged(train, tokenizer, 20, seed),
        lambda seed: hardening.noisy(train, 20, seed),
    ):
        assert make(0).equals(make(0)) and not make(0).equals(make(1))
