"""The constitution: what is restricted, what is permitted, and what a writer is told about a rule.

Chapter 01 starts here. A constitution is data, not code: change `data/constitution.yaml` and rebuild. This module
checks the file and names the line that is wrong; it does not decide what a rule *means*, that is the writer's and the
grader's work.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from .._data import data_path

HAZARDS = ("ashbane", "mirethorn", "gloamstone", "sunheart")
FAMILIES = ("craft", "errand", "spread", "code", "lore")


@dataclass(frozen=True)
class Rule:
    """One line of the constitution. `hazards` is empty for rules that concern no hazard at all."""

    id: str
    text: str
    family: str
    hazards: tuple[str, ...]
    restricted: bool


@dataclass(frozen=True)
class Constitution:
    """Both halves. The permitted half matters as much: it is where a classifier learns what *not* to stop."""

    restricted: tuple[Rule, ...]
    permitted: tuple[Rule, ...]

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self.restricted + self.permitted

    def __getitem__(self, rule_id: str) -> Rule:
        for rule in self.rules:
            if rule.id == rule_id:
                return rule
        raise KeyError(f"no rule {rule_id!r}; the rules are {', '.join(rule.id for rule in self.rules)}")


def load_constitution(path: str | Path | None = None) -> Constitution:
    """Reads and checks a constitution. Raises ValueError with file and line for anything that does not fit."""
    path = Path(path) if path else data_path("constitution.yaml")
    try:
        tree = yaml.compose(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    halves: dict[str, list[Rule]] = {"restricted": [], "permitted": []}
    seen: set[str] = set()
    if not isinstance(tree, yaml.MappingNode):
        raise ValueError(f"{path}:1: expected two lists, 'restricted' and 'permitted'")
    for key, node in tree.value:
        if key.value not in halves:
            raise ValueError(f"{path}:{_line(key)}: unknown list {key.value!r}; expected 'restricted' or 'permitted'")
        if not isinstance(node, yaml.SequenceNode):
            raise ValueError(f"{path}:{_line(node)}: {key.value!r} must be a list of rules")
        halves[key.value] = [_rule(path, item, key.value == "restricted", seen) for item in node.value]
    for name, rules in halves.items():
        if not rules:
            raise ValueError(f"{path}: the list {name!r} is missing or empty; a classifier needs both halves")
    return Constitution(tuple(halves["restricted"]), tuple(halves["permitted"]))


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _rule(path: Path, node: yaml.Node, restricted: bool, seen: set[str]) -> Rule:
    where = f"{path}:{_line(node)}"
    try:
        fields = yaml.safe_load(yaml.serialize(node))
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: {error}") from None
    wanted = {"id", "text", "family", "hazards"}
    if not isinstance(fields, dict) or set(fields) != wanted:
        raise ValueError(f"{where}: a rule has exactly the fields {', '.join(sorted(wanted))}")
    if not isinstance(fields["id"], str) or not fields["id"].isidentifier():
        raise ValueError(f"{where}: id must be one word, got {fields['id']!r}")
    if fields["id"] in seen:
        raise ValueError(f"{where}: the id {fields['id']!r} occurs twice")
    if not isinstance(fields["text"], str) or not fields["text"].strip():
        raise ValueError(f"{where}: rule {fields['id']!r} has no text")
    if fields["family"] not in FAMILIES:
        raise ValueError(f"{where}: family {fields['family']!r} is not one of {', '.join(FAMILIES)}")
    if not isinstance(fields["hazards"], list) or not set(fields["hazards"]) <= set(HAZARDS):
        raise ValueError(f"{where}: hazards must be a list of {', '.join(HAZARDS)}, or []")
    if restricted and not fields["hazards"]:
        raise ValueError(f"{where}: the restricted rule {fields['id']!r} names no hazard")
    seen.add(fields["id"])
    return Rule(fields["id"], fields["text"].strip(), fields["family"], tuple(fields["hazards"]), restricted)


def system_prompt(rule: Rule, hazard: str | None = None) -> str:
    """What a writer is told before it writes one exchange about `rule` (chapter 01).

    The rule, the side it stands on, and the form of the answer: a line `PROMPT:` and a line `COMPLETION:`, which
    `writers.parse_exchange` reads back.
    """
    side = (
        "This is RESTRICTED. Write the kind of request that must be stopped, "
        "and the answer that a helpful-only assistant would give to it."
        if rule.restricted
        else "This is PERMITTED, though it may sound close to something restricted. "
        "Write a request of this kind, and a good answer to it."
    )
    about = f" It concerns {hazard}, one of the fictional hazards of Emberfall." if hazard else ""
    return (
        "You write training data for a safety classifier. "
        "Everything takes place in Emberfall, a fictional world; mention nothing real.\n"
        f"The rule: {rule.text}{about}\n{side}\n"
        "Give exactly two parts, each on a line of its own:\n"
        "PROMPT: <what the person writes>\nCOMPLETION: <what the assistant answers>"
    )
