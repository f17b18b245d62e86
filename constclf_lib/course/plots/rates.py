"""Pictures of numbers: curves, bars with intervals, seeds as dots, tables as heat maps. Every title states its finding.

Used in chapters 01 to 10. Each function returns a `Picture`, which shows itself as the last line of a cell; anywhere
else use `show(figure)`. Rates come as fractions and are drawn as percentages.
Deliberately not here: anything that computes a result (what a picture shows is in its arguments), pictures of tokens
(tokens.py) and of one classifier's scores (scores.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from ...evaluation import Estimate, estimate_rate, t_interval
from .style import (
    AS_COUNT,
    AS_FINE,
    AS_PERCENT,
    FAINT,
    INK,
    MEANING,
    NEUTRAL,
    ONSET,
    OUTPUT,
    PAPER,
    PROMPT,
    RISK,
    THRESHOLD,
    Picture,
    colours_of,
    darker,
    finish,
    percent,
    picture,
)


@picture
def bars_with_intervals(
    rates: Mapping[str, tuple],
    title: str = "",
    xlabel: str = "",
    reference: Mapping[str, float] | None = None,
    reference_name: str = "the paper",
    colours: Mapping[str, str] | None = None,
    limit: float | None = None,
    n: Mapping[str, int] | None = None,
):
    """One bar per name with its interval. rates: name -> Estimate, (rate, low, high), or (count, trials).

    reference: name -> a figure to stand beside, drawn as a diamond. limit: a line that is not to be crossed. n: name ->
    how many stand behind a bar, for those that are no Estimate (which brings its own).
    """
    n = {name: values.n for name, values in rates.items() if isinstance(values, Estimate)} | dict(n or {})
    rows = {}
    for name, values in rates.items():
        rate, low, high = (estimate_rate(*values) if len(values) == 2 else values)[:3]
        rows[name] = float(rate), float(low), float(high)
    figure = Picture("bars with intervals", 8, 1.35 + 0.36 * len(rows))
    axes, places = figure.add_subplot(), np.arange(len(rows))[::-1]
    furthest = max([high for _, _, high in rows.values()] + list((reference or {}).values()) + [limit or 0])
    colours = {**dict.fromkeys(rows, OUTPUT), **MEANING, **(colours or {})}
    for place, (name, (rate, low, high)) in zip(places, rows.items(), strict=True):
        axes.barh(place, rate, height=0.62, color=colours[name], zorder=2)
        axes.plot([low, high], [place] * 2, color=INK, linewidth=1.6, zorder=3)
        axes.plot([low, high], [place] * 2, color=INK, marker="|", markersize=8, linestyle="none", zorder=3)
        count = f"  n = {n[name]:,}" if name in n else ""
        axes.text(
            max(high, (reference or {}).get(name, 0)) + 0.02 * furthest,
            place,
            percent(rate) + count,
            va="center",
            fontsize=9,
            bbox={"facecolor": PAPER, "linewidth": 0, "pad": 1},
        )
    if reference:
        points = [(reference[name], place) for place, name in zip(places, rows, strict=True) if name in reference]
        across, up = zip(*points, strict=True)
        axes.scatter(across, up, marker="D", s=34, facecolor=PAPER, edgecolor=INK, zorder=4, label=reference_name)
    if limit is not None:
        axes.axvline(limit, color=THRESHOLD, linestyle=(0, (5, 2)), label=f"limit {percent(limit)}", zorder=2.5)
    axes.set(xlim=(min(0, *(low for _, low, _ in rows.values())), furthest * (1.3 if n else 1.15)), xlabel=xlabel)
    left, right = axes.get_xlim()
    axes.set_xticks([tick for tick in axes.get_xticks() if left <= tick <= min(right, 1)])  # no room beyond 100%
    axes.set_yticks(places, list(rows), fontsize=9.5, color=INK)
    axes.xaxis.set_major_formatter(AS_FINE)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    finish(figure, title, keys=3 if reference or limit is not None else 0)
    words = [f"{name} {percent(rate)} ({percent(low)} to {percent(high)})" for name, (rate, low, high) in rows.items()]
    return figure, "; ".join(words) + "."


@picture
def seeds_dots(groups: Mapping[str, Sequence[float]], title: str = "", ylabel: str = "", as_percent: bool = True):
    """One dot per seed, a line at the mean, its t-interval as a bar. Never a mean without its seeds (chapter 06)."""
    figure = Picture("one dot per seed", 8, 3.3)
    axes, words = figure.add_subplot(), []
    colours = colours_of(groups)
    for k, (name, group) in enumerate(groups.items()):
        values, colour = np.asarray(group, float), colours[name]
        spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else [0.0]
        axes.scatter(k + np.asarray(spread), values, s=38, color=colour, edgecolor=PAPER, linewidth=0.8, zorder=3)
        low, high = t_interval(group) if len(values) > 1 else (values[0], values[0])
        axes.plot([k + 0.3] * 2, [low, high], color=darker(colour), linewidth=2, zorder=2)
        axes.plot([k + 0.24, k + 0.36], [values.mean()] * 2, color=darker(colour), linewidth=3, zorder=2)
        words.append(
            f"{name}: mean {values.mean():.3f}, {len(values)} seeds from {values.min():.3f} to {values.max():.3f}"
        )
    axes.set_xticks(range(len(groups)), list(groups), fontsize=10, color=INK)
    axes.set(ylabel=ylabel, xlim=(-0.5, len(groups) - 0.4))
    axes.grid(axis="x", visible=False)
    if as_percent:
        axes.yaxis.set_major_formatter(AS_PERCENT)
        low, high = axes.get_ylim()  # an interval may leave [0, 1]; the axis does not follow it
        axes.set_ylim(max(low, -0.04), min(high, 1.04))
    figure.supxlabel("dots: seeds · bar: mean with 95% interval", fontsize=8.5, color=NEUTRAL, x=0.02, ha="left")
    finish(figure, title)
    return figure, "; ".join(words) + "."


@picture
def fpr_by_length(tables: Mapping[str, pd.DataFrame], title: str = "", budget: float | None = 0.01, log: bool = False):
    """False-positive rate of a fixed threshold against completion length, with Wilson bands (chapters 04 and 07).

    tables: name -> rows with `length`, `rate`, `low`, `high`, as from `rate_by_length`. log: a logarithmic axis of
    lengths, with a tick at every length of the first table.
    """
    figure = Picture("false positives by length", 8, 3.1)
    axes, words = figure.add_subplot(), []
    colours = colours_of(tables)
    for name, table in tables.items():
        colour = colours[name]
        axes.fill_between(table["length"], table["low"], table["high"], color=colour, alpha=0.18, linewidth=0)
        axes.plot(table["length"], table["rate"], color=colour, marker="o", markersize=4, label=name)
        first, last = table.iloc[0], table.iloc[-1]
        ends = [f"{percent(row['rate'])} at {row['length']:.0f} tokens" for row in (first, last)]
        words.append(f"{name}: {ends[0]}, {ends[1]}")
    if budget is not None:
        axes.axhline(budget, color=THRESHOLD, linestyle=(0, (5, 2)), label=f"calibrated to {percent(budget)}")
    axes.set(xlabel="tokens in the completion", ylabel="false-positive rate", ylim=(0, None))
    axes.yaxis.set_major_formatter(AS_FINE)
    if log:
        axes.set(xscale="log", xlabel="tokens in the completion (log)")
        axes.set_xticks(next(iter(tables.values()))["length"])
        axes.xaxis.set_major_formatter(AS_COUNT)
        axes.minorticks_off()
    finish(figure, title, keys=4)
    return figure, "; ".join(words) + "."


@picture
def who_catches_what(input_caught, output_caught, title: str = ""):
    """The 2 x 2 table of the guarded system: caught by both, by one of them, by neither (chapter 08).

    input_caught, output_caught: bools, one per attack.
    """
    first, second = np.asarray(input_caught, bool), np.asarray(output_caught, bool)
    total = len(first)
    figure = Picture("who catches what", 8, 3.0)
    axes, words = figure.add_subplot(), []
    for row, by_input in enumerate((True, False)):
        for column, by_output in enumerate((True, False)):
            count = int(((first == by_input) & (second == by_output)).sum())
            what = ("both", "input classifier only", "output classifier only", "nobody")[2 * row + column]
            face = {
                "both": "#D9D9D9",
                "input classifier only": "#B3D4E8",
                "output classifier only": "#F7DDA6",
                "nobody": PAPER,
            }[what]
            axes.add_patch(_tile(column, row, face, ONSET if what == "nobody" else PAPER))
            rate, low, high, _ = estimate_rate(count, total)
            axes.text(column, row - 0.16, f"{count:,}", ha="center", va="center", fontsize=17, fontweight="bold")
            axes.text(column, row + 0.1, what, ha="center", va="center", fontsize=10)
            axes.text(
                column,
                row + 0.29,
                f"{percent(rate)}  ({percent(low)} to {percent(high)})",
                ha="center",
                va="center",
                fontsize=8.5,
                color="#555555",
            )
            words.append(f"{what}: {count}")
    axes.set(xlim=(-0.55, 1.55), ylim=(1.52, -0.52))
    axes.set_xticks([0, 1], ["halted by the output classifier", "not halted"], color=darker(OUTPUT), fontsize=9.5)
    axes.set_yticks([0, 1], ["blocked by the\ninput classifier", "not blocked"], color=PROMPT, fontsize=9.5)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    finish(figure, title)
    return figure, f"Of {total} attacks, caught by " + ", ".join(words) + "."


def _tile(x: float, y: float, face: str, edge: str):
    inset = 0.015 if edge != PAPER else 0
    return Rectangle(
        (x - 0.49 + inset, y - 0.47 + inset),
        0.98 - 2 * inset,
        0.94 - 2 * inset,
        facecolor=face,
        edgecolor=edge,
        linewidth=1.6,
    )


@picture
def attack_grid(rates: pd.DataFrame, title: str = "", sealed: Sequence[str] = (), n: int | None = None):
    """Success of every attack kind (rows) against every guard (columns); kinds in `sealed` are marked ◆."""
    figure = Picture("attack grid", 8, 1.1 + 0.265 * len(rates))
    axes, values = figure.add_subplot(), rates.to_numpy(float)
    axes.imshow(values, cmap=RISK, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        weight, colour = ("bold", INK) if value else ("normal", NEUTRAL)
        axes.text(column, row, percent(value), ha="center", va="center", fontsize=9, fontweight=weight, color=colour)
    kinds = [f"{kind.replace('_', ' ')}{' ◆' if kind in sealed else ''}" for kind in rates.index]
    axes.set_xticks(range(len(rates.columns)), list(rates.columns), fontsize=9.5, color=INK)
    axes.set_yticks(range(len(kinds)), kinds, fontsize=9, color=INK)
    axes.set_xticks(np.arange(0.5, len(rates.columns) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(kinds) - 1), minor=True)
    axes.grid(visible=False)
    axes.grid(which="minor", color=PAPER, linewidth=2)
    axes.xaxis.tick_top()
    axes.tick_params(which="both", length=0)
    axes.spines[:].set(visible=True, color=FAINT)
    notes = ["◆ sealed"] * bool(len(sealed)) + ([f"{n:,} attempts"] if n else [])
    if notes:
        figure.supxlabel(" · ".join(notes), fontsize=8.5, color=NEUTRAL, x=0.02, ha="left")
    finish(figure, title)
    means = ", ".join(f"{column} {percent(rates[column].mean())}" for column in rates.columns)
    return figure, f"Mean success over {len(rates)} attack kinds: {means}."
