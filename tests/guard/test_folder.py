"""A guard in a folder: what is saved loads and decides the same; what is incomplete or interrupted says so."""

import json
import os
import shutil
from contextlib import suppress

import pytest
import torch
from disk import Dead, Disk
from tiny_models import causal_lm, lab_tokenizer, llama, output_classifier

from constclf_lib import data_path
from constclf_lib.errors import ClassifierError
from constclf_lib.guard import GuardedModel, Thresholds
from constclf_lib.guard import folder as guard_folder
from constclf_lib.models import InputClassifier, checkpoints
from constclf_lib.streaming import KInARow

TOKENIZER = lab_tokenizer()
PARTS = ["assistant", "input_classifier", "output_classifier"]
LIMITS = Thresholds(0.9, float("inf"), 0.99)


def guard(seed=0, thresholds=LIMITS, **options):
    return GuardedModel(
        causal_lm(context=128, seed=5 + seed, vocab=len(TOKENIZER)),
        TOKENIZER,
        InputClassifier.from_backbone(llama(len(TOKENIZER), seed=2 + seed), TOKENIZER),
        output_classifier(seed=seed),
        thresholds,
        max_note_tokens=4,
        **options,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guards") / "one"
    guard().save_pretrained(folder)
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def answers(model):
    return [model.reply(prompt, temperature=1.5, seed=3, max_new_tokens=8) for prompt in ("The moth", "Who?")]


def test_what_was_saved_answers_the_same(saved):
    again = GuardedModel.from_pretrained(saved, max_note_tokens=4, refusal_text="No.")
    assert answers(again) == answers(guard(refusal_text="No.")) and again.thresholds == LIMITS
    assert names(saved) == [*PARTS, "thresholds.json"] and again.refusal_text == "No."
    assert not again.assistant.training and not again.output_classifier.training


def test_the_device_is_for_all_parts(saved, monkeypatch):
    moved, to = [], torch.nn.Module.to

    def noted(module, *where, **options):
        moved.append((type(module).__name__, *where))
        return to(module, *where, **options)

    monkeypatch.setattr(torch.nn.Module, "to", noted)
    GuardedModel.from_pretrained(saved, device="cpu")
    assert {("InputClassifier", "cpu"), ("OutputClassifier", "cpu"), ("LlamaForCausalLM", "cpu")} <= set(moved)


def test_a_guard_with_one_side_or_none_is_saved_as_it_is(tmp_path):
    one = GuardedModel(llama(len(TOKENIZER)), TOKENIZER, None, output_classifier(), LIMITS)
    one.save_pretrained(tmp_path / "one")
    again = GuardedModel.from_pretrained(tmp_path / "one")
    assert again.input_classifier is None and again.output_classifier is not None and again.thresholds == LIMITS
    GuardedModel(llama(len(TOKENIZER)), TOKENIZER).save_pretrained(tmp_path / "one")
    bare = GuardedModel.from_pretrained(tmp_path / "one")
    assert bare.monitor is bare.input_classifier is bare.thresholds is None
    assert names(tmp_path / "one") == ["assistant", "thresholds.json"]  # the old part is gone


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(saved, tmp_path, part):
    shutil.copytree(saved, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / part)
    with pytest.raises(FileNotFoundError, match=f"{part} is missing; save the guard again"):
        GuardedModel.from_pretrained(tmp_path / "copy")


def test_no_folder_no_card_and_a_damaged_card_are_told_apart(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    card = tmp_path / "copy" / "thresholds.json"
    with pytest.raises(FileNotFoundError, match="no folder"):
        GuardedModel.from_pretrained(tmp_path / "nothing")
    for damaged in ("{", "[]", '{"input": 0.5}', '{"input": NaN, "off_label": 1, "output": 1}', '{"parts": 3}'):
        card.write_text(damaged)
        with pytest.raises(ClassifierError, match="damaged"):
            GuardedModel.from_pretrained(tmp_path / "copy")
    card.unlink()
    with pytest.raises(FileNotFoundError, match="interrupted"):
        GuardedModel.from_pretrained(tmp_path / "copy")


def test_an_assistant_that_does_not_load_is_named(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    weights = tmp_path / "copy" / "assistant" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ClassifierError, match="assistant"):
        GuardedModel.from_pretrained(tmp_path / "copy")


def test_a_save_that_fails_leaves_what_stood_there(saved, tmp_path, monkeypatch):
    folder = tmp_path / "guard"
    shutil.copytree(saved, folder)
    (folder / "notes.txt").write_text("mine")
    before, other = answers(GuardedModel.from_pretrained(folder, max_note_tokens=4)), guard(seed=1)
    assert answers(other) != before

    def full(*_, **__):
        raise OSError(28, "no space left on device")

    for owner, name in ((guard_folder, "read_card"), (other.input_classifier, "save_pretrained")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(OSError, match="no space"):
                other.save_pretrained(folder)
        assert names(folder) == sorted([*PARTS, "notes.txt", "thresholds.json"])
        assert answers(GuardedModel.from_pretrained(folder, max_note_tokens=4)) == before
    other.save_pretrained(folder)
    assert answers(GuardedModel.from_pretrained(folder, max_note_tokens=4)) == answers(other)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_kill_leaves_the_old_guard_or_the_new_one_never_a_mixture(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_check", lambda *_, **__: None)  # it changes nothing on the disk
    monkeypatch.setattr(os, "fsync", lambda _: None)
    folder, new = tmp_path / "guard", guard(seed=1)
    with Disk(10_000) as disk:
        new.save_pretrained(tmp_path / "warm")
    want, seen = {"old": answers(guard()), "new": answers(new)}, set()
    for step in range(0, disk.count + 40, 12):  # 12 of some two hundred changes at a time
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(saved, folder)
        with Disk(step) as disk, suppress(Dead):
            new.save_pretrained(folder)
        found = answers(GuardedModel.from_pretrained(folder, max_note_tokens=4))
        seen.add(next(name for name, given in want.items() if given == found))
    assert seen == {"old", "new"} and not disk.struck
    guard().save_pretrained(folder)
    assert names(folder) == [*PARTS, "thresholds.json"]


def test_thresholds_belong_to_their_stop_rule(tmp_path):
    model = GuardedModel(llama(len(TOKENIZER)), TOKENIZER, None, output_classifier(), LIMITS, KInARow(2))
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "thresholds.json").read_text())["rule"] == "KInARow"
    with pytest.raises(ValueError, match="chosen for the stop rule KInARow, not RunningMax"):
        GuardedModel.from_pretrained(tmp_path)
    assert GuardedModel.from_pretrained(tmp_path, rule=KInARow(2)).monitor.rule.k == 2
    assert GuardedModel.from_pretrained(tmp_path, thresholds=Thresholds(1, 1, 1)).thresholds.output == 1


def test_the_lab_is_a_folder_like_any_other():
    lab, again = GuardedModel.from_lab(), GuardedModel.from_pretrained(data_path("models"))
    assert lab.thresholds == again.thresholds and not lab.through_text
    for one, other in zip(lab.output_classifier.parameters(), again.output_classifier.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_lab_that_is_incomplete_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("CONSTCLF_DATA", str(tmp_path))
    (tmp_path / "models" / "assistant").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="input_classifier is missing"):
        GuardedModel.from_lab()
