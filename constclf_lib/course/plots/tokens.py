"""Pictures of tokens: which position learns what, the risk of every token, the staircase, where the gradient falls.

Used from chapter 00 on (heat map, risk curve), in 02 (what a loss asks of which position) and 04 to 07 (gradient bars).
Deliberately not here: HTML; a picture looks the same in every viewer of notebooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from .style import (
    BENIGN,
    DPI,
    FAINT,
    INK,
    NEUTRAL,
    ONSET,
    OUTPUT,
    PAPER,
    PROMPT,
    RISK,
    THRESHOLD,
    Picture,
    darker,
    drawable,
    finish,
    in_pixels,
    picture,
    text_width,
)

_SIZE, _LINE, _LEFT, _RIGHT = 10.5, 25, 30, 784


def _place(tokens: Sequence[str]) -> tuple[list[tuple[float, float, float]], float]:
    """(x, y, width) in pixels for every token, wrapped into lines between the margins, and the height of it all."""
    places, x, y = [], float(_LEFT), 0.0
    for token in tokens:
        width = max(text_width(drawable(token), _SIZE), 5.0)
        if x > _LEFT and x + width > _RIGHT:
            x, y = float(_LEFT), y + _LINE
            width = max(text_width(drawable(token.lstrip(" ")), _SIZE), 5.0)  # a line does not begin with a space
        places.append((x, y, width))
        x += width
        if token.endswith("\n"):
            x, y = float(_LEFT), y + _LINE
    return places, y + _LINE


def _wrapped(words: str, size: float) -> list[str]:
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, size) > _RIGHT - _LEFT:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@picture
def token_heatmap(
    tokens: Sequence[str],
    scores: Sequence[float],
    threshold: float | None = None,
    halt_index: int | None = None,
    onset_token: int | None = None,
    title: str = "",
    prompt: str | None = None,
    input_score: float | None = None,
    what: str = "score",
):
    """The words of a reply, coloured by score; what was withheld is grey and struck through (chapter 00 on).

    tokens: text pieces, one per score. scores: from 0 to 1; tokens past the last one are drawn unscored. what: the
    name of the colour scale. halt_index: first token that was not released, None if all were. onset_token: where harm
    begins.
    prompt: shown above with its input score; a prompt that was blocked is a heat map without tokens.
    """
    places, height = _place(tokens)
    prompt_lines = _wrapped(drawable(" ".join(prompt.split())), _SIZE) if prompt is not None else []
    title_lines = _wrapped(title, 12.6) if title else []
    top = 14 + 21 * len(title_lines) + (30 + 20 * len(prompt_lines) if prompt_lines else 6)
    figure, axes = in_pixels(
        "token heat map", 800, top + 22 * bool(tokens) + height * bool(tokens) + (46 if tokens else 34)
    )
    for k, line in enumerate(title_lines):
        axes.text(16, 22 + 21 * k, line, fontsize=11.5, fontweight="bold", va="center")
    if prompt_lines:
        y = 26.0 + 21 * len(title_lines)
        label = "prompt" if input_score is None else f"prompt · input score {input_score:.2f}"
        axes.text(_LEFT, y, label, fontsize=9, color=PROMPT, fontweight="bold", va="center")
        for k, line in enumerate(prompt_lines):
            axes.text(_LEFT, y + 20 * (k + 1), line, fontsize=_SIZE, va="center")
        axes.add_patch(Rectangle((16, y - 8), 4, 20 * len(prompt_lines) + 18, color=PROMPT, linewidth=0))
    if tokens:
        axes.text(_LEFT, top + 8, "reply", fontsize=9, color=darker(OUTPUT), fontweight="bold", va="center")
        axes.add_patch(Rectangle((16, top), 4, height + 20, color=OUTPUT, linewidth=0))
    first = top + 34
    cut = len(tokens) if halt_index is None else halt_index
    for i, (token, (x, line_y, width)) in enumerate(zip(tokens, places, strict=True)):
        y = first + line_y
        withheld, halted = i >= cut, i == halt_index
        face = RISK(float(scores[i])) if i < len(scores) else PAPER
        face = "#F1F1F1" if withheld and not halted else face
        axes.add_patch(Rectangle((x, y - 10), width, 20, facecolor=face, edgecolor=PAPER, linewidth=0.8))
        word = drawable(token)
        indent = width - text_width(word.lstrip(" "), _SIZE)  # spaces are a gap, drawn by nobody
        axes.text(
            x + max(indent, 0),
            y,
            word.lstrip(" "),
            fontsize=_SIZE,
            va="center_baseline",
            color="#777777" if withheld and not halted else INK,
        )
        if withheld:
            axes.plot([x, x + width], [y, y], color="#A0A0A0" if not halted else INK, linewidth=1.0)
        if i == onset_token:
            axes.plot([x, x], [y - 12, y + 12], color=ONSET, linewidth=2.2, linestyle=(0, (1.2, 1.2)))
        if halted:
            axes.add_patch(Rectangle((x, y - 10), width, 20, fill=False, edgecolor=THRESHOLD, linewidth=1.8, zorder=3))
            axes.plot([x, x], [y - 14, y + 14], color=THRESHOLD, linewidth=3.4, solid_capstyle="butt", zorder=3)
    if not tokens and threshold is not None:
        words = f"blocked: above the threshold of {threshold:.4g}, so the assistant was never asked"
        axes.text(_LEFT, figure.get_figheight() * DPI - 18, words, fontsize=9, va="center", color=darker(THRESHOLD))
    if tokens:
        y = figure.get_figheight() * DPI - 20
        _legend(axes, y, threshold, halt_index is not None, onset_token is not None, f"{what} 0")
    figure.set_label(title)
    return figure, _heatmap_words(tokens, scores, cut, onset_token, prompt, title, what)


def _legend(axes: Axes, y: float, threshold: float | None, halted: bool, onset: bool, lowest: str) -> None:
    """One quiet line: the colour scale with the threshold on it, and the marks that occur."""
    axes.text(_LEFT, y, lowest, fontsize=8.5, va="center", color="#555555")
    x, width = _LEFT + text_width(f"{lowest} ", 8.5) + 2, 120
    across, down = axes.get_xlim(), axes.get_ylim()  # which imshow would move
    axes.imshow(np.linspace(0, 1, 64)[None], cmap=RISK, extent=(x, x + width, y + 6, y - 6), aspect="auto", zorder=1)
    axes.add_patch(Rectangle((x, y - 6), width, 12, fill=False, edgecolor=FAINT, linewidth=0.8, zorder=2))
    axes.set(xlim=across, ylim=down)
    axes.text(x + width + 6, y, "1", fontsize=8.5, va="center", color="#555555")
    if threshold is not None and 0 <= threshold <= 1:
        axes.plot([x + width * threshold] * 2, [y - 9, y + 9], color=THRESHOLD, linewidth=2.4, zorder=3)
    x += width + 30
    marks = []
    if threshold is not None:
        marks.append((THRESHOLD, f"threshold {threshold:.3g}" + (", halted here" if halted else "")))
    if onset:
        marks.append((ONSET, "harm begins"))
    for colour, words in marks:
        dashes = (0, (1.2, 1.2)) if colour == ONSET else "-"
        axes.plot([x, x], [y - 8, y + 8], color=colour, linewidth=2.6, linestyle=dashes)
        axes.text(x + 8, y, words, fontsize=8.5, va="center", color="#555555")
        x += 34 + text_width(words, 8.5)
    if halted:
        axes.text(x, y, "withheld", fontsize=8.5, va="center", color="#8E8E8E")
        axes.plot([x, x + text_width("withheld", 8.5)], [y, y], color="#A8A8A8", linewidth=1.0)


def _heatmap_words(tokens, scores, cut, onset, prompt, title, what) -> str:
    parts = [title] if title else []
    if prompt is not None:
        parts.append(f"Prompt: {prompt}")
    if tokens:
        highest = max((float(s) for s in scores), default=0.0)
        parts.append(f"Reply of {len(tokens)} tokens, highest {what} {highest:.2f}, {cut} tokens released")
    if onset is not None:
        parts.append(f"harm begins at token {onset}")
    return " ".join(part if part[-1] in ".?!" else part + "." for part in parts)


def _staircase(axes, scores: np.ndarray, colour: str = OUTPUT) -> None:
    """The scores as dots on a thin line, their running maximum as a staircase above."""
    x = np.arange(len(scores))
    axes.plot(x, scores, color=colour, linewidth=0.9, alpha=0.55, marker="o", markersize=3, label="score of the token")
    axes.step(x, np.maximum.accumulate(scores), where="post", color=darker(colour), label="running maximum")


def _marks(axes, threshold, onset, halt, length) -> None:
    if threshold is not None:
        axes.axhline(threshold, color=THRESHOLD, linestyle=(0, (5, 2)), label=f"threshold {threshold:.3g}")
    if onset is not None:
        axes.axvline(onset - 0.5, color=ONSET, linestyle=(0, (1, 1.2)), linewidth=2.2, label="harm begins")
    if halt is not None:
        axes.axvspan(halt - 0.5, length - 0.5, color="#EDEDED", zorder=0, label="withheld")


@picture
def risk_curve(
    scores: Sequence[float],
    threshold: float | None = None,
    onset: int | None = None,
    halt_index: int | None = None,
    title: str = "",
    ylabel: str = "probability of harm",
):
    """Score of every token, the running maximum as a staircase, threshold, onset, and what a halt withholds."""
    figure = Picture("risk curve", 8, 3.1)
    axes, values = figure.add_subplot(), np.asarray(scores, float)
    _staircase(axes, values)
    _marks(axes, threshold, onset, halt_index, len(values))
    axes.set(xlabel="token of the completion", ylabel=ylabel, xlim=(-0.5, len(values) - 0.5))
    if values.min(initial=0) >= 0 and values.max(initial=1) <= 1:
        axes.set_ylim(-0.02, 1.03)
    finish(figure, title, keys=5)
    crossing = "never halted" if halt_index is None else f"halted at token {halt_index}"
    return figure, f"Risk over {len(values)} tokens, highest {values.max(initial=0):.2f}, {crossing}."


@picture
def gradient_bars(
    tokens: Sequence[str],
    gradient: Sequence[float],
    scores: Sequence[float] | None = None,
    onset: int | None = None,
    title: str = "",
):
    """Under every token the size of the gradient it receives; above, if given, scores and running maximum (chapter 05).

    gradient: d loss / d logit, one per token. Below zero (orange) the step raises the score, above (green) it lowers.
    A text of more than 58 tokens makes the picture wider, so that its words keep their size.
    """
    received, n = np.asarray(gradient, float), len(tokens)
    figure = Picture("gradient bars", max(8, 1.1 + 0.118 * n), 4.2 if scores is not None else 2.9)
    panels = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1]) if scores is not None else [figure.add_subplot()]
    if scores is not None:
        _staircase(panels[0], np.asarray(scores, float))
        panels[0].set_ylabel("score")
    axes = panels[-1]
    axes.bar(np.arange(n), received, width=0.8, color=[OUTPUT if g < 0 else BENIGN for g in received])
    axes.axhline(0, color=NEUTRAL, linewidth=0.8)
    axes.set(ylabel="gradient", xlim=(-0.7, n - 0.3))
    for panel in panels:
        if onset is not None:
            panel.axvline(onset - 0.5, color=ONSET, linestyle=(0, (1, 1.2)), linewidth=2.0, label="harm begins")
    axes.set_xticks(np.arange(n), [drawable(t.strip()) or "·" for t in tokens], rotation=90, fontsize=8)
    axes.tick_params(axis="x", length=0, pad=2)
    axes.grid(axis="x", visible=False)
    if scores is not None:
        panels[0].legend(loc="lower left", bbox_to_anchor=(-0.01, 0.98), ncols=3, handlelength=1.6, borderpad=0)
        panels[0].grid(axis="x", visible=False)
        panels[0].tick_params(axis="x", length=0)
    finish(figure, title)
    reached = int((received != 0).sum())
    return figure, f"{reached} of {n} tokens receive gradient."


@picture
def loss_positions(
    tokens: Sequence[Sequence[str]],
    attention_mask: Sequence[Sequence[int]],
    targets: Sequence[Sequence[str | None]],
    title: str = "",
):
    """A padded batch, position by position: token, mask, and the word that the logits at this position should predict.

    tokens: text pieces, padding included, as many in every row. attention_mask: 1 where a token is real. targets: None
    where nothing is learnt. Every target stands under the position whose logits it judges (chapter 02).
    """
    size, pad, first = 8.5, 9.0, 66.0
    wanted = [[target or "–" for target in row] for row in targets]
    columns = zip(*tokens, *wanted, strict=True)
    widths = [max(text_width(drawable(word.strip()), size) for word in column) + pad for column in columns]
    squeeze = min(1.0, (_RIGHT - first) / sum(widths))
    size, edges = size * squeeze, first + np.concatenate([[0.0], np.cumsum(widths)]) * squeeze
    title_lines, block = _wrapped(title, 12.6) if title else [], 76
    top = 22 + 21 * len(title_lines)
    figure, axes = in_pixels("what is learnt where", 800, top + block * len(tokens) + 26)
    for k, line in enumerate(title_lines):
        axes.text(16, 22 + 21 * k, line, fontsize=11.5, fontweight="bold", va="center")
    for row, (words, real, aims) in enumerate(zip(tokens, attention_mask, targets, strict=True)):
        y = top + block * row + 10
        for name, line_y in (("token", y), ("mask", y + 20), ("target", y + 44)):
            axes.text(16, line_y, name, fontsize=8.5, color="#555555", va="center")
        for word, seen, aim, left, right in zip(words, real, aims, edges, edges[1:], strict=False):
            colour, middle = (INK if seen else "#B0B0B0"), (left + right) / 2
            centred: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size}
            face = "#FFFFFF" if seen else "#F1F1F1"
            axes.add_patch(Rectangle((left + 1, y - 9), right - left - 2, 18, facecolor=face, edgecolor=FAINT))
            axes.text(middle, y, drawable(word.strip()), color=colour, **centred)
            axes.text(middle, y + 20, str(int(seen)), color=colour, **centred)
            if aim is None:
                axes.text(middle, y + 44, "–", color="#B0B0B0", **centred)
                continue
            axes.annotate(
                "", (middle, y + 37), (middle, y + 28), arrowprops={"arrowstyle": "->", "color": PROMPT}, zorder=4
            )
            axes.add_patch(
                Rectangle((left + 1, y - 9), right - left - 2, 18, fill=False, edgecolor=PROMPT, linewidth=2)
            )
            axes.text(middle, y + 44, drawable(aim.strip()), color=PROMPT, fontweight="bold", **centred)
    note = "framed: the logits here are asked for the target below them   ·   – : no loss   ·   grey: padding"
    axes.text(16, top + block * len(tokens) + 8, note, fontsize=8.5, color="#555555", va="center")
    figure.set_label(title)
    asked = [[(words[t], aim) for t, aim in enumerate(row) if aim] for words, row in zip(tokens, targets, strict=True)]
    told = "; ".join(", ".join(f"{word.strip()!r} predicts {aim.strip()!r}" for word, aim in row) for row in asked)
    parts = [title] if title else []
    parts += [f"Batch of {len(tokens)} rows", told or "nothing is learnt"]
    return figure, " ".join(part if part[-1] in ".?!" else part + "." for part in parts)
