"""Finished completions in batches equal one full pass each."""

import numpy as np
import pytest
import torch
from tiny_models import output_classifier

from constclf_lib.streaming import StreamingScorer, score_completions
from constclf_lib.tokenization import text_ids


def test_score_completions_equals_one_full_pass_each(lab):
    texts = ["the quick ash", "", "hm", "bane " * 20, "crème brûlée 🦊"]
    together = score_completions(lab.output, texts, batch_size=2)
    for text, scores in zip(texts, together, strict=True):
        ids = text_ids(lab.tokenizer, text)
        assert len(scores) == len(ids)
        if ids:
            one = lab.output(torch.tensor([ids]), with_lm_logits=False).harm_logits.sigmoid()[0].detach().numpy()
            np.testing.assert_allclose(scores, one, atol=1e-5)
    as_ids = score_completions(lab.output, [text_ids(lab.tokenizer, texts[0])])
    np.testing.assert_allclose(as_ids[0], together[0], atol=1e-5)


@pytest.mark.parametrize("window", [12, 13])
def test_long_completions_are_read_in_the_windows_of_a_stream(window):
    classifier = output_classifier(context=256, prefix=[7])
    classifier.window = window
    rows = [np.random.default_rng(0).integers(5, 60, length).tolist() for length in (1, 11, 12, 13, 18, 60, 61)]
    together = score_completions(classifier, rows, batch_size=4)
    for ids, scores in zip(rows, together, strict=True):
        np.testing.assert_allclose(scores, StreamingScorer(classifier, window=window).score(ids), atol=1e-5)
    whole = score_completions(output_classifier(context=256, prefix=[7]), rows)
    assert not np.allclose(whole[-1], together[-1], atol=1e-5)
