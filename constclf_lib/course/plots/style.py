"""What all pictures of the course share: colours that mean something, a figure with alternative text, measured text.

Colours (Okabe-Ito, told apart by colour-blind readers) keep their meaning in every chapter. Pictures bring their own
white ground, so they read the same in a dark theme, and their own style, so a notebook's rcParams do not leak in.
Deliberately not here: pyplot. A `Picture` belongs to nobody's global list, so nothing needs closing.
"""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Callable, Iterable

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, PercentFormatter
from PIL import Image

PROMPT = "#0072B2"  # the prompt and the input classifier
OUTPUT = "#E69F00"  # the completion and the output classifier
THRESHOLD = "#CC79A7"
ONSET = "#D55E00"  # where harm begins
BENIGN = "#009E73"
NEUTRAL = "#8A8A8A"  # assistant, baselines, what was withheld
INK, FAINT, PAPER = "#222222", "#DDDDDD", "#FFFFFF"
OPTIONS = {"A": "#56B4E9", "B": INK, "annealed": OUTPUT}  # the three losses; annealed is the one that ships


MEANING = {
    **OPTIONS, "input": PROMPT, "input only": PROMPT, "input classifier": PROMPT, "output": OUTPUT,
    "output only": OUTPUT, "output classifier": OUTPUT, "both": INK, "both bodyguards": INK, "guarded": INK,
    "none": NEUTRAL, "unguarded": NEUTRAL, "bag of words": NEUTRAL,
}  # fmt: skip
SERIES = (OUTPUT, PROMPT, BENIGN, INK, "#56B4E9", NEUTRAL)  # for names without a colour of their own
RISK = LinearSegmentedColormap.from_list("risk", ["#FFFFFF", "#FCEBC8", "#F5CD78", OUTPUT])
DPI = 100


_STYLE = {
    "font.family": "DejaVu Sans", "font.size": 10, "text.color": INK, "text.parse_math": False,
    "axes.edgecolor": NEUTRAL, "axes.labelcolor": INK, "axes.linewidth": 0.8, "axes.titlesize": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.grid": True,
    "grid.color": "#EEEEEE", "grid.linewidth": 0.8, "xtick.color": "#555555", "ytick.color": "#555555",
    "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.frameon": False, "legend.fontsize": 9,
    "lines.linewidth": 1.8, "figure.facecolor": PAPER, "savefig.facecolor": PAPER,
}  # fmt: skip


class _Style:
    """The course's style for the length of a `with` block, whatever rcParams the notebook has set."""

    def __enter__(self):
        self.context = matplotlib.rc_context()
        self.context.__enter__()
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)

    def __exit__(self, *error):
        self.context.__exit__(*error)


class Picture(Figure):
    """A matplotlib figure that shows itself as a small PNG with alternative text when it is the last line of a cell."""

    def __init__(self, name: str, width: float = 8.0, height: float = 3.2, laid_out: bool = True):
        """width, height: inches of 100 pixels. laid_out: False leaves the places of all parts to the caller."""
        engine = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.055) if laid_out else None
        super().__init__(figsize=(width, height), dpi=DPI, facecolor=PAPER, layout=engine)
        self.agg = FigureCanvasAgg(self)
        self.name, self.alt_text = name, name

    def png(self) -> bytes:
        """The picture as a PNG of 256 colours: a third of the size of true colour, and the eye sees no difference."""
        with _Style():
            self.agg.draw()
            if self.get_layout_engine() is not None:
                self.set_layout_engine("none")  # laid out once; a second round would move things by a pixel
                self.agg.draw()
        image = Image.fromarray(np.asarray(self.agg.buffer_rgba())).convert("RGB")
        out = io.BytesIO()
        image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        return out.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None):
        # The text form never varies, so strict nbval compares it and leaves the pixels alone.
        data = {"text/plain": f"<picture: {self.name}>", "image/png": self.png()}
        return data, {"image/png": {"alt": self.alt_text}}


def in_pixels(name: str, width_px: float, height_px: float) -> tuple[Picture, Axes]:
    """A picture whose only axes measure pixels, x to the right and y down."""
    figure = Picture(name, width_px / DPI, height_px / DPI, laid_out=False)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width_px), ylim=(height_px, 0))
    axes.axis("off")
    return figure, axes


def picture(draw: Callable) -> Callable:
    """Decorator of every drawing function: the course's style, and alternative text made of title and content.

    The function returns (figure, description). The wrapped one takes `alt=` to replace the description.
    """

    @functools.wraps(draw)
    def wrapped(*args, alt: str | None = None, **options) -> Picture:
        with _Style():
            figure, description = draw(*args, **options)
        title = figure.get_suptitle().replace("\n", " ")
        figure.alt_text = alt or ". ".join(part for part in (title.rstrip("."), description) if part)
        return figure

    return wrapped


def show(figure: Picture, alt: str | None = None) -> None:
    """Display a picture in the middle of a cell, with alternative text for those who cannot see it."""
    from IPython.display import display

    if alt is not None:
        figure.alt_text = alt
    display(figure)


def finish(figure: Picture, title: str, keys: int = 0) -> None:
    """The finding, in bold, at the top left; below the panels a key of `keys` columns (0: none)."""
    lines = textwrap.wrap(title, int(figure.get_figwidth() * 11.5)) or [""]
    figure.suptitle("\n".join(lines), x=0.02, ha="left", fontsize=11.5, fontweight="bold", color=INK)
    if keys:
        figure.legend(loc="outside lower left", ncols=keys, handlelength=1.6, columnspacing=1.4)


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for every name: the one it has in the whole course, or the next one that is free."""
    names = list(names)
    taken = {MEANING[name] for name in names if name in MEANING}
    free = [colour for colour in SERIES if colour not in taken] or list(SERIES)
    rest = [name for name in names if name not in MEANING]
    return {**MEANING, **{name: free[k % len(free)] for k, name in enumerate(rest)}}


def percent(value: float) -> str:
    """A rate with as many digits as it deserves: 86%, 4.4%, 0.38%."""
    points = 100 * value
    return f"{points:.0f}%" if abs(points) >= 9.95 or points == 0 else f"{points:.2g}%"


AS_PERCENT = PercentFormatter(1, decimals=None)
AS_FINE = FuncFormatter(lambda value, _: f"{100 * value:g}%")
AS_COUNT = FuncFormatter(lambda value, _: f"{value:,.0f}")


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """Width of `text` in pixels of a `Picture`, as Agg will draw it, spaces at its ends included."""
    font, renderer = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal"), _ruler()
    width = lambda string: renderer.get_text_width_height_descent(string, font, False)[0]  # noqa: E731
    return width(f"|{text}|") - width("||")


@functools.lru_cache(maxsize=1)
def _ruler() -> RendererAgg:
    return RendererAgg(8, 8, DPI)


def drawable(text: str) -> str:
    """`text` with every character that the font lacks, or that would break a line, shown as a small box or sign."""
    known = get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap()
    signs = {"\n": "⏎", "\t": "⇥", "\r": "⏎"}
    return "".join(signs.get(c, c if ord(c) in known else "\u25a1") for c in text)


def darker(colour: str, by: float = 0.72) -> str:
    """The same hue with more contrast on white, for words."""
    red, green, blue = matplotlib.colors.to_rgb(colour)
    return matplotlib.colors.to_hex((red * by, green * by, blue * by))
