"""Where the course's data lies: in a clone, in an installed package, or where $CONSTCLF_DATA says.

Does not read or check anything; lab.artifacts reads, recipes.manifest checks.
"""

from __future__ import annotations

import os
from pathlib import Path


def data_path(*parts: str) -> Path:
    """A path below the data folder: `$CONSTCLF_DATA`, or the copy inside an installed package, or `data/` of a clone.

    Raises FileNotFoundError, with what restores it, if the path does not exist.
    """
    here = Path(__file__).resolve().parent
    packaged, clone = here / "data", here.parent / "data"  # only a wheel has the first (pyproject.toml, force-include)
    named = os.environ.get("CONSTCLF_DATA")
    path = Path(named or (packaged if packaged.is_dir() else clone)).joinpath(*parts)
    if not path.exists():
        if named:
            advice = "CONSTCLF_DATA names its folder: unset it, or let it name a complete copy of data/."
        elif packaged.is_dir():
            advice = "Install the package again: `python -m pip install --force-reinstall --no-deps` and its wheel."
        else:
            advice = "In the clone, `git checkout data` restores it; `python -m constclf_lib.build` makes it anew."
        raise FileNotFoundError(f"{path} is missing. {advice}")
    return path
