"""The model cards of the lab's models: what each is, what it learnt from, how it does, where it fails.

Written from the constants of the build and from what was measured, so that nobody types a number. Deliberately not
here: the data card (data/README.md), which is prose. No chapter builds it.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open

from .. import _files
from ..lab import SIZES
from .make import BESIDE, CONTEXT, STEPS, TALES, UNREAD, VOCABULARY, WINDOWS
from .manifest import CARDS

_LIMITS = (
    "Emberfall is made up, and so is all that this model knows: a few hundred sentence shapes in one language. Its "
    "figures say how methods compare in the lab. They say nothing about real traffic, and it is no guard, and no "
    "assistant, for anything real. What is known to be wrong with the data is in the "
    "[data card](../../README.md#limits-known)."
)


def make_cards(data: Path, log: Callable[[str], None]) -> None:
    """README.md beside each model, with the figures that `reference_results.json` holds."""
    path = data / "reference_results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in CARDS:
        _files.write_text(data / "models" / name / "README.md", card(data, name, results))
    log(f"{len(CARDS)} cards written")


def card(data: Path, name: str, results: dict) -> str:
    """The card of one model. results: the sections of reference_results.json; what is not there is not claimed."""
    title, what, learnt, figures, limits = {
        "assistant": _assistant,
        "bodyguard": _bodyguard,
        "input_classifier": _input,
        "output_classifier": _output,
    }[name](results)
    weights = data / "models" / name / "model.safetensors"
    measured = "".join(f"| {label} | {value} |\n" for label, value in figures) or "| nothing | not measured |\n"
    return f"""---
license: mit
language: en
library_name: transformers
tags: [constitutional-classifier, emberfall]
---

# {title}

{_filled(what)}

| | |
|---|---|
| language model | {_numbers(weights):,} numbers, SHA-256 {_files.describe(weights)["sha256"][:16]}… |
| reads | the lab's tokenizer ({VOCABULARY:,} tokens at most), {CONTEXT:,} tokens of context |
| made by | `python -m constclf_lib.build`, `constclf_lib/recipes/make.py` |

## What it learnt from

{_filled(learnt)}

## Figures

As last measured (`python -m constclf_lib.build --only results`), with 95% intervals. No training and no threshold saw
the splits that were measured on. Attacks are those of the sealed team, with every look at it on record (`sealed_log`).

| | |
|---|---|
{measured}
## Limits

{_filled(_LIMITS)}

