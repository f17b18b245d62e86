"""Hidden states read once equal what the classifier itself reads; a head trained on them learns, the backbone rests."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from constclf_lib.errors import ClassifierError
from constclf_lib.evaluation import highest_scores
from constclf_lib.streaming import score_completions
from constclf_lib.training import frozen_states, scores_on_states, train_value_head
from tests.tiny_models import output_classifier

WORDS = ["ash", "moth", "lantern", "coals"]
TEXTS = [f"{WORDS[n % 4]} {WORDS[n // 4 % 4]} {'bane ' * (n % 2)}frost" for n in range(32)]
HARMFUL = [bool(n % 2) for n in range(32)]


@pytest.mark.parametrize("kind, prefix", [("llama", ()), ("llama", (5,)), ("gpt2", (5,))])
def test_states_are_those_that_the_classifier_reads(kind, prefix):
    classifier, told = output_classifier(kind, prefix=prefix), []
    states = frozen_states(classifier, [*TEXTS[:5], ""], layers=[0, 1], batch_size=2, done=told.append)
    want = score_completions(classifier, [*TEXTS[:5], ""])
    size = classifier.hidden_size
    for x, scores in zip(states, want, strict=True):
        assert x.shape == (len(scores), 3 * size) and x.dtype == torch.float32
        assert_close(scores_on_states(classifier.value_head, [x[:, :size]])[0], scores, atol=1e-5, rtol=0)
    assert told == [2, 2, 1] and not torch.equal(states[0][:, size : 2 * size], states[0][:, 2 * size :])


def test_the_head_learns_and_the_backbone_rests():
    classifier = output_classifier()
    before = {name: p.clone() for name, p in classifier.named_parameters()}
    states = frozen_states(classifier, TEXTS)
    log = train_value_head(classifier, states, HARMFUL, steps=80, lr=1e-2)
    assert log[0]["loss"] > 0.3 > log[-2]["loss"]
    moved = {name for name, p in classifier.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if name.startswith("value_head")}
    high = highest_scores(scores_on_states(classifier.value_head, states))
    assert high[np.array(HARMFUL)].min() > high[~np.array(HARMFUL)].max()
    assert_close(high, highest_scores(score_completions(classifier, TEXTS)), atol=1e-5, rtol=0)


def test_what_does_not_fit_is_refused():
    classifier = output_classifier(context=256)
    classifier.window = 4
    with pytest.raises(ValueError, match="does not fit 4; leave it out"):
        frozen_states(classifier, ["ash moth lantern coals frost"])
    classifier.window = None
    states = frozen_states(classifier, TEXTS[:2])
    with pytest.raises(ValueError, match=r"reads \[tokens, 32\], not \[\d+, 64\]"):
        train_value_head(classifier, [torch.cat([x, x], dim=1) for x in states], HARMFUL[:2], 1)
    with pytest.raises(ValueError, match="2 texts and 1 labels: one each"):
        train_value_head(classifier, states, HARMFUL[:1], 1)


def test_states_that_are_no_numbers_are_refused():
    classifier = output_classifier()
    assert not classifier.not_borne()
    with torch.no_grad():
        classifier.model.get_input_embeddings().weight[:] = float("nan")
    with pytest.raises(ClassifierError, match="not finite numbers"):
        frozen_states(classifier, TEXTS[:1])
