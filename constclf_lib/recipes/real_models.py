"""Chapter 11 in a quarter of an hour on a CPU: a real language model left as it is, its hidden states read once, a
value head and a probe trained on them, and the controls that anybody should ask for first.

Per public set: texts of at most `LONGEST` tokens, known labels only, drawn with a fixed seed; `FOLDS` folds, each of
them tested by what learnt from the others (with the fold's number as seed). The same folds for everyone:
- value head (annealed loss), linear probe (softmax-weighted loss, a middle layer), and the same probe trained and read
  as the mean of `SWIM` tokens
- the untuned model's verdict on the next token (asked in its chat template), a bag of one- and two-word features, and
  logistic regression on the mean of the hidden states: what the streaming heads have to be compared with

AUROC, AUPRC and TPR at 1% FPR, means over the folds, with 95% bootstrap intervals over texts. XSTest: which of its safe
and unsafe prompts a threshold of 1% on a fold's harmless texts flags; on the safe ones that is over-refusal, by a
classifier that was never told of prompts. Stored with date, device, versions and times in benchmarks/results.
Deliberately not here: fine-tuning, and texts: no row of a dataset is stored.
"""

from __future__ import annotations

import copy
import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
import torch
import transformers
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from .._files import describe, write_json
from ..evaluation import Estimate, bootstrap_interval, calibrate_threshold, highest_scores, rate_of, tpr_at_fpr
from ..lab import auroc, average_precision, bag_of_words_baseline
from ..models import InputClassifier, LinearProbe, OutputClassifier, load_backbone, model_fingerprint
from ..prompts import PLAIN_VERDICT_PROMPT, VERDICT_WORDS, verdict_token_ids
from ..public_data import known, load_public
from ..streaming import ProbeScorer, StreamingScorer
from ..tokenization import batch_text_ids
from ..training import frozen_states, scores_on_states, train_probe, train_value_head

LONGEST, MOST, FOLDS, STEPS, REPEATS, SWIM = 256, 1000, 5, 600, 1000, 16
SETS = ("surge_toxicity", "openai_moderation")
LIBRARIES = (torch, transformers, sklearn, np)
METHODS = ("value_head", "probe", "probe_swim", "mean_pooled", "bag_of_words", "untuned_verdict")
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
    folds: int = FOLDS,
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
        tables[name] = one_set(rows, states, classifier, verdict, layer, on_xstest, steps, folds, clock)
    verdicts = {"untuned_verdict": figures(labels, untuned), "untuned_verdict_without_template": figures(labels, plain)}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "backbone": getattr(model, "name_or_path", "").rpartition("/")[2] or type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "probe_layer": layer,
        "settings": {
            "longest": LONGEST,
            "most": most,
            "steps": steps,
            "folds": folds,
            "swim": SWIM,
            "repeats": REPEATS,
        },
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


def one_set(rows, states, classifier, verdict, layer, on_xstest, steps: int, folds: int, clock: Clock) -> dict:
    """Every method on the same folds of `rows`; states: as `frozen_states` gives them for one layer. on_xstest: rows of
    XSTest, their states, and what the untuned model said of them.
    """
    labels, texts, name = rows.harmful.to_numpy(), rows.completion.to_numpy(), rows.attrs.get("name", "heads")
    xstest, prompts, untuned = on_xstest
    size = classifier.hidden_size
    last, middle = ([x[:, part] for x in states] for part in (slice(size), slice(size, None)))
    means, prompt_means = (np.stack([x[:, :size].mean(0).numpy() for x in of]) for of in (states, prompts))
    fold = np.zeros(len(rows), int)  # in which one a text is tested
    found = {method: np.zeros(len(rows)) for method in METHODS}
    found["untuned_verdict"][:] = verdict.score(list(texts), 16).harm.numpy()
    clock.lap(f"{name}: untuned verdicts")
    over: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}  # XSTest's prompts above each threshold
    streams: dict[str, list] = {method: [] for method in METHODS[:3]}  # (scores by token, harmful, threshold)
    split = StratifiedKFold(folds, shuffle=True, random_state=0).split(texts, labels)
    for seed, (train, test) in enumerate(split):
        fold[test] = seed
        torch.manual_seed(seed)
        classifier.value_head.inner.reset_parameters()
        torch.nn.init.normal_(classifier.value_head.out.weight, std=0.02)
        torch.nn.init.constant_(classifier.value_head.out.bias, 0.0)
        train_value_head(classifier, [last[i] for i in train], labels[train], steps, seed=seed)
        heads: dict[str, Callable[[list], list[np.ndarray]]] = {
            "value_head": lambda of: scores_on_states(classifier.value_head, [x[:, :size] for x in of])
        }
        for method, width in (("probe", 1), ("probe_swim", SWIM)):
            probe = LinearProbe.for_model(classifier.model, [layer], width)
            train_probe(probe, [middle[i] for i in train], labels[train], steps, seed=seed)
            heads[method] = partial(_read, probe, size)
        beside = {"untuned_verdict": untuned}
        for method, read in heads.items():
            by_token = read([states[i] for i in test])
            found[method][test], beside[method] = highest_scores(by_token), highest_scores(read(prompts))
            limit = calibrate_threshold(found[method][test][~labels[test]], 0.01)
            streams[method] += [(row, labels[i], limit) for row, i in zip(by_token, test, strict=True)]
        counted = bag_of_words_baseline(texts[train], labels[train], texts[test], xstest.prompt)
        found["bag_of_words"][test], beside["bag_of_words"] = counted
        pooled = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        pooled.fit(means[train], labels[train])
        found["mean_pooled"][test] = pooled.predict_proba(means[test])[:, 1]
        beside["mean_pooled"] = pooled.predict_proba(prompt_means)[:, 1]
        for method, scores in beside.items():
            over[method].append(scores > calibrate_threshold(found[method][test][~labels[test]], 0.01))
    clock.lap(f"{name}: {folds} folds of value head, two probes, bag of words, mean pooled")
    counts = {key: rows.attrs.get(key, 0) for key in ("published", "unknown", "too_long")}
    table: dict = {
        "texts": {
            **counts, "used": len(rows), "harmful": int(labels.sum()), "tokens": int(sum(len(x) for x in states)),
        },
        "streamed_equals_read_to": _streamed(classifier, str(texts[0]), last[0]),
        "xstest_flagged": {method: flagged(parts, xstest.restricted.to_numpy()) for method, parts in over.items()},
        "curves": {
            method: {"risk_at_tenths": risk_at_tenths(parts), "halting": halting(parts)}
            for method, parts in streams.items()
        },
    }  # fmt: skip
    for method, scores in found.items():
        each = [round(auroc(labels[fold == i], scores[fold == i]), 4) for i in range(folds)]
        table[method] = {**figures(labels, scores, fold), "auroc_of_each_fold": each}
    for method in METHODS[:3]:
        for control in ("bag_of_words", "mean_pooled"):
            table[f"{method}_minus_{control}_auroc"] = difference(labels, found[method], found[control], fold)
    return table


