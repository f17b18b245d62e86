"""What every notebook calls first: `lab = setup()`, then `report(name, value)` for each number it stands on.

Does: seeds, threads, device and dtype, quiet logging, the style of pictures; on Colab, the few packages that Colab
lacks; a report of the environment to paste into an issue. Deliberately does not: replace torch or numpy, keep global
state of its own, or hide a step that a chapter teaches. Every notebook from 00_quickstart on uses it.
"""

from __future__ import annotations

import os
import platform
import random
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.rcsetup import cycler
from packaging.requirements import Requirement

from .._data import data_path
from .plots import SERIES

# on GitHub; the badges and the first cell are tested against it
REPOSITORY = "mini-bodyguards/constitutional-classifiers"
BRANCH = "main"
REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
BROUGHT_BY_COLAB = ("torch", "numpy", "jupyterlab", "ipykernel", "ipywidgets")  # replacing these breaks a running Colab


# The first code cell of every notebook, the same everywhere (tests/repository/test_notebooks.py).
FIRST_CELL = f"""\
import sys

if "google.colab" in sys.modules:  # on Colab: bring the course; anywhere else: do nothing
    url = "https://github.com/{REPOSITORY}"
    !test -d /content/course || git clone -q --depth 1 -b {BRANCH} {{url}} /content/course
    %cd -q /content/course/notebooks
    sys.path.insert(0, "/content/course")"""


def badge(path: str) -> str:
    """Markdown of the Colab badge for a notebook.

    path: counted from the repository root ("notebooks/05_option_b.ipynb").
    """
    target = f"https://colab.research.google.com/github/{REPOSITORY}/blob/{BRANCH}/{path}"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({target})"


class Lab(NamedTuple):
    """What a chapter gets from `setup()`."""

    device: torch.device
    dtype: torch.dtype  # for big models; the lab's own models stay in float32
    backbone: str  # folder or hub name of the language model that this run builds its classifiers on


def setup(seed: int = 0) -> Lab:
    """Make a run repeatable and quiet, choose the device, and say in one line that all is ready.

    `CONSTCLF_DEVICE=cpu` keeps a run off the GPU (the committed outputs are made this way); `CONSTCLF_BACKBONE=...`, a
    name or path, runs a chapter on another causal LM than the lab's. Raises FileNotFoundError, naming the command that
    restores it, if the lab data is missing.
    """
    if "google.colab" in sys.modules:
        _complete_colab()
    seed_everything(seed)
    torch.set_num_threads(2)  # a fixed number: sums in another order change the last digits of a training run
    device = choose_device()
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # slow, and read by none
    _quiet()
    _picture_style()
    data_path("lab")
    backbone = os.environ.get("CONSTCLF_BACKBONE") or str(data_path("models", "bodyguard"))
    print(f"ready: lab data found, device {device}")
    return Lab(device, choose_dtype(device), backbone)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def choose_device() -> torch.device:
    """$CONSTCLF_DEVICE if set, else CUDA if there is one, else the CPU.

    Not MPS: its numbers differ from the printed ones.
    """
    named = os.environ.get("CONSTCLF_DEVICE")
    return torch.device(named or ("cuda" if torch.cuda.is_available() else "cpu"))


def choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware has it, else float32.

    `torch.cuda.is_bf16_supported()` also says yes to a T4, which only emulates it.
    """
    capable = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.bfloat16 if capable else torch.float32


def report(name: str, *values, digits: int = 3, percent: bool = False) -> None:
    """Print one line `name: value value ...` that is the same on every machine.

    Floats to `digits` significant digits, counts in full. `values` are numbers, scalar or short one-dimensional tensors
    and arrays, or words to set between them. `percent=True` shows floats times 100.
    """
    print(f"{name}: {' '.join(_shown(value, digits, percent) for value in values)}")


def _shown(value, digits: int, percent: bool) -> str:
    if isinstance(value, str):
        return value
    if hasattr(value, "tolist"):  # tensors, arrays and their scalars
        value = value.tolist()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_shown(item, digits, percent) for item in value) + "]"
    if not isinstance(value, float):
        return str(value)
    number = float(f"{value * 100 if percent else value:.{digits}g}") + 0.0  # + 0.0 turns -0.0 into 0.0
    plain = number == 0 or 1e-4 <= abs(number) < 1e9
    text = np.format_float_positional(number, trim="-") if plain else f"{number:.{digits - 1}e}"
    return text + "%" * percent


def environment() -> None:
    """Print what an issue needs to know about this machine: versions against requirements.txt, device, threads."""
    print(
        f"python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} torch threads"
    )
    device = choose_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "unknown processor"
    print(f"device {device} ({name}), dtype {choose_dtype(device)}")
    for requirement, installed in _requirements():
        if installed is None:
            state = f"missing, {requirement.marker}" if requirement.marker else "missing"
        else:
            state = "ok" if requirement.specifier.contains(installed, prereleases=True) else "outside range"
        print(f"[{state}] {requirement.name} {installed or ''} (wanted {requirement.specifier})")


def _requirements():
    """(requirement, installed version or None) for each line of requirements.txt; where the library was installed
    without a clone, for each line of its metadata, whose markers name the extra."""
    if REQUIREMENTS.exists():
        lines = [line.split("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    else:
        lines = metadata.requires("constclf-lib") or []
    for requirement in map(Requirement, filter(None, lines)):
        if requirement.name != "constclf-lib":  # the extra that is made of other extras
            try:
                yield requirement, metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                yield requirement, None


def _complete_colab() -> None:
    """Install what Colab lacks, without dependencies, and let processes that a chapter starts find the package too."""
    missing = [
        str(wanted)
        for wanted, installed in _requirements()
        if installed is None and wanted.name not in BROUGHT_BY_COLAB
    ]
    if missing:
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", *missing], check=True)
    os.environ["PYTHONPATH"] = str(REQUIREMENTS.parent)


def _quiet() -> None:
    """Progress bars and notices of other libraries off; warnings stay on."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def _picture_style() -> None:
    """For a learner's own pyplot figures; the course's pictures bring their style along (plots/style.py)."""
    matplotlib.rcParams.update(
        {
            "figure.figsize": (8.0, 3.2),
            "axes.prop_cycle": cycler(color=SERIES),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
        }
    )
