"""The names that stay: each can be imported from where it is promised, and is called as it is promised.

An argument may be added behind those that stand here; none may go, move or lose its default. What a name does is tested
where it lives.
"""

import inspect
from importlib import import_module

import pytest
import torch

import constclf_lib
from tests.tiny_models import output_classifier

FUNCTIONS = {
    "losses": {
        "per_token_bce": "harm_logits labels mask",
        "cumulative_max_bce": "harm_logits labels mask",
        "annealed_bce": "harm_logits labels mask omega",
        "next_token_loss": "lm_logits input_ids mask",
    },
    "models": {
        "ValueHead": "hidden_size inner_size=None",
        "OutputClassifier.from_backbone": "name_or_path_or_model",
        "OutputClassifier.from_pretrained": "folder",
        "OutputClassifier.save_pretrained": "self folder",
        "OutputClassifier.forward": (
            "self input_ids attention_mask=None past_key_values=None use_cache=False with_lm_logits=True"
        ),
        "InputClassifier.from_pretrained": "folder",
        "InputClassifier.save_pretrained": "self folder",
        "InputClassifier.score": "self prompts",
    },
    "streaming": {
        "StreamingScorer": "classifier",
        "StreamingScorer.open": "self",
        "StreamingScorer.open_text": "self",
        "StreamingScorer.open_batch": "self streams",
    },
    "guard": {
        "GuardedModel.from_lab": "device=None",
        "GuardedModel.from_pretrained": "folder device=None",
        "GuardedModel.save_pretrained": "self folder",
        "GuardedModel.reply": "self prompt",
        "GuardedModel.stream": "self prompt",
        "guard_text_stream": "deltas scorer threshold",
    },
    "evaluation": {
        "calibrate_threshold": "benign_scores max_fpr",
        "wilson_interval": "successes trials",
    },
    "training": {
        "linear_anneal": "step total_steps end=0.75",
        "OutputClassifierTrainer": "model",
        "InputClassifierTrainer": "model",
    },
}
PROMISED = [(package, name, said) for package, names in FUNCTIONS.items() for name, said in names.items()]


@pytest.mark.parametrize("package, name, said", PROMISED, ids=[f"{package}.{name}" for package, name, _ in PROMISED])
def test_name_stays(package, name, said):
    promised = [(word.split("=")[0], word.split("=")[1] if "=" in word else None) for word in said.split()]
    found = import_module(f"constclf_lib.{package}")
    for part in name.split("."):
        found = getattr(found, part)
    there = list(inspect.signature(found).parameters.values())
    assert [parameter.name for parameter in there[: len(promised)]] == [word for word, _ in promised]
    for parameter, (word, default) in zip(there, promised, strict=False):
        assert default is None or repr(parameter.default) == default, word
    for added in there[len(promised) :]:
        optional = added.default is not added.empty or added.kind in (added.VAR_POSITIONAL, added.VAR_KEYWORD)
        assert optional, f"{name} wants {added.name} now"


def test_fields_stay():
    from constclf_lib.guard import Reply

    assert {
        "status",
        "released_text",
        "withheld_text",
        "input_score",
        "off_label",
        "token_scores",
        "halt_index",
        "error",
        "error_kind",
    } <= set(Reply.__dataclass_fields__)


def test_trainers_are_transformers_trainers():
    from transformers import Trainer

    from constclf_lib.training import InputClassifierTrainer, OutputClassifierTrainer

    assert issubclass(OutputClassifierTrainer, Trainer) and issubclass(InputClassifierTrainer, Trainer)


def test_an_output_of_the_output_classifier_has_its_fields():
    classifier = output_classifier()
    found = classifier(torch.tensor([[5, 6, 7]]), use_cache=True)
    assert found.harm_logits.shape == (1, 3) and found.lm_logits.shape[:2] == (1, 3)
    assert found.past_key_values is not None
    assert classifier(torch.tensor([[5, 6, 7]]), with_lm_logits=False).lm_logits is None


def test_the_top_level_names_are_those_of_their_packages():
    for name in constclf_lib.__all__:
        value = getattr(constclf_lib, name)
        if name != "__version__":
            home = import_module(f"constclf_lib.{constclf_lib._PACKAGE_OF[name]}")
            assert getattr(home, name) is value
    assert constclf_lib.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute"):
        constclf_lib.no_such_name  # noqa: B018


def test_every_package_exports_what_it_says():
    for package in ("models", "streaming", "generation", "guard", "evaluation", "training", "lab", "course"):
        module = import_module(f"constclf_lib.{package}")
        missing = [name for name in module.__all__ if not hasattr(module, name)]
        assert missing == [] and len(set(module.__all__)) == len(module.__all__)
