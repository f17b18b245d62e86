"""Run every notebook as Colab does: python tools/as_colab.py CLONE REPORT [PATTERN] (called by tools/matrix.py in an
environment with Colab's versions).

Each notebook lies alone in an empty folder, a stand-in for google.colab is loaded before its first cell, and that cell
clones the course from CLONE, which git is told to use for the address on GitHub. One thing is changed on the way: the
course goes to a folder of this run instead of /content/course, which only Colab may count on. Writes {"passed": number,
"failed": [names], "seconds": number} to REPORT. Outputs are not compared, and a GPU is not there.
"""

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

MODE = {"CONSTCLF_DEVICE": "cpu", "HF_HUB_OFFLINE": "1", "JUPYTER_PREFER_ENV_PATH": "1"}


def put_stub(folder: Path) -> dict[str, str]:
    """google.colab in `folder`, imported by every kernel that starts with the environment variables returned."""
    (folder / "stub" / "google" / "colab").mkdir(parents=True)
    (folder / "stub" / "google" / "colab" / "__init__.py").touch()
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00_colab.py").write_text("import google.colab\n", encoding="utf-8")
    return {"PYTHONPATH": str(folder / "stub"), "IPYTHONDIR": str(folder / "ipython")}


def use_clone(clone: Path, address: str) -> dict[str, str]:
    """Environment variables that make git take `clone` where a notebook says `address`."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{clone}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
    }


def run(path: Path, clone: Path) -> None:
    """Run one notebook from the first cell to the last; raises what nbclient raises where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    (address,) = re.findall(r'^ *url = "(.+)"$', notebook.cells[1].source, re.M)
    with tempfile.TemporaryDirectory() as folder:
        content = Path(folder, "content")
        content.mkdir()
        for cell in notebook.cells:
            cell.source = cell.source.replace("/content/course", f"{content}/course")
        nbformat.write(notebook, content / path.name)
        os.environ.update(MODE | put_stub(Path(folder)) | use_clone(clone, address))
        resources = {"metadata": {"path": str(content)}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
        assert (content / "course").is_dir(), "the first cell did not clone the course"


def main(clone: Path, report: Path, pattern: str = "*.ipynb") -> None:
    passed, failed, start = 0, [], time.perf_counter()
    for path in sorted((clone / "notebooks").glob(pattern)):
        try:
            run(path, clone)
            passed += 1
            print(f"{path.name} passed", flush=True)
        except (AssertionError, CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            failed.append(path.name)
            print(f"{path.name} FAILED\n{error}", flush=True)
    counts = {"passed": passed, "failed": failed, "seconds": round(time.perf_counter() - start)}
    report.write_text(json.dumps(counts), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]), *sys.argv[3:])
