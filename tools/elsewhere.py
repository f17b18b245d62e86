"""Do the committed outputs hold on another machine?

python tools/elsewhere.py [notebooks/05_option_b.ipynb ...] (without names: all of them) runs each notebook under strict
nbval once per setting and prints a table of passed cells; the exit status is 1 if any cell failed. The settings stand
in for machines that nobody here has:

    noise 1, 2, 3   every weight that is loaded or initialised, times 1 + 1e-7 g (tests/elsewhere/sitecustomize.py)
    default         torch without vector instructions (ATEN_CPU_CAPABILITY=default)
    other           another interpreter's torch, if --python names one

Thread counts and the switches of MKL and oneDNN are not among them: they changed no output where another processor did.

With `--values "end" "shelf.item()"` nothing is compared. Instead each notebook runs as it is and once per setting, and
the table shows what these expressions came to at its end. This is how a chapter's margins are measured, over at least
five draws (--settings "noise 1" ... "noise 5"): an assert holds by the distance that they leave, not by a guess.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import nbformat
from nbclient import NotebookClient

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tools.run_notebooks import MODE, ROOT

FOLDER = ROOT / "tests" / "elsewhere"
NOISE = "CONSTCLF_TESTS_WEIGHT_NOISE"
DEFAULT = {"ATEN_CPU_CAPABILITY": "default"}
PLAIN = "as it is"
POLITE = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}  # no spinning while waiting: 10 times as fast if busy
COLOUR = re.compile(r"(#x1B|\x1b)\[\d+m")
NBVAL = (
    "-vv", "--nbval", "--nbval-current-env", f"--nbval-sanitize-with={ROOT}/tests/nbval_sanitize.cfg",
    "--nbval-cell-timeout=1200",
)  # fmt: skip


def environment(setting: str) -> dict[str, str]:
    """The whole environment of a run; what an earlier setting left in this one is taken out."""
    kept = {name: value for name, value in os.environ.items() if name not in (NOISE, *DEFAULT)}
    path = os.pathsep.join(filter(None, (str(FOLDER), str(ROOT), kept.get("PYTHONPATH"))))
    own = {NOISE: setting.split()[1]} if setting.startswith("noise ") else DEFAULT if setting == "default" else {}
    return kept | MODE | POLITE | own | {"PYTHONPATH": path}


def compare(path: Path, setting: str, python: str) -> tuple[int, dict[str, str]]:
    """(cells compared, {failed cell: what nbval says}) of one notebook under one setting."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [python, "-m", "pytest", str(path), *NBVAL, f"--junitxml={report}"]
        run = subprocess.run(command, cwd=ROOT, env=environment(setting), capture_output=True, text=True)
        if not report.exists():
            return 0, {"(all)": run.stdout[-2000:] + run.stderr[-2000:]}
        cases = list(ElementTree.parse(report).iter("testcase"))
    failed = {}
    for case in cases:
        for problem in (*case.findall("failure"), *case.findall("error")):
            text = problem.text or problem.attrib.get("message", "")
            failed[case.attrib["name"].removeprefix("Cell ")] = COLOUR.sub("", text)
    return len(cases), failed if cases else {"(all)": run.stdout[-2000:] + run.stderr[-2000:]}


def values(path: Path, expressions: list[str], setting: str) -> list[str]:
    """What the expressions come to at the end of a notebook that ran under one setting; a failing cell does not stop
    it."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells += [nbformat.v4.new_code_cell(f"print({expression})") for expression in expressions]
    place = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, timeout=1200, kernel_name="python3", allow_errors=True, resources=place)
    client.execute(env=environment(setting))
    shown = [cell.outputs[-1] for cell in notebook.cells[-len(expressions) :]]
    return [output.get("text", output.get("evalue", "")).strip() for output in shown]


def table(columns: list[str], rows: dict[str, list[str]]) -> str:
    lines = [["", *columns], *([name, *cells] for name, cells in rows.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def main(arguments: list[str]) -> int:
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # not somebody's own kernel of the same name
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--settings", nargs="*", default=["noise 1", "noise 2", "noise 3", "default"])
    parser.add_argument("--python", default="", help="an interpreter with another torch; adds the setting 'other'")
    parser.add_argument("--values", nargs="+", metavar="EXPRESSION", help="show these instead of comparing")
    given = parser.parse_args(arguments)
    paths = [path.resolve() for path in given.notebooks] or sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    settings = given.settings + ["other"] * bool(given.python)
    interpreter = {setting: given.python if setting == "other" else sys.executable for setting in settings}
    if given.values:
        columns = [PLAIN, *given.settings]
        for path in paths:
            found = [values(path, given.values, setting) for setting in columns]
            rows = {expression: [column[row] for column in found] for row, expression in enumerate(given.values)}
            print(f"{path.stem}\n{table(columns, rows)}", flush=True)
        return 0
    rows, broken = {}, False
    for path in paths:
        rows[path.stem] = []
        for setting, python in interpreter.items():
            count, failed = compare(path, setting, python)
            broken |= bool(failed)
            passed = f"{count - len(failed)}/{count}" + (f" (not {', '.join(failed)})" if failed else "")
            rows[path.stem].append(passed if count else "did not run")
            print(f"{path.stem}, {setting}: {rows[path.stem][-1]}", flush=True)
            for cell, problem in failed.items():
                print(f"--- {path.stem} cell {cell}, {setting}\n{problem}", flush=True)
    print("\ncells as committed, of all cells\n" + table(list(interpreter), rows))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
