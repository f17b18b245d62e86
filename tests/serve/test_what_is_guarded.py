"""What the options of `constclf serve` put behind the endpoint: a guard, another assistant, an upstream server."""

import argparse
import math

import pytest

from constclf_lib.guard import GuardedModel, GuardedUpstream, Thresholds
from constclf_lib.models import InputClassifier
from constclf_lib.serve.command import UPSTREAM_KEY, add_arguments, guard_of
from tests.tiny_models import causal_lm, foreign_tokenizer, lab_tokenizer, llama, output_classifier

TOKENIZER = lab_tokenizer()
LIMITS = Thresholds(0.9, float("inf"), 0.99)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("guards") / "one"
    classifier = InputClassifier.from_backbone(llama(len(TOKENIZER), seed=2), TOKENIZER)
    GuardedModel(
        causal_lm(context=128, seed=5, vocab=len(TOKENIZER)), TOKENIZER, classifier, output_classifier(), LIMITS
    ).save_pretrained(path)
    return str(path)


def guard(*options):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return guard_of(parser.parse_args(options))


def test_a_folders_guard_judges_every_role_unless_they_are_trusted(folder):
    found = guard("--guard", folder)
    assert isinstance(found, GuardedModel) and found.thresholds == LIMITS
    assert found.judged_roles == ("system", "user", "assistant") and found.step_timeout == 30
    trusting = guard("--guard", folder, "--trust-roles", "--refusal", "No.", "--step-timeout", "2")
    assert (trusting.judged_roles, trusting.refusal_text, trusting.step_timeout) == (("user",), "No.", 2)


def test_another_hugging_face_model_is_guarded_through_its_text(folder, tmp_path):
    tokenizer = foreign_tokenizer("byte_level")
    causal_lm(context=128, seed=1, vocab=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = guard("--guard", folder, "--assistant", str(tmp_path))
    assert found.through_text and found.thresholds == LIMITS
    reply = found.reply("The moth", max_new_tokens=8, thresholds=Thresholds(1, math.inf, 1))
    assert (reply.status, len(reply.token_scores) > 0) == ("released", True)


def test_an_upstream_gets_the_folders_classifiers_and_the_key_of_the_environment(folder, monkeypatch):
    monkeypatch.setenv(UPSTREAM_KEY, "sk-theirs")
    found = guard("--guard", folder, "--upstream", "http://127.0.0.1:9/v1", "--upstream-model", "theirs")
    assert isinstance(found, GuardedUpstream) and (found.model, found._key) == ("theirs", "sk-theirs")
    assert found.input_classifier is not None and found.monitor is not None and found.thresholds == LIMITS
    assert found.judged_roles == ("system", "user", "assistant")


@pytest.mark.parametrize("more", [(), ("--upstream", "http://127.0.0.1:9/v1", "--upstream-model", "theirs")])
def test_unguarded_asks_nobody(folder, more):
    found = guard("--guard", folder, "--unguarded", *more)
    assert found.input_classifier is None and found.monitor is None
