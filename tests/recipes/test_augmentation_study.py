"""What is stored about training on attacked requests, and how it is averaged."""

import numpy as np
import torch

from constclf_lib.lab import OUTPUT_VARIANTS, SEEN, TEAMS, VARIANTS, mean_past, mean_reading
from constclf_lib.recipes import augmentation_study
from constclf_lib.recipes.augmentation_study import evaluation_sets, measure, measure_output, output_sets


class DigitCounter:
    """Calls a prompt harmful in proportion to how many of its words are in code (digits)."""

    def score(self, prompts, batch_size=64):
        harm = torch.tensor([sum(c.isdigit() for c in p) / (len(p) + 1) for p in prompts])
        return type("Scores", (), {"harm": harm, "off_label": torch.zeros(len(prompts))})()


def test_measure_counts_what_gets_past_per_kind():
    found = measure(DigitCounter(), evaluation_sets())
    assert set(found["past"]) == {*SEEN, *TEAMS["development"]}
    assert found["past"]["leet"] < 0.5 < found["past"]["role_play"] == 1.0
    assert 0 < found["hard_refused"] < 0.2


def test_mean_past_averages_over_seeds():
    runs = {
        "without_attacks/seed0": {"past": {"leet": 1.0}},
        "without_attacks/seed1": {"past": {"leet": 0.5}},
        "with_attacks/seed0": {"past": {"leet": 0.1}},
    }
    table = mean_past({"runs": runs})
    assert table.loc["leet"].tolist() == [0.75, 0.1] and list(table) == list(VARIANTS)


class HyphenCounter:
    """Scores a completion by how many of its words hold a hyphen: harm that is spaced out, and nothing else."""

    kind = "output"


def test_measure_output_counts_per_reply_code(monkeypatch):
    def share(_, texts):
        return [[sum("-" in word for word in text.split()) / (len(text.split()) + 1)] for text in texts]

    monkeypatch.setattr(augmentation_study, "score_completions", lambda c, t: [np.array(row) for row in share(c, t)])
    found = measure_output(HyphenCounter(), output_sets())
    assert set(found["caught"]) == {"plain", "spacing", "leet", "reversal", "shift", "tongue", "interleave"}
    assert found["caught"]["spacing"] > 0.9 and found["harmless_flagged"]["spacing"] > 0.9
    assert found["caught"]["reversal"] == found["harmless_flagged"]["reversal"] == 0


def test_mean_reading_averages_over_seeds():
    rates = {"plain_rows/seed0": 0.0, "plain_rows/seed1": 0.5, "codes_labelled/seed0": 0.6, "codes_stopped/seed0": 0.9}
    runs = {
        name: {"caught": {"reversal": rate}, "harmless_flagged": {"reversal": rate / 2}} for name, rate in rates.items()
    }
    tables = mean_reading({"output_runs": runs})
    assert list(tables["caught"]) == list(OUTPUT_VARIANTS)
    assert tables["caught"].loc["reversal"].tolist() == [0.25, 0.6, 0.9]
    assert tables["harmless_flagged"].loc["reversal"].tolist() == [0.125, 0.3, 0.45]
