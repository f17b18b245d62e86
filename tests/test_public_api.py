"""The names that stay: import paths, signatures and what they give back. A change here is a change for every user."""

import dataclasses
import importlib
import inspect

import pytest

import constclf_lib

EMPTY = inspect.Parameter.empty

# module -> name -> (parameter, default) in order; a trailing "*" is any number of named options
FUNCTIONS = {
    "constclf_lib.losses": {
        "per_token_bce": [("harm_logits", EMPTY), ("labels", EMPTY), ("mask", EMPTY)],
        "cumulative_max_bce": [("harm_logits", EMPTY), ("labels", EMPTY), ("mask", EMPTY)],
        "annealed_bce": [("harm_logits", EMPTY), ("labels", EMPTY), ("mask", EMPTY), ("omega", EMPTY)],
        "next_token_loss": [("lm_logits", EMPTY), ("input_ids", EMPTY), ("mask", EMPTY)],
    },
    "constclf_lib.models": {
        "ValueHead": [("hidden_size", EMPTY), ("inner_size", None)],
        "OutputClassifier.from_backbone": [("name_or_path_or_model", EMPTY)],
        "OutputClassifier.from_pretrained": [("folder", EMPTY)],
        "OutputClassifier.save_pretrained": [("self", EMPTY), ("folder", EMPTY)],
        "OutputClassifier.forward": [
            ("self", EMPTY), ("input_ids", EMPTY), ("attention_mask", None), ("past_key_values", None),
            ("use_cache", False), ("with_lm_logits", True),
        ],
        "InputClassifier.from_pretrained": [("folder", EMPTY)],
        "InputClassifier.score": [("self", EMPTY), ("prompts", EMPTY)],
    },
    "constclf_lib.streaming": {
        "StreamingScorer": [("classifier", EMPTY)],
        "StreamingScorer.open": [("self", EMPTY)],
        "StreamingScorer.open_text": [("self", EMPTY)],
    },
    "constclf_lib.guard": {
        "GuardedModel.from_lab": [("device", None)],
        "GuardedModel.from_pretrained": [("folder", EMPTY), ("device", None)],
        "GuardedModel.save_pretrained": [("self", EMPTY), ("folder", EMPTY)],
        "GuardedModel.reply": [("self", EMPTY), ("prompt", EMPTY)],
        "GuardedModel.stream": [("self", EMPTY), ("prompt", EMPTY)],
        "guard_text_stream": [("deltas", EMPTY), ("scorer", EMPTY), ("threshold", EMPTY)],
    },
    "constclf_lib.evaluation": {
        "calibrate_threshold": [("benign_scores", EMPTY), ("max_fpr", EMPTY)],
        "wilson_interval": [("successes", EMPTY), ("trials", EMPTY)],
    },
    "constclf_lib.training": {"linear_anneal": [("step", EMPTY), ("total_steps", EMPTY), ("end", 0.75)]},
}  # fmt: skip
CASES = [(module, name, wanted) for module, names in FUNCTIONS.items() for name, wanted in names.items()]


@pytest.mark.parametrize(("module", "name", "wanted"), CASES, ids=[name for _, name, _ in CASES])
def test_names_that_stay_take_what_they_took(module, name, wanted):
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    parameters = list(inspect.signature(found).parameters.values())
    assert [(p.name, p.default) for p in parameters[: len(wanted)]] == wanted
    for more in parameters[len(wanted) :]:  # what was added later may not be asked for
        assert more.default is not EMPTY or more.kind in (more.VAR_KEYWORD, more.VAR_POSITIONAL)


def test_a_reply_has_the_fields_that_stay():
    from constclf_lib.guard import Reply

    wanted = ["status", "released_text", "withheld_text", "input_score", "off_label", "token_scores", "halt_index"]
    fields = {field.name for field in dataclasses.fields(Reply)}
    assert fields >= {*wanted, "error", "error_kind"} and Reply().status == "error"


def test_trainers_are_transformers_trainers():
    import transformers

    from constclf_lib.training import InputClassifierTrainer, OutputClassifierTrainer

    assert issubclass(OutputClassifierTrainer, transformers.Trainer)
    assert issubclass(InputClassifierTrainer, transformers.Trainer)


def test_an_output_of_the_output_classifier_has_its_fields():
    import torch
    from tiny_models import output_classifier

    classifier = output_classifier()
    found = classifier(torch.tensor([[5, 6, 7]]), use_cache=True)
    assert found.harm_logits.shape == (1, 3) and found.lm_logits.shape[:2] == (1, 3)
    assert found.past_key_values is not None
    assert classifier(torch.tensor([[5, 6, 7]]), with_lm_logits=False).lm_logits is None


def test_the_top_level_names_are_those_of_their_packages():
    for name in constclf_lib.__all__:
        value = getattr(constclf_lib, name)
        if name != "__version__":
            home = importlib.import_module(f"constclf_lib.{constclf_lib._PACKAGE_OF[name]}")
            assert getattr(home, name) is value
    assert constclf_lib.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute"):
        constclf_lib.no_such_name  # noqa: B018


def test_every_package_exports_what_it_says():
    for package in ("models", "streaming", "generation", "guard", "evaluation", "training", "lab", "course"):
        module = importlib.import_module(f"constclf_lib.{package}")
        missing = [name for name in module.__all__ if not hasattr(module, name)]
        assert missing == [] and len(set(module.__all__)) == len(module.__all__)
