"""Do the committed outputs hold on another machine? python tools/elsewhere.py [notebooks/05_option_b.ipynb ...] (without
names: all of them)

Runs each notebook under strict nbval once per setting and prints a table of passed cells; the exit status is 1 if any
cell failed. The settings stand in for machines that nobody here has:

    noise 1, 2, 3   every weight that is loaded or initialised, times 1 + 1e-7 g (tests/elsewhere/sitecustomize.py)
    default         torch without vector instructions (ATEN_CPU_CAPABILITY=default)
    other           another interpreter's torch, if --python names one

Thread counts and the switches of MKL and oneDNN are not among them: they changed no output where another processor did.

With `--values "end" "shelf.item()"` nothing is compared. Instead the notebook runs once as it is and once per setting,
and the table shows what these expressions came to at its end. This is how a chapter's margins are measured: an assert
holds by the distance that five draws leave (--settings "noise 1" ... "noise 5"), not by a guess.
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

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tools.run_notebooks import MODE, ROOT

FOLDER = ROOT / "tests" / "elsewhere"
NOISE = "CONSTCLF_TESTS_WEIGHT_NOISE"
DEFAULT = {"ATEN_CPU_CAPABILITY": "default"}
PLAIN = "as it is"
POLITE = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}  # threads that wait do not spin: ten times on a busy machine
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
            text = problem.text or problem.get("message", "")
            failed[case.get("name").removeprefix("Cell ")] = COLOUR.sub("", text)
    return len(cases), failed if cases else {"(all)": run.stdout[-2000:] + run.stderr[-2000:]}


def values(path: Path, expressions: list[str], setting: str, python: str) -> list[str]:
    """What the expressions come to at the end of a notebook that ran under one setting."""
    notebook = nbformat.read(path, as_version=4)
    marked = "".join(f"print('\\n<<>>', {expression})\n" for expression in expressions)
    notebook.cells.append(nbformat.v4.new_code_cell(marked))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        nbformat.write(notebook, copy)
        script = (
            "import sys, nbformat; from nbclient import NotebookClient; nb = nbformat.read(sys.argv[1], as_version=4);"
            "NotebookClient(nb, timeout=1200, kernel_name='python3', allow_errors=True, store_widget_state=False,"
            "resources={'metadata': {'path': sys.argv[2]}}).execute(); print(''.join(o.get('text', '\\n'.join(o.get("
            "'traceback', []))) for o in nb.cells[-1].outputs))"
        )
        own = {"JUPYTER_PREFER_ENV_PATH": "1"}
        command = [python, "-c", script, str(copy), str(path.parent)]
        run = subprocess.run(command, env=environment(setting) | own, capture_output=True, text=True)
    found = [part.strip() for part in run.stdout.split("<<>>")[1:]]
    return found if len(found) == len(expressions) else [(run.stdout + run.stderr)[-500:]] * len(expressions)


def table(columns: list[str], rows: dict[str, list[str]]) -> str:
    lines = [["", *columns], *([name, *cells] for name, cells in rows.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--settings", nargs="+", default=["noise 1", "noise 2", "noise 3", "default"])
    parser.add_argument("--python", default="", help="an interpreter with another torch; adds the setting 'other'")
    parser.add_argument("--values", nargs="+", metavar="EXPRESSION", help="show these instead of comparing")
    given = parser.parse_args(arguments)
    paths = [path.resolve() for path in given.notebooks] or sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    settings = given.settings + ["other"] * bool(given.python)
    interpreter = {setting: given.python if setting == "other" else sys.executable for setting in settings}
    if given.values:
        interpreter = {PLAIN: sys.executable} | interpreter
        for path in paths:
            found = [values(path, given.values, setting, python) for setting, python in interpreter.items()]
            print(path.stem, table(list(interpreter), dict(zip(given.values, map(list, zip(*found)), strict=True))), sep="\n")
        return 0
    rows, broken = {}, False
    for path in paths:
        rows[path.stem] = []
        for setting, python in interpreter.items():
            count, failed = compare(path, setting, python)
            broken |= bool(failed)
            passed = f"{count - len(failed)}/{count}"
            rows[path.stem].append(passed + (f" (not {', '.join(failed)})" if failed else ""))
            print(f"{path.stem}, {setting}: {rows[path.stem][-1]}", flush=True)
            for cell, problem in failed.items():
                print(f"--- {path.stem} cell {cell}, {setting}\n{problem}", flush=True)
    print("\ncells as committed, of all cells\n" + table(list(interpreter), rows))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
