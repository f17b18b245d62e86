"""The course's pictures: tokens and their scores, score distributions, rates with intervals; one style for all."""

from .rates import attack_grid, bars_with_intervals, fpr_by_length, seeds_dots, who_catches_what
from .scores import loss_curves, reliability, roc_pr, score_histogram
from .style import (
    AS_COUNT,
    AS_FINE,
    AS_PERCENT,
    BENIGN,
    INK,
    NEUTRAL,
    ONSET,
    OPTIONS,
    OUTPUT,
    PROMPT,
    SERIES,
    THRESHOLD,
    Picture,
    colours_of,
    finish,
    picture,
    show,
)
from .system import draw_system
from .tokens import gradient_bars, loss_positions, risk_curve, token_heatmap

__all__ = [
    "AS_COUNT",
    "AS_FINE",
    "AS_PERCENT",
    "BENIGN",
    "INK",
    "NEUTRAL",
    "ONSET",
    "OPTIONS",
    "OUTPUT",
    "PROMPT",
    "Picture",
    "SERIES",
    "THRESHOLD",
    "attack_grid",
    "bars_with_intervals",
    "colours_of",
    "draw_system",
    "finish",
    "fpr_by_length",
    "gradient_bars",
    "loss_curves",
    "loss_positions",
    "picture",
    "reliability",
    "risk_curve",
    "roc_pr",
    "score_histogram",
    "seeds_dots",
    "show",
    "token_heatmap",
    "who_catches_what",
]
