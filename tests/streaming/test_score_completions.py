"""Finished completions in batches equal one full pass each."""

import numpy as np
import torch

from constclf_lib.streaming import score_completions
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
