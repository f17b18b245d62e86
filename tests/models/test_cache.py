"""The cache goes in and comes out under the name that the model has for it, whatever transformers is installed."""

import logging
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers.utils import ModelOutput

from constclf_lib.errors import ClassifierError, GenerationError
from constclf_lib.generation import Turn, generate_replies
from constclf_lib.models import OutputClassifier, cache_argument, cache_of
from constclf_lib.streaming import StreamingScorer
from tests.tiny_models import FakeCache, causal_lm, lab_tokenizer


@dataclass
class _New(ModelOutput):
    logits: torch.Tensor | None = None
    cache: object | None = None


class _Output(SimpleNamespace):
    hidden_states = attentions = cache = past_key_values = None  # what a causal LM asks its body's output for


def _spelled(model, name):
    """`model` whose forward takes its cache as `name` and nothing else, and whose output calls it so."""
    real, own = model.forward, cache_argument(model.forward)

    def forward(input_ids=None, attention_mask=None, position_ids=None, use_cache=None, inputs_embeds=None, **options):
        assert set(options) <= {"kept", "logits_to_keep"}, f"unknown keywords {sorted(options)}"
        kept = options.pop("kept", None)
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids,
                 "use_cache": use_cache, "inputs_embeds": inputs_embeds, own: kept, **options}  # fmt: skip
        output = real(**{key: value for key, value in given.items() if value is not None})
        parts = {key: output[key] for key in output.keys() if key not in ("cache", "past_key_values")}
        return _Output(**parts, **{name: cache_of(output)})

    scope = {"forward": forward}
    exec(  # a signature cannot hold a name that is only known now
        f"def called(input_ids=None, attention_mask=None, position_ids=None, use_cache=None, inputs_embeds=None, "
        f"logits_to_keep=None, {name}=None, **none):\n"
        f"    assert set(none.values()) <= {{None}}, none\n"
        f"    return forward(input_ids, attention_mask, position_ids, use_cache, inputs_embeds, kept={name}, "
        f"**({{}} if logits_to_keep is None else {{'logits_to_keep': logits_to_keep}}))",
        scope,
    )
    model.forward = scope["called"]
    return model


@pytest.mark.parametrize("name", ["cache", "past_key_values", "cache_params"])
def test_a_stream_uses_the_name_that_the_backbone_has(name):
    model = causal_lm()
    classifier = OutputClassifier.from_backbone(model).eval()
    want = StreamingScorer(classifier).score([5, 6, 7, 8])
    _spelled(model.base_model, name)
    again = OutputClassifier(model)
    again.value_head = classifier.value_head
    with StreamingScorer(again.eval()).open() as stream:
        got = [stream.push([token])[0] for token in (5, 6, 7, 8)]
    assert got == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_the_assistant_too_alone_and_in_a_batch(name):
    tokenizer = lab_tokenizer()
    model = causal_lm()
    options = {"max_new_tokens": 4, "max_note_tokens": 4}

    def written():
        try:
            with_one = list(Turn(model, tokenizer, "hello", **options))
        except GenerationError as error:
            with_one = str(error)
        return with_one, generate_replies(model, tokenizer, ["hello", "hello there"], **options)

    want = written()
    _spelled(model, name)
    assert written() == want


def test_a_model_that_names_no_cache_is_told_not_fed():
    model = causal_lm()
    body = model.base_model
    real = body.forward
    body.forward = lambda input_ids, use_cache=None, **lost: real(input_ids=input_ids, use_cache=use_cache)
    classifier = OutputClassifier.from_backbone(model).eval()
    with pytest.raises(ClassifierError, match="cannot be streamed: read token by token.*takes no cache"):
        StreamingScorer(classifier)


def test_the_cache_is_found_in_any_output():
    kept = FakeCache()
    assert cache_of(SimpleNamespace(past_key_values=kept)) is kept
    assert cache_of(_New(logits=torch.zeros(1), cache=kept)) is kept
    assert cache_of(_New(logits=torch.zeros(1))) is None
    assert cache_argument(nn.Linear(1, 1).forward) is None


def test_no_deprecated_name_is_touched(caplog):
    classifier = OutputClassifier.from_backbone(causal_lm()).eval()
    with caplog.at_level(logging.WARNING, logger="transformers"):
        StreamingScorer(classifier).score([5, 6, 7])
        classifier(torch.tensor([[5, 6]]), use_cache=True).past_key_values  # noqa: B018 our own name stays
    assert "deprecated" not in caplog.text
