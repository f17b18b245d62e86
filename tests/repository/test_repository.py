"""The repository as a whole: what is in it, how big it is, and that its lists, its links and its modules agree with
one another."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "constclf_lib"
BINARY = {".parquet", ".safetensors", ".png"}


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


# --- files


def test_necessary_files_are_there():
    for name in (
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "Makefile",
        "environment.yml",
        ".ci/run",
        ".pre-commit-config.yaml",
        "data/MANIFEST.json",
        "data/README.md",
    ):
        assert (ROOT / name).is_file(), name
    assert "Mini Bodyguards contributors" in text("LICENSE")


def test_size(files):
    assert sum(path.stat().st_size for path in files) < 40e6


def test_no_pickles_and_no_leftovers(files):
    for path in files:
        assert path.suffix not in {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".pyc", ".tmp", ".orig"}, path
        assert not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts), path


def test_no_path_of_one_machine(files):
    for path in files:
        if path.suffix not in BINARY:
            found = re.search(
                r"(?<![\w.:/\[|])/(?:work|root|home|Users)/\w+", path.read_text(encoding="utf-8", errors="replace")
            )
            assert not found, f"{path}: {found.group(0)}"


def test_text_is_utf8_with_unix_line_ends(files):
    for path in files:
        if path.suffix not in BINARY:
            assert b"\r\n" not in path.read_bytes() and path.read_text(encoding="utf-8") is not None, path


# --- lists that must agree


def recipe(target):
    """(what a target of the Makefile needs, its commands)."""
    needs, commands = re.search(rf"^{target}:(.*)\n((?:\t.*\n)*)", text("Makefile"), re.M).groups()
    return needs.split(), [line.strip().replace("$(VENV)", ".venv/bin/python") for line in commands.splitlines()]


def test_pre_commit_runs_what_make_lint_runs():
    needs, commands = recipe("lint")
    wanted = [f"make {target}" for target in needs if not target.startswith("$")] + commands
    assert re.findall(r"entry: (.*?), language", text(".pre-commit-config.yaml")) == wanted


def test_every_make_target_is_explained_to_contributors():
    explained = set(re.findall(r"`make ([\w-]+)", text("CONTRIBUTING.md")))
    assert set(re.search(r"^\.PHONY: (.*)$", text("Makefile"), re.M).group(1).split()) <= explained


# --- prose


def test_links_in_prose_resolve(files):
    for path in files:
        if path.suffix == ".md":
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
                if not re.match(r"[a-z]+:", target):
                    assert (path.parent / target).exists(), f"{path.name} names {target}"


def test_readme_names_only_files_that_exist():
    for name in re.findall(r"`([\w./-]+)`", text("README.md")):
        if re.search(r"/|\.(py|md|txt|yml|yaml|json|ipynb|toml|parquet)$", name) and not name.startswith(
            (".venv", "/")
        ):
            places = [ROOT / name, LIBRARY / name, ROOT / "notebooks" / name, ROOT / "data" / name]
            assert any(place.exists() for place in places), f"README.md names {name}"


def test_readme_has_two_set_up_commands():
    assert set(re.findall(r"^\s*make (\w+)", text("README.md"), re.M)) == {"lab", "test"}


# --- modules


def test_modules_are_small_and_introduce_themselves():
    for path in LIBRARY.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert len(source.splitlines()) <= 350, path.name
        assert path.name == "__init__.py" or ast.get_docstring(ast.parse(source)), f"{path.name} needs a docstring"
