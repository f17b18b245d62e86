"""Pictures of one classifier: loss curves, ROC and precision-recall, where the scores lie, whether they are honest.

Used in chapters 02 to 06. Deliberately not here: anything that computes a result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import NullFormatter

from ...lab import auroc, average_precision, pr_points, reliability_table, roc_points
from .style import (
    AS_COUNT,
    AS_FINE,
    AS_PERCENT,
    BENIGN,
    NEUTRAL,
    OUTPUT,
    THRESHOLD,
    Picture,
    colours_of,
    darker,
    finish,
    percent,
    picture,
)


@picture
def loss_curves(runs: Mapping[str, Sequence], title: str = "", ylabel: str = "loss", smooth: int = 1, level=None):
    """Loss (or gradient norm) against step. runs: name -> values, or name -> list of runs, one thin line for each seed.

    smooth: window of a running mean. level: (value, words) of a horizontal line, as (0.693, "always says one half").
    """
    figure = Picture("loss curves", 8, 3.1)
    axes = figure.add_subplot()
    last: dict[str, list[float]] = {name: [] for name in runs}
    colours = colours_of(runs)
    for name, values in runs.items():
        for number, run in enumerate(values if np.ndim(values[0]) else [values]):
            run = np.asarray(run, float)
            run = np.convolve(run, np.ones(smooth) / smooth, "valid") if smooth > 1 else run
            axes.plot(
                np.arange(len(run)) + smooth - 1,
                run,
                color=colours[name],
                label=None if number else name,
                alpha=0.85,
                linewidth=1.5,
            )
            last[name].append(run[-1])
    if level is not None:
        axes.axhline(level[0], color=NEUTRAL, linestyle=(0, (5, 2)), linewidth=1.2, label=level[1])
    axes.set(xlabel="step", ylabel=ylabel)
    finish(figure, title, keys=5)
    return figure, "Last values: " + "; ".join(
        f"{name} " + ", ".join(f"{v:.3g}" for v in ends) for name, ends in last.items()
    ) + "."


@picture
def roc_pr(labels, scores: Mapping[str, Sequence[float]], title: str = "", budget: float | None = 0.01):
    """ROC with a logarithmic false-positive axis (the left end is where guards live), and precision against recall.

    scores: name -> one score per label. budget: the false-positive rate that is marked. AUROC and AUPRC are in the key.
    """
    figure = Picture("ROC and precision-recall", 8, 3.6)
    left, right = figure.subplots(1, 2)
    negatives, words = int((~np.asarray(labels, bool)).sum()), []
    colours = colours_of(scores)
    for name, values in scores.items():
        fpr, tpr, _ = roc_points(labels, values)
        recall, precision, _ = pr_points(labels, values)
        area, average = auroc(labels, values), average_precision(labels, values)
        left.step(
            np.maximum(fpr, 0.5 / negatives),
            tpr,
            where="post",
            color=colours[name],
            label=f"{name}: AUROC {area:.3f}, AUPRC {average:.3f}",
        )
        right.step(recall, precision, where="post", color=colours[name])
        words.append(f"{name} AUROC {area:.3f}, AUPRC {average:.3f}")
    if budget is not None:
        left.axvline(budget, color=THRESHOLD, linestyle=(0, (5, 2)), label=f"budget {percent(budget)}")
    left.set(
        xscale="log",
        xlim=(0.5 / negatives, 1),
        ylim=(-0.02, 1.03),
        xlabel="false-positive rate (log)",
        ylabel="true-positive rate",
    )
    left.xaxis.set_major_formatter(AS_FINE)
    left.minorticks_off()
    right.set(xlim=(-0.01, 1.02), ylim=(-0.02, 1.03), xlabel="recall (true-positive rate)", ylabel="precision")
    right.xaxis.set_major_formatter(AS_PERCENT)
    for axes in (left, right):
        axes.yaxis.set_major_formatter(AS_PERCENT)
    finish(figure, title, keys=2)
    return figure, "; ".join(words) + "."


@picture
def score_histogram(benign, harmful, threshold: float | None = None, title: str = "", xlabel: str = "score"):
    """Where the two classes lie, and the threshold between them.

    The count axis is logarithmic, so single errors show.
    """
    benign, harmful = np.asarray(benign, float), np.asarray(harmful, float)
    figure = Picture("score histogram", 8, 3.0)
    axes = figure.add_subplot()
    lowest, highest = min(benign.min(), harmful.min(), 0), max(benign.max(), harmful.max(), 1)
    bins = np.linspace(lowest, highest, 41).tolist()
    axes.hist([benign, harmful], bins, color=[BENIGN, OUTPUT], label=["harmless", "harmful"], log=True, rwidth=0.95)
    if threshold is not None:
        axes.axvline(threshold, color=THRESHOLD, linestyle=(0, (5, 2)), label=f"threshold {threshold:.3g}")
    axes.set(xlabel=xlabel, ylabel="how many (log)", xlim=(lowest, highest))
    axes.yaxis.set_major_formatter(AS_COUNT)
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", visible=False)
    finish(figure, title, keys=3)
    words = f"{len(benign)} harmless and {len(harmful)} harmful scores."
    if threshold is not None:
        caught, flagged = percent((harmful > threshold).mean()), percent((benign > threshold).mean())
        words += f" Above the threshold: {caught} of the harmful, {flagged} of the harmless."
    return figure, words


@picture
def reliability(labels, probabilities, title: str = "", bins: int = 10):
    """What the model said against what happened, bin by bin, with Wilson intervals; honest is the diagonal."""
    table = reliability_table(labels, probabilities, bins)
    figure = Picture("reliability", 8, 3.4)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=NEUTRAL, linestyle=(0, (5, 2)), linewidth=1.2, label="said = seen")
    error = [table["seen"] - table["low"], table["high"] - table["seen"]]
    axes.errorbar(
        table["said"],
        table["seen"],
        yerr=np.maximum(error, 0),
        color=OUTPUT,
        ecolor=darker(OUTPUT),
        marker="o",
        markersize=5,
        capsize=3,
        elinewidth=1.2,
        label="bins, 95% interval",
    )
    axes.set(
        xlabel="probability that was said", ylabel="share that was harmful", xlim=(-0.02, 1.02), ylim=(-0.03, 1.04)
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(AS_PERCENT)
    finish(figure, title, keys=2)
    pairs = ", ".join(f"{percent(row.said)} said {percent(row.seen)} seen" for row in table.itertuples())
    return figure, f"{pairs}."
