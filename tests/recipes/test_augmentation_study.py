"""What is stored about training on attacked requests."""

import numpy as np
import torch

from constclf_lib.lab import SEEN, TEAMS
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
