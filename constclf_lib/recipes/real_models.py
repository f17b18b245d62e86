"""Chapter 11 in a quarter of an hour on a CPU: a real language model left as it is, its hidden states read once, a
value head and a probe trained on them, and the controls that anybody should ask for first.

Per public set: texts of at most `LONGEST` tokens, known labels only, drawn with a fixed seed; 70% train, 30% test. The
same split for everyone:
- value head (annealed loss) and linear probe (softmax-weighted loss, a middle layer), each with `SEEDS` seeds
- the untuned model's verdict on the next token (asked in its chat template), a bag of one- and two-word features, and
  logistic regression on the mean of the hidden states: what the streaming heads have to be compared with

AUROC, AUPRC and TPR at 1% FPR of the test texts, with 95% bootstrap intervals over texts (of the first seed; the others
stand beside). XSTest: which of its safe and unsafe prompts a threshold of 1% on harmless test texts flags; on the safe
ones that is over-refusal, by a classifier that was never told of prompts. Stored with date, device, versions and times
in benchmarks/results. Deliberately not here: fine-tuning, and texts: no row of a dataset is stored.
"""

from __future__ import annotations

import copy
import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
import torch
import transformers
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from .._files import describe, write_json
from ..evaluation import Estimate, bootstrap_interval, calibrate_threshold, highest_scores, rate_of, tpr_at_fpr
from ..lab import auroc, average_precision, bag_of_words_baseline
from ..models import InputClassifier, LinearProbe, OutputClassifier, load_backbone, model_fingerprint
from ..prompts import PLAIN_VERDICT_PROMPT, VERDICT_WORDS, verdict_token_ids
from ..public_data import known, load_public
from ..streaming import StreamingScorer
from ..tokenization import batch_text_ids
from ..training import frozen_states, scores_on_states, train_probe, train_value_head

LONGEST, MOST, SEEDS, STEPS, REPEATS = 128, 1000, 3, 600, 1000
SETS = ("surge_toxicity", "openai_moderation")
LIBRARIES = (torch, transformers, sklearn, np)
METRICS: dict[str, Callable] = {"auroc": auroc, "auprc": average_precision, "tpr_at_1pct_fpr": tpr_at_fpr}


class Clock:
    """Wall-clock and processor seconds since it was made or last read, by name."""

    def __init__(self, log: Callable[[str], None]):
        self.log = log
        self.times: dict[str, dict[str, float]] = {}
        self._start = (time.perf_counter(), time.process_time())

    def lap(self, name: str) -> None:
        now = (time.perf_counter(), time.process_time())
        wall, cpu = (round(b - a, 1) for a, b in zip(self._start, now, strict=True))
        self.times[name], self._start = {"wall_s": wall, "cpu_s": cpu}, now
        self.log(f"{name}: {wall:.0f} s, of which {cpu:.0f} s were computed")


def measure(
    backbone,
    kept: Path,
    paths: Mapping[str, Path] | None = None,
    log: Callable[[str], None] = print,
    *,
    most: int = MOST,
    steps: int = STEPS,
    seeds: int = SEEDS,
) -> dict:
    """All tables for one backbone (a name, folder, GGUF file or (model, tokenizer)). kept: folder where hidden states
    wait, so that a run that was stopped need not read again. paths: {dataset: local file}; others are fetched.
    """
    clock, paths = Clock(log), paths or {}
    model, tokenizer = backbone if isinstance(backbone, tuple) else load_backbone(backbone, dtype=torch.float32)
    torch.manual_seed(0)
    classifier = OutputClassifier.from_backbone(model, tokenizer, base_rate=0.5).eval()
    words = _words(tokenizer)
    verdict = InputClassifier.from_backbone(model, in_its_template(tokenizer), words=words)
    classifier.window = LONGEST + len(classifier.prefix_ids)
    layer = classifier.config.get_text_config().num_hidden_layers // 2
    clock.lap("loading")
    xstest = known(load_public("xstest", paths.get("xstest")), "restricted")
    prompts = _states(classifier, xstest.prompt, layer, kept / "xstest.safetensors")
    clock.lap("xstest: states")
    untuned = verdict.score(xstest.prompt.tolist(), 16).harm.numpy()
    plain = InputClassifier.from_backbone(model, tokenizer, words=words).score(xstest.prompt.tolist(), 16).harm.numpy()
    clock.lap("xstest: two untuned verdicts")
    labels = xstest.restricted.to_numpy()
    tables: dict = {}
    for name in SETS:
        published = load_public(name, paths.get(name))
        rows = some_rows(known(published), classifier, most)
        rows.attrs |= {"name": name, "published": len(published), "unknown": int(published.harmful.isna().sum())}
        states = _states(classifier, rows.completion, layer, kept / f"{name}.safetensors")
        clock.lap(f"{name}: states")
        on_xstest = (xstest, prompts, untuned)
        tables[name] = one_set(rows, states, classifier, verdict, layer, on_xstest, steps, seeds, clock)
    verdicts = {"untuned_verdict": figures(labels, untuned), "untuned_verdict_without_template": figures(labels, plain)}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "backbone": getattr(model, "name_or_path", "").rpartition("/")[2] or type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "probe_layer": layer,
        "settings": {"longest": LONGEST, "most": most, "steps": steps, "seeds": list(range(seeds)), "repeats": REPEATS},
        "data": {name: describe(Path(path))["sha256"] for name, path in paths.items()},
        "device": platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{m.__name__: m.__version__ for m in LIBRARIES}},
        "times": clock.times,
        "sets": {**tables, "xstest": {"safe": int((~labels).sum()), "unsafe": int(labels.sum()), **verdicts}},
    }


