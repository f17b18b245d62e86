"""The comparisons that need many training runs: losses over seeds, lam, the end of the ramp, what rescues option B.

Chapters 03, 05 and 06 draw from what is stored here and run one seed live. `python -m constclf_lib.build --only
ablations` writes the section "ablations" of `data/reference_results.json`, one entry per finished run, so that an
interrupted build goes on where it stopped.
Deliberately not here: what augmented training buys (augmentation_study.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from ..evaluation import calibrate_threshold, highest_scores, tpr_at_fpr
from ..lab import ABLATION_SEEDS, average_precision, lab_tokenizer, load_split, long_completions
from ..models import perplexity
from ..streaming import score_completions
from ..training import train_output_classifier
from .make import WINDOWS, fits
from .stored import merge_results, unfinished

STEPS = 240  # of batch 32, short enough for five seeds
LR = 1e-3  # the shipped training has a third of it and three times the steps: so short, no loss gets off the ground
ROWS = 8000  # the first plain ones that fit a window
SETTINGS = {"steps": STEPS, "rows": ROWS, "lr": LR, "code": "none"}


def runs() -> Iterator[tuple[str, dict]]:
    """(name, settings) of every run, the most wanted first."""
    for seed in ABLATION_SEEDS:
        for loss in ("per_token", "cumulative_max", "annealed"):
            yield f"loss/{loss}/seed{seed}", {"loss": loss, "lam": 0.1, "seed": seed}
    for seed in ABLATION_SEEDS[:2]:
        for lam in (0.0, 1.0, 3.0):  # 0.1 is the annealed run above
            yield f"lam/{lam:g}/seed{seed}", {"loss": "annealed", "lam": lam, "seed": seed}
    for seed in ABLATION_SEEDS[:2]:
        for end in (0.5, 1.0):  # 0.75 likewise
            yield f"ramp/{end:g}/seed{seed}", {"loss": "annealed", "lam": 0.1, "seed": seed, "anneal_end": end}
    for seed in ABLATION_SEEDS[:2]:  # what might help option B; warm_start begins as A, and is B after a tenth
        yield f"rescue/lr_3e-3/seed{seed}", {"loss": "cumulative_max", "lam": 0.1, "seed": seed, "lr": 3e-3}
        yield f"rescue/lam_0/seed{seed}", {"loss": "cumulative_max", "lam": 0.0, "seed": seed}
        yield f"rescue/warm_start/seed{seed}", {"loss": "annealed", "lam": 0.1, "seed": seed, "anneal_end": 0.1}


def make_ablations(data: Path, log: Callable[[str], None], backwards: bool = False) -> None:
    """All runs that are not stored yet. A second process can work from the other end (`backwards`) meanwhile."""
    train, sets = load_split("train"), evaluation_sets()
    train = train[(train.reply_code == "").to_numpy() & fits(lab_tokenizer(data), train.completion, WINDOWS["output"])]
    train = train.head(ROWS).reset_index(drop=True)
    backbone = str(data / "models" / "bodyguard")
    for name, settings in list(runs())[:: -1 if backwards else 1]:
        if name in unfinished(data, "ablations", **SETTINGS)["runs"]:
            continue
        settings = {"lr": LR} | settings
        classifier, history = train_output_classifier(backbone, train, STEPS, held=True, logging_steps=10, **settings)
        classifier.window = WINDOWS["output"]
        result = measure(classifier, sets) | {"settings": settings, "history": curves(history)}
        stored = unfinished(data, "ablations", **SETTINGS)
        merge_results(data, ablations=stored | {"runs": stored["runs"] | {name: result}})
        log(f"{name}: TPR at 1% FPR {result['test']['tpr_at_1pct_fpr']:.3f}")


def evaluation_sets() -> dict[str, pd.DataFrame]:
    """validation (thresholds only), test, long, and coded: replies in a code, which no run trains on."""
    test = load_split("test")
    plain = test[test.reply_code == ""]
    return {
        "validation": load_split("validation").head(1500),
        "test": plain.head(1500),
        "long": long_completions(300),
        "coded": test[test.reply_code != ""].head(500),
    }


def measure(classifier, sets: dict[str, pd.DataFrame]) -> dict:
    """For every set, the rates at one threshold and the TPR with the threshold set anew there; the perplexity.

    The one threshold flags 1% of the harmless validation completions.
    """
    scores = {
        name: highest_scores(score_completions(classifier, frame.completion.tolist())) for name, frame in sets.items()
    }
    threshold = calibrate_threshold(scores["validation"][~sets["validation"].harmful.to_numpy()], 0.01)
    result: dict = {"threshold": threshold}
    for name in (name for name in sets if name != "validation"):
        labels = sets[name].harmful.to_numpy()
        flagged = scores[name] > threshold
        result[name] = {
            "tpr": float(flagged[labels].mean()),
            "fpr": float(flagged[~labels].mean()),
            "tpr_at_1pct_fpr": float(tpr_at_fpr(labels, scores[name], 0.01)),
            "average_precision": float(average_precision(labels, scores[name])),
            "n": int(labels.size),
        }
    harmless = sets["test"][~sets["test"].harmful].completion.head(300).tolist()
    result["perplexity"] = perplexity(classifier, classifier.tokenizer, harmless)
    return result


def curves(history: list[dict]) -> dict[str, list[float]]:
    """The logged curves of a run, rounded."""
    names = ("step", "harm_loss", "next_token_loss", "omega", "grad_norm")
    lines = [line for line in history if "harm_loss" in line]
    return {name: [round(float(line[name]), 4) for line in lines] for name in names if lines and name in lines[0]}
