"""Chapter 10's recipes: thresholds within limits, one part under every monitor, a seal that knows both folders."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from constclf_lib import data_path
from constclf_lib.guard import Thresholds
from constclf_lib.lab import Part, lab_tokenizer, load_split, topics
from constclf_lib.lab.world import asks, shapes
from constclf_lib.models import InputScores, OutputClassifier
from constclf_lib.recipes import sealed
from constclf_lib.recipes.make_monitors import adapted_output_classifier, exchange_rows
from constclf_lib.recipes.measure import LIMITS
from constclf_lib.recipes.monitors import Watched, lowest_threshold

LIMIT = Thresholds(input=0.5, off_label=0.5, output=math.inf)


def part(highest, blocked=(), texts=None):
    """Benign requests, each answered in two tokens, the second with this score; some blocked at the input."""
    n = len(highest)
    texts = texts or ["Soup. Salt."] * n
    replies = [
        {"tokens": [text[:5], text[5:]], "ids": [1, 2], "text": text, "error": "", "completion_tokens": 2}
        for text in texts
    ]
    harm = torch.tensor([0.9 if i in blocked else 0.1 for i in range(n)])
    frame = pd.DataFrame({"prompt": ["p"] * n, "attack": [""] * n})
    return Part(["p"] * n, replies, InputScores(harm, torch.zeros(n)), [np.array([0.0, z]) for z in highest], frame)


def know_how():
    topic = next(topic for topic in topics() if topic.restricted)
    opening = shapes("topics", "train")[0].format(vp=asks(topic, "train")[0])
    fact = load_split("train").query("harmful").facts.iloc[0][0]
    return f"{opening} {fact.capitalize()}."


def test_the_lowest_threshold_keeps_every_limit():
    scores = np.linspace(0, 0.999, 4000)
    found = lowest_threshold({"ordinary": part(scores), "hard": part([0.0] * 100)}, LIMIT)
    flagged = (scores > found).sum()
    assert flagged == int(LIMITS["ordinary"] * 4000) and (scores >= found).sum() == flagged + 1


def test_what_the_input_classifier_blocks_uses_the_limit_up():
    scores, hard = np.linspace(0, 0.999, 4000), part([0.0] * 100)
    spent = lowest_threshold({"ordinary": part(scores, blocked=range(4)), "hard": hard}, LIMIT)
    assert (scores > spent).sum() == int(LIMITS["ordinary"] * 4000) - 4
    assert lowest_threshold({"ordinary": part(scores, blocked=range(400)), "hard": hard}, LIMIT) == math.inf


def test_know_how_that_was_stopped_is_no_false_alarm():
    text = know_how()
    ordinary = part([0.99] * 50 + [0.1] * 950, texts=[text] * 50 + ["Soup. Salt."] * 950)
    assert lowest_threshold({"ordinary": ordinary, "hard": part([0.0] * 100)}, LIMIT) == 0.1


def test_one_part_under_every_monitor():
    scores = {"output": [np.array([0.1, 0.2])], "exchange": [np.array([0.9, 0.9])], "probe": [np.array([0.2, 0.8])]}
    seen = Watched(part([0.0]), scores)
    settings = {
        "cascade": {"weight": 0.0, "escalate_above": 0.5},
        "ensemble": {"weight": 1.0, "escalate_above": None},
    }
    assert seen.under("output", settings).token_scores[0].tolist() == [0.1, 0.2]
    np.testing.assert_allclose(seen.under("cascade", settings).token_scores[0], [0.0, 0.9])
    np.testing.assert_allclose(seen.under("ensemble", settings).token_scores[0], [0.2, 0.8])
    assert seen.escalated(0.5).tolist() == [True] and seen.escalated(0.8).tolist() == [False]


def test_exchange_rows_keep_codes_as_what_they_are_and_add_unreadable_ones():
    train = load_split("train").head(1500)
    rows = exchange_rows(train, lab_tokenizer(data_path()))
    coded = set(train[(train.reply_code != "") & ~train.harmful].completion)
    harmless = set(rows[~rows.harmful].completion)
    assert coded & harmless and set(rows) == {"prompt", "completion", "harmful"}
    assert rows.harmful.iloc[-10:].all() and not rows.prompt.isna().any()


@torch.no_grad()
def test_the_exchange_classifier_begins_as_the_output_classifier():
    exchange = adapted_output_classifier(data_path()).eval()
    output = OutputClassifier.from_pretrained(data_path("models", "output_classifier"))
    ids = torch.tensor([[5, 60, 700, 7000]])
    torch.testing.assert_close(exchange(ids).harm_logits, output(ids).harm_logits)
    learns = {name for name, value in exchange.named_parameters() if value.requires_grad}
    assert any("lora_" in name for name in learns)
    assert all("lora_" in name or name.startswith("value_head.") for name in learns)


def test_the_seal_knows_the_models_of_both_folders(tmp_path):
    for folder in ("models", "monitors"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "thresholds.json").write_text(json.dumps({"of": folder}))
    alone = sealed.open_seal(tmp_path)
    both = sealed.open_seal(tmp_path, beside=("monitors/",))
    assert alone != both
    sealed.log_sealed(tmp_path, {"x": 1}, both, beside=("monitors/",))
    with pytest.raises(sealed.AlreadyMeasured):
        sealed.open_seal(tmp_path, beside=("monitors/",))
    (tmp_path / "monitors" / "thresholds.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"monitors/thresholds\.json"):
        sealed.model_checksums(tmp_path, ("monitors/",))
