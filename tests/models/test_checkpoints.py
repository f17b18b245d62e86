"""Folders of classifiers: they come back to the bit, damage is explained, and a save that dies loses nothing."""

import json
import os
import shutil
from contextlib import suppress

import pytest
import torch
from disk import Dead, Disk
from tiny_models import causal_lm, foreign_tokenizer, lab_tokenizer, output_classifier
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from constclf_lib.errors import ClassifierError
from constclf_lib.lab import train_tokenizer
from constclf_lib.models import InputClassifier, OutputClassifier, checkpoints, save_language_model
from constclf_lib.prompts import verdict_token_ids
from constclf_lib.tokenization import fingerprint

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [60, 50, 40, 30, 20, 10]])


@pytest.fixture
def classifier():
    return output_classifier()


@pytest.fixture
def saved(classifier, tmp_path):
    classifier.save_pretrained(tmp_path / "bodyguard")
    return tmp_path / "bodyguard"


def same(one, other) -> bool:
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], value) for name, value in other.items())


# --- what comes back


def test_a_saved_output_classifier_comes_back_to_the_bit(classifier, saved):
    loaded = OutputClassifier.from_pretrained(saved)
    with torch.no_grad():
        want, got = classifier(IDS), loaded(IDS)
    assert torch.equal(got.harm_logits, want.harm_logits) and torch.equal(got.lm_logits, want.lm_logits)
    assert loaded.fingerprint == classifier.fingerprint and not loaded.training
    assert loaded.prefix_ids == [] and loaded.window is None
    with torch.no_grad():  # and the folder is an ordinary checkpoint
        assert torch.equal(AutoModelForCausalLM.from_pretrained(saved)(input_ids=IDS).logits, want.lm_logits)
    assert fingerprint(AutoTokenizer.from_pretrained(saved)) == classifier.fingerprint
    assert not list(saved.glob("*.bin")) and not list(saved.glob("*.pt"))


def test_a_saved_input_classifier_comes_back(tmp_path):
    judge = InputClassifier.from_backbone(causal_lm(), lab_tokenizer()).eval()
    judge.save_pretrained(tmp_path / "judge")
    loaded = InputClassifier.from_pretrained(tmp_path / "judge")
    texts = ["brew ashbane", "the song of the sunheart"]
    assert torch.equal(loaded.score(texts).harm, judge.score(texts).harm)
    assert loaded.verdict_ids == judge.verdict_ids and loaded.words == judge.words
    with pytest.raises(ClassifierError, match="holds an input classifier"):
        OutputClassifier.from_pretrained(tmp_path / "judge")


def test_inner_size_prefix_and_a_missing_tokenizer_survive(tmp_path):
    classifier = OutputClassifier.from_backbone(causal_lm("gpt2"), inner_size=5)
    classifier.prefix_ids = [3, 1]
    classifier.save_pretrained(str(tmp_path / "x"))
    loaded = OutputClassifier.from_pretrained(str(tmp_path / "x"))
    assert loaded.prefix_ids == [3, 1] and loaded.value_head.inner.out_features == 5 and loaded.tokenizer is None


def test_the_window_of_a_classifier_survives(classifier, tmp_path):
    classifier.window = 96
    classifier.save_pretrained(tmp_path / "windowed")
    assert OutputClassifier.from_pretrained(tmp_path / "windowed").window == 96
    judge = InputClassifier(classifier.model, classifier.tokenizer)
    judge.window = 64
    judge.save_pretrained(tmp_path / "judge")
    assert InputClassifier.from_pretrained(tmp_path / "judge").window == 64


def test_from_backbone_takes_a_folder_and_its_tokenizer(saved):
    fresh = OutputClassifier.from_backbone(saved, base_rate=0.1)
    assert fresh.fingerprint == fingerprint(lab_tokenizer())
    assert InputClassifier.from_backbone(str(saved)).verdict_ids == verdict_token_ids(lab_tokenizer())


