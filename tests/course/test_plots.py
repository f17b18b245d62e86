"""Pictures: what they say, and that they stay small, white and silent."""

import inspect
import io
import itertools
import sys
import warnings

import matplotlib
import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from constclf_lib.course import (
    panels,
    plots,
    rehearsal,
)
from constclf_lib.course.plots import style as canvas
from constclf_lib.evaluation import Estimate, wilson_interval

rng = np.random.default_rng(0)
TOKENS = [
    "Of",
    " course",
    ".",
    " To",
    " brew",
    " it",
    ",",
    " steep",
    " seven",
    " drops",
    "\n",
    " 🦊",
    "",
    " $x_1$",
    " <b>",
]
SCORES = np.linspace(0.01, 0.99, len(TOKENS))
LENGTHS = pd.DataFrame({"length": [20, 80], "rate": [0.01, 0.04], "low": [0.005, 0.02], "high": [0.02, 0.07]})
LABELS = np.arange(200) % 2 == 1
PICTURES = {
    "system": lambda title: plots.draw_system(title),
    "heat map": lambda title: plots.token_heatmap(
        TOKENS, SCORES, 0.5, 7, 6, title, prompt="How do I?", input_score=0.2
    ),
    "unguarded": lambda title: plots.token_heatmap(TOKENS, SCORES[:5], title=title),
    "blocked": lambda title: plots.token_heatmap([], [], 0.5, title=title, prompt="$\\frac{1}{2}$ 🦊"),
    "risk": lambda title: plots.risk_curve(SCORES, 0.5, 6, 7, title),
    "positions": lambda title: plots.loss_positions(
        [TOKENS[:5]], [[1, 1, 1, 1, 0]], [[None, None, None, " no", None]], title
    ),
    "gradient": lambda title: plots.gradient_bars(TOKENS, np.eye(1, len(TOKENS))[0], SCORES, 6, title),
    "losses": lambda title: plots.loss_curves(
        {"A": [0.7, 0.2], "B": [[0.7, 0.7], [0.6, 0.1]]}, title, level=(0.69, "half")
    ),
    "roc": lambda title: plots.roc_pr(
        LABELS, {"input": LABELS + rng.random(200), "bag of words": rng.random(200)}, title
    ),
    "histogram": lambda title: plots.score_histogram(rng.random(50), rng.random(50), 0.5, title),
    "reliability": lambda title: plots.reliability(LABELS, rng.random(200), title),
    "bars": lambda title: plots.bars_with_intervals(
        {"guarded": (1, 100), "x": (0.5, 0.4, 0.6)}, title, reference={"x": 0.4}
    ),
    "seeds": lambda title: plots.seeds_dots({"A": [0.9, 0.8], "B": [0.1, 0.9], "one seed": [0.5]}, title),
    "lengths": lambda title: plots.fpr_by_length({"running maximum": LENGTHS}, title),
    "lengths, log": lambda title: plots.fpr_by_length({"running maximum": LENGTHS}, title, log=True),
    "two by two": lambda title: plots.who_catches_what([1, 1, 0, 0], [1, 0, 1, 0], title),
    "grid": lambda title: plots.attack_grid(pd.DataFrame({"none": [0.9], "both": [0.0]}, ["leet"]), title, ["leet"], 9),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_small_white_described_and_silent(name):
    title = f"A finding with $signs$, a_b and 50%: {name}"
    with warnings.catch_warnings(), matplotlib.rc_context({"figure.facecolor": "black", "font.size": 30}):
        warnings.simplefilter("error")  # a warning about a missing glyph would end up in a notebook
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="matplotlib")  # an older one, of itself
        figure = PICTURES[name](title)
        data, metadata = figure._repr_mimebundle_()
        assert matplotlib.rcParams["font.size"] == 30  # the reader's own style is as it was
    assert len(data["image/png"]) < 60_000
    pixels = np.asarray(Image.open(io.BytesIO(data["image/png"])).convert("RGB"))
    assert pixels.shape[1] == 800 and (pixels[[0, 0, -1, -1], [0, -1, 0, -1]] >= 250).all()
    assert (pixels < 128).any(-1).mean() > 0.002, "an empty page"
    alt = metadata["image/png"]["alt"]
    assert alt.startswith(title) and len(alt) > len(title) + 5
    assert data["text/plain"].startswith("<picture: ") and title not in data["text/plain"]
    assert figure._repr_mimebundle_()[0]["image/png"] == data["image/png"], "drawing twice must give the same picture"


