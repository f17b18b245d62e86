"""Try the course with other versions than the lock's: python tools/matrix.py SETTING [--record] [--units] [--only 00]

SETTING, which `make` knows under the same name:
  test-lowest   the lowest version of every direct requirement, on the lowest Python: unit tests, every notebook
  test-latest   the newest version of everything, upper ends dropped, on the highest Python: the same
  colab-check   Colab's versions and Python: every notebook as Colab runs it (tools/as_colab.py)
  test-pythons  the lock on each Python that is promised: unit tests

Each gets an environment of its own (.venv-lowest ...), made anew, and a clean clone of the last commit: what is not
committed is not tried. Notebooks must run through; of their outputs only cells tagged nbval-check-output are compared,
since the figures of a training run may drift with versions. Prints a table; the exit status is 1 if anything failed.
--record keeps the result in tools/what_ran.json and shows it in CONTRIBUTING.md. --units leaves the notebooks out, and
the table then says so. --only 00 tries the notebooks whose names start so, and is never recorded.

A Python is looked for on the PATH (`python3.13`), then among those that uv can bring.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "tools" / "what_ran.json"
PYTHONS = ("3.11", "3.12", "3.13")
READS_THE_RECORD = "tests/repository/test_what_ran.py"  # what is found here must not depend on what was found before
NBVAL: tuple[str, ...] = ("--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600")
NBVAL += ("--nbval-sanitize-with=tests/nbval_sanitize.cfg",)
BEGIN = "<!-- what ran: written by `make test-lowest MATRIX_ARGS=--record` and its sisters -->"
END = "<!-- /what ran -->"


# --- what is asked for


def direct_requirements(root: Path = ROOT) -> list[Requirement]:
    """Every line of requirements.txt and requirements-dev.txt."""
    lines = (root / "requirements.txt").read_text("utf-8") + (root / "requirements-dev.txt").read_text("utf-8")
    plain = [line.split("#")[0].strip() for line in lines.splitlines()]
    return [Requirement(line) for line in plain if line and not line.startswith("-r")]


def without_upper_ends(requirements: list[Requirement]) -> str:
    """The same as text, lower ends only."""
    lows = [(r.name, part) for r in requirements for part in r.specifier if part.operator == ">="]
    return "".join(f"{name}{part}\n" for name, part in lows)


def wanted(setting: str, clone: Path) -> list[str]:
    """What to tell `uv pip install` for a setting."""
    if setting == "test-lowest":
        # --upgrade: or what the seeded environment has already would be kept
        return ["--resolution", "lowest-direct", "--upgrade", "-r", "requirements-dev.txt"]
    if setting == "test-latest":
        newest = clone.parent / "newest.txt"
        newest.write_text(without_upper_ends(direct_requirements(clone)), encoding="utf-8")
        return ["--upgrade", "-r", str(newest)]
    if setting == "colab-check":
        return ["-r", "requirements-colab.txt"]
    return ["-r", "requirements-dev.txt", "-c", "requirements.lock"]


# --- one environment, one clone


def clean_clone(folder: Path) -> Path:
    """The last commit, on a branch called main, as a learner would get it."""
    changes = subprocess.run(["git", "status", "--short"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    if changes:
        print(f"Not committed, so not tried:\n{changes}", flush=True)
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "checkout", "-q", "-B", "main"], cwd=folder, check=True)
    return folder


def make_environment(setting: str, python: str, clone: Path) -> Path:
    """A new .venv-... with what the setting wants; returns its Python."""
    import uv  # tests of the tables do not need it

    folder = ROOT / f".venv-{setting.replace('test-', '').replace('pythons', python)}"
    executable = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    # --seed brings pip, which set-up on Colab and the test of the wheel call
    subprocess.run([uv.find_uv_bin(), "venv", "-q", "--clear", "--seed", "--python", python, str(folder)], check=True)
    install = [uv.find_uv_bin(), "pip", "install", "-q", "--python", str(executable)]
    subprocess.run([*install, *wanted(setting, clone)], cwd=clone, check=True)
    if setting != "colab-check":  # there, the notebook brings the course
        subprocess.run([*install, "--no-deps", "-e", "."], cwd=clone, check=True)
    return executable


def versions(python: Path) -> dict[str, str]:
    """{name: version} of the direct requirements that an environment has."""
    code = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    found = json.loads(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout)
    found = {canonicalize_name(name): version for name, version in found.items()}
    names = [requirement.name for requirement in direct_requirements()]
    return {name: found[canonicalize_name(name)] for name in names if canonicalize_name(name) in found}


def pytest(python: Path, clone: Path, *arguments: str) -> dict:
    """{"passed": number, "failed": [names], "seconds": number} of one pytest run; skipped tests count as neither."""
    report = clone.parent / "junit.xml"
    report.unlink(missing_ok=True)
    subprocess.run([python, "-m", "pytest", "-q", f"--junitxml={report}", *arguments], cwd=clone, env=environment())
    if not report.exists():
        return {"passed": 0, "failed": ["pytest did not start"], "seconds": 0}
    suite = ElementTree.parse(report).getroot()[0]
    cases = [(case, {child.tag for child in case}) for case in suite.iter("testcase")]
    failed = [f"{case.get('classname')}::{case.get('name')}" for case, tags in cases if tags & {"failure", "error"}]
    passed = sum(not tags & {"failure", "error", "skipped"} for case, tags in cases)
    return {"passed": passed, "failed": failed, "seconds": round(float(suite.attrib["time"]))}


def environment() -> dict[str, str]:
    """This process's variables without those that would let the clone see another copy of the course."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}