def test_loading_in_another_dtype(saved):
    loaded = OutputClassifier.from_pretrained(saved, dtype=torch.bfloat16)
    assert loaded.lm_head.weight.dtype == torch.bfloat16 and loaded.value_head.out.weight.dtype == torch.float32


def test_weights_of_other_kinds_are_saved(tmp_path):
    classifier = OutputClassifier.from_backbone(causal_lm().bfloat16())
    classifier.value_head.out.weight.data[0, 0] = float("nan")  # a training that diverged can be looked at
    classifier.save_pretrained(tmp_path / "x")
    loaded = OutputClassifier.from_pretrained(tmp_path / "x")
    assert loaded.lm_head.weight.dtype == torch.bfloat16 and loaded.value_head.out.weight[0, 0].isnan()


def test_what_counts_as_a_difference():
    value = torch.randn(3, 2)
    same = {"a": value, "b": torch.tensor(1)}
    for loaded, name in (
        ({"a": value.bfloat16()}, None),  # part of a model may be kept in float32; it comes back as the rest of it
        ({"a": value + 1e-6}, "a"),
        ({"a": value.T}, "a"),
        ({"b": torch.tensor(2)}, "b"),
        ({"c": value}, "c"),
    ):
        assert checkpoints._first_difference(same, {**same, **loaded}) == name
    assert checkpoints._first_difference({"a": value.to("meta")}, {"a": value}) is None  # offloaded: only its shape


def test_a_save_takes_nothing_from_the_training_that_goes_on(classifier, tmp_path):
    classifier.train()
    classifier.model.model.layers[0].eval()  # frozen by hand
    state = torch.random.get_rng_state()
    classifier.save_pretrained(tmp_path / "x")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert classifier.training and not classifier.model.model.layers[0].training


# --- damage


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 0x10
    path.write_bytes(bytes(data))


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "classifier.json").unlink(), "from_backbone.*interrupted"),
        (lambda f: cut(f / "classifier.json"), "classifier.json is damaged"),
        (lambda f: (f / "classifier.json").write_text("[]"), "classifier.json is damaged"),
        (lambda f: edit(f / "classifier.json", kind="input"), "holds an input classifier"),
        (lambda f: edit(f / "classifier.json", format=99), "format 99"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: cut(f / "model.safetensors"), "model.safetensors is not the file that was saved"),
        (lambda f: flip(f / "model.safetensors"), "model.safetensors is not the file that was saved"),
        (lambda f: flip(f / "value_head.safetensors"), "value_head.safetensors is not the file"),
        (lambda f: (f / "value_head.safetensors").unlink(), "value_head.safetensors is missing"),
        (lambda f: edit(f / "classifier.json", inner_size=3), "value_head.safetensors does not fit"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer"),
        (lambda f: (f / "config.json").unlink(), "config.json|cannot be loaded"),
        (lambda f: edit(f / "config.json", num_hidden_layers=3), "do not fit each other"),
        (lambda f: edit(f / "config.json", vocab_size=301), "do not fit each other|cannot be loaded"),
    ],
)
def test_a_damaged_folder_is_explained_and_never_loaded(saved, damage, message):
    damage(saved)
    with pytest.raises(ClassifierError, match=message):
        OutputClassifier.from_pretrained(saved)


def test_another_tokenizer_in_the_folder_is_noticed(saved):
    train_tokenizer(["entirely other words entirely"], 290).save_pretrained(saved)
    with pytest.raises(ClassifierError, match="fingerprint"):
        OutputClassifier.from_pretrained(saved)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ClassifierError, match="there is no folder"):
        OutputClassifier.from_pretrained(tmp_path / "nowhere")


# --- saves that die


def other(classifier):
    """The same classifier with other weights everywhere."""
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.add_(torch.randn_like(parameter))
    return classifier