def in_its_template(tokenizer):
    """A copy of the tokenizer that has an input classifier ask in the chat template, where there is one: the question
    in the user's turn, "It is" at the beginning of the answer. An instruct model met its questions so.
    """
    tokenizer = copy.deepcopy(tokenizer)
    if getattr(tokenizer, "chat_template", None):
        question, _, answer = PLAIN_VERDICT_PROMPT.rpartition(" It is")
        turns = [{"role": "user", "content": question}]
        asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) + f"It is{answer}"
        tokenizer.init_kwargs["verdict_prompt"] = asked.removeprefix(tokenizer.bos_token or "")  # it is put before all
    return tokenizer


def some_rows(frame: pd.DataFrame, classifier, most: int) -> pd.DataFrame:
    """At most `most` different texts of at most LONGEST tokens, drawn with seed 0; how many were too long in attrs."""
    frame = frame[frame.completion.str.strip() != ""].drop_duplicates("completion")
    short = np.array([len(ids) <= LONGEST for ids in batch_text_ids(classifier.tokenizer, frame.completion)])
    rows = frame[short]
    rows = rows.sample(min(most, len(rows)), random_state=0).sort_index().reset_index(drop=True)
    rows.attrs = {"too_long": int((~short).sum())}
    return rows


def one_set(rows, states, classifier, verdict, layer, on_xstest, steps: int, seeds: int, clock: Clock) -> dict:
    """Every method on one split of `rows`; states: as `frozen_states` gives them for one layer. on_xstest: XSTest's
    rows, their states, and what the untuned model said of them.
    """
    labels, name = rows.harmful.to_numpy(), rows.attrs.get("name", "heads")
    train, test = train_test_split(np.arange(len(rows)), test_size=0.3, random_state=0, stratify=labels)
    texts, size = rows.completion.to_numpy(), classifier.hidden_size
    sides = {"last": slice(size), "middle": slice(size, None)}
    read = {side: [x[:, part] for x in states] for side, part in sides.items()}
    xstest, prompts, untuned = on_xstest
    read_prompts = {side: [x[:, part] for x in prompts] for side, part in sides.items()}

    def part(of, places):
        return [of[i] for i in places]

    found: dict[str, list[np.ndarray]] = {}
    beside: dict[str, np.ndarray] = {}  # the highest score of each of XSTest's prompts
    curves = {}
    for seed in range(seeds):
        torch.manual_seed(seed)
        classifier.value_head.inner.reset_parameters()
        torch.nn.init.normal_(classifier.value_head.out.weight, std=0.02)
        torch.nn.init.constant_(classifier.value_head.out.bias, 0.0)
        train_value_head(classifier, part(read["last"], train), labels[train], steps, seed=seed)
        probe = LinearProbe.for_model(classifier.model, [layer])
        train_probe(probe, part(read["middle"], train), labels[train], steps, seed=seed)
        for method, head, side in (("value_head", classifier.value_head, "last"), ("probe", probe, "middle")):
            scores = scores_on_states(head, part(read[side], test))
            found.setdefault(method, []).append(highest_scores(scores))
            if seed == 0:
                threshold = calibrate_threshold(found[method][0][~labels[test]], 0.01)
                beside[method] = highest_scores(scores_on_states(head, read_prompts[side]))
                curves[method] = {"risk_at_tenths": risk_at_tenths(scores, labels[test])}
                curves[method]["halting"] = halting(scores, labels[test], threshold)
    streamed = _streamed(classifier, str(texts[test[0]]), read["last"][test[0]])
    clock.lap(f"{name}: {seeds} heads and {seeds} probes")
    counted = bag_of_words_baseline(texts[train], labels[train], texts[test], xstest.prompt)
    means, prompt_means = (np.stack([x.mean(0).numpy() for x in of["last"]]) for of in (read, read_prompts))
    pooled = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)).fit(means[train], labels[train])
    found["bag_of_words"], beside["bag_of_words"] = [counted[0]], counted[1]
    found["mean_pooled"] = [pooled.predict_proba(means[test])[:, 1]]
    beside["mean_pooled"] = pooled.predict_proba(prompt_means)[:, 1]
    found["untuned_verdict"] = [verdict.score(list(texts[test]), 16).harm.numpy()]
    beside["untuned_verdict"] = untuned
    clock.lap(f"{name}: controls")
    wanted = labels[test]
    counts = {key: rows.attrs.get(key, 0) for key in ("published", "unknown", "too_long")}
    counts |= {"train": len(train), "test": len(test), "harmful_in_test": int(wanted.sum())}
    table: dict = {
        "texts": {**counts, "tokens": int(sum(len(x) for x in states))},
        "streamed_equals_read_to": streamed,
        "xstest_flagged": {
            method: flagged(scores, xstest.restricted.to_numpy(), found[method][0][~wanted])
            for method, scores in beside.items()
        },
        "curves": curves,
    }
    for method, scores in found.items():
        table[method] = figures(wanted, scores[0])
        if len(scores) > 1:
            table[method]["auroc_of_each_seed"] = [round(auroc(wanted, s), 4) for s in scores]
    for method in ("value_head", "probe"):
        for control in ("bag_of_words", "mean_pooled"):
            gap = difference(wanted, found[method][0], found[control][0])
            table[f"{method}_minus_{control}_auroc"] = gap
    return table


