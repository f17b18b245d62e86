"""Thresholds, intervals and costs. Only arrays and model configs come in; no model is run here.

intervals, estimate (a figure with its interval), ranking (figures that need no threshold), calibration (thresholds
chosen on benign scores), compute (FLOPs).
"""

from .calibration import calibrate_threshold, choose_threshold_pair, in_depth
from .compute import (
    Overhead,
    assistant_flops,
    compute_overhead,
    flops_per_token,
    forward_flops,
    input_flops,
    output_flops,
    probe_flops,
)
from .estimate import Estimate, estimate_rate, rate_of
from .intervals import (
    bootstrap_interval,
    clean_scores,
    paired_difference,
    paired_rate_difference,
    t_interval,
    wilson_interval,
)
from .ranking import highest_scores, labelled, tpr_at_fpr

__all__ = [
    "Estimate",
    "Overhead",
    "assistant_flops",
    "bootstrap_interval",
    "calibrate_threshold",
    "choose_threshold_pair",
    "clean_scores",
    "compute_overhead",
    "estimate_rate",
    "flops_per_token",
    "forward_flops",
    "highest_scores",
    "in_depth",
    "input_flops",
    "labelled",
    "output_flops",
    "paired_difference",
    "paired_rate_difference",
    "probe_flops",
    "rate_of",
    "t_interval",
    "tpr_at_fpr",
    "wilson_interval",
]
