"""Training both bodyguards, their base and a probe with transformers.Trainer: trainers on a common base, collators, the
order of rows, arguments, and one call for each (fit, probes).
"""

from .arguments import fine_tune_arguments, latest_checkpoint, pretrain_arguments
from .collators import CompletionCollator, TextCollator, VerdictCollator, pack
from .fit import completion_rows, hold_words, train_input_classifier, train_output_classifier, verdict_rows
from .probes import ProbeTrainer, StatesCollator, train_probe
from .sampler import LengthGroupedOrder
from .trainers import InputClassifierTrainer, OutputClassifierTrainer, linear_anneal, pretrain

__all__ = [
    "CompletionCollator",
    "InputClassifierTrainer",
    "LengthGroupedOrder",
    "OutputClassifierTrainer",
    "ProbeTrainer",
    "StatesCollator",
    "TextCollator",
    "VerdictCollator",
    "completion_rows",
    "fine_tune_arguments",
    "hold_words",
    "latest_checkpoint",
    "linear_anneal",
    "pack",
    "pretrain",
    "pretrain_arguments",
    "train_input_classifier",
    "train_output_classifier",
    "train_probe",
    "verdict_rows",
]