def _read(probe: LinearProbe, size: int, states: list[torch.Tensor]) -> list[np.ndarray]:
    """What a stream of the probe says at every token; its states stand behind the first `size` numbers."""
    return [ProbeScorer(probe).score(x[:, size:]) for x in states]


def flagged(over: list[np.ndarray], unsafe: np.ndarray) -> dict:
    """The shares of XSTest's safe prompts (over-refusal) and of its unsafe ones that are flagged, the mean over folds
    (each has a model and a threshold of its own), with bootstrap intervals over prompts.
    """
    share = np.mean(over, axis=0)
    found = {}
    for name, part in (("safe", share[~unsafe]), ("unsafe", share[unsafe])):
        found[name] = Estimate(float(part.mean()), *bootstrap_interval(part, repeats=REPEATS), len(part)).stored()
    return found


def figures(labels: np.ndarray, scores: np.ndarray, fold: np.ndarray | None = None) -> dict:
    """METRICS with 95% bootstrap intervals over texts; in folds, the mean of each fold's (their scores have scales of
    their own).
    """
    return {name: _estimate(metric, labels, fold, scores).stored() for name, metric in METRICS.items()}


def difference(labels: np.ndarray, first: np.ndarray, second: np.ndarray, fold: np.ndarray | None = None) -> dict:
    """AUROC of `first` minus that of `second` on the same texts (a paired bootstrap)."""

    def gap(labels, first, second):
        return auroc(labels, first) - auroc(labels, second)

    return _estimate(gap, labels, fold, first, second).stored()


def _estimate(metric: Callable, labels: np.ndarray, fold: np.ndarray | None, *scores: np.ndarray) -> Estimate:
    fold = np.zeros(len(labels), int) if fold is None else fold

    def drawn(rows):
        parts = [rows[fold[rows] == i] for i in np.unique(fold)]
        return float(np.mean([metric(labels[part], *(s[part] for s in scores)) for part in parts]))

    rows = np.arange(len(labels))
    return Estimate(drawn(rows), *bootstrap_interval(rows, statistic=drawn, repeats=REPEATS), len(labels))


def risk_at_tenths(streams: list[tuple[np.ndarray, bool, float]]) -> dict[str, list[float]]:
    """The mean running maximum after each tenth of a text, for harmful and harmless ones: a curve without the words.
    streams: (scores by token, harmful, threshold) of each text.
    """
    found: dict[str, list[float]] = {}
    for name, side in (("harmful", True), ("harmless", False)):
        rows = [np.maximum.accumulate(row) for row, harmful, _ in streams if harmful == side]
        ends = [np.ceil(np.arange(1, 11) / 10 * len(row)).astype(int) - 1 for row in rows]
        curves = np.array([row[end] for row, end in zip(rows, ends, strict=True)], np.float64)
        found[name] = [round(float(risk), 4) for risk in curves.mean(axis=0)]
    return found


def halting(streams: list[tuple[np.ndarray, bool, float]]) -> dict:
    """How many harmful texts a stream would be halted in, and after which share of them (median)."""
    at = [(np.flatnonzero(row > threshold), len(row)) for row, harmful, threshold in streams if harmful]
    shares = [over[0] / n for over, n in at if len(over)]
    before = round(float(np.median(shares)), 4) if shares else None
    return {"halted": rate_of([len(over) > 0 for over, _ in at]).stored(), "released_before": before}


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
