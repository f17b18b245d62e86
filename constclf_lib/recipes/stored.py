"""Measured figures on disk: sections of `data/reference_results.json`, merged and never lost."""

from __future__ import annotations

import json
from pathlib import Path

from .._files import describe, write_text
from ..evaluation import Estimate


def merge_results(data: Path, **sections) -> dict:
    """Writes sections into reference_results.json, leaves the others as they are, and returns them all.

    An `Estimate` anywhere in a section is kept as {"value", "interval", "n"}.
    """
    path = data / "reference_results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results |= _stored(sections)
    write_text(path, as_text(results) + "\n")
    return results


def as_text(tree, depth: int = 0, width: int = 120) -> str:
    """`tree` as sorted JSON; what fits a line stands on one, so a figure with its interval takes one and not six."""
    flat = json.dumps(tree, sort_keys=True)
    if not isinstance(tree, (dict, list)) or depth + len(flat) <= width:
        return flat
    inside = (
        [as_text(value, depth + 1, width) for value in tree]
        if isinstance(tree, list)
        else [f"{json.dumps(key)}: {as_text(value, depth + 1, width)}" for key, value in sorted(tree.items())]
    )
    start, end = "[]" if isinstance(tree, list) else "{}"
    pad = "\n" + " " * depth
    return start + ",".join(f"{pad} {part}" for part in inside) + pad + end


def unfinished(data: Path, section: str, **settings) -> dict:
    """The stored `section` of a study that adds run by run, or a new one where there is none yet, where its settings
    were others, or where it was begun on another bodyguard: {**settings, "bodyguard": checksum, "runs": {}}.
    """
    path = data / "reference_results.json"
    stored = json.loads(path.read_text(encoding="utf-8")).get(section, {}) if path.exists() else {}
    weights = describe(data / "models" / "bodyguard" / "model.safetensors")
    wanted = {**settings, "bodyguard": weights["sha256"][:16]}
    return stored if wanted.items() <= stored.items() else {**wanted, "runs": {}}


def _stored(tree):
    if isinstance(tree, Estimate):
        return tree.stored()
    if isinstance(tree, list):
        return [_stored(value) for value in tree]
    return {key: _stored(value) for key, value in tree.items()} if isinstance(tree, dict) else tree
