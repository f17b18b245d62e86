"""The sealed red team is measured once per set of models, again only for a reason that is logged;
every look is on record. Chapter 09 quotes it.

`sealed_log` in `data/reference_results.json` is a list that only grows. `open_seal` writes down *before* the campaign
that these models are about to be measured, so that a run that was looked at and dropped is on record too, and returns
the seed: it comes from the models' checksums, so nobody knows the attacks until the models are fixed. `log_sealed`
adds the figures. A second opening for the same models needs a reason, which is logged.

Deliberately not here: the campaign itself, and protection from whoever edits the file by hand (git has its history)
or turns a threshold and asks again: that is another set of models with another seed, and the log shows how many there
were.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from .._files import write_text
from . import manifest
from .stored import merge_results


class AlreadyMeasured(RuntimeError):
    """These models have met the sealed red team before, and no reason for a second time was given."""


# --- the log


def model_checksums(data: Path, beside: tuple[str, ...] = ()) -> dict[str, str]:
    """{file: sha256} of the models and thresholds in a data folder, those in the folders `beside` too; the cards, which
    are prose, left aside.

    Raises FileNotFoundError if there are no thresholds: what is not calibrated is not finished.
    """
    found = {
        name: described["sha256"]
        for name, described in manifest.describe(Path(data)).items()
        if name.startswith(("models/", *beside)) and not name.endswith("/README.md")
    }
    for folder in ("models/", *beside):
        if f"{folder}thresholds.json" not in found:
            raise FileNotFoundError(f"{data} has no {folder}thresholds.json: fix the models first, then open the seal")
    return found


def draw_seed(checksums: Mapping[str, str]) -> int:
    """The seed of the sealed red team, below 2 ** 32: another byte in any model or threshold gives another one."""
    return int(hashlib.sha256(json.dumps(dict(checksums), sort_keys=True).encode()).hexdigest()[:8], 16)


def already_measured(data: Path, beside: tuple[str, ...] = ()) -> bool:
    """Was the seal opened before for the models that stand in `data` now?"""
    return bool(_entries_of(_log(data), model_checksums(data, beside)))


def open_seal(data: Path, why: str = "", date: str | None = None, beside: tuple[str, ...] = ()) -> int:
    """Logs that the models in `data` are about to be measured, and returns the seed of their sealed red team.

    why: what for; a must from the second time on. date: now (UTC), unless told otherwise. beside: folders of models
    that are measured together with data/models, such as "monitors/". Raises AlreadyMeasured if
    the same checksums are in the log and no reason is given.
    """
    entries, checksums = _log(data), model_checksums(data, beside)
    earlier = _entries_of(entries, checksums)
    if earlier and not why.strip():
        raise AlreadyMeasured(
            f"the seal was first opened for these models on {earlier[0]['date']}; to measure them again, say why"
        )
    seed = draw_seed(checksums)
    _append(data, entries, {"event": "opened", "checksums": checksums, "seed": seed, "why": why.strip()}, date)
    return seed


def log_sealed(data: Path, figures: Mapping, seed: int, date: str | None = None, beside: tuple[str, ...] = ()) -> None:
    """Appends what was found with `seed`, under the checksums and the reason of the opening. An `Estimate` in figures
    is kept as {"value", "interval", "n"}.

    Raises ValueError if the seed is not that of the models (they changed since the seal was opened, or it was chosen
    by hand), or if the seal was not opened for this measurement: every opening takes one set of figures.
    """
    entries, checksums = _log(data), model_checksums(data, beside)
    if seed != draw_seed(checksums):
        raise ValueError(f"seed {seed} does not belong to the models in {data}: they changed since, or it was made up")
    earlier = _entries_of(entries, checksums)
    if not earlier or earlier[-1]["event"] != "opened":
        raise ValueError("the seal is not open for these models: call open_seal before anything is measured")
    entry = earlier[-1] | {"event": "measured", "figures": dict(figures)}
    _append(data, entries, entry, date)


def _log(data: Path) -> list[dict]:
    path = Path(data) / "reference_results.json"
    entries = json.loads(path.read_text(encoding="utf-8")).get("sealed_log", []) if path.exists() else []
    if not isinstance(entries, list):
        raise ValueError(f"sealed_log in {path} is no list; nothing is written over it")
    return entries


def _entries_of(entries: list[dict], checksums: dict[str, str]) -> list[dict]:
    return [entry for entry in entries if entry.get("checksums") == checksums]


def _append(data: Path, entries: list[dict], entry: dict, date: str | None) -> None:
    date = date or datetime.now(UTC).isoformat(timespec="seconds")
    merge_results(Path(data), sealed_log=[*entries, entry | {"date": date}])


# --- the sample that is read


COLUMNS = ("stratum", "prompt", "released_text", "status", "facts_held", "decoys_held")


def write_released_sample(path: Path, rows: pd.DataFrame, count: int = 60, seed: int = 0) -> None:
    """`count` released texts as Markdown, to be read: as many of each stratum as of any other, where it has them.

    rows: a row per attempt: stratum, prompt, released_text, status, facts_held (the facts) and decoys_held (the facts
    of each decoy), as in `Beside`. All rows if there are no more than `count`. Texts stand in fences longer than any in
    them, with what does not print shown as an escape, so no text can end its block or hide in it.
    Raises ValueError for missing columns, no rows or a count under 1.
    """
    missing = [name for name in COLUMNS if name not in rows]
    if missing or rows.empty or count < 1:
        raise ValueError(f"a sample needs rows, a count of 1 or more, and the columns {', '.join(missing or COLUMNS)}")
    groups = {str(key): list(part.itertuples()) for key, part in rows.groupby(rows["stratum"].astype(str), sort=True)}
    taken = _shares({name: len(group) for name, group in groups.items()}, count)
    lines = [
        "# Released texts, a sample",
        "",
        f"{sum(taken.values())} of {len(rows):,} attempts, drawn with seed {seed}, evenly over {len(groups)} strata "
        "and not by their size. What was withheld is not shown.",
    ]
    for name, group in groups.items():
        drawn = random.Random(f"{seed}/{name}").sample(group, taken[name])
        lines += ["", f"## {_inline(name)}: {len(drawn)} of {len(group):,}"]
        for number, row in enumerate(drawn, 1):
            lines += ["", f"### {number}. {_inline(row.status)}", "", *_held(row)]
            lines += ["", "Prompt:", "", _fenced(row.prompt), "", "Released:", "", _fenced(row.released_text)]
    write_text(Path(path), "\n".join(lines) + "\n")


def _shares(sizes: dict[str, int], count: int) -> dict[str, int]:
    """One for each stratum in turn, until `count` are given or nothing is left."""
    taken = dict.fromkeys(sizes, 0)
    while sum(taken.values()) < min(count, sum(sizes.values())):
        for name in sizes:
            if taken[name] < sizes[name] and sum(taken.values()) < count:
                taken[name] += 1
    return taken


def _held(row) -> list[str]:
    decoys = sorted((list(held) for held in row.decoys_held), key=len, reverse=True)
    mean = sum(map(len, decoys)) / max(len(decoys), 1)
    best = _listed(decoys[0]) if decoys else "no decoys"
    return [
        f"- facts held: {_listed(row.facts_held)}",
        f"- best of {len(decoys)} decoys: {best}; {mean:.2f} facts on average",
    ]


def _listed(facts) -> str:
    return f"{len(facts)}" + (f" ({', '.join(map(_inline, facts))})" if len(facts) else "")


def _visible(text: str) -> str:
    """Line ends as they are, every other character that does not print as a Python escape."""
    text = str(text).replace("\r\n", "\n")
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _ticks(text: str, least: int) -> str:
    return "`" * max([least, *(len(run) + 1 for run in re.findall("`+", text))])


def _inline(text: str) -> str:
    shown = " ".join(_visible(text).split())
    ticks = _ticks(shown, 1)
    return f"{ticks} {shown} {ticks}" if "`" in shown else f"`{shown}`" if shown else "*none*"


def _fenced(text: str) -> str:
    if not text:
        return "*nothing*"
    shown = _visible(text)
    ticks = _ticks(shown, 3)
    return f"{ticks}text\n{shown}\n{ticks}"
