"""Training both bodyguards and their base with transformers.Trainer: trainers on a common base, collators, the order
of rows, arguments, and one call for each classifier (fit).
"""

from .arguments import fine_tune_arguments, latest_checkpoint, pretrain_arguments
from .collators import CompletionCollator, TextCollator, VerdictCollator, pack
from .fit import completion_rows, hold_words, train_input_classifier, train_output_classifier, verdict_rows
from .sampler import LengthGroupedOrder
from .trainers import InputClassifierTrainer, OutputClassifierTrainer, linear_anneal, pretrain

__all__ = [
    "CompletionCollator",
    "InputClassifierTrainer",
    "LengthGroupedOrder",
    "OutputClassifierTrainer",
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
    "verdict_rows",
]
