"""Restart-and-run-all, then save: python tools/run_notebooks.py [notebooks/05_option_b.ipynb ...] (without names: all
of them).

Runs each notebook from a fresh kernel on the CPU in the notebook's own folder, offline, in the mode in which `make
test` compares it, and writes it back with its outputs, execution counts 1..n, no widget state, no stderr. Notes the
seconds in data/reference_results.json ("notebook_seconds"). A notebook in which a cell fails is left as it was; the
exit status is 1. Deliberately does not compare outputs (that is nbval's work).
"""

import json
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from constclf_lib.recipes.stored import as_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "data" / "reference_results.json"
MODE = {  # conftest.py sets the same for tests and nbval
    "CONSTCLF_DEVICE": "cpu",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = ("tags", "jupyter")


def write_whole(path: Path, text: str) -> None:
    """Never leave half a file behind."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """What is committed: outputs without stderr and widget views, and only such metadata as is the same everywhere."""
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({key: value for key, value in cell.metadata.items() if key in CELL_METADATA})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                # without the panel's state, which bloats a notebook, the view shows an error; its text/plain stays
                output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    return notebook


def run(path: Path, timeout: int = 600) -> float:
    """Execute one notebook and write it back; returns the seconds it took. Raises what nbclient raises for a failing
    cell."""
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    # store_widget_state would write the whole state of every panel into the metadata, where GitHub stumbles over it
    NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    seconds = time.perf_counter() - start
    write_whole(path, nbformat.writes(clean(notebook)) + "\n")
    return seconds


def note_seconds(name: str, seconds: float) -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results.setdefault("notebook_seconds", {})[name] = round(seconds)
    results["notebook_seconds"] = dict(sorted(results["notebook_seconds"].items()))
    RESULTS.parent.mkdir(exist_ok=True)
    write_whole(RESULTS, as_text(results) + "\n")


def main(names: list[str]) -> int:
    os.environ.update(MODE)
    # a kernel of one's own that is named python3, too, must not win over this environment's
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    paths = [Path(name).resolve() for name in names] or sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    failed = 0
    for path in paths:
        print(f"{path.name} ...", flush=True)
        try:
            seconds = run(path)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            failed += 1
            print(f"{path.name} FAILED\n{error}", flush=True)
            continue
        note_seconds(path.stem, seconds)
        print(f"{path.name} {seconds:.0f} s, {path.stat().st_size / 1024:.0f} KB", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
