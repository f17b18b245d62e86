"""Rebuilds data/: `python -m constclf_lib.build`.

Runs the stages in order, skips what is already there, resumes a training that was interrupted, and writes the manifest.
The assistant is trained in a process beside the others, each on one core; once it is alone it takes the second core as
well. Its weights are the same with one thread and with two, byte for byte, where that was compared (torch 2.13, x86).
`--check` verifies data/ instead.
How a part is made stands in recipes/make.py, how it is measured in the other recipes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ._data import data_path
from .recipes import manifest
from .recipes.memory import keep_memory


def _say(stage: str, line: str) -> None:
    print(f"[{stage}] {line}", file=sys.stderr, flush=True)


class Stage(NamedTuple):
    """One step of the build. `makes`: what it leaves in data/; `minutes`: on two quiet CPU cores."""

    name: str
    minutes: float
    makes: tuple[str, ...]
    run: Callable[..., None]


# Each imports what it needs when it runs: `--check` and `--help` need neither torch nor transformers.
def _data(*run):
    from .recipes.make import make_data

    make_data(*run)


def _tokenizer(*run):
    from .recipes.make import make_tokenizer

    make_tokenizer(*run)


def _assistant(data, log, alone=None):
    from .recipes.make import make_assistant

    make_assistant(data, log, alone)


def _bodyguard(*run):
    from .recipes.make import make_bodyguard

    make_bodyguard(*run)


def _input(*run):
    from .recipes.make import make_input

    make_input(*run)


def _output(*run):
    from .recipes.make import make_output

    make_output(*run)


def _exchange(*run):
    from .recipes.make_monitors import make_exchange

    make_exchange(*run)


def _thresholds(*run):
    from .recipes.measure import make_thresholds

    make_thresholds(*run)


def _development(*run):
    from .recipes.measure import make_development

    make_development(*run)


def _results(data, log, why: str = ""):
    from .recipes.measure import make_results

    make_results(data, log, why)


def _probe(*run):
    from .recipes.make_monitors import make_probe

    make_probe(*run)


def _monitor_thresholds(*run):
    from .recipes.monitors import make_monitor_thresholds

    make_monitor_thresholds(*run)


def _monitors_development(*run):
    from .recipes.monitors import make_monitors_development

    make_monitors_development(*run)


def _monitors(data, log, why: str = ""):
    from .recipes.monitors import make_monitors_results

    make_monitors_results(data, log, why)


def _probe_ablations(*run):
    from .recipes.probe_ablations import make_probe_ablations

    make_probe_ablations(*run)


def _cards(*run):
    from .recipes.cards import make_cards

    make_cards(*run)


def _controls(*run):
    from .recipes.controls import make_controls

    make_controls(*run)


def _ablations(*run):
    from .recipes.ablations import make_ablations

    make_ablations(*run)


def _augmentation(*run):
    from .recipes.augmentation_study import make_augmentation

    make_augmentation(*run)


STAGES = (
    Stage("data", 1, ("lab/train.parquet",), _data),
    Stage("tokenizer", 0.2, ("models/tokenizer",), _tokenizer),
    Stage("assistant", 88, ("models/assistant",), _assistant),
    Stage("bodyguard", 21, ("models/bodyguard",), _bodyguard),
    Stage("input", 1, ("models/input_classifier",), _input),
    Stage("output", 4, ("models/output_classifier",), _output),
    Stage("exchange", 5, ("monitors/exchange_classifier",), _exchange),
    Stage("ablations", 35, (), _ablations),
    Stage("augmentation", 25, (), _augmentation),
    Stage("controls", 25, (), _controls),
    Stage("thresholds", 8, ("models/thresholds.json",), _thresholds),
    Stage("development", 20, (), _development),
    Stage("results", 13, ("lab/sealed.parquet",), _results),
    Stage("probe", 5, ("monitors/probe",), _probe),
    Stage("probe_ablations", 30, (), _probe_ablations),
    Stage("monitor_thresholds", 20, ("monitors/thresholds.json",), _monitor_thresholds),
    Stage("monitors_development", 6, (), _monitors_development),
    Stage("monitors", 20, (), _monitors),
    Stage("cards", 0, (), _cards),
)
MONITORS = ("exchange", "probe", "monitor_thresholds", "monitors")  # chapter 10's; the guard does without them
STUDIES = (*MONITORS, "ablations", "augmentation", "controls", "development", "probe_ablations", "monitors_development")
MEASURES_SEALED = ("results", "monitors")
BESIDE = "assistant"  # trained beside the stages up to the first that needs it
NEEDS_ASSISTANT = (
    "thresholds", "development", "results", "probe", "probe_ablations", "monitor_thresholds", "monitors_development",
    "monitors", "cards",
)  # fmt: skip
NAMES = tuple(stage.name for stage in STAGES)


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0, or 1 if `--check` found something."""
    parser = argparse.ArgumentParser(
        prog="python -m constclf_lib.build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, metavar="STAGE", help=f"run these stages only: {', '.join(NAMES)}"
    )
    parser.add_argument("--studies", action="store_true", help=f"the studies too: {', '.join(STUDIES)}")
    parser.add_argument("--skip", nargs="+", choices=NAMES, default=[], metavar="STAGE", help="run all but these")
    parser.add_argument("--force", action="store_true", help="make it again, even if it is already there")
    parser.add_argument("--why", default="", help="the reason for a second look at the sealed red team")
    parser.add_argument("--check", action="store_true", help="verify data/ against MANIFEST.json and stop")
    parser.add_argument("--manifest", action="store_true", help="write MANIFEST.json anew for what is there and stop")
    options = parser.parse_args(arguments)
    data = data_path()
    if options.check:
        problems = manifest.check(data)
        print("\n".join(problems) if problems else "data/ is complete and as listed in MANIFEST.json")
        return 1 if problems else 0
    if not options.manifest:
        wanted = options.only or [name for name in NAMES if options.studies or name not in STUDIES]
        build(
            data,
            [stage for stage in STAGES if stage.name in wanted and stage.name not in options.skip],
            options.force,
            options.why,
        )
    manifest.write_manifest(data)
    return 0


