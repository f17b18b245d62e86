"""Chapter 11's measurements on a tiny model and on rows written here, in the published forms."""

import gzip
import json
import re

import numpy as np
import pandas as pd
import pytest

from benchmarks.real_models import FILES, METHODS, RESULTS, table
from constclf_lib.prompts import verdict_prompt_ids
from constclf_lib.recipes.real_models import SETS, flagged, halting, in_its_template, measure, risk_at_tenths
from constclf_lib.tokenization import decode_text
from tests.tiny_models import causal_lm, lab_tokenizer

WORDS = ["ash", "moth", "lantern", "coals", "frost", "key"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """120 texts per set, every second one with a word that gives it away; 40 prompts."""
    folder = tmp_path_factory.mktemp("data")
    texts = [f"{WORDS[n % 6]} {WORDS[n // 6 % 6]} {n} {'ashbane' * (n % 2)}" for n in range(120)]
    labels = ["Toxic" if n % 2 else "Not Toxic" for n in range(120)]
    pd.DataFrame({"text": texts, "is_toxic": labels}).to_csv(folder / FILES["surge_toxicity"], index=False)
    zeros = dict.fromkeys(("S", "H", "V", "HR", "SH", "S3", "H2", "V2"), 0)
    with gzip.open(folder / FILES["openai_moderation"], "wt", encoding="utf-8") as file:
        for n, text in enumerate(texts):
            file.write(json.dumps({"prompt": text, **zeros, "V": n % 2}) + "\n")
        file.write(json.dumps({"prompt": "nobody said", "V": 0}) + "\n")
    rows = [{"prompt": f"{WORDS[n % 6]}?", "type": "homonyms", "label": ("safe", "unsafe")[n % 2]} for n in range(40)]
    pd.DataFrame(rows).to_csv(folder / FILES["xstest"], index=False)
    return {name: folder / file for name, file in FILES.items()}


def test_every_table_is_there_with_intervals_and_a_stopped_run_goes_on(data, tmp_path, monkeypatch):
    monkeypatch.setattr("constclf_lib.recipes.real_models.REPEATS", 40)  # of the bootstrap, which is most of the time
    tokenizer, said = lab_tokenizer(), []
    loaded = (causal_lm(vocab=len(tokenizer)), tokenizer)
    found = measure(loaded, tmp_path, data, said.append, steps=60, folds=3)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for name in SETS:
        one = found["sets"][name]
        assert (one["texts"]["used"], one["texts"]["harmful"]) == (120, 60)
        assert one["texts"]["published"] - one["texts"]["unknown"] == 120
        for method in METHODS:
            for figure in one[method].values():
                if isinstance(figure, dict):
                    assert figure["interval"][0] <= figure["value"] <= figure["interval"][1] and figure["n"] == 120
            assert np.mean(one[method]["auroc_of_each_fold"]) == pytest.approx(one[method]["auroc"]["value"], abs=1e-3)
        assert one["bag_of_words"]["auroc"]["value"] > 0.95 and one["mean_pooled"]["auroc"]["value"] > 0.9
        assert one["streamed_equals_read_to"] < 1e-5
        assert set(one["xstest_flagged"]) == set(METHODS)
        assert one["xstest_flagged"]["value_head"]["safe"]["n"] == 20
        assert name in table(found)
    for verdict in ("untuned_verdict", "untuned_verdict_without_template"):
        assert found["sets"]["xstest"][verdict]["auroc"]["n"] == 40
    assert len(said) == len(found["times"]) and set(found["data"]) == set(FILES)

    def never(*_, **__):
        raise AssertionError("states were read again")

    monkeypatch.setattr("constclf_lib.recipes.real_models.frozen_states", never)
    again = measure(loaded, tmp_path, data, said.append, steps=60, folds=3)
    assert again["sets"] == found["sets"]
    with pytest.raises(AssertionError, match="read again"):  # other weights: what was kept is not theirs
        measure((causal_lm(seed=1, vocab=len(tokenizer)), tokenizer), tmp_path, data, said.append, steps=1, folds=2)


def test_an_instruct_model_is_asked_in_its_template():
    tokenizer = lab_tokenizer()
    tokenizer.chat_template = (
        "<|user|>{{ messages[0]['content'] }}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer.init_kwargs.pop("verdict_prompt", None)
    asked = verdict_prompt_ids(in_its_template(tokenizer), "a {prompt} in braces")
    user, assistant = tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>"])
    assert asked[0] == user and asked.count(user) == asked.count(assistant) == 1
    said = decode_text(tokenizer, asked[asked.index(assistant) :])
    assert said == "It is" and decode_text(tokenizer, asked).count("a {prompt} in braces") == 1
    assert "verdict_prompt" not in tokenizer.init_kwargs  # a copy was changed
    tokenizer.chat_template = None
    assert user not in verdict_prompt_ids(in_its_template(tokenizer), "ash")


def test_curves_and_halting():
    streams = [(np.linspace(0.1, 1.0, 10), True, 0.55), (np.array([0.5, 0.2]), False, 0.55)]
    curves = risk_at_tenths(streams)
    assert np.allclose(curves["harmful"], np.linspace(0.1, 1.0, 10)) and curves["harmless"] == [0.5] * 10
    found = halting([*streams, (np.array([0.5, 0.2]), True, 0.55)])
    assert found["halted"]["value"] == 0.5 and found["halted"]["n"] == 2 and found["released_before"] == 0.5
    assert halting([(np.array([0.5]), True, 2.0)])["released_before"] is None


def test_shares_over_folds():
    unsafe = np.array([False, False, True, True])
    found = flagged([np.array([True, False, True, True]), np.array([False, False, True, False])], unsafe)
    assert (found["safe"]["value"], found["unsafe"]["value"]) == (0.25, 0.75) and found["safe"]["n"] == 2


def strings_in(value):
    """Every string in a piece of JSON, keys included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (key, *strings_in(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from strings_in(inner)
    elif isinstance(value, str):
        yield value


def test_what_is_stored_is_on_the_page_and_holds_no_text():
    stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert not [word for word in strings_in(stored) if not re.fullmatch(r"[\w.+:, -]{1,90}", word)]
    assert all(" " not in word for word in strings_in(stored["sets"]))
    page = (RESULTS.parents[2] / "docs" / "real_models.md").read_text(encoding="utf-8")
    for block in table(stored).strip().split("\n\n"):
        assert block in page
