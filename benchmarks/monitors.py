"""What does a monitor add to a token? Run: python -m benchmarks.monitors [--quick]

The lab's assistant answers the same benign prompts under each monitor of chapter 10, thresholds at infinity so that
every reply runs to its end; and unguarded. All take turns prompt by prompt in one run, so that what else the machine
does hits them alike: read the ratios to the unguarded reply. The cascade escalates at the threshold that was chosen for
it. Writes benchmarks/results/monitors.json and prints a table. Time only; what the monitors catch is in chapter 10.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from constclf_lib import data_path
from constclf_lib.guard import GuardedModel, Thresholds
from constclf_lib.lab import load_lab, load_split
from constclf_lib.models import ExchangeClassifier, LinearProbe
from constclf_lib.streaming import Cascade, ProbeScorer, StreamingScorer

RESULTS = Path(__file__).resolve().parent / "results" / "monitors.json"
NEVER = Thresholds(math.inf, math.inf, math.inf)


def guards() -> dict[str, GuardedModel]:
    """The same assistant under each monitor, no input classifier before it."""
    assistant, tokenizer, _, output = load_lab(data_path())
    adapted = ExchangeClassifier.from_pretrained(data_path("monitors", "exchange_classifier"))
    exchange = StreamingScorer(adapted.merge_adapters())
    probe = ProbeScorer(LinearProbe.from_pretrained(data_path("monitors", "probe"), assistant))
    chosen = json.loads(data_path("monitors", "thresholds.json").read_text(encoding="utf-8"))["monitors"]
    monitors = {
        "unguarded": None,
        "output": StreamingScorer(output),
        "exchange": exchange,
        "probe": probe,
        "cascade": Cascade(probe, exchange, chosen["cascade"]["weight"], chosen["cascade"]["escalate_above"]),
        "ensemble": Cascade(probe, exchange, chosen["ensemble"]["weight"]),
    }
    return {name: GuardedModel(assistant, tokenizer, None, None, NEVER, monitor=one) for name, one in monitors.items()}


def measure(prompts: list[str]) -> dict[str, dict[str, float]]:
    """Median microseconds per token of a reply, median ratio to the unguarded reply, and to the first token."""
    watched = guards()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in watched}
    for prompt in prompts:
        for name, guard in watched.items():
            start, first, tokens = time.perf_counter(), 0.0, 0
            for event in guard.stream(prompt, max_new_tokens=512):
                if getattr(event, "token_id", None) is not None:
                    first, tokens = first or time.perf_counter() - start, tokens + 1
            times[name].append((1e6 * (time.perf_counter() - start) / max(tokens, 1), 1e3 * first))
    base = times["unguarded"]
    return {
        name: {
            "microseconds_per_token": statistics.median(per_token for per_token, _ in found),
            "ratio": statistics.median(a / b for (a, _), (b, _) in zip(found, base, strict=True)),
            "milliseconds_to_first_token": statistics.median(first for _, first in found),
        }
        for name, found in times.items()
    }


def table(results: dict) -> str:
    lines = [
        "| monitor | microseconds per token | of the unguarded reply | ms to the first token |",
        "|---|---|---|---|",
    ]
    for name, row in results["monitors"].items():
        lines.append(
            f"| {name} | {row['microseconds_per_token']:,.0f} | {row['ratio']:.2f} | "
            f"{row['milliseconds_to_first_token']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few prompts; nothing is written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    test = load_split("test")
    rows = test[~test.restricted & (test.attack == "")]
    results: dict[str, Any] = {
        "machine": platform.machine(), "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__, "prompts": 4 if options.quick else 60,
    }  # fmt: skip
    prompts = rows.sample(results["prompts"], random_state=0).prompt.tolist()
    results["monitors"] = measure(prompts)
    if not options.quick:
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