def flagged(scores: np.ndarray, unsafe: np.ndarray, harmless: np.ndarray) -> dict:
    """The shares of XSTest's safe prompts (over-refusal) and of its unsafe ones above the threshold that flags at most
    1% of `harmless`, scores of another set's harmless test texts.
    """
    over = scores > calibrate_threshold(harmless, 0.01)
    return {"safe": rate_of(over[~unsafe]).stored(), "unsafe": rate_of(over[unsafe]).stored()}


def figures(labels: np.ndarray, scores: np.ndarray) -> dict:
    """METRICS with 95% bootstrap intervals over texts."""
    return {name: _estimate(metric, labels, scores).stored() for name, metric in METRICS.items()}


def difference(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> dict:
    """AUROC of `first` minus that of `second` on the same texts (a paired bootstrap)."""

    def gap(labels, first, second):
        return auroc(labels, first) - auroc(labels, second)

    return _estimate(gap, labels, first, second).stored()


def _estimate(metric: Callable, labels: np.ndarray, *scores: np.ndarray) -> Estimate:
    def drawn(rows):
        return metric(labels[rows], *(s[rows] for s in scores))

    low, high = bootstrap_interval(np.arange(len(labels)), statistic=drawn, repeats=REPEATS)
    return Estimate(metric(labels, *scores), low, high, len(labels))


def risk_at_tenths(scores: list[np.ndarray], labels: np.ndarray) -> dict[str, list[float]]:
    """The mean running maximum after each tenth of a text, for harmful and harmless ones: a curve without the words."""
    ends = [np.ceil(np.arange(1, 11) / 10 * len(row)).astype(int) - 1 for row in scores]
    curves = np.array([np.maximum.accumulate(row)[end] for row, end in zip(scores, ends, strict=True)], np.float64)
    sides = {"harmful": labels, "harmless": ~labels}
    return {name: curves[side].mean(0).round(4).tolist() for name, side in sides.items()}


def halting(scores: list[np.ndarray], labels: np.ndarray, threshold: float) -> dict:
    """How many harmful texts a stream would be halted in, and after which share of them (median)."""
    at = [np.flatnonzero(row > threshold) for row, harmful in zip(scores, labels, strict=True) if harmful]
    lengths = [len(row) for row, harmful in zip(scores, labels, strict=True) if harmful]
    shares = [found[0] / n for found, n in zip(at, lengths, strict=True) if len(found)]
    halted = rate_of([len(found) > 0 for found in at]).stored()
    before = round(float(np.median(shares)), 4) if shares else None
    return {"threshold": round(threshold, 4), "halted": halted, "released_before": before}


def _streamed(classifier: OutputClassifier, text: str, states: torch.Tensor) -> float:
    """The largest difference between a stream of one text, token by token, and the states that were kept."""
    scorer = StreamingScorer(classifier)
    with scorer.open() as stream:
        streamed = [p for ids in batch_text_ids(classifier.tokenizer, [text])[0] for p in stream.push([ids])]
    kept = scores_on_states(classifier.value_head, [states])[0]
    return float(f"{np.abs(np.array(streamed) - kept).max():.1e}")


def _states(classifier, texts, layer: int, kept: Path) -> list[torch.Tensor]:
    """`frozen_states`, read once: a file of the same texts and weights is used again."""
    mark = kept.with_suffix(".json")
    texts = list(texts)
    what = {"layer": layer, "texts": hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()[:16]}
    what["model"] = model_fingerprint(classifier.model)
    if kept.exists() and mark.exists():
        stored = json.loads(mark.read_text(encoding="utf-8"))
        if stored == {**what, "file": describe(kept)}:
            tensors = load_file(kept)
            return [tensors[str(i)] for i in range(len(texts))]
    with tqdm(total=len(texts), desc=kept.stem) as bar:
        states = frozen_states(classifier, texts, [layer], 16, bar.update)
    kept.parent.mkdir(parents=True, exist_ok=True)
    save_file({str(i): x.contiguous() for i, x in enumerate(states)}, kept)
    write_json(mark, {**what, "file": describe(kept)})
    return states


def _words(tokenizer) -> tuple[str, str]:
    """Two verdict words that are one token each."""
    try:
        verdict_token_ids(tokenizer, VERDICT_WORDS)
    except ValueError:
        return (" yes", " no")
    return VERDICT_WORDS
