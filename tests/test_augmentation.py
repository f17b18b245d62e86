"""What is stored about training on attacked requests, and how it is averaged."""

import torch

from constclf_lib import augmentation
from constclf_lib.attacks import ATTACKS


class Reader:
    """Calls a prompt harmful in proportion to how many of its words are in code (digits)."""

    def score(self, prompts, batch_size=64):
        harm = torch.tensor([sum(c.isdigit() for c in p) / (len(p) + 1) for p in prompts])
        return type("Scores", (), {"harm": harm, "off_label": torch.zeros(len(prompts))})()


def test_measure_counts_what_gets_past_per_kind():
    found = augmentation.measure(Reader(), augmentation.evaluation_sets())
    assert set(found["past"]) == set(ATTACKS)
    assert found["past"]["leet"] < 0.5 < found["past"]["role_play"] == 1.0
    assert 0 < found["hard_refused"] < 0.2


def test_mean_past_averages_over_seeds():
    runs = {"without_attacks/seed0": {"past": {"leet": 1.0}}, "without_attacks/seed1": {"past": {"leet": 0.5}},
            "with_attacks/seed0": {"past": {"leet": 0.1}}}  # fmt: skip
    table = augmentation.mean_past({"runs": runs})
    assert table.loc["leet"].tolist() == [0.75, 0.1] and list(table) == list(augmentation.VARIANTS)
