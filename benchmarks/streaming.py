"""What does it cost to score a token before it is released? Run: python -m benchmarks.streaming [--quick]

Per-token cost at 64, 256 and 1,024 tokens for: the backbone step alone (the floor), the scorer, rescoring the whole
prefix, and a pass of AutoModelForTokenClassification over the finished text (cheap per token, and too late); the value
head's share of the backbone step; 1 to 64 streams together against one by one. CPU, and CUDA when there is one.

All methods take turns at every position in one run, so that what else the machine does hits them alike; figures are
medians, and the ratios are what to read. Writes benchmarks/results/streaming.json and prints tables for the README. It
measures time only; that the numbers are *right* is what tests/streaming/test_scorer.py is for.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import resource
import statistics
import time
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForTokenClassification, LlamaConfig, LlamaForCausalLM

from constclf_lib import data_path
from constclf_lib.models import OutputClassifier
from constclf_lib.streaming import StreamingScorer

LENGTHS, STREAMS = (64, 256, 1024), (1, 4, 16, 64)
RESULTS = Path(__file__).resolve().parent / "results" / "streaming.json"


def random_backbone() -> LlamaForCausalLM:
    """A language model of the bodyguard's size that has learnt nothing."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=80,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=208,
            vocab_size=2048,
            max_position_embeddings=2048,
        )
    )


def load_classifier() -> tuple[OutputClassifier, str]:
    """The lab's output classifier, or random weights of the same size: time does not depend on their values."""
    try:
        return OutputClassifier.from_pretrained(data_path("models", "output_classifier")), "lab"
    except FileNotFoundError:
        return OutputClassifier.from_backbone(random_backbone()).eval(), "random"


class Clock:
    """Microseconds of a call, the device's work included."""

    def __init__(self, device: torch.device):
        self.wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def __call__(self, call):
        self.wait()
        start = time.perf_counter()
        result = call()
        self.wait()
        return 1e6 * (time.perf_counter() - start), result


