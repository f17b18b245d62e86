"""What to install is said in several lists: they agree, and the lock lies within the ranges."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import lock, matrix

ROOT = Path(__file__).resolve().parents[2]
CORE = {"torch", "transformers", "accelerate", "tokenizers", "safetensors", "numpy", "scipy"}
NOT_ON_COLAB = {"jupyterlab"}


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def groups(name="requirements.txt"):
    """{group: {package: requirement}} of such a list, by its headings `# --- group: ...`."""
    found = {}
    for line in text(name).splitlines():
        if heading := re.match(r"# --- (\w+): ", line):
            group = found.setdefault(heading.group(1), {})
        elif line and not line.startswith("#"):
            wanted = Requirement(line.split("#")[0].strip())
            group[wanted.name] = wanted
    return found


DIRECT = matrix.direct_requirements()


# --- the lists


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-adapters.txt"])
def test_every_line_is_a_range_with_a_word_on_it(name):
    for line in text(name).splitlines():
        if line and not line.startswith(("#", "-r")):
            assert re.fullmatch(r"[\w-]+>=[\d.]+,<=?[\d.]+ +# \w.*", line), line


def test_extras_are_the_groups_of_the_one_list():
    project = tomllib.loads(text("pyproject.toml"))["project"]
    extras = {"core": project["dependencies"]} | project["optional-dependencies"]
    assert extras["course"].pop(0) == "constclf-lib[lab,lora,writers,serve]"
    for group, wanted in (groups() | groups("requirements-adapters.txt")).items():
        assert {str(requirement) for requirement in wanted.values()} == {
            str(Requirement(line)) for line in extras.pop(group)
        }, group
    assert not extras


def test_the_core_is_small():
    assert set(groups()["core"]) == CORE


def test_everyone_starts_from_the_one_list():
    assert re.search(r"pip:\n +- -r requirements.txt\n +- -c requirements.lock\n", text("environment.yml"))
    assert "\n-r requirements.txt\n" in text("requirements-dev.txt")
    for name in ("Makefile", ".github/workflows/test.yml"):
        assert "install -q -r requirements-dev.txt -c requirements.lock -e ." in text(name), name
    assert "exec make test" in text(".ci/run")


def test_supported_pythons_agree():
    low, high = matrix.PYTHONS[0], matrix.PYTHONS[-1]
    assert f'requires-python = ">={low},<3.{int(high[2:]) + 1}"' in text("pyproject.toml")
    assert f'target-version = "py{low.replace(".", "")}"' in text("pyproject.toml")
    assert f"({low.replace('.', ', ')}) <= sys.version_info[:2] <= ({high.replace('.', ', ')})" in text("Makefile")
    in_ci = re.findall(r'python(?:-version)?: "([\d.]+)"', text(".github/workflows/test.yml"))
    assert set(in_ci) == set(matrix.PYTHONS)


def test_colab_brings_what_we_ask_for():
    brought = dict(line.split("==") for line in text("requirements-colab.txt").splitlines() if line[0] != "#")
    brought = {canonicalize_name(name): version for name, version in brought.items()}
    wanted = {name: requirement for group in groups().values() for name, requirement in group.items()}
    assert {name for name in wanted if canonicalize_name(name) not in brought} == NOT_ON_COLAB
    for name in set(wanted) - NOT_ON_COLAB:
        assert wanted[name].specifier.contains(brought[canonicalize_name(name)]), name


# --- the lock


def test_every_direct_requirement_is_locked_within_its_range():
    versions = lock.versions()
    for wanted in DIRECT:
        assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), wanted


def test_the_lock_fits_every_machine():
    lines = [line for line in text("requirements.lock").splitlines() if not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[a-z\d-]+==[\w.]+( ; .*)?", line), line  # no index, no path, no local version
        assert not lock.OF_ONE_BUILD.match(line), line
    assert lines == sorted(lines, key=lambda line: line.split("==")[0])


def test_the_lock_drops_what_belongs_to_one_build():
    resolved = "numpy==2.4.6\nnvidia-cublas==13.1 ; sys_platform == 'linux'\ntorch==2.13.0+cpu\ntriton==3.7.1\n"
    assert lock.without_builds(resolved) == lock.HEADER + "numpy==2.4.6\ntorch==2.13.0\n"
