"""The wheel, as somebody has it who never saw the clone: built, installed elsewhere, used from an empty folder.

Nothing is downloaded: the wheel is built by this environment's hatchling and laid beside this environment's packages.
"""

import json
import os
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments, cwd, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "CONSTCLF_DATA"}}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment | variables, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ["-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    built = python("-m", "pip", "wheel", *options, str(ROOT), cwd=folder)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def use(wheel, tmp_path_factory):
    """A function that runs code with the installed wheel, from an empty folder."""
    site, elsewhere = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    installed = python("-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel), cwd=elsewhere)
    assert installed.returncode == 0, installed.stderr

    def run(code, **variables):
        code = f"import constclf_lib; assert constclf_lib.__file__.startswith({str(site)!r})\n{code}"
        return python("-c", code, cwd=elsewhere, PYTHONPATH=str(site), **variables)

    run.site = site
    return run


def test_the_lab_travels_byte_for_byte(wheel):
    listed = json.loads((ROOT / "data" / "MANIFEST.json").read_text(encoding="utf-8"))["files"]
    with zipfile.ZipFile(wheel) as archive:
        for name, wanted in listed.items():
            content = archive.read(f"constclf_lib/data/{name}")
            assert (len(content), sha256(content).hexdigest()) == (wanted["bytes"], wanted["sha256"]), name
        names = archive.namelist()
    folders = {name.split("/")[0] for name in names}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"constclf_lib"}
    assert not [name for name in names if "/.build/" in name or name.endswith((".tmp", ".pyc"))]


def test_the_guard_replies(use):
    asked = "How do I get grains of ashbane out of the well?"
    told = use(
        "from constclf_lib import GuardedModel\n"
        f"reply = GuardedModel.from_lab().reply({asked!r})\n"
        "print(reply.status, len(reply.released_text) > 20)"
    )
    assert told.stdout == "released True\n", told.stderr


def test_the_environment_is_compared_with_the_metadata(use):
    told = use("from constclf_lib.course import environment; environment()")
    assert told.returncode == 0, told.stderr
    for name in ("torch", "pandas", "peft", "jupyterlab"):
        assert f"] {name} " in told.stdout, told.stdout
    assert "constclf-lib" not in told.stdout


def test_what_is_missing_is_named_with_what_restores_it(use, tmp_path):
    asked = "from constclf_lib._data import data_path; data_path('models', 'nobody')"
    assert "pip install --force-reinstall" in use(asked).stderr
    assert "CONSTCLF_DATA names its folder" in use(asked, CONSTCLF_DATA=str(tmp_path)).stderr
