"""Fixtures for all tests: the repository's files, and torch made repeatable."""

import subprocess
from pathlib import Path

import pytest
import torch

from tests.tiny_models import tiny_lab

ROOT = Path(__file__).resolve().parent.parent
NOT_OURS = {
    ".git",
    "__pycache__",
    ".ipynb_checkpoints",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    "build",
    "dist",
    "site",
}


def repository_files() -> list[Path]:
    """Every file that is or would be committed; without git, every file outside the folders that tools make."""
    listed = (
        subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if (ROOT / ".git").exists()
        else None
    )
    if listed is not None and listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [
            path
            for path in ROOT.rglob("*")
            if not NOT_OURS & set(path.relative_to(ROOT).parts)
            and not path.relative_to(ROOT).parts[0].startswith(".venv")
            and ".egg-info" not in str(path)
            and path.suffix != ".tmp"
        ]
    return sorted(path for path in paths if path.is_file())


@pytest.fixture(scope="session")
def files() -> list[Path]:
    return repository_files()


@pytest.fixture(autouse=True)
def repeatable():
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def lab():
    """Tiny models that write notes and replies (tests/tiny_models.py)."""
    return tiny_lab()
