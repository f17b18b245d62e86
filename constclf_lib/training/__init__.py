"""Training both bodyguards, their base and a probe with transformers.Trainer: trainers on a common base, collators, the
order of rows, arguments, and one call for each (fit, probes).
"""

from .arguments import fine_tune_arguments, latest_checkpoint, pretrain_arguments
from .collators import CompletionCollator, TextCollator, VerdictCollator, pack
from .fit import completion_rows, hold_words, train_input_classifier, train_output_classifier, verdict_rows
from .frozen import frozen_states, scores_on_states, train_value_head
from .lora import add_adapters, precision, resting_dtype
from .memory import Memory, memory_needed
from .probes import ProbeTrainer, StatesCollator, train_probe
from .sampler import LengthGroupedOrder
from .trainers import InputClassifierTrainer, OutputClassifierTrainer, linear_anneal, pretrain

__all__ = [
    "CompletionCollator",
    "InputClassifierTrainer",
    "LengthGroupedOrder",
    "Memory",
    "OutputClassifierTrainer",
    "ProbeTrainer",
    "StatesCollator",
    "TextCollator",
    "VerdictCollator",
    "add_adapters",
    "completion_rows",
    "fine_tune_arguments",
    "frozen_states",
    "hold_words",
    "latest_checkpoint",
    "linear_anneal",
    "memory_needed",
    "pack",
    "precision",
    "pretrain",
    "pretrain_arguments",
    "resting_dtype",
    "scores_on_states",
    "train_input_classifier",
    "train_output_classifier",
    "train_probe",
    "train_value_head",
    "verdict_rows",
]
