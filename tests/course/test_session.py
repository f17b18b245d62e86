"""The one-call set-up, the report line, and what tools/run_notebooks.py saves."""

import random
import sys

import nbformat
import numpy as np
import pytest
import torch

from constclf_lib.course import session as notebook
from tools import run_notebooks


@pytest.mark.parametrize(
    "values, options, line",
    [
        ((0.02134,), {}, "x: 0.0213"),
        ((0.02134,), {"digits": 1}, "x: 0.02"),
        ((0.9666,), {"percent": True}, "x: 96.7%"),
        ((4, "of", torch.tensor(78)), {}, "x: 4 of 78"),
        ((1234567,), {}, "x: 1234567"),
        ((True,), {}, "x: True"),
        ((-1e-12,), {"digits": 1}, "x: -1e-12"),
        ((-0.0,), {}, "x: 0"),
        ((torch.tensor([0.12345, 2.0]),), {}, "x: [0.123, 2]"),
        ((np.float32(0.1),), {}, "x: 0.1"),
        ((float("nan"), float("inf")), {}, "x: nan inf"),
    ],
)
def test_report(values, options, line, capsys):
    notebook.report("x", *values, **options)
    assert capsys.readouterr().out == line + "\n"


def test_device_can_be_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CONSTCLF_DEVICE", "cpu")
    assert notebook.choose_device().type == "cpu"
    monkeypatch.delenv("CONSTCLF_DEVICE")
    assert notebook.choose_device().type == "cuda"


@pytest.mark.parametrize(
    "capability, dtype", [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_a_t4_gets_no_bfloat16(capability, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert notebook.choose_dtype(torch.device("cuda")) == dtype
    assert notebook.choose_dtype(torch.device("cpu")) == torch.float32


def test_seeds_everything():
    drawn = []
    for _ in range(2):
        notebook.seed_everything(3)
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]


def test_colab_is_completed_but_not_replaced(monkeypatch):
    """Of two missing packages, only the one that Colab does not bring itself is installed, and without dependencies."""
    ran = []
    versions = dict.fromkeys([wanted.name for wanted, _ in notebook._requirements()], "0.0.1")
    del versions["torch"], versions["openai"]

    def version(name):
        if name not in versions:
            raise notebook.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(notebook.metadata, "version", version)
    monkeypatch.setattr(notebook.subprocess, "run", lambda command, check: ran.append(command))
    monkeypatch.setenv("PYTHONPATH", "")
    notebook._complete_colab()
    (command,) = ran
    assert command[:3] == [sys.executable, "-m", "pip"] and "--no-deps" in command
    assert [part.split("<")[0].split(">")[0] for part in command[6:]] == ["openai"]


def test_environment_names_every_requirement(capsys):
    notebook.environment()
    printed = capsys.readouterr().out
    assert all(f"] {wanted.name} " in printed for wanted, _ in notebook._requirements())


def test_saved_notebooks_are_clean():
    cell = nbformat.v4.new_code_cell("x", metadata={"tags": ["nbval-ignore-output"], "execution": {"when": "now"}})
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "7"}, "text/plain": "IntSlider(value=3)"}
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="100%"),
        nbformat.v4.new_output("stream", name="stdout", text="fine\n"),
        nbformat.v4.new_output("display_data", data=view),
    ]
    book = nbformat.v4.new_notebook(
        cells=[cell], metadata={"widgets": {"state": {}}, "language_info": {"name": "python", "version": "3.11.7"}}
    )
    cleaned = run_notebooks.clean(book)
    assert cleaned.metadata == run_notebooks.METADATA
    assert cleaned.cells[0].metadata == {"tags": ["nbval-ignore-output"]}
    assert [output.get("text") or output.data for output in cleaned.cells[0].outputs] == [
        "fine\n",
        {"text/plain": "IntSlider(value=3)"},
    ]


def test_seconds_are_added_to_the_results(tmp_path, monkeypatch):
    monkeypatch.setattr(run_notebooks, "RESULTS", tmp_path / "data" / "reference_results.json")
    run_notebooks.note_seconds("05_b", 61.4)
    run_notebooks.note_seconds("01_a", 9.6)
    text = run_notebooks.RESULTS.read_text(encoding="utf-8")
    assert run_notebooks.json.loads(text) == {"notebook_seconds": {"01_a": 10, "05_b": 61}}
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["reference_results.json"]


def test_a_failing_notebook_is_left_as_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_notebooks, "RESULTS", tmp_path / "results.json")
    path = tmp_path / "00_x.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0", id="a")]), path)
    before = path.read_bytes()
    assert run_notebooks.main([str(path)]) == 1
    assert path.read_bytes() == before and not run_notebooks.RESULTS.exists()
    assert "ZeroDivisionError" in capsys.readouterr().out
