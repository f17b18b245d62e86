"""What belongs into data/, byte for byte: sizes and checksums in `data/MANIFEST.json`.

Used by build.py; no notebook builds it. A file that is missing or damaged is named together with the command that
restores it.
"""

from __future__ import annotations

import json
from pathlib import Path

from .. import _files

CARDS = ("assistant", "bodyguard", "input_classifier", "output_classifier")  # models that have a README.md
STAGE_OF = (  # the first prefix that fits names the stage that makes a file; the rest is written by hand
    *((f"models/{name}/README.md", "cards") for name in CARDS),
    ("lab/sealed.parquet", "results"),
    ("released_sample.md", "results"),
    ("lab/", "data"),
    ("models/tokenizer/", "tokenizer"),
    ("models/assistant/", "assistant"),
    ("models/bodyguard/", "bodyguard"),
    ("models/input_classifier/", "input"),
    ("models/output_classifier/", "output"),
    ("models/thresholds.json", "thresholds"),
    ("monitors/exchange_classifier/", "exchange"),
    ("monitors/probe/", "probe"),
    ("monitors/thresholds.json", "monitor_thresholds"),
    ("reference_results.json", "results"),
)


# results change with every measurement, prose with every thought
_NOT_LISTED = ("MANIFEST.json", "README.md", "reference_results.json")


def describe(data: Path) -> dict[str, dict]:
    """Size in bytes and sha256 of every file of `data` that the manifest lists."""
    found = {}
    for path in sorted(p for p in data.rglob("*") if p.is_file()):
        name = path.relative_to(data).as_posix()
        if name not in _NOT_LISTED and not any(part.startswith(".") for part in name.split("/")):
            found[name] = _files.describe(path)
    return found


def write_manifest(data: Path) -> None:
    _files.write_json(data / "MANIFEST.json", {"files": describe(data)})


def restore_command(name: str) -> str:
    """The command that brings one file of data/ back."""
    stage = next((stage for prefix, stage in STAGE_OF if name.startswith(prefix)), None)
    return f"python -m constclf_lib.build --only {stage} --force" if stage else f"git checkout data/{name}"


def check(data: Path) -> list[str]:
    """What is wrong with `data`, a line each; empty if all is well."""
    try:
        listed = json.loads((data / "MANIFEST.json").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return [
            "MANIFEST.json is missing or unreadable: run `git checkout data/MANIFEST.json`, "
            "or rebuild with `python -m constclf_lib.build`"
        ]
    found, problems = describe(data), []
    for name, wanted in listed.items():
        if name not in found:
            problems.append(f"{name} is missing: run `{restore_command(name)}`")
        elif found[name] != wanted:
            sizes = f"{found[name]['bytes']} bytes, {wanted['bytes']} expected"
            problems.append(f"{name} is damaged or was changed ({sizes}): run `{restore_command(name)}`")
    problems += [
        f"{name} is not in the manifest: delete it, or run `python -m constclf_lib.build --manifest`"
        for name in found
        if name not in listed
    ]
    return problems