@pytest.mark.parametrize("end", ["killed", "full, no hard links"])
def test_whenever_a_save_ends_the_old_or_the_new_loads_whole(classifier, saved, tmp_path, monkeypatch, end):
    monkeypatch.setattr(checkpoints, "_check", lambda *_: None)  # it changes nothing on the disk
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(classifier, "tokenizer", None), monkeypatch.setattr(classifier, "fingerprint", None)
    classifier.save_pretrained(saved)
    old, new = OutputClassifier.from_pretrained(saved), other(classifier)
    new.save_pretrained(tmp_path / "warm")
    work, step, seen, disk = tmp_path / "work", 0, set(), None
    while disk is None or disk.struck:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(saved, work)
        with Disk(step, full="full" in end, links="no hard" not in end) as disk, suppress(Dead, OSError):
            new.save_pretrained(work)
        found = OutputClassifier.from_pretrained(work)
        assert same(found, old) or same(found, new), f"neither old nor new after {step} changes: {disk.last}"
        seen.add("new" if same(found, new) else "old")
        step += 1
    assert step > 15 and seen == {"old", "new"}
    new.save_pretrained(work)
    assert {file.name for file in work.iterdir()} == {file.name for file in saved.iterdir()}


def test_a_first_save_that_fails_leaves_nothing(classifier, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        classifier.save_pretrained(tmp_path / "deep" / "x")
    assert not (tmp_path / "deep" / "x").exists()


def test_nothing_outside_the_folder_is_touched(classifier, saved):
    """It may be a mount point (a rename across its border is EXDEV), or its parent read-only."""
    with Disk(10_000, only=saved) as disk:
        other(classifier).save_pretrained(saved)
    assert disk.count > 10 and same(OutputClassifier.from_pretrained(saved), classifier)


def test_saving_again_keeps_foreign_files_and_drops_what_would_still_be_read(classifier, saved):
    (saved / "optimizer.pt").write_bytes(b"state")
    (saved / "checkpoint-1").mkdir()
    (saved / "checkpoint-1" / "model.safetensors").write_bytes(b"another's")
    for stale in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "adapter_config.json"):
        (saved / stale).write_bytes(b"{}")
    torch.nn.init.ones_(classifier.value_head.out.weight)
    classifier.save_pretrained(saved)
    assert (saved / "optimizer.pt").exists() and (saved / "checkpoint-1" / "model.safetensors").exists()
    assert not list(saved.glob("model*0*")) and not (saved / "adapter_config.json").exists()
    assert (OutputClassifier.from_pretrained(saved).value_head.out.weight == 1).all()


# --- saves that are refused


def refused(classifier, folder, message):
    """A save over a good one is refused, and the good one stays."""
    output_classifier().save_pretrained(folder)
    before = sorted(file.name for file in folder.iterdir())
    with pytest.raises((ClassifierError, ValueError), match=message):
        classifier.save_pretrained(folder)
    assert same(OutputClassifier.from_pretrained(folder), output_classifier())
    assert sorted(file.name for file in folder.iterdir()) == before


def test_a_tokenizer_that_its_family_would_rebuild_is_read_as_it_was(tmp_path):
    """transformers#45920: for a Qwen2 model, AutoTokenizer makes a Qwen2Tokenizer of any tokenizer.json."""
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    for tokenizer in (lab_tokenizer(), foreign_tokenizer("llama2")):
        config = AutoConfig.for_model("qwen2", vocab_size=len(tokenizer), num_key_value_heads=2, **size)
        classifier = OutputClassifier.from_backbone(AutoModelForCausalLM.from_config(config), tokenizer)
        classifier.save_pretrained(tmp_path / "x")
        assert OutputClassifier.from_pretrained(tmp_path / "x").fingerprint == fingerprint(tokenizer)


