"""The repository's address: one constant, and everything that repeats it says the same; `make badges` changes all."""

import re
import shutil
import tomllib

import pytest

from constclf_lib.course import BRANCH, REPOSITORY
from tools import badges


@pytest.fixture
def copies(tmp_path):
    """The stamped files, somewhere else."""
    copied = []
    for path in badges.stamped_files(badges.ROOT):
        copied.append(tmp_path / path.relative_to(badges.ROOT))
        copied[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied[-1])
    return copied


def test_there_is_one_constant():
    assert badges.address(badges.stamped_files(badges.ROOT)) == REPOSITORY


def test_every_copy_says_the_same(files):
    for path in files:
        if path.suffix in badges.STAMPED:
            for slug, branch in re.findall(
                r"colab\.research\.google\.com/github/([\w-]+/[\w.-]+)/blob/(\w+)", path.read_text(encoding="utf-8")
            ):
                assert (slug, branch) == (REPOSITORY, BRANCH), path
    pyproject = tomllib.loads((badges.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for url in pyproject["project"]["urls"].values():
        assert url.startswith(f"https://github.com/{REPOSITORY}")


def test_stamping_changes_every_copy_and_nothing_else(copies):
    before = {path: path.read_text(encoding="utf-8") for path in copies}
    other = "/".join(["ada", "bodyguards-2"])  # in pieces, since this file is stamped too
    changed = badges.stamp(copies, other)
    assert badges.address(copies) == other
    assert {"pyproject.toml", "00_quickstart.ipynb", "README.md"} <= {path.name for path in changed}
    assert not [path for path in copies if REPOSITORY in path.read_text(encoding="utf-8")]
    badges.stamp(copies, REPOSITORY)
    assert {path: path.read_text(encoding="utf-8") for path in copies} == before


@pytest.mark.parametrize("wrong", ["", "bodyguards", "https://github.com/ada/bodyguards", "ada/body guards"])
def test_what_is_no_address_is_refused(wrong, copies):
    with pytest.raises(SystemExit, match="owner/name"):
        badges.stamp(copies, wrong)
