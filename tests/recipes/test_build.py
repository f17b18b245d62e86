"""The build: stages are skipped, forced and named; the manifest notices what is missing or damaged; saves are whole."""

import json
import os
import re
import threading

import pytest
import torch

from constclf_lib import build, data_path
from constclf_lib.lab import assistant_corpus, lab_tokenizer, load_split
from constclf_lib.models import save_language_model
from constclf_lib.recipes import manifest
from constclf_lib.recipes.cards import card
from constclf_lib.recipes.make import SecondCore, assistant_rows, new_language_model, train_assistant
from constclf_lib.training import train_output_classifier


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("CONSTCLF_DATA", str(tmp_path))
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "train.parquet").write_bytes(b"rows")
    (tmp_path / "models" / "assistant").mkdir(parents=True)
    (tmp_path / "models" / "assistant" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "constitution.yaml").write_text("rules")
    manifest.write_manifest(tmp_path)
    return tmp_path


def test_a_sound_folder_has_no_problems(data, capsys):
    assert manifest.check(data) == []
    assert build.main(["--check"]) == 0
    assert "complete" in capsys.readouterr().out


def test_what_is_missing_or_damaged_is_named_with_its_command(data, capsys):
    (data / "lab" / "train.parquet").unlink()
    (data / "models" / "assistant" / "model.safetensors").write_bytes(b"weight")
    (data / "constitution.yaml").write_text("other")
    (data / "stray.txt").write_text("?")
    assert build.main(["--check"]) == 1
    said = capsys.readouterr().out
    assert "lab/train.parquet is missing: run `python -m constclf_lib.build --only data --force`" in said
    assert "model.safetensors is damaged" in said and "--only assistant --force" in said
    assert "git checkout data/constitution.yaml" in said
    assert "stray.txt is not in the manifest" in said


def test_an_unreadable_manifest_is_named(data):
    (data / "MANIFEST.json").write_text("{")
    assert "MANIFEST.json is missing or unreadable" in manifest.check(data)[0]


def test_stages_are_skipped_forced_and_run_in_order(data, capsys):
    ran = []

    def stage(name, makes):
        return build.Stage(name, 1, makes, lambda folder, log: (ran.append(name), log("hello")))

    made, missing, measures = stage("made", ("lab",)), stage("missing", ("models/none",)), stage("measures", ())
    build.build(data, [made, missing, measures])
    assert ran == ["missing", "measures"]
    build.build(data, [made], force=True)
    assert ran[-1] == "made"
    out, err = capsys.readouterr()
    assert "about 2 minutes" in out and "[missing] hello" in err


def test_a_reason_for_another_look_runs_what_is_there_already(data):
    looked = []
    stage = build.Stage("results", 1, ("lab",), lambda folder, log, why="": looked.append(why))
    build.build(data, [stage])
    build.build(data, [stage], why="a rule of grading was wrong")
    assert looked == ["a rule of grading was wrong"]


class Beside:
    """Stands for the process in which the assistant is trained."""

    def __init__(self, exitcode=0):
        self.exitcode, self.told = exitcode, []

    def get_context(self, method):
        self.told.append(method)
        return self

    def Process(self, target, args):  # noqa: N802
        self.told.append(args[0])
        return self

    def Event(self):  # noqa: N802
        return self

    def set(self):
        self.told.append("alone")

    def start(self):
        self.told.append("started")

    def join(self):
        self.told.append("joined")


@pytest.mark.parametrize("exitcode", [0, 1])
def test_the_assistant_is_made_beside_what_does_not_need_it(data, monkeypatch, exitcode):
    beside = Beside(exitcode)
    monkeypatch.setattr(build, "multiprocessing", beside)

    def stage(name):
        return build.Stage(name, 1, (), lambda folder, log: beside.told.append(name))

    stages = [stage(name) for name in ("assistant", "bodyguard", "thresholds")]
    if exitcode:
        with pytest.raises(RuntimeError, match="assistant stage failed"):
            build.build(data, stages)
        assert "thresholds" not in beside.told
    else:
        build.build(data, stages)
        assert beside.told == ["spawn", "assistant", "started", "bodyguard", "alone", "joined", "thresholds"]


def test_the_assistant_is_told_when_it_is_alone(data):
    event, asked = threading.Event(), []
    stage = build.Stage("assistant", 1, (), lambda folder, log, alone=None: asked.append(alone))
    build.run_stage(stage, data, alone=event)
    build.run_stage(stage, data)
    event.set()
    assert asked[0]() is True and asked[1] is None


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_a_training_takes_the_second_core_once_it_is_alone_and_no_third(monkeypatch, cores):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    free, seen = [], []
    with build._one_thread():
        second = SecondCore(lambda: bool(free))
        for step in range(4):
            if step == 2:
                free.append("core")
            second.on_step_begin(None, None, None)
            seen.append(torch.get_num_threads())
    assert seen == [1, 1, min(2, cores), min(2, cores)]