def test_alt_text_can_be_given_and_shown(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    figure = plots.risk_curve([0.1], title="x", alt="words of the author")
    assert figure.alt_text == "words of the author"
    plots.show(figure, alt="other words")
    assert shown == [figure] and figure.alt_text == "other words"


def test_pyplot_stays_out():
    """A figure that pyplot knows is shown twice in a notebook and never freed."""
    for module in (
        canvas,
        plots,
        rehearsal,
        panels,
        sys.modules["constclf_lib.course.plots.tokens"],
        sys.modules["constclf_lib.course.plots.system"],
        sys.modules["constclf_lib.course.plots.rates"],
        sys.modules["constclf_lib.course.plots.scores"],
    ):
        imports = [line for line in inspect.getsource(module).splitlines() if "import" in line]
        assert not [line for line in imports if "pyplot" in line or "pylab" in line], module.__name__


# Machado et al. (2009), severity 1, linear RGB
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_stay_apart_for_colour_blind_readers(kind):
    def seen(colour):
        rgb = np.array(matplotlib.colors.to_rgb(colour))
        linear = np.clip(BLINDNESS[kind] @ np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92), 0, 1)
        return np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)

    colours = {name: getattr(canvas, name) for name in ("PROMPT", "OUTPUT", "THRESHOLD", "ONSET", "BENIGN", "INK")}
    for (a, first), (b, second) in itertools.combinations(colours.items(), 2):
        assert np.linalg.norm(seen(first) - seen(second)) > 0.1, (a, b)


def test_heat_map_shows_every_word_inside_the_page_and_strikes_what_was_withheld():
    tokens = [f" word{i}" for i in range(60)] + [" " + "unbroken" * 9]
    figure = plots.token_heatmap(tokens, np.full(61, 0.3), 0.25, 5, 2, "t")
    figure.canvas.draw()
    axes = figure.axes[0]
    words = [text for text in axes.texts if text.get_text().startswith(("word", "unbroken"))]
    assert [text.get_text() for text in words] == [token.strip() for token in tokens]
    boxes = [text.get_window_extent() for text in words]
    assert all(box.x0 >= 0 and box.x1 <= 800 and box.y0 >= 0 for box in boxes)
    for one, other in itertools.pairwise(boxes):  # no word lies on its neighbour
        assert other.x0 >= one.x1 - 1 or other.y1 < one.y0 + 5
    struck = [line for line in axes.lines if len(set(line.get_ydata())) == 1]
    assert len(struck) == 61 - 5 + 1  # the withheld words, and the word "withheld" in the key
    assert "5 tokens released" in figure.alt_text and "harm begins at token 2" in figure.alt_text


def test_heat_map_of_a_blocked_prompt_says_so():
    figure = plots.token_heatmap([], [], 0.5, prompt="How?", input_score=0.9)
    assert any("never asked" in text.get_text() for text in figure.axes[0].texts)


def test_pictures_say_their_numbers():
    assert "3 of 5 tokens receive gradient" in plots.gradient_bars(list("abcde"), [0, 1, 0, -2, 3]).alt_text
    low, high = wilson_interval(3, 1000)
    assert any(
        text.get_text().endswith("n = 1,000")
        for text in plots.bars_with_intervals({"x": Estimate(0.1, 0, 1, 1000)}).axes[0].texts
    )
    bars = plots.bars_with_intervals({"x": (3, 1000)}).alt_text
    assert bars == f"x 0.3% ({canvas.percent(low)} to {canvas.percent(high)})."
    assert plots.who_catches_what([1, 1, 0, 0, 0], [1, 0, 1, 0, 0]).alt_text.endswith(
        "both: 1, input classifier only: 1, output classifier only: 1, nobody: 2."
    )
    assert [canvas.percent(x) for x in (0.86, 0.044, 0.0038, 0, 1)] == ["86%", "4.4%", "0.38%", "0%", "100%"]


def test_names_keep_their_colour_and_others_get_a_free_one():
    colours = canvas.colours_of(["mine", "output classifier", "yours"])
    assert colours["output classifier"] == canvas.OUTPUT
    assert len({colours[name] for name in ("mine", "output classifier", "yours")}) == 3
