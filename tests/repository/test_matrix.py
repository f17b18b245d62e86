"""tools/matrix.py: what it installs, how it counts, and where it writes what came of it."""

import json

from packaging.requirements import Requirement

from tools import as_colab, matrix

GOOD = {"passed": 3, "failed": [], "seconds": 1}
BAD = {"passed": 2, "failed": ["tests.test_x::test_y"], "seconds": 1}


def result(**suites):
    return {"date": "2026-11-25", "python": "3.11.7", "versions": {"torch": "2.6.0"}} | suites


def test_upper_ends_are_dropped_and_lower_ends_stay():
    ranges = [Requirement("torch>=2.6,<2.14"), Requirement("peft<=0.21.2,>=0.19")]
    assert matrix.without_upper_ends(ranges) == "torch>=2.6\npeft>=0.19\n"


def test_each_setting_asks_for_versions_of_its_own(tmp_path):
    clone = tmp_path / "course"
    clone.mkdir()
    for name in ("requirements.txt", "requirements-dev.txt"):
        (clone / name).write_text((matrix.ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    asked = [
        tuple(matrix.wanted(name, clone)) for name in ("test-lowest", "test-latest", "colab-check", "test-pythons")
    ]
    assert len(set(asked)) == 4
    newest = (tmp_path / "newest.txt").read_text(encoding="utf-8")
    assert "<" not in newest and len(newest.splitlines()) == len(matrix.direct_requirements())


def test_passed_needs_something_that_ran():
    assert matrix.passed(result(**{"unit tests": GOOD, "notebook cells": GOOD}))
    assert not matrix.passed(result(**{"unit tests": GOOD, "notebook cells": BAD}))
    assert not matrix.passed(result(**{"unit tests": GOOD | {"passed": 0}}))
    assert not matrix.passed(result())


def test_tables_name_versions_counts_and_failures():
    shown = matrix.in_markdown({"test-lowest": result(**{"unit tests": BAD})})
    assert "| test-lowest | 2026-11-25 | 3.11.7 | 2 passed, **1 failed** | – | – |\n" in shown
    assert "- test-lowest, unit tests: `tests.test_x::test_y`\n" in shown
    assert "| torch | >=" in shown and "| 2.6.0 |\n" in shown


def test_a_record_keeps_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(matrix, "RECORD", tmp_path / "what_ran.json")
    monkeypatch.setattr(matrix, "ROOT", tmp_path)
    monkeypatch.setattr(matrix, "in_markdown", lambda ran: " ".join(ran) + "\n")
    page = tmp_path / "CONTRIBUTING.md"
    page.write_text(f"before\n{matrix.BEGIN}\n{matrix.END}\nafter\n", encoding="utf-8")
    matrix.record({"test-lowest": result()})
    matrix.record({"colab-check": result()})
    assert set(json.loads(matrix.RECORD.read_text(encoding="utf-8"))) == {"test-lowest", "colab-check"}
    assert page.read_text(encoding="utf-8") == (
        f"before\n{matrix.BEGIN}\ntest-lowest colab-check\n{matrix.END}\nafter\n"
    )


def test_git_is_told_to_take_the_clone(tmp_path):
    told = as_colab.use_clone(tmp_path, "https://github.com/ada/x")
    assert told["GIT_CONFIG_KEY_0"] == f"url.file://{tmp_path}.insteadOf"
    assert told["GIT_CONFIG_VALUE_0"] == "https://github.com/ada/x"
