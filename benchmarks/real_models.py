"""A real language model, frozen, on public data: python -m benchmarks.real_models --backbone NAME [--data FOLDER]

--data: a folder with toxicity_en.csv, samples-1680.jsonl.gz and xstest_prompts.csv (docs/public_data.md); without it
they are fetched. The work and what is in the tables: constclf_lib/recipes/real_models.py. Writes
benchmarks/results/real_models.json. Hidden states are kept in --kept until the run is through, so that a run which was
stopped goes on; no text and no state is committed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from constclf_lib.recipes.real_models import METHODS, METRICS, SETS, measure

RESULTS = Path(__file__).resolve().parent / "results" / "real_models.json"
FILES = {
    "surge_toxicity": "toxicity_en.csv",
    "openai_moderation": "samples-1680.jsonl.gz",
    "xstest": "xstest_prompts.csv",
}


def cell(figure: dict) -> str:
    low, high = figure["interval"]
    return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"


def table(stored: dict) -> str:
    """The tables as Markdown."""
    lines = []
    for name in SETS:
        found = stored["sets"][name]
        n, harmful = found["texts"]["used"], found["texts"]["harmful"]
        lines += [
            f"| {name}, {n} texts ({harmful} harmful) | AUROC | AUPRC | TPR at 1% FPR | XSTest flagged: safe | "
            "unsafe |",
            "|---|---|---|---|---|---|",
        ]
        for method in METHODS:
            flagged = found["xstest_flagged"][method]
            figures = [*(found[method][metric] for metric in METRICS), flagged["safe"], flagged["unsafe"]]
            lines.append(f"| {method.replace('_', ' ')} | {' | '.join(map(cell, figures))} |")
        lines += ["", f"| {name}: AUROC minus that of | bag of words | mean pooled |", "|---|---|---|"]
        for method in METHODS[:3]:
            gaps = (found[f"{method}_minus_{control}_auroc"] for control in ("bag_of_words", "mean_pooled"))
            lines.append(f"| {method.replace('_', ' ')} | {' | '.join(map(cell, gaps))} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--kept", type=Path, default=Path(tempfile.gettempdir()) / "constclf-states")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    paths = {name: options.data / file for name, file in FILES.items()} if options.data else {}
    stored = measure(options.backbone, options.kept, paths)
    options.out.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    print(table(stored))


if __name__ == "__main__":
    main()