def try_setting(setting: str, python: str, only: str, notebooks: bool) -> dict:
    """Make, install, run; returns the record of one setting."""
    with tempfile.TemporaryDirectory() as folder:
        clone = clean_clone(Path(folder) / "course")
        executable = make_environment(setting, python, clone)
        version = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True).stdout
        result = {"date": date.today().isoformat(), "python": version.split()[1], "versions": versions(executable)}
        if setting == "colab-check":
            report = Path(folder) / "report.json"
            command = [str(executable), "tools/as_colab.py", str(clone), str(report), f"{only}*.ipynb"]
            subprocess.run(command, cwd=clone, env=environment(), check=True)
            result["notebooks"] = json.loads(report.read_text(encoding="utf-8"))
            return result
        result["unit tests"] = pytest(executable, clone, "tests", f"--ignore={READS_THE_RECORD}")
        if notebooks and setting != "test-pythons":
            names = sorted(str(path.relative_to(clone)) for path in (clone / "notebooks").glob(f"{only}*.ipynb"))
            result["notebook cells"] = pytest(executable, clone, *names, *NBVAL)
    return result


# --- what came of it


SUITES = ("unit tests", "notebook cells", "notebooks")


def passed(result: dict) -> bool:
    """Something ran and nothing failed."""
    counts = [result[suite] for suite in SUITES if suite in result]
    return bool(counts) and all(count["passed"] and not count["failed"] for count in counts)


def count_in_words(result: dict, suite: str) -> str:
    if suite not in result:
        return "–"
    failed = len(result[suite]["failed"])
    return f"{result[suite]['passed']} passed" + (f", **{failed} failed**" if failed else "")


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def in_markdown(ran: dict[str, dict]) -> str:
    """Two tables: how each setting went, and the version of each direct requirement in it."""
    counts = [
        [name, result["date"], result["python"], *(count_in_words(result, suite) for suite in SUITES)]
        for name, result in ran.items()
    ]
    rows = [
        [requirement.name, ",".join(sorted(map(str, requirement.specifier), reverse=True))]
        + [result["versions"].get(requirement.name, "–") for result in ran.values()]
        for requirement in direct_requirements()
    ]
    broken = [
        f"- {name}, {suite}: {', '.join(f'`{test}`' for test in result[suite]['failed'])}\n"
        for name, result in ran.items()
        for suite in SUITES
        if result.get(suite, {}).get("failed")
    ]
    return (
        table(["setting", "date", "Python", *SUITES], counts)
        + ("\nFailed:\n\n" + "".join(broken) if broken else "")
        + "\n"
        + table(["requirement", "declared", *ran], rows)
    )


def record(results: dict[str, dict]) -> None:
    """Add results to tools/what_ran.json and show all of it in CONTRIBUTING.md."""
    ran = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    ran |= results
    RECORD.write_text(json.dumps(ran, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = ROOT / "CONTRIBUTING.md"
    content = page.read_text(encoding="utf-8")
    shown = f"{BEGIN}\n{in_markdown(ran)}{END}"
    page.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: shown, content, flags=re.S), encoding="utf-8")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("setting", choices=["test-lowest", "test-latest", "colab-check", "test-pythons"])
    parser.add_argument("--record", action="store_true", help="keep the result, and show it in CONTRIBUTING.md")
    parser.add_argument("--units", action="store_true", help="unit tests only")
    parser.add_argument("--only", default="", metavar="00", help="the start of the notebooks' names")
    asked = parser.parse_args(arguments)
    if asked.setting == "test-pythons":
        results = {f"python {python}": try_setting("test-pythons", python, "", False) for python in PYTHONS}
    else:
        python = PYTHONS[0] if asked.setting == "test-lowest" else PYTHONS[-1]
        results = {asked.setting: try_setting(asked.setting, python, asked.only, not asked.units)}
    print(in_markdown(results))
    if asked.record and not asked.only:
        record(results)
    return 0 if all(passed(result) for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
