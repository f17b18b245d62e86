"""Stamp the repository's address everywhere: python tools/badges.py owner/name (or `make badges REPO=owner/name`).

The one constant is REPOSITORY in the library's set-up module; Colab badges, the notebooks' first cells, pyproject.toml
and the prose repeat it, because a reader clicks and copies it there. This tool replaces it in all of them at once.
tests/repository/test_address.py finds whatever fell behind.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTANT = re.compile(r'^REPOSITORY = "([\w-]+/[\w.-]+)"$', re.M)
STAMPED = {".cff", ".ipynb", ".md", ".py", ".toml", ".yml"}


def stamped_files(root: Path) -> list[Path]:
    """The committed files that may hold the address."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [root / name for name in listed.split("\0") if Path(name).suffix in STAMPED]


def address(files: list[Path]) -> str:
    """What the constant says now."""
    (found,) = {slug for path in files if path.suffix == ".py" for slug in CONSTANT.findall(path.read_text("utf-8"))}
    return found


def stamp(files: list[Path], new: str) -> list[Path]:
    """Put `new` where the constant's present value stands; returns the files that changed."""
    if not re.fullmatch(r"[\w-]+/[\w.-]+", new):
        raise SystemExit(f"{new!r} is no address. Give owner/name, as in: make badges REPO=ada/bodyguards")
    old, changed = address(files), []
    for path in files:
        before = path.read_text(encoding="utf-8")
        after = re.sub(rf"(?<![\w.-]){re.escape(old)}(?![\w-])", new, before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed.append(path)
    return changed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("Give the address: make badges REPO=owner/name")
    for changed in stamp(stamped_files(ROOT), sys.argv[1]):
        print(changed.relative_to(ROOT))