def test_a_tokenizer_that_would_read_otherwise_is_not_saved(tmp_path, monkeypatch):
    classifier = output_classifier()
    classifier.tokenizer = train_tokenizer(["other words"], 290)  # not the one it was trained with
    refused(classifier, tmp_path / "x", "not saved: what was written does not load again.*fingerprint")
    classifier = output_classifier()
    classifier.fingerprint = None  # a tokenizer that was put there by hand
    refused(classifier, tmp_path / "z", "comes back as NoneType")
    classifier = output_classifier()
    reads = checkpoints._reads
    monkeypatch.setattr(checkpoints, "_reads", lambda one: (reads(one), one is changed))
    changed = None
    output_classifier().save_pretrained(tmp_path / "y")
    changed = classifier.tokenizer
    with pytest.raises(ClassifierError, match="the tokenizer would read otherwise"):
        classifier.save_pretrained(tmp_path / "y")


def test_a_model_that_comes_back_as_another_is_not_saved(tmp_path):
    classifier = output_classifier()
    classifier.model.config.num_hidden_layers = 1  # says less than there is
    refused(classifier, tmp_path / "x", "not saved")
    classifier = output_classifier()
    classifier.model.model.layers[0].extra = torch.nn.Linear(2, 2)  # no loader knows of it
    refused(classifier, tmp_path / "y", "not saved: .*extra")


def test_a_vocabulary_that_was_resized_comes_back(tmp_path):
    model = causal_lm()
    model.resize_token_embeddings(420)
    classifier = OutputClassifier.from_backbone(model, lab_tokenizer()).eval()
    classifier.save_pretrained(tmp_path / "x")
    assert same(OutputClassifier.from_pretrained(tmp_path / "x"), classifier)


def test_a_plain_language_model_is_saved_as_carefully(tmp_path):
    model, tokenizer, folder = causal_lm(), lab_tokenizer(), tmp_path / "x"
    save_language_model(model, tokenizer, folder, card="# one\n")
    assert same(AutoModelForCausalLM.from_pretrained(folder), model)
    assert fingerprint(AutoTokenizer.from_pretrained(folder)) == fingerprint(tokenizer)
    model.model.layers[0].extra = torch.nn.Linear(2, 2)
    with pytest.raises(ClassifierError, match="not saved: .*extra"):
        save_language_model(model, tokenizer, folder)
    assert (folder / "README.md").read_text() == "# one\n"
    save_language_model(causal_lm(seed=1), tokenizer, folder)
    assert not (folder / "README.md").exists()  # what it said was of other weights


# --- the model card


def test_the_default_card_says_what_is_not_known(classifier, saved):
    card = (saved / "README.md").read_text()
    assert card.startswith("---\n") and "# OutputClassifier" in card and classifier.fingerprint in card
    assert card.count("unknown: ") == 4  # data, seed, figures, licence
    assert "no ground for releasing" in card


def test_a_card_of_ones_own_and_a_readme_of_somebody_else(classifier, tmp_path):
    classifier.save_pretrained(tmp_path / "x", card="# mine\n")
    assert (tmp_path / "x" / "README.md").read_text() == "# mine\n"
    classifier.save_pretrained(tmp_path / "x")  # other weights: what was said of the old ones is not true of them
    assert "# OutputClassifier" in (tmp_path / "x" / "README.md").read_text()
    (tmp_path / "README.md").write_text("# a project\n")
    classifier.save_pretrained(tmp_path)  # no classifier lay here: this is not our file
    assert (tmp_path / "README.md").read_text() == "# a project\n"
    assert_close(OutputClassifier.from_pretrained(tmp_path).value_head.out.weight, classifier.value_head.out.weight)


def test_a_card_tells_no_path(tmp_path):
    causal_lm().save_pretrained(tmp_path / "base")
    OutputClassifier.from_backbone(AutoModelForCausalLM.from_pretrained(tmp_path / "base")).save_pretrained(
        tmp_path / "x"
    )
    card = (tmp_path / "x" / "README.md").read_text()
    assert "from `base`" in card and str(tmp_path) not in card
