"""Write requirements.lock: python tools/lock.py [options for `uv pip compile`], or `make lock`.

uv resolves requirements-dev.txt once for every Python and system that the course promises. An existing lock is kept
where it still fits the ranges: `make lock LOCK_ARGS="--upgrade-package transformers"` renews one package,
`LOCK_ARGS=--upgrade` all of them.

The lock is used as constraints (`pip install -r requirements-dev.txt -c requirements.lock -e .`), so it may leave out
what only one build of torch asks for: the CUDA libraries, which torch itself pins exactly. It names no build of torch
either ("2.13.0", not "2.13.0+cpu") and no index, so that every system takes the one that it has.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
LOWEST_PYTHON = "3.11"
HEADER = """\
# Written by `make lock` from requirements-dev.txt: the exact versions with which the committed outputs were compared.
# Use as constraints, on Python 3.11 to 3.13:  pip install -r requirements-dev.txt -c requirements.lock -e .
"""
OF_ONE_BUILD = re.compile(r"(nvidia|cuda|triton)\b")


def resolve(options: list[str]) -> str:
    """What uv resolves, one `name==version ; marker` a line; LOCK holds it on return."""
    import uv  # only to write; reading needs nothing

    command = [uv.find_uv_bin(), "pip", "compile", "--quiet", "--universal", "--python-version", LOWEST_PYTHON]
    # one version per package for all Pythons, rather than the newest for each
    command += ["--fork-strategy", "fewest", "--no-header", "--no-annotate", "--output-file", LOCK.name, *options]
    subprocess.run([*command, "requirements-dev.txt"], cwd=ROOT, check=True)
    return LOCK.read_text(encoding="utf-8")


def without_builds(resolved: str) -> str:
    """The lock's text: no packages of one build of torch, no local versions."""
    lines = [line for line in resolved.splitlines() if line and not OF_ONE_BUILD.match(line)]
    return HEADER + "".join(re.sub(r"\+[\w.]+", "", line) + "\n" for line in lines)


def versions() -> dict[str, str]:
    """{package: version} of the lock, markers left aside: it has one version of each package."""
    lines = [line.split(";")[0].split("==") for line in LOCK.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    found = {name: version.strip() for name, version in lines}
    if len(found) != len(lines):
        raise ValueError(f"{LOCK.name} has a package twice; `make lock` writes it with --fork-strategy fewest")
    return found


if __name__ == "__main__":
    LOCK.write_text(without_builds(resolve(sys.argv[1:])), encoding="utf-8")
    print(f"{LOCK.name}: {len(LOCK.read_text(encoding='utf-8').splitlines()) - 2} packages")
