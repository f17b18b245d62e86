"""`constclf score` on a tiny classifier: what it writes, that it goes on, that processes change nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from constclf_lib.cli import main
from constclf_lib.models import InputClassifier, OutputClassifier
from constclf_lib.streaming import score_completions
from tests.tiny_models import causal_lm, lab_tokenizer, output_classifier

ROOT = Path(__file__).resolve().parents[1]
WORDS = ["the ash moth sleeps", "grind the ashbane", "who keeps the key?", "wait!", "frost"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier") / "output"
    output_classifier().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """25 rows in two files, one without a text."""
    folder = tmp_path_factory.mktemp("texts")
    rows = [f"{WORDS[i % 5]} " * (1 + i % 4) for i in range(25)]
    frame = pd.DataFrame({"id": range(25), "text": rows})
    frame.loc[3, "text"] = None
    frame.loc[4, "text"] = ""
    frame[:11].to_parquet(folder / "a.parquet")
    frame[11:].to_parquet(folder / "b.parquet")
    return folder


def score(texts, out, classifier, *more):
    command = ["score", str(texts), str(out), "--classifier", str(classifier), "--part", "7", "--device", "cpu"]
    return main([*command, *more])


def test_writes_every_row_in_order_with_its_score(classifier, texts, tmp_path, capsys):
    assert score(texts, tmp_path / "out", classifier, "--threshold", "0.6") == 0
    assert "25 rows in 4 parts" in capsys.readouterr().out
    got = pd.read_parquet(tmp_path / "out")  # the folder is one table, in order
    assert got.equals(pd.read_parquet(sorted((tmp_path / "out").glob("*.parquet"))))
    given = pd.read_parquet(texts)
    assert got.id.tolist() == list(range(25)) and got.text.dropna().equals(given.text.dropna())
    model = OutputClassifier.from_pretrained(classifier)
    want = score_completions(model, [text if isinstance(text, str) else "" for text in given.text])
    for i, row in enumerate(want):
        if i == 3:
            assert np.isnan(got.harm[i]) and got.flagged[i] and got.halt_index[i] == 0 and got.error[i] == "no text"
            continue
        highest = row.max() if len(row) else 0.0
        assert abs(got.harm[i] - highest) < 1e-5 and got.tokens[i] == len(row) and got.error[i] == ""
        over = np.flatnonzero(row > 0.6)
        assert got.flagged[i] == (highest > 0.6) and got.halt_index[i] == (over[0] if len(over) else -1)
    assert 2 < got.flagged.sum() < 24


def test_goes_on_where_it_was_killed(classifier, texts, tmp_path, monkeypatch):
    out, calls = tmp_path / "out", []
    real = score_completions

    def dies_in_the_third_part(*given):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("killed")
        return real(*given)

    monkeypatch.setattr("constclf_lib.scoring.score_completions", dies_in_the_third_part)
    with pytest.raises(SystemExit) as stopped:
        score(texts, out, classifier)
    assert stopped.value.code == 2
    assert sorted(path.name for path in out.glob("[!_]*")) == ["part-000000.parquet", "part-000001.parquet"]
    (out / ".part-000002.parquet.1.tmp").write_bytes(b"half")
    kept = (out / "part-000001.parquet").stat().st_mtime_ns
    assert score(texts, out, classifier) == 0
    assert len(calls) == 5 and (out / "part-000001.parquet").stat().st_mtime_ns == kept
    assert len(pd.read_parquet(sorted(out.glob("*.parquet")))) == 25 and not list(out.glob(".*"))


def test_a_folder_of_other_scores_is_refused(classifier, texts, tmp_path, capsys):
    assert score(texts, tmp_path / "out", classifier) == 0
    for more, says in (
        (["--threshold", "0.5"], "was begun with other threshold"),
        (["--column", "id"], "was begun with other column"),
    ):
        with pytest.raises(SystemExit):
            score(texts, tmp_path / "out", classifier, *more)
        assert says in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(SystemExit):
        score(texts, tmp_path / "mine", classifier)
    assert "holds other files" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, says",
    [
        ({"texts": "nothing.parquet"}, "there is no parquet file"),
        ({"column": "words"}, "no column 'words' in a.parquet; it has id, text"),
        ({"classifier": "nothing"}, "holds no classifier"),
        ({"part": "0"}, "at least 1"),
    ],
)
def test_bad_input_is_one_line(classifier, texts, tmp_path, capsys, change, says):
    given = {"texts": str(texts), "classifier": str(classifier), "column": "text", "part": "7", **change}
    with pytest.raises(SystemExit) as stopped:
        main(
            ["score", given["texts"], str(tmp_path / "out"), "--classifier", given["classifier"], "--column",
             given["column"], "--part", given["part"], "--device", "cpu"]
        )  # fmt: skip
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and says in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_score_that_is_no_number_fails_closed(classifier, texts, tmp_path, monkeypatch):
    def broken(_, rows, __):
        return [np.full(len(row), np.nan, np.float32) for row in rows]

    monkeypatch.setattr("constclf_lib.scoring.score_completions", broken)
    assert score(texts, tmp_path / "out", classifier, "--threshold", "0.9") == 0
    got = pd.read_parquet(sorted((tmp_path / "out").glob("*.parquet")))
    some = got[got.tokens > 0]
    assert some.harm.isna().all() and some.flagged.all() and (some.error == "the score is not finite").all()


def test_an_input_classifier_scores_prompts(texts, tmp_path):
    tokenizer = lab_tokenizer()
    InputClassifier.from_backbone(causal_lm(vocab=len(tokenizer)), tokenizer).save_pretrained(tmp_path / "input")
    assert score(texts, tmp_path / "out", tmp_path / "input", "--threshold", "0.5") == 0
    got = pd.read_parquet(sorted((tmp_path / "out").glob("*.parquet")))
    want = InputClassifier.from_pretrained(tmp_path / "input").score(got.text[0])
    assert abs(got.harm[0] - want.harm[0]) < 1e-5 and abs(got.off_label[0] - want.off_label[0]) < 1e-5
    assert "halt_index" not in got and got.error[3] == "no text"


def test_two_processes_write_what_one_does(classifier, texts, tmp_path):
    assert score(texts, tmp_path / "one", classifier) == 0
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "constclf_lib.cli", "score", str(texts),
        str(tmp_path / "two"), "--classifier", str(classifier), "--part", "7", "--device", "cpu",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("25 rows in 4 parts") == 1
    for file in sorted((tmp_path / "one").iterdir()):
        other = tmp_path / "two" / file.name
        if file.suffix == ".parquet":
            assert pd.read_parquet(other).equals(pd.read_parquet(file)), file.name
        else:
            assert json.loads(other.read_text()) == json.loads(file.read_text())
    assert len(list((tmp_path / "two").iterdir())) == 5
