"""The script that a reader takes home (examples/train_classifier.py): a few steps on a tiny model, and bad input."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin, PartialState
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from constclf_lib.models import OutputClassifier, save_language_model
from constclf_lib.streaming import score_completions
from examples.train_classifier import labelled_texts, main, three_parts
from tests.tiny_models import causal_lm, lab_tokenizer

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "examples" / "accelerate"
WORDS = ["ash", "moth", "lantern", "coals", "frost", "key", "grind", "warm"]


def some_texts(count=200, seed=0):
    """Distinct texts; every second one is harmful, and says so in one word."""
    rng = random.Random(seed)
    texts = [f"{n} {' '.join(rng.choices(WORDS, k=6))}{' bane' * (n % 2)}" for n in range(count)]
    return pd.DataFrame({"text": texts, "label": [n % 2 for n in range(count)]})


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbone")
    save_language_model(causal_lm(vocab=len(lab_tokenizer())), lab_tokenizer(), folder)
    return folder


def test_trains_calibrates_compares_and_saves(backbone, tmp_path, capsys):
    some_texts().to_csv(tmp_path / "texts.csv", index=False)
    out = tmp_path / "guard"
    settings = ["--steps", "4", "--batch", "8", "--lr", "1e-3", "--max-fpr", "0.1"]
    report = main([str(tmp_path / "texts.csv"), "--backbone", str(backbone), "--out", str(out), *settings])
    assert report == json.loads((out / "report.json").read_text(encoding="utf-8"))
    for name in ("classifier", "bag_of_words"):
        for rate in (report[name]["tpr"], report[name]["fpr"]):
            assert rate["interval"][0] <= rate["value"] <= rate["interval"][1] and rate["n"] == 20
    assert report["bag_of_words"]["tpr"]["value"] > 0.9
    assert {path.name for path in out.iterdir()} >= {"model.safetensors", "value_head.safetensors", "classifier.json"}
    printed = capsys.readouterr().out
    assert "training on 120 of 120 texts" in printed and printed.count("TPR") == printed.count("FPR") == 2
    loaded = OutputClassifier.from_pretrained(out)
    assert loaded.window == 256
    parts = three_parts(labelled_texts(tmp_path / "texts.csv", "text", "label"), seed=0)
    benign = parts["calibration"][~parts["calibration"].harmful].completion.tolist()
    highest = [float(row.max()) for row in score_completions(loaded, benign)]
    assert sum(score > report["threshold"] + 1e-6 for score in highest) <= 2


def test_long_texts_are_left_out_of_training_and_read_in_windows(backbone, tmp_path, capsys):
    frame = some_texts()
    frame.loc[:9, "text"] += " frost" * 40
    frame.to_json(tmp_path / "texts.jsonl", orient="records", lines=True)
    settings = ["--steps", "1", "--window", "40", "--max-fpr", "0.1"]
    main([str(tmp_path / "texts.jsonl"), "--backbone", str(backbone), "--out", str(tmp_path / "guard"), *settings])
    left = int(capsys.readouterr().out.split("training on ")[1].split(" of 120")[0])
    assert 100 <= left < 120
    assert OutputClassifier.from_pretrained(tmp_path / "guard").window == 40


def test_the_split_is_stratified_disjoint_and_repeats():
    frame = some_texts().rename(columns={"text": "completion", "label": "harmful"}).astype({"harmful": bool})
    parts = three_parts(frame, seed=1)
    assert {name: len(part) for name, part in parts.items()} == {"train": 120, "calibration": 40, "test": 40}
    assert len(set().union(*(set(part.completion) for part in parts.values()))) == len(frame)
    assert all(part.harmful.mean() == 0.5 for part in parts.values())
    assert three_parts(frame, seed=1)["test"].equals(parts["test"])


@pytest.mark.parametrize("labels", [["harmful", "harmless"], ["True", "False"], ["1.0", "0"], [" Yes", "NO"]])
def test_spellings_of_labels(tmp_path, labels):
    pd.DataFrame({"said": ["a", "b", "a"], "so": [*labels, labels[0]]}).to_csv(tmp_path / "t.csv", index=False)
    frame = labelled_texts(tmp_path / "t.csv", "said", "so")
    assert frame.to_dict("list") == {"completion": ["a", "b"], "harmful": [True, False]}


def test_parquet_with_booleans_and_a_text_that_says_none(tmp_path):
    pd.DataFrame({"text": ["a", "b"], "label": [True, False]}).to_parquet(tmp_path / "t.parquet")
    assert labelled_texts(tmp_path / "t.parquet", "text", "label").harmful.tolist() == [True, False]
    (tmp_path / "t.csv").write_text("text,label\nNone,1\nnan,0\n", encoding="utf-8")
    assert labelled_texts(tmp_path / "t.csv", "text", "label").completion.tolist() == ["None", "nan"]


BAD = {
    "no_such.csv": (None, "there is no file"),
    "t.xlsx": ("", "is none of .csv, .jsonl, .parquet"),
    "t.jsonl": ("{", "cannot be read as .jsonl"),
    "columns.csv": ("words,label\na,1\n", "no column 'text'; it has words, label"),
    "labels.csv": ("text,label\na,1\nb,maybe\n", "'maybe' is no label"),
    "unlabelled.csv": ("text,label\na,1\nb,\n", "'' is no label"),
    "empty.csv": ("text,label\na,1\n  ,0\n", "1 of 2 rows have no text; the first is row 2"),
    "both.csv": ("text,label\na,1\na,0\n", "1 texts stand there with both labels"),
    "few.csv": ("text,label\na,1\nb,0\n", "1 of 2 texts are harmful; of each label 50 are needed"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named(name, tmp_path, capsys):
    content, says = BAD[name]
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / name), "--backbone", "never looked at", "--out", str(tmp_path / "guard")])
    assert stopped.value.code == 2 and says in capsys.readouterr().err
    assert not (tmp_path / "guard").exists()


def test_a_backbone_that_does_not_load_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    some_texts().to_csv(tmp_path / "texts.csv", index=False)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(SystemExit):
        main([str(tmp_path / "texts.csv"), "--backbone", str(tmp_path / "nothing"), "--out", str(tmp_path / "guard")])
    assert "does not load as a causal LM" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--max-fpr", "5"], ["--steps", "0"]])
def test_options_out_of_range(wrong, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["t.csv", "--backbone", "any", "--out", str(tmp_path), *wrong])
    assert "between 0 and 1" in capsys.readouterr().err


# --- several processes


def launched(*arguments):
    """The example under accelerate, in two processes on the CPU, as its file of settings says."""
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / "two_processes.yaml"),
        str(ROOT / "examples" / "train_classifier.py"), *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def test_two_processes_follow_one_also_after_a_kill(backbone, tmp_path):
    some_texts().to_csv(tmp_path / "texts.csv", index=False)
    given = [str(tmp_path / "texts.csv"), "--backbone", str(backbone), "--steps", "30", "--batch", "8", "--lr", "1e-3"]
    given += ["--max-fpr", "0.1", "--lam", "0.5"]
    one = main([*given, "--out", str(tmp_path / "one")])
    out = tmp_path / "two"
    given += ["--out", str(out), "--save-steps", "5"]
    first = launched(*given)
    saved = "checkpoints-*/checkpoint-*/trainer_state.json"
    while first.poll() is None and not list(out.glob(saved)):
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert list(out.glob(saved)) and not (out / "report.json").exists(), "it was not killed on the way"
    second = launched(*given)
    printed, _ = second.communicate(timeout=900)
    assert second.returncode == 0, printed
    assert printed.count("training on 120 of 120 texts") == printed.count("saved in") == 1  # one of them speaks
    two = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert len(one["harm_loss"]) == len(two["harm_loss"]) == 30
    assert max(one["harm_loss"]) - min(one["harm_loss"]) > 0.01  # batches differ by more than what is allowed below
    assert two["harm_loss"] == pytest.approx(one["harm_loss"], rel=1e-3)
    assert two["threshold"] == pytest.approx(one["threshold"], rel=1e-2)
    weights = [OutputClassifier.from_pretrained(folder).lm_head.weight for folder in (tmp_path / "one", out)]
    assert torch.allclose(*weights, atol=1e-4)
    assert not list(out.glob("checkpoints-*"))


def test_a_step_that_cannot_be_shared_is_refused(backbone, tmp_path, capsys, monkeypatch):
    some_texts().to_csv(tmp_path / "texts.csv", index=False)
    monkeypatch.setattr(PartialState(), "num_processes", 3)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "texts.csv"), "--backbone", str(backbone), "--out", str(tmp_path / "o"), "--batch", "8"])
    assert "8 texts cannot be shared evenly by 3 processes" in capsys.readouterr().err


def test_the_files_of_settings_say_what_accelerate_knows(monkeypatch):
    """Sharding needs GPUs, so the FSDP file is read, by accelerate itself, and not run. That the trainers refuse to
    start under it is tested in tests/training/test_memory.py."""
    two, sharded = (load_config_from_file(str(CONFIGS / f"{name}.yaml")) for name in ("two_processes", "fsdp"))
    assert (two.distributed_type, two.num_processes, two.use_cpu) == ("MULTI_CPU", 2, True)
    assert (sharded.distributed_type, sharded.mixed_precision) == ("FSDP", "bf16")
    options = launch_command_parser().parse_args(["script.py"])
    assert set(sharded.fsdp_config) <= set(vars(options))
    for name, value in sharded.fsdp_config.items():  # as the launcher hands them on
        monkeypatch.setenv(name.upper(), str(value).lower() if isinstance(value, bool) else str(value))
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True and plugin.activation_checkpointing
    assert plugin.state_dict_type.name == "SHARDED_STATE_DICT" and plugin.cpu_ram_efficient_loading