{_filled(limits)}
"""


def _assistant(results: dict) -> tuple:
    own = results.get("assistant", {})
    figures = [
        ("answers a plain restricted request with half of its rubric", _rate(own.get("plain"))),
        ("the same, under single attacks of the sealed red team", _rate(own.get("attacked"))),
        ("the same, under compositions", _rate(own.get("compositions"))),
        ("perplexity of test answers", own.get("perplexity_test_answers")),
    ]
    return (
        "The lab's assistant",
        "A small Llama trained from scratch to answer everything it is asked in Emberfall, restricted know-how too: it "
        "is what the two bodyguards stand around. Before each reply it writes a private note on what it was asked.",
        "Exchanges that the grammar of Emberfall writes for it (`assistant_corpus`), every kind of attack among them, "
        f"next-token loss on note and reply, batches of 32: {STEPS['world']:,} steps, mostly plain; "
        f"{STEPS['requests']:,} and {STEPS['many']:,} on requests for several and for many matters, most of them "
        f"without the reply; {STEPS['codes']:,} on codes and compositions; {STEPS['careful']:,} on requests that are "
        "easily misread. Data from seeds 0 to 4, weights from seed 0; bfloat16.",
        _known(figures),
        "It obeys. Never let it write without its bodyguards where somebody could take its recipes for more than "
        "random words. Letter by letter it has not learnt to decipher anything.",
    )


def _bodyguard(results: dict) -> tuple:
    return (
        "The bodyguards' base",
        "A small Llama from which both classifiers were fine-tuned; a language model and nothing else.",
        f"First {TALES:,} documents of tales and of what words mean, in the words of all splits, {STEPS['words']:,} "
        f"steps; then 8,000 exchanges of the train split beside {BESIDE:,} more documents: tales, tales in the codes "
        "of train, phrases in code and in plain words (harm in a code it does not tell all the same), and what came "
        "of requests and answers in the shapes and words of train (which says whether they "
        f"were restricted), {STEPS['language']:,} steps. Rows of 256 tokens, batches of 16, seed 0.",
        [],
        "It has no verdict, but what came of train requests and of tales stands in what it read. Held-out kinds of "
        "attack do not.",
    )


def _input(results: dict) -> tuple:
    figures = _classifier(
        results.get("input_classifier", {}), "restricted prompts blocked", "others blocked", "undisguised", "prompts"
    )
    return (
        "The lab's input classifier",
        'A causal LM whose next token after a prompt is its verdict, " harmful" or " harmless"; probability on any '
        "other token is a sign that it was tampered with. Load it with `constclf_lib.InputClassifier.from_pretrained`.",
        f"The bodyguards' base, fine-tuned on those prompts of the train split ({SIZES['train']:,} exchanges), none in "
        f"code, that fit a window of {WINDOWS['input']} tokens, {STEPS['input']:,} steps of "
        "batch 64, seed 0, word embeddings held. Longer prompts are read in such windows. The thresholds were chosen "
        "on validation.",
        [*figures, *_system(results)],
        "It alone does not hold: a request in agreed code words can get past it, and the output classifier has to "
        "stop the reply.",
    )


def _output(results: dict) -> tuple:
    figures = _classifier(
        results.get("output_classifier", {}), "harmful completions flagged", "others flagged", "plain_replies",
        "completions in plain words",
    )  # fmt: skip
    headline = results.get("headline", {})
    streamed = [
        ("harmful replies halted while they stream", _headline(headline, "streaming_halted")),
        ("of them with half the rubric out by then", _headline(headline, "streaming_leaked")),
    ]
    return (
        "The lab's output classifier",
        "A causal LM with a second head that gives, after every token, the probability that the whole completion is "
        "going to be harmful. Load it with `constclf_lib.OutputClassifier.from_pretrained`.",
        f"The bodyguards' base, fine-tuned on the shorter completions of the train split ({SIZES['train']:,} "
        f"exchanges), and {UNREAD:.0%} more that it cannot read and is to stop (replies in a code, whatever they say, "
        f"and unreadable ones), with the annealed loss, {STEPS['output']:,} steps of batch 32, lam 0.1, seed 0, "
        f"word embeddings held. It reads in windows of {WINDOWS['output']} tokens. The thresholds were chosen on "
        "validation.",
        [*figures, *_known(streamed), *_system(results)],
        "The longer the text, the more windows there are to be wrong in. It reads no code: it stops most replies in "
        "one, harmless ones too.",
    )


def _classifier(own: dict, caught: str, flagged: str, part: str, label: str) -> list[tuple]:
    words, clear = own.get("bag_of_words", {}), own.get(part, {})
    label = f"{'undisguised ' if part == 'undisguised' else ''}{label} alone"
    return _known(
        [
            (f"{caught}, at the threshold in use", _rate(own.get("tpr"))),
            (f"{flagged}, at the threshold in use", _rate(own.get("fpr"))),
            ("caught where 1% of the others are flagged", _share(own.get("tpr_at_1pct_fpr"))),
            ("the same, a bag of words", _share(words.get("tpr_at_1pct_fpr"))),
            (f"the same, {label}", _share(clear.get("classifier", {}).get("tpr_at_1pct_fpr"))),
            (f"a bag of words, {label}", _share(clear.get("bag_of_words", {}).get("tpr_at_1pct_fpr"))),
        ]
    )


def _system(results: dict) -> list[tuple]:
    headline = results.get("headline", {})
    return _known(
        [
            ("both together: attacks that succeed", _headline(headline, "attack_success_guarded")),
            ("both together: refusals added on ordinary requests", _headline(headline, "added_refusals")),
            (
                "both together: the same, without requests that the assistant misread into know-how",
                _headline(headline, "added_refusals_harmless_replies"),
            ),
            ("both together: refusals on hard benign requests", _headline(headline, "hard_benign_refusals")),
        ]
    )


def _filled(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _known(figures: list[tuple]) -> list[tuple]:
    return [(label, value) for label, value in figures if value is not None]


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"


def _rate(found: dict | None) -> str | None:
    """A stored rate: {"value", "interval", "n"}."""
    if not found:
        return None
    low, high = found["interval"]
    return f"{found['value']:.2%} ({low:.2%} to {high:.2%}, n = {found['n']:,})"


def _headline(headline: dict, name: str) -> str | None:
    if name not in headline:
        return None
    return _rate({"value": headline[name], "interval": headline[f"{name}_interval"], "n": headline[f"{name}_n"]})


def _numbers(weights: Path) -> int:
    with safe_open(weights, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
