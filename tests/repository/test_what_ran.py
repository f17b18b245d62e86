"""What is declared is what was run: the ends of every range, and the Pythons.

`make test-lowest MATRIX_ARGS=--record` and its sisters write tools/what_ran.json, which CONTRIBUTING.md shows; they
leave this file out, since it reads what they find.
"""

import json

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

from tools import lock, matrix

DIRECT = matrix.direct_requirements()
RAN = json.loads(matrix.RECORD.read_text(encoding="utf-8"))


def test_lower_ends_were_run():
    for wanted in DIRECT:
        (low,) = (Version(part.version) for part in wanted.specifier if part.operator == ">=")
        assert Version(RAN["test-lowest"]["versions"][wanted.name]) == low, wanted


def test_upper_ends_were_run():
    """The first release that a range excludes comes right after one that was run: in the lock or, where test-latest
    passed, in that."""
    versions = lock.versions()
    for wanted in DIRECT:
        (high,) = (part for part in wanted.specifier if part.operator in {"<", "<="})
        runs = [versions[canonicalize_name(wanted.name)]]
        if matrix.passed(RAN["test-latest"]):
            runs.append(RAN["test-latest"]["versions"][wanted.name])
        newest = max(Version(version) for version in runs if wanted.specifier.contains(version))
        if high.operator == "<=":
            assert newest == Version(high.version), wanted
        else:
            excluded = Version(high.version).release
            assert newest.release[: len(excluded)] == (*excluded[:-1], excluded[-1] - 1), wanted


SETTINGS = ("test-lowest", "test-latest", "colab-check", *(f"python {version}" for version in matrix.PYTHONS))


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_promised_passed(name):
    assert matrix.passed(RAN[name]), RAN[name]


def test_contributing_shows_what_ran():
    assert matrix.in_markdown(RAN) in (matrix.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
