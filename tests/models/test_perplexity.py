"""Perplexity against the closed form and the model's own loss."""

import math

import pytest
import torch

from constclf_lib.models import perplexity
from constclf_lib.tokenization import text_ids
from tests.tiny_models import llama


def test_perplexity_of_a_model_that_knows_nothing_is_its_vocabulary(lab):
    blank = llama(len(lab.tokenizer))
    torch.nn.init.zeros_(blank.lm_head.weight)
    assert perplexity(blank, lab.tokenizer, ["the quick ash", "hm hm"]) == pytest.approx(len(lab.tokenizer), rel=1e-4)
    texts = ["the quick ash bane", "sleeps " * 9, "🦊"]
    losses, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([text_ids(lab.tokenizer, text)])
        losses += lab.output.model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    for model in (lab.output.model, lab.output):
        assert perplexity(model, lab.tokenizer, texts, batch_size=2) == pytest.approx(
            math.exp(losses / count), rel=1e-4
        )
    with pytest.raises(ValueError):
        perplexity(blank, lab.tokenizer, [""])