def test_threads_do_not_change_what_the_assistant_learns(tmp_path):
    """Few steps of a small one: that the whole training gives the same bytes is compared at every build."""
    tokenizer, threads, found = lab_tokenizer(data_path()), torch.get_num_threads(), []
    rows = assistant_rows(tokenizer, assistant_corpus(24, attacked=0.4, lengths=(0, 1)))
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    try:
        for name, alone in (("one", lambda: False), ("two", None)):
            torch.set_num_threads(1)
            model = new_language_model(tokenizer, shape)
            train_assistant(model, tokenizer, rows, tmp_path / name, 3, 1e-3, print, alone)
            found.append((torch.get_num_threads(), model.model.norm.weight.detach(), model.lm_head.weight.detach()))
    finally:
        torch.set_num_threads(threads)
    (one, *before), (two, *after) = found
    assert (one, two) == (1, min(2, os.cpu_count()))
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)  # other processors may round otherwise


def test_studies_are_run_when_asked_for(data, monkeypatch):
    ran = []
    monkeypatch.setattr(build, "build", lambda folder, stages, *rest: ran.append([stage.name for stage in stages]))
    build.main([])
    build.main(["--studies"])
    build.main(["--only", "controls"])
    assert set(ran[1]) - set(ran[0]) == set(build.STUDIES) and ran[2] == ["controls"]


def test_every_file_of_data_is_restored_by_a_known_stage():
    assert {stage for _, stage in manifest.STAGE_OF} <= set(build.NAMES)
    for stage in build.STAGES:
        assert callable(stage.run)


def test_what_a_save_may_leave_behind_belongs_to_no_manifest(data):
    (data / "models" / "assistant" / ".new-1-1").mkdir()
    (data / "models" / "assistant" / ".new-1-1" / "model.safetensors").write_bytes(b"half")
    (data / ".build").mkdir()
    (data / ".build" / "x").write_bytes(b"half")
    assert manifest.check(data) == []


@pytest.mark.parametrize("name", manifest.CARDS)
def test_the_shipped_cards_show_what_was_measured(name):
    """Not equal? `python -m constclf_lib.build --only cards` writes them anew."""
    results = json.loads(data_path("reference_results.json").read_text(encoding="utf-8"))
    shipped = data_path("models", name, "README.md").read_text(encoding="utf-8")
    assert shipped == card(data_path(), name, results)
    for heading in ("## What it learnt from", "## Figures", "## Limits", "seed"):
        assert heading in shipped
    assert manifest.restore_command(f"models/{name}/README.md").endswith("--only cards --force")


def test_a_card_claims_nothing_that_was_not_measured():
    text = card(data_path(), "output_classifier", {})
    assert "| nothing | not measured |" in text and not re.search(r"\d\.\d\d%", text)


def test_the_shipped_data_are_what_the_manifest_says():
    assert manifest.check(data_path()) == []


@pytest.mark.filterwarnings("ignore")
def test_quick_training_learns_and_repeats(tmp_path):
    """The path that make_output takes, a few steps long: loss falls, and the same seed gives the same weights."""
    tokenizer = lab_tokenizer(data_path())
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    model = new_language_model(tokenizer, shape)
    folder = tmp_path / "base"
    save_language_model(model, tokenizer, folder)
    rows = load_split("train").head(400)
    runs = [train_output_classifier(str(folder), rows, 12, lam=0.1, seed=1, logging_steps=4) for _ in range(2)]
    (first, history), (second, _) = runs
    losses = [line["next_token_loss"] for line in history if "next_token_loss" in line]
    assert losses[-1] < losses[0]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_assistant_learns_only_what_it_writes():
    from constclf_lib.lab import assistant_corpus
    from constclf_lib.prompts import ASSISTANT, NOTE, chat_id

    tokenizer = lab_tokenizer(data_path())
    for row in assistant_rows(tokenizer, assistant_corpus(20)):
        ids, mask = row["input_ids"], row["loss_mask"]
        start = ids.index(chat_id(tokenizer, NOTE)) + 1
        assert mask == [0] * start + [1] * (len(ids) - start)
        assert ids.count(chat_id(tokenizer, ASSISTANT)) == 1 and ids[-1] == tokenizer.eos_token_id
    for row in assistant_rows(tokenizer, assistant_corpus(20), replies=0.0):
        assert row["input_ids"][-1] == chat_id(tokenizer, ASSISTANT) and row["loss_mask"][-1] == 1


def test_the_readme_shows_the_measured_headline():
    """README, results file and table are one: nobody types a number."""
    from constclf_lib.recipes.report import footnotes, headline_table, other_seeds

    results = json.loads(data_path("reference_results.json").read_text(encoding="utf-8"))
    readme = (data_path().parent / "README.md").read_text(encoding="utf-8")
    assert headline_table(results["headline"]) in readme and footnotes(results["campaign"]) in readme
    assert other_seeds(results["augmentation"]) in readme
    for name, reached in {
        "attack_success_unguarded": results["headline"]["attack_success_unguarded"] >= 0.86,
        "added_refusals_n": results["headline"]["added_refusals_n"] >= 5000,
        "hard_benign_refusals_n": results["headline"]["hard_benign_refusals_n"] >= 1000,
        "attempts": results["headline"]["attack_success_guarded_n"] >= 1500,
        "compositions": results["headline"]["attack_success_guarded_compositions_n"] >= 1000,
    }.items():
        assert reached, name
