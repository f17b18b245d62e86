"""Three panels to play with, each with a plain twin for places without widgets.

    guard_panel (chapter 00)        twin: show_reply
    operating_panel (chapter 08)    twin: show_operating_point
    red_team_panel (chapter 09)     twin: RedTeam.attack

A panel is a thin shell: sliders and buttons call the twin and put its picture and words into an image and a label. It
uses what ipywidgets 7.7 (Colab) and 8 share, needs no Output widget, and its text form never varies, so nbval can hold
it to its word. Everything a user typed is escaped before it is shown.
Deliberately not here: anything a twin does (rehearsal.py); no panel decides, draws or grades by itself.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from ..lab import ATTACKS
from .plots import BENIGN, ONSET
from .red_team_game import Attempt, RedTeam
from .rehearsal import moved, picture_of, rehearse, show_operating_point

_STOPS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1.0)


def guard_panel(guard, prompt: str = "", max_new_tokens: int = 256):
    """A prompt, two thresholds, and where the reply would have been cut. Moving a threshold asks no model again.

    The panel's parts are its attributes: prompt, button, input_threshold, output_threshold, view, words.
    """
    import ipywidgets

    panel = _panel("guard")
    panel.prompt = ipywidgets.Textarea(value=prompt, placeholder="Ask the assistant something", layout=_wide("64px"))
    panel.button = ipywidgets.Button(description="Ask", button_style="primary", icon="comment")
    panel.input_threshold = _slider("input", guard.thresholds.input)
    panel.output_threshold = _slider("output", guard.thresholds.output)
    panel.view, panel.words = ipywidgets.Image(format="png", layout=_wide()), ipywidgets.HTML()
    panel.rehearsal = None

    def draw(_=None):
        if panel.rehearsal is None:
            return
        limits = moved(guard, panel.input_threshold.value, panel.output_threshold.value)
        _put(panel, picture_of(panel.rehearsal, limits))

    def ask(_=None):
        with _told(panel):
            panel.rehearsal = rehearse(guard, panel.prompt.value, max_new_tokens)
            draw()

    panel.button.on_click(ask)
    for slider in (panel.input_threshold, panel.output_threshold):
        slider.observe(draw, names="value")
    thresholds = ipywidgets.HBox([panel.input_threshold, panel.output_threshold])
    panel.children = [panel.prompt, panel.button, thresholds, panel.view, panel.words]
    if prompt:
        ask()
    return panel


def operating_panel(attack_scores, benign_groups: Mapping[str, tuple], thresholds, limit: float | None = None):
    """Both thresholds move a live operating point. Attributes: input_threshold, output_threshold, view, words."""
    import ipywidgets

    panel = _panel("operating point")
    panel.input_threshold = _slider("input", thresholds.input)
    panel.output_threshold = _slider("output", thresholds.output)
    panel.view, panel.words = ipywidgets.Image(format="png", layout=_wide()), ipywidgets.HTML()

    def draw(_=None):
        values = panel.input_threshold.value, panel.output_threshold.value
        _put(panel, show_operating_point(attack_scores, benign_groups, *values, limit=limit))

    for slider in (panel.input_threshold, panel.output_threshold):
        slider.observe(draw, names="value")
    panel.children = [ipywidgets.HBox([panel.input_threshold, panel.output_threshold]), panel.view, panel.words]
    draw()
    return panel


def red_team_panel(guard, targets: Mapping[str, tuple[str, Sequence[str]]], max_new_tokens: int = 256):
    """Attack the guard by hand and keep the score.

    The panel's parts are its attributes: target, prompt, reply_in, button, words, record, game.
    """
    import ipywidgets

    panel = _panel("red team")
    panel.game = RedTeam(guard, targets, max_new_tokens)
    codes = [("plain text", None)] + [(f"code: {a.reply_code}", name) for name, a in ATTACKS.items() if a.reply_code]
    panel.target = ipywidgets.Dropdown(options=list(targets), description="target", layout=_wide())
    panel.prompt = ipywidgets.Textarea(value=targets[panel.target.value][0], description="attack", layout=_wide("84px"))
    panel.reply_in = ipywidgets.Dropdown(options=codes, description="reply in")
    panel.button = ipywidgets.Button(description="Attack", button_style="warning", icon="bolt")
    panel.words, panel.record = ipywidgets.HTML(), ipywidgets.HTML()

    def attack(_=None):
        with _told(panel):
            attempt = panel.game.attack(panel.target.value, panel.prompt.value, panel.reply_in.value)
            panel.words.value = _paper(f"<b>{html.escape(panel.game.score)}</b>")
            panel.record.value = _paper(_row(attempt)) + panel.record.value

    def offer(change):
        panel.prompt.value = targets[change["new"]][0]

    panel.button.on_click(attack)
    panel.target.observe(offer, names="value")
    panel.children = [panel.target, panel.prompt, panel.reply_in, panel.button, panel.words, panel.record]
    return panel


def _row(attempt: Attempt) -> str:
    colour = ONSET if attempt.success else BENIGN
    released = html.escape(attempt.released_text) or "<i>nothing was released</i>"
    return f"<span style='color:{colour}'>●</span> {html.escape(str(attempt))}<br>{released}"


def _panel(name: str):
    """A column of widgets whose text form is its name and nothing that could vary."""
    import ipywidgets

    class Panel(ipywidgets.VBox):
        def __repr__(self) -> str:
            return f"<panel: {name}>"

    return Panel()


def _slider(side: str, calibrated: float):
    """A slider over probabilities that is fine near 0 and 1 and has the calibrated threshold among its stops."""
    import ipywidgets

    stops = {**{value: f"{value:g}" for value in _STOPS}, float(calibrated): f"{calibrated:.4g} (calibrated)"}
    options = [(stops[value], value) for value in sorted(stops)]
    return ipywidgets.SelectionSlider(
        options=options,
        value=float(calibrated),
        description=f"{side} threshold",
        continuous_update=False,
        style={"description_width": "initial"},
        layout=ipywidgets.Layout(width="47%", margin="0 1% 0 0"),
    )


def _wide(height: str | None = None):
    import ipywidgets

    return ipywidgets.Layout(width="100%", max_width="800px", height=height)


def _paper(content: str) -> str:
    """HTML on white with dark letters, also in a dark theme. `content` is escaped already where it came from a user."""
    return f"<div style='background:#fff;color:#222;padding:4px 8px;max-width:784px;line-height:1.4'>{content}</div>"


def _put(panel, figure) -> None:
    """Show a picture in the panel, and its description for those who cannot see it."""
    panel.view.value = figure.png()
    panel.words.value = _paper(html.escape(figure.alt_text))


class _told:
    """An exception in a button's callback would vanish in the log; the panel says it instead."""

    def __init__(self, panel):
        self.panel = panel

    def __enter__(self):
        self.panel.button.disabled = True

    def __exit__(self, kind, error, trace):
        self.panel.button.disabled = False
        if error is not None and isinstance(error, Exception):
            self.panel.words.value = _paper(html.escape(f"{kind.__name__}: {error}"))
            return True
        return False
