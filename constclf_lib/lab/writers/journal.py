"""A language model's answers: read, checked, and kept in a file that survives interruptions.

Built in chapter 01; writers.py uses it. The log holds every answer, kept or not, one JSON line each; which exchanges it
amounts to is a pure function of its lines (`Harvest`), so going on after an interruption is reading them again.

Deliberately not here: a judge. The label of a model's exchange is the side of its rule, which is what was *asked for*.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..constitution import Rule, system_prompt
from ..dedup import NearDuplicates
from ..exchanges import Exchange

REFUSAL = re.compile(
    r"\W*(I('m| am) (very )?sorry|(I('m| am) afraid )?I (can ?not|can't|won't|will not|must not)|as an AI)\b", re.I
)


class Request(NamedTuple):
    """One exchange is wanted about a rule; `hazard` is "" for rules that name none."""

    rule: Rule
    hazard: str


def parse_exchange(answer: str) -> tuple[str, str]:
    """Prompt and completion out of a writer's answer. Raises ValueError, with the reason, for any other form.

    Text before `PROMPT:` is dropped, parts may have several lines, and the labels may be bold.
    """
    answer = re.sub(r"<think>.*?</think>", "", answer, flags=re.S)  # what a reasoning model says to itself
    labels = list(re.finditer(r"^[ \t*#]*(PROMPT|COMPLETION)\**[ \t]*:[ \t*]*", answer, re.M | re.I))
    names = [label.group(1).upper() for label in labels]
    if "PROMPT" not in names or "COMPLETION" not in names:
        raise ValueError("no PROMPT: and COMPLETION:")
    if names != ["PROMPT", "COMPLETION"]:
        raise ValueError("not exactly one exchange")
    first, second = labels
    prompt, completion = answer[first.end() : second.start()].strip(), answer[second.end() :].strip()
    if not (prompt and completion):
        raise ValueError("an empty part")
    return prompt, completion


def fault(rule: Rule, hazard: str, prompt: str, completion: str) -> str:
    """Why a parsed exchange is of no use, "" if it is.

    A refusal has to go where harm was asked for: it would be stored as a harmful completion.
    """
    whole = f"{prompt}\n{completion}".lower()
    if re.search(r"<[\w ']+>", whole) or rule.text.lower() in whole:
        return "copies the instructions"
    if min(len(prompt.split()), len(completion.split())) < 3:
        return "too short"
    if hazard and hazard.lower() not in whole:
        return "does not name the hazard"
    if rule.restricted and REFUSAL.match(completion):
        return "refuses"
    return ""


class AnswerLog:
    """An append-only file of answers (`path` None: a list in memory). One process may write it at a time."""

    def __init__(self, path: str | os.PathLike | None = None):
        self.path = Path(path) if path else None
        self.rows = _whole_lines(self.path) if self.path and self.path.exists() else []

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, row: dict) -> None:
        """Adds one line, on the disk before anything else happens. A half-written line before it is ended, not cut."""
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab+") as file:
                if _ends_torn(file):
                    file.write(b"\n")
                file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
                file.flush()
                os.fsync(file.fileno())
        self.rows.append(row)


def _whole_lines(path: Path) -> list[dict]:
    """What can be read. A line that an interruption cut short is passed over, wherever it stands."""
    rows = []
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and {"asked", "text", "complete", "declined", "writer"} <= set(row):
            rows.append(row)
    return rows


def _ends_torn(file: BinaryIO) -> bool:
    """Is there a last line without an end? Whatever is written next goes to the end of the file."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def key_of(rule: Rule, hazard: str) -> str:
    """Stands for a question: another wording of the rule is another question, and old answers do not count for it."""
    return hashlib.sha256(system_prompt(rule, hazard or None).encode()).hexdigest()[:16]


class Harvest:
    """What answers amount to: the exchanges kept, what was thrown away and why, and what is still to be asked."""

    def __init__(self, requests: Sequence[Request], tries: int = 4, near: float = 0.8):
        """tries: answers per request before it is given up. near: see `NearDuplicates.threshold`."""
        self.requests = {key_of(*r): Request(*r) for r in requests}
        self.wanted, self.tries = Counter(key_of(*r) for r in requests), tries
        self.answers: Counter = Counter()
        self.kept: dict[str, list[Exchange]] = {key: [] for key in self.requests}
        self.shelves = NearDuplicates(near), NearDuplicates(near)
        self.thrown_away: Counter = Counter()

    @property
    def done(self) -> int:
        return sum(len(kept) for kept in self.kept.values())

    def take(self, row: dict) -> None:
        """Files one answer: kept, thrown away, or passed over because it was not asked for (or enough is there)."""
        key = row["asked"]
        if key not in self.requests or len(self.kept[key]) == self.wanted[key]:
            return
        self.answers[key] += 1
        rule, hazard = self.requests[key]
        try:
            prompt, completion = self._sound(row, rule, hazard)
        except ValueError as reason:
            self.thrown_away[str(reason)] += 1
            return
        for shelf, text in zip(self.shelves, (prompt, completion), strict=True):
            shelf.add(text)
        self.kept[key].append(
            Exchange(
                prompt=prompt,
                completion=completion,
                restricted=rule.restricted,
                harmful=rule.restricted,
                rule_id=rule.id,
                hazard=hazard,
                onset=-1,
                facts=(),
                attack="",
                reply_code="",
                register="",
                note="",
                ask="",
                plan=f"writer/{row['writer']}",
            )
        )

    def _sound(self, row: dict, rule: Rule, hazard: str) -> tuple[str, str]:
        if row["declined"]:
            raise ValueError("declined by the server")
        if not row["complete"]:
            raise ValueError("cut off")
        prompt, completion = parse_exchange(row["text"])
        if reason := fault(rule, hazard, prompt, completion):
            raise ValueError(reason)
        if any(shelf.twin(text) is not None for shelf, text in zip(self.shelves, (prompt, completion), strict=True)):
            raise ValueError("duplicate")
        return prompt, completion

    def missing(self) -> list[Request]:
        """The requests still to be asked. Each rule and hazard has `tries` answers per exchange wanted."""
        asked = {key: min(self._open(key), max(0, self._left(key))) for key in self.requests}
        return [self.requests[key] for key, count in asked.items() for _ in range(count)]

    @property
    def given_up(self) -> Counter:
        """rule id -> requests that all their tries did not fill."""
        found: Counter = Counter()
        for key, request in self.requests.items():
            found[request.rule.id] += self._open(key) if self._left(key) <= 0 else 0
        return +found

    @property
    def exchanges(self) -> list[Exchange]:
        return [exchange for kept in self.kept.values() for exchange in kept]

    def _open(self, key: str) -> int:
        return self.wanted[key] - len(self.kept[key])

    def _left(self, key: str) -> int:
        return self.tries * self.wanted[key] - self.answers[key]
