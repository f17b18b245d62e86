"""Where the course's data lies."""

from __future__ import annotations

import os
from pathlib import Path


def data_path(*parts: str) -> Path:
    """A path below the data folder: `$CONSTCLF_DATA`, or `data/` of the repository.

    Raises FileNotFoundError, with the command that restores it, if the path does not exist.
    """
    root = Path(os.environ.get("CONSTCLF_DATA") or Path(__file__).resolve().parent.parent / "data")
    path = root.joinpath(*parts)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing. Run `python -m constclf_lib.build` to rebuild data/, "
            "or `git checkout data` in a clone."
        )
    return path
