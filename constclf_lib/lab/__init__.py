"""Emberfall, the fictional world in which truth is known: constitution, grammar, attacks, exchanges, grading, campaign.

The library below never imports it: whoever brings their own data needs nothing from here.
"""

from .adaptive_attack import SLOTS, HillClimb, Plan, RandomSearch, Target, compose, guarded_system, hunt
from .artifacts import lab_tokenizer, load_lab, load_thresholds
from .attacks import ATTACKS, SEEN, UNSEEN
from .augmentation import augment, chains, hardened_completions, hardened_prompts
from .campaign import (
    Part,
    answer_all,
    baselines_of,
    count_campaign,
    grade_attacks,
    measure_system,
    plain_versions,
    run_campaign,
)
from .codes import CODES
from .constitution import load_constitution, system_prompt
from .dedup import jaccard, leaked, near_duplicates, shingles
from .exchanges import (
    COLUMNS,
    SIZES,
    Exchange,
    assistant_corpus,
    backbone_corpus,
    benign_about_hazards,
    load_split,
    long_completions,
    make_split,
    write_exchange,
)
from .grading import attack_outcome, attack_success, facts_held, grade, headline
from .metrics import (
    auroc,
    average_precision,
    bag_of_words_baseline,
    expected_calibration_error,
    pr_points,
    rate_by_length,
    rate_table,
    reliability_table,
    roc_points,
)
from .oracle import judge
from .reference import ABLATION_SEEDS, OUTPUT_STEPS, PAPER, VARIANTS, ablation_table, mean_hardening, mean_past
from .tokenizer import as_assistant, train_tokenizer
from .world import grammar, topics, true_facts

__all__ = [
    "ABLATION_SEEDS",
    "ATTACKS",
    "CODES",
    "COLUMNS",
    "Exchange",
    "HillClimb",
    "OUTPUT_STEPS",
    "PAPER",
    "Part",
    "Plan",
    "RandomSearch",
    "SEEN",
    "SIZES",
    "SLOTS",
    "Target",
    "UNSEEN",
    "VARIANTS",
    "ablation_table",
    "answer_all",
    "as_assistant",
    "assistant_corpus",
    "attack_outcome",
    "attack_success",
    "augment",
    "backbone_corpus",
    "auroc",
    "average_precision",
    "bag_of_words_baseline",
    "baselines_of",
    "benign_about_hazards",
    "chains",
    "compose",
    "count_campaign",
    "expected_calibration_error",
    "facts_held",
    "grade",
    "grade_attacks",
    "grammar",
    "guarded_system",
    "hardened_completions",
    "hardened_prompts",
    "headline",
    "hunt",
    "jaccard",
    "judge",
    "lab_tokenizer",
    "leaked",
    "load_constitution",
    "load_lab",
    "load_split",
    "load_thresholds",
    "long_completions",
    "make_split",
    "mean_hardening",
    "mean_past",
    "measure_system",
    "near_duplicates",
    "plain_versions",
    "pr_points",
    "rate_by_length",
    "rate_table",
    "reliability_table",
    "roc_points",
    "run_campaign",
    "shingles",
    "system_prompt",
    "topics",
    "train_tokenizer",
    "true_facts",
    "write_exchange",
]
