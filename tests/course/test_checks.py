"""Every exercise check accepts its solution, refuses at least three plausible wrong answers, and tells them apart.

tests/course/checks/chNN_cases.py holds, for chapter NN, `CASES = {"name": {"solution": ..., "wrong": {"what is wrong":
..., ...}, "right": {"another right answer": ..., ...}}}`; the last may be missing.
"""

import random
from importlib import util
from pathlib import Path

import pytest
import torch

from constclf_lib.course.checks import NotYet, attempted, check, exercise
from constclf_lib.course.checks.framework import Checks

FOLDER = Path(__file__).parent / "checks"


def cases_of(path):
    spec = util.spec_from_file_location(path.stem, path)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CASES


CASES = {
    name: (path.stem[2:4], case)
    for path in sorted(FOLDER.glob("ch*_cases.py"))
    for name, case in cases_of(path).items()
}
NUMBERS = check.numbers()


def said(capsys, name, answer):
    capsys.readouterr()
    getattr(check, name)(answer)
    printed = capsys.readouterr().out
    number = NUMBERS[name]
    lines = [line for line in printed.splitlines() if line.startswith(number + " ")]
    assert len(lines) == 1, f"one line should begin with {number}, not {printed!r}"
    return lines[0].removeprefix(number + " ")


def test_checks_and_cases_are_the_same_set():
    assert set(NUMBERS) == set(CASES)


def test_numbers_are_distinct():
    assert len(set(NUMBERS.values())) == len(NUMBERS)


@pytest.mark.parametrize("name", CASES)
def test_number_fits_the_chapter(name):
    assert NUMBERS[name].split(".")[0] == str(int(CASES[name][0]))


@pytest.mark.parametrize("name", CASES)
def test_solution_passes(name, capsys):
    assert said(capsys, name, CASES[name][1]["solution"]) == "ok"


@pytest.mark.parametrize("name", [name for name in CASES if "right" in CASES[name][1]])
def test_other_right_answers_pass(name, capsys):
    for label, answer in CASES[name][1]["right"].items():
        assert said(capsys, name, answer) == "ok", label


@pytest.mark.parametrize("name", CASES)
def test_wrong_answers_are_told_apart(name, capsys):
    wrong = CASES[name][1]["wrong"]
    assert len(wrong) >= 3, "give at least three plausible wrong answers"
    said_of = {label: said(capsys, name, answer) for label, answer in wrong.items()}
    for label, line in said_of.items():
        assert line.startswith("not yet: "), f"{label}: {line}"
        assert "another form than asked for" not in line, (
            f"{label}: the check should say what is wrong, not stumble: {line}"
        )
        assert len(line.split()) >= 6, f"{label}: too short to help: {line}"
    assert len(set(said_of.values())) == len(wrong), f"two wrong answers get the same line: {said_of}"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("stub", [None, ...])
def test_unfilled_value_is_not_attempted(name, stub, capsys):
    assert said(capsys, name, stub) == "not attempted yet"


CHAPTER = """
@exercise("0.1")
def double(answer):
    torch.rand(3), random.random()
    if attempted(answer(2)) != 4:
        raise NotYet("2 should give 4.")
"""


@pytest.fixture
def double(monkeypatch):
    monkeypatch.setattr(check, "_registered", {})
    monkeypatch.setitem(NUMBERS, "double", "0.1")
    # executed under a chapter's name, because the framework tells its own frames from a learner's by the module
    names = {
        "__name__": "constclf_lib.course.checks.ch00",
        "exercise": exercise,
        "attempted": attempted,
        "NotYet": NotYet,
        "torch": torch,
        "random": random,
    }
    exec(CHAPTER, names)
    return names["double"]


def empty(x):
    """Only a docstring."""


def dots(x): ...


def unfinished(x):
    y = ...
    return y


def unfinished_sum(x):
    y = ...
    return x + y


def unfinished_method(x):
    y = ...
    return y.sum()


def not_implemented(x):
    raise NotImplementedError


@pytest.mark.parametrize("stub", [empty, dots, unfinished, unfinished_sum, unfinished_method, not_implemented])
def test_stubs_are_not_attempted(double, stub, capsys):
    assert said(capsys, "double", stub) == "not attempted yet"


def forgot_return(x):
    x * 2


def crashes(x):
    return [][x]


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda x: 2 * x, "ok"),
        (lambda x: 3 * x, "not yet: 2 should give 4."),
        (forgot_return, "return` missing"),
        (crashes, f"line {crashes.__code__.co_firstlineno + 1} of your code raised IndexError"),
        (7, "another form than asked for"),
    ],
)
def test_answers_are_diagnosed(double, answer, words, capsys):
    assert words in said(capsys, "double", answer)


def test_random_state_is_untouched(double):
    before = torch.get_rng_state(), random.getstate()
    check.double(lambda x: torch.rand(1))
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()


def test_a_name_is_taken_once(double):
    with pytest.raises(ValueError, match="exists already"):
        exercise("0.2")(double)


def test_unknown_check_names_the_others(double):
    with pytest.raises(AttributeError, match="there are double"):
        _ = check.triple


def test_each_namespace_is_its_own():
    assert Checks().numbers() == {}