def megabytes(device: torch.device) -> float:
    """Peak memory: of the process on the CPU, of the allocator on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if platform.system() == "Darwin" else 2**10)


class Behind:
    """Everything that waits behind `length` tokens for one more, and how long it took so far."""

    def __init__(self, classifier, at_end, length: int, samples: int):
        self.length, self.classifier, self.at_end = length, classifier, at_end
        self.clock, self.scorer = Clock(classifier.device), StreamingScorer(classifier)
        self.ids = torch.randint(0, classifier.config.vocab_size, (length + samples,)).tolist()
        self.before = torch.tensor([self.ids[:length]], device=classifier.device)
        self.cache = classifier.read(self.before, use_cache=True).cache
        self.stream = self.scorer.open()
        self.stream.push(self.ids[:length])
        self.times: dict[str, list[float]] = {
            name: [] for name in ("backbone", "head", "scorer", "rescoring", "at_end")
        }

    def one_more(self, k: int, whole: bool) -> None:
        token, clock, times = self.ids[self.length + k], self.clock, self.times
        step = torch.tensor([[token]], device=self.classifier.device)
        took, output = clock(lambda: self.classifier.read(step, cache=self.cache, use_cache=True))
        times["backbone"].append(took)
        times["head"].append(clock(lambda: self.scorer.head(output.last_hidden_state))[0])
        times["scorer"].append(clock(lambda: self.stream.push([token]))[0])
        if whole:
            rescored = clock(lambda: self.classifier(self.before, with_lm_logits=False).harm_logits.tolist())
            times["rescoring"].append(rescored[0])
            times["at_end"].append(clock(lambda: self.at_end(input_ids=self.before).logits.tolist())[0] / self.length)

    def row(self) -> dict[str, float]:
        kilobytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers) / 2**10
        medians = {name: statistics.median(values) for name, values in self.times.items()}
        share = statistics.median(h / b for h, b in zip(self.times["head"], self.times["backbone"], strict=True))
        return {"tokens": self.length, **medians, "head_share": share, "cache_kilobytes": kilobytes}


@torch.inference_mode()
def per_token(classifier, samples: int) -> list[dict[str, float]]:
    """Median cost in microseconds of one more token, for every method behind every length; the lengths take turns."""
    config = copy.deepcopy(classifier.config)
    config.num_labels = 1
    at_end = AutoModelForTokenClassification.from_config(config).to(classifier.device).eval()
    places = [Behind(classifier, at_end, length, samples) for length in LENGTHS]
    for k in range(samples):
        for place in places:
            place.one_more(k, whole=k % 8 == 0)
    return [place.row() for place in places]


@torch.inference_mode()
def together(classifier, streams: int, steps: int, length: int = 64) -> dict[str, float]:
    """Median cost in microseconds per token with `streams` streams behind `length` tokens: as one batch, and one by
    one.
    """
    clock, scorer = Clock(classifier.device), StreamingScorer(classifier)
    ids = torch.randint(0, classifier.config.vocab_size, (streams, length + steps)).tolist()
    batched, alone = [], []
    with scorer.open_batch(streams) as batch:
        singles = [scorer.open() for _ in range(streams)]
        batch.push([row[:length] for row in ids])
        for single, row in zip(singles, ids, strict=True):
            single.push(row[:length])
        for k in range(length, length + steps):
            batched.append(clock(lambda: batch.push([[row[k]] for row in ids]))[0] / streams)  # noqa: B023
            alone.append(clock(lambda: [s.push([row[k]]) for s, row in zip(singles, ids, strict=True)])[0] / streams)  # noqa: B023
    return {"streams": streams, "batched": statistics.median(batched), "one_by_one": statistics.median(alone)}


def median_rows(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def measure(classifier, samples: int, repeats: int) -> dict:
    device = classifier.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    per_token(classifier, 4)  # warm up
    repeated = [per_token(classifier, samples) for _ in range(repeats)]
    lengths = [median_rows(list(rows)) for rows in zip(*repeated, strict=True)]
    counts = [median_rows([together(classifier, n, max(4, samples // 4)) for _ in range(repeats)]) for n in STREAMS]
    first, last = lengths[0], lengths[-1]
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine(),
        "per_token_us": lengths,
        "streams_us": counts,
        "ratios": {
            "scorer_1024_over_64": last["scorer"] / first["scorer"],
            "scorer_over_backbone": {row["tokens"]: row["scorer"] / row["backbone"] for row in lengths},
            "rescoring_over_scorer": {row["tokens"]: row["rescoring"] / row["scorer"] for row in lengths},
            "value_head_over_backbone": statistics.median(row["head_share"] for row in lengths),
            "one_by_one_over_batched": {row["streams"]: row["one_by_one"] / row["batched"] for row in counts},
        },
        "peak_megabytes": megabytes(device),
    }


def table(device: str, result: dict) -> str:
    lines = [f"{device} ({result['device']}), microseconds per token", ""]
    lines += [
        "| tokens before | backbone step | scorer | whole prefix again | one pass at the end | cache, KB |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["per_token_us"]:
        figures = [row[name] for name in ("backbone", "scorer", "rescoring", "at_end", "cache_kilobytes")]
        lines.append("| " + " | ".join([f"{row['tokens']:.0f}", *(f"{x:,.0f}" for x in figures)]) + " |")
    lines += ["", "| streams | one batch | one by one |", "|---|---|---|"]
    lines += [
        f"| {row['streams']:.0f} | {row['batched']:,.0f} | {row['one_by_one']:,.0f} |" for row in result["streams_us"]
    ]
    ratios = result["ratios"]
    lines += [
        "",
        f"scorer at 1,024 tokens over 64: {ratios['scorer_1024_over_64']:.2f} (wanted: at most 1.5); "
        f"value head over the backbone step: {ratios['value_head_over_backbone']:.1%} (wanted: at most 3%); "
        f"peak memory: {result['peak_megabytes']:,.0f} MB",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few samples, to see that it runs")
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads; a single token of a small model gains nothing from more"
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    samples, repeats = (8, 1) if options.quick else (64, 5)
    classifier, weights = load_classifier()
    results = {
        "weights": weights,
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "threads": options.threads,
        "repeats": repeats,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        results[device] = measure(classifier.to(device), samples, repeats)
        print(table(device, results[device]), end="\n\n")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written: {options.output.name}")


if __name__ == "__main__":
    main()
