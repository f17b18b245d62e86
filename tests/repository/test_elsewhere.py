"""The noise of `make test-elsewhere` is really there where it is asked for, and nowhere else; and its table tells a
notebook that changed from one that did not."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch

from tools import elsewhere

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys, torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from constclf_lib import OutputClassifier

folder = sys.argv[1]
backbone = AutoModelForCausalLM.from_pretrained(folder)
small = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
torch.manual_seed(0)
weights = {
    "loaded": OutputClassifier.from_pretrained(folder).state_dict(),
    "loaded again": OutputClassifier.from_pretrained(folder).state_dict(),
    "loaded by transformers": backbone.state_dict(),
    "head from its file": load_file(folder + "/value_head.safetensors"),
    "initialised layer": torch.nn.Linear(64, 64).state_dict(),
    "initialised head": OutputClassifier.from_backbone(backbone).value_head.state_dict(),
    "initialised model": LlamaForCausalLM(small).state_dict(),
}
torch.save({"weights": weights, "random": torch.rand(8)}, sys.argv[2])
"""


def weights_under(setting, folder, with_folder=True):
    """What a fresh interpreter loads and initialises, and the random numbers that come after it."""
    path = folder / f"{setting}-{with_folder}.pt"
    environment = elsewhere.environment(setting)
    if not with_folder:
        environment["PYTHONPATH"] = os.pathsep.join(environment["PYTHONPATH"].split(os.pathsep)[1:])
    model = str(ROOT / "data" / "models" / "output_classifier")
    subprocess.run([sys.executable, "-c", SCRIPT, model, str(path)], env=environment, cwd=ROOT, check=True)
    return torch.load(path)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    settings = {name: weights_under(name, folder) for name in (elsewhere.PLAIN, "noise 1", "noise 2")}
    return settings | {"no folder": weights_under(elsewhere.PLAIN, folder, with_folder=False)}


def each(found, first, second):
    """(what, name, one tensor, the other) of two settings."""
    for what, weights in found[first]["weights"].items():
        for name, value in weights.items():
            yield what, name, value, found[second]["weights"][what][name]


@pytest.mark.parametrize("draw", ["noise 1", "noise 2"])
def test_every_weight_gets_a_small_noise(found, draw):
    compared = list(each(found, elsewhere.PLAIN, draw))
    assert {what for what, *_ in compared} == set(found[draw]["weights"]) and len(compared) > 50
    for what, name, plain, noisy in compared:
        moved = (noisy.double() / plain.double() - 1)[plain != 0]
        if not len(moved):  # a bias that starts at zero stays there: the noise is relative
            continue
        assert moved.abs().max() < 1e-6, (what, name)
        if len(moved) > 20:  # a bell of 1e-7, rounded to float32; a weight close to itself may round back
            assert (moved != 0).double().mean() > 0.3 and 5e-8 < moved.std() < 2e-7, (what, name)


def test_draws_differ_and_each_repeats(found):
    once, again = (found["noise 1"]["weights"][what] for what in ("loaded", "loaded again"))
    assert all(torch.equal(value, again[name]) for name, value in once.items())
    assert any(not torch.equal(one, other) for *_, one, other in each(found, "noise 1", "noise 2"))


def test_random_numbers_stay(found):
    for setting in found:
        assert torch.equal(found[setting]["random"], found[elsewhere.PLAIN]["random"]), setting


def test_without_the_variable_nothing_changes(found):
    for what, name, one, other in each(found, elsewhere.PLAIN, "no folder"):
        assert torch.equal(one, other), (what, name)


def test_library_and_notebooks_know_nothing_of_it(files):
    allowed = {"sitecustomize.py", "elsewhere.py", Path(__file__).name}
    for path in files:
        if path.suffix in {".py", ".ipynb"} and path.name not in allowed:
            assert elsewhere.NOISE not in path.read_text(encoding="utf-8"), path


def test_noise_that_fails_ends_the_process():
    """Python itself would print a line about sitecustomize and go on, and every notebook would pass."""
    broken = elsewhere.environment("noise one")
    run = subprocess.run([sys.executable, "-c", "print('went on')"], env=broken, capture_output=True, text=True)
    assert run.returncode == 1 and "went on" not in run.stdout and "ValueError" in run.stderr


def write_notebook(path, source, output):
    cell = nbformat.v4.new_code_cell(source, execution_count=1)
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=output)]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)


def test_table_tells_what_failed(tmp_path, capsys):
    weight = "import torch; torch.manual_seed(0); print('{}' + str(torch.nn.Linear(3, 1).weight.sum().item()))"
    torch.manual_seed(0)
    figure = str(torch.nn.Linear(3, 1).weight.sum().item())
    write_notebook(tmp_path / "steady.ipynb", "print(1)", "1\n")
    write_notebook(tmp_path / "shaky.ipynb", weight.format(""), figure + "\n")
    paths = [str(tmp_path / name) for name in ("steady.ipynb", "shaky.ipynb")]
    assert elsewhere.main([*paths, "--settings", elsewhere.PLAIN, "noise 1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].split() == ["steady", "1/1", "1/1"]
    assert lines[-1].split(maxsplit=2)[0::2] == ["shaky", "0/1 (not 0)"] and lines[-1].split()[1] == "1/1"


def test_values_over_settings(tmp_path, capsys):
    write_notebook(tmp_path / "one.ipynb", "total = 3", "")
    asked = ["--settings", "noise 1", "--values", "total + 1", "[1, 2]"]
    assert elsewhere.main([str(tmp_path / "one.ipynb"), *asked]) == 0
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert [row.split() for row in rows] == [["total", "+", "1", "4", "4"], ["[1,", "2]", "[1,", "2]", "[1,", "2]"]]
