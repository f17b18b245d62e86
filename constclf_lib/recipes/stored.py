"""Measured figures on disk: sections of `data/reference_results.json`, merged and never lost."""

from __future__ import annotations

import json
from pathlib import Path

from .._files import write_json
from ..evaluation import Estimate


def merge_results(data: Path, **sections) -> dict:
    """Writes sections into reference_results.json, leaves the others as they are, and returns them all.

    An `Estimate` anywhere in a section is kept as {"value", "interval", "n"}.
    """
    path = data / "reference_results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results |= _stored(sections)
    write_json(path, results)
    return results


def _stored(tree):
    if isinstance(tree, Estimate):
        return tree.stored()
    if isinstance(tree, list):
        return [_stored(value) for value in tree]
    return {key: _stored(value) for key, value in tree.items()} if isinstance(tree, dict) else tree
