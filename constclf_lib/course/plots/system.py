"""The picture of the system: who reads what, and where a reply can be stopped. Chapter 00 opens with it."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path

from .style import BENIGN, INK, NEUTRAL, ONSET, OUTPUT, PAPER, PROMPT, THRESHOLD, darker, in_pixels, picture

# A shield, its middle at (0, 0), about 94 by 121 pixels.
_SHIELD = [
    (-42, -46), (-20, -46), (-8, -52), (0, -56), (8, -52), (20, -46), (42, -46), (44, -4), (34, 30), (0, 52),
    (-34, 30), (-44, -4), (-42, -46),
]  # fmt: skip


def _bodyguard(axes: Axes, x: float, y: float, words: str, colour: str, ink: str) -> None:
    """A shield with two lines of words, its middle at (x, y)."""
    path = Path([(x + 1.12 * dx, y + 1.12 * dy) for dx, dy in _SHIELD], [Path.MOVETO] + [Path.CURVE4] * 12)
    axes.add_patch(PathPatch(path, facecolor=colour, edgecolor=PAPER, linewidth=2.5, zorder=3))
    label = axes.text(x, y - 3, words, ha="center", va="center", fontsize=9, fontweight="bold", color=ink, zorder=4)
    label.set_linespacing(1.15)


def _box(axes, x, y, width, height, colour, face=PAPER, **more) -> None:
    style = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=10",
        facecolor=face,
        edgecolor=colour,
        linewidth=1.8,
        zorder=2,
        **more,
    )
    axes.add_patch(style)


def _arrow(axes, start, end, colour=NEUTRAL, **more) -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color=colour, linewidth=1.8, zorder=1, **more)
    )


@picture
def draw_system(title: str = "Two bodyguards: one reads the question, one reads the answer as it is written"):
    """The system: prompt, input classifier, assistant, token stream, output classifier, released text (chapter 00)."""
    figure, axes = in_pixels("the guarded system", 800, 278)
    axes.text(16, 24, title, fontsize=12, fontweight="bold", va="center")
    y = 112
    _box(axes, 70, y, 108, 76, PROMPT)
    axes.text(70, y - 14, "prompt", ha="center", va="center", fontsize=10.5, fontweight="bold", color=PROMPT)
    axes.text(70, y + 11, "“How do I …?”", ha="center", va="center", fontsize=9.5, color="#555555")
    _arrow(axes, (126, y), (168, y), PROMPT)
    _bodyguard(axes, 214, y, "input\nclassifier", PROMPT, PAPER)
    _arrow(axes, (260, y), (302, y))
    _box(axes, 356, y, 104, 76, NEUTRAL, face="#F4F4F4")
    axes.text(356, y, "assistant", ha="center", va="center", fontsize=10.5, fontweight="bold")
    for k in range(6):  # no colour yet: what has not passed the second shield has no score
        box = Rectangle((420 + 21 * k, y - 9), 18, 18, facecolor="#F4F4F4", edgecolor=NEUTRAL, linewidth=0.8, zorder=2)
        axes.add_patch(box)
    axes.text(482, y - 24, "token by token", ha="center", va="center", fontsize=9, color="#555555")
    _arrow(axes, (547, y), (562, y))
    _bodyguard(axes, 608, y, "output\nclassifier", OUTPUT, INK)
    _arrow(axes, (654, y), (690, y), BENIGN)
    _box(axes, 740, y, 96, 76, BENIGN)
    axes.text(740, y - 14, "released", ha="center", va="center", fontsize=10.5, fontweight="bold", color=darker(BENIGN))
    axes.text(740, y + 11, "“First you …”", ha="center", va="center", fontsize=9.5, color="#555555")
    for x, what, why in (
        (214, "blocked", "the assistant is never asked"),
        (608, "halted", "this token and the rest stay inside"),
    ):
        _arrow(axes, (x, y + 56), (x, y + 96), ONSET)
        axes.text(x + 14, y + 76, "risk > threshold", va="center", fontsize=9, color=darker(THRESHOLD))
        axes.text(x, y + 112, what, ha="center", va="center", fontsize=10.5, fontweight="bold", color=darker(ONSET))
        axes.text(x, y + 132, why, ha="center", va="center", fontsize=9, color="#555555")
    figure.set_label(title)
    return figure, (
        f"{title}. A prompt passes the input classifier, which can block it. The assistant writes token by token. "
        "Every token is scored by the output classifier, which can halt the reply, before it is released."
    )
