"""What does the second head cost in training? Run: python -m benchmarks.training [--quick]

Tokens per second of OutputClassifierTrainer (language-modelling loss and harm loss, annealed) against the plain
transformers Trainer (language-modelling loss alone) on the same backbone, the same batches, the same arguments. The two
take turns; figures are medians over steps after a warm-up, the ratio is what to read. Writes
benchmarks/results/training.json and prints a table for the README.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
)

from benchmarks.streaming import random_backbone
from constclf_lib import data_path
from constclf_lib.models import OutputClassifier
from constclf_lib.tokenization import pad_batch
from constclf_lib.training import OutputClassifierTrainer, fine_tune_arguments

RESULTS = Path(__file__).resolve().parent / "results" / "training.json"


def load_backbone() -> tuple[PreTrainedModel, str]:
    """The lab's bodyguard, or random weights of the same size."""
    try:
        return AutoModelForCausalLM.from_pretrained(data_path("models", "bodyguard")), "lab"
    except FileNotFoundError:
        return random_backbone(), "random"


def rows(count: int, length: int, vocab_size: int) -> list[dict]:
    """Completions of random tokens, all of one length, so that every step is the same work."""
    ids = torch.randint(0, vocab_size, (count, length)).tolist()
    return [{"input_ids": row, "harmful": i % 2 == 0} for i, row in enumerate(ids)]


def for_language_model(batch: list[dict]) -> dict[str, torch.Tensor]:
    input_ids, attention_mask = pad_batch([row["input_ids"] for row in batch], 0)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": input_ids.clone()}


def for_classifier(batch: list[dict]) -> dict[str, torch.Tensor]:
    input_ids, attention_mask = pad_batch([row["input_ids"] for row in batch], 0)
    labels = torch.tensor([float(row["harmful"]) for row in batch])
    return {"input_ids": input_ids, "attention_mask": attention_mask, "mask": attention_mask.bool(), "labels": labels}


class StepTimes(TrainerCallback):
    """Seconds of every optimizer step, the device's work included."""

    def __init__(self):
        self.seconds: list[float] = []

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_step_begin(self, *args, **kwargs):
        self.start = self._now()

    def on_step_end(self, *args, **kwargs):
        self.seconds.append(self._now() - self.start)


def run(kind: str, backbone, data, steps: int, batch_size: int) -> tuple[float, float]:
    """(median tokens per second, peak megabytes) of one short training run on a fresh copy of the backbone."""
    model, times = copy.deepcopy(backbone), StepTimes()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        arguments = fine_tune_arguments(folder, steps, batch_size)
        if kind == "plain":
            trainer = Trainer(model, arguments, for_language_model, data, callbacks=[times])
            trainer.remove_callback(PrinterCallback)
        else:
            model = OutputClassifier.from_backbone(model)
            trainer = OutputClassifierTrainer(model, arguments, for_classifier, data, callbacks=[times])
        trainer.train()
    tokens = batch_size * len(data[0]["input_ids"])
    peak = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else math.nan
    return tokens / statistics.median(times.seconds[2:]), peak


def process_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if platform.system() == "Darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    steps, repeats = (4, 1) if options.quick else (20, 5)
    batch_size, length = 32, 128
    backbone, weights = load_backbone()
    data = rows(batch_size * 4, length, backbone.config.vocab_size)
    speeds: dict[str, list[float]] = {"plain": [], "output_classifier": []}
    peaks: dict[str, float] = {}
    for _ in range(repeats):
        for kind, measured in speeds.items():
            speed, peaks[kind] = run(kind, backbone, data, steps, batch_size)
            measured.append(speed)
    medians = {kind: statistics.median(measured) for kind, measured in speeds.items()}
    # a process cannot be asked for the peak of one of its parts; a GPU's allocator can
    memory = peaks if torch.cuda.is_available() else {"process": process_megabytes()}
    results = {
        "weights": weights,
        "parameters": sum(p.numel() for p in backbone.parameters()),
        "batch": [batch_size, length],
        "steps": steps,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokens_per_second": medians,
        "output_classifier_over_plain": statistics.median(
            ours / plain for ours, plain in zip(speeds["output_classifier"], speeds["plain"], strict=True)
        ),
        "peak_megabytes": memory,
    }
    print("| trainer | tokens per second |\n|---|---|")
    for kind, name in (("plain", "transformers Trainer"), ("output_classifier", "OutputClassifierTrainer")):
        print(f"| {name} | {medians[kind]:,.0f} |")
    print("\npeak memory, MB:", {name: round(peak) for name, peak in memory.items()})
    print(f"ours over plain: {results['output_classifier_over_plain']:.2f}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