def build(data: Path, stages: list[Stage], force: bool = False, why: str = "") -> None:
    """Runs stages in order, the assistant's beside those that do not need it. A stage whose files are there is skipped
    unless `force`, or it makes no file of its own (it measures), or `why` asks for another look at a sealed team.
    Raises RuntimeError if the stage beside fails.
    """
    todo = [
        stage
        for stage in stages
        if force
        or (why and stage.name in MEASURES_SEALED)
        or not stage.makes
        or not all((data / part).exists() for part in stage.makes)
    ]
    names, minutes = ", ".join(stage.name for stage in todo) or "nothing", sum(stage.minutes for stage in todo)
    print(f"to do: {names}; about {minutes:.0f} minutes of one core", flush=True)
    apart, beside, processes = len(todo) > 1, None, multiprocessing.get_context("spawn")
    alone = processes.Event()
    for stage in todo:
        if stage.name == BESIDE and apart:
            beside = processes.Process(target=_run_beside, args=(stage.name, data, force, alone))
            beside.start()
            continue
        if stage.name in NEEDS_ASSISTANT and beside is not None:
            _wait_for(beside, alone)
            beside = None
        run_stage(stage, data, force, why)
    if beside is not None:
        _wait_for(beside, alone)


def run_stage(stage: Stage, data: Path, force: bool = False, why: str = "", alone=None) -> None:
    """One stage, with a line when it begins and when it ends. Training runs on one thread, the assistant's on two from
    when the event `alone` is set; where there is none it is alone from the start.
    """
    if force:
        shutil.rmtree(data / ".build" / stage.name, ignore_errors=True)
    keep_memory()
    started = time.monotonic()
    print(f"[{stage.name}] about {stage.minutes:g} minutes", flush=True)
    more = {"why": why} if stage.name in MEASURES_SEALED and why else {}
    if stage.name == BESIDE and alone is not None:
        more = {"alone": alone.is_set}
    with nullcontext() if stage.name in NEEDS_ASSISTANT else _one_thread():
        stage.run(data, partial(_say, stage.name), **more)
    shutil.rmtree(data / ".build" / stage.name, ignore_errors=True)
    print(f"[{stage.name}] done in {(time.monotonic() - started) / 60:.1f} minutes", flush=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run_beside(name: str, data: Path, force: bool, alone) -> None:
    run_stage(next(stage for stage in STAGES if stage.name == name), data, force, alone=alone)


def _wait_for(process, alone) -> None:
    alone.set()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the {BESIDE} stage failed (see above); run the build again to resume it")


if __name__ == "__main__":
    sys.exit(main())
