"""What the shipped classifiers train on beside the train split: three ways round them that the chapters found, closed.

Chains (chapter 07): a harmful completion behind harmless ones in one reply. Unreadable replies (09): writing that the
classifier was never taught; what a guard cannot read it must not release. Noise around requests (02): letters and words
without sense that drown the request. The chapters themselves train on the split as it is, so that both can be compared.

Deliberately not here: the reply code and the attack kinds that are held out (attacks.py). They stay unseen.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence

import pandas as pd

from .encoding import batch_text_ids, decode_text

# Of the rows of the split, added to them. "coded": its replies in a known code once more, so that they stay readable.
SHARES = {"chains": 0.4, "coded": 0.3, "unreadable": 0.04, "noise": 0.25}


def chains(exchanges: pd.DataFrame, size: int, seed: int = 0, longest: int = 6) -> pd.DataFrame:
    """`size` replies that each hold two to `longest` completions of `exchanges` in a row; one in two holds exactly one
    harmful completion, anywhere in the row. Columns `completion`, `harmful`.
    """
    rng, parts = random.Random(f"chains/{seed}"), dict(list(exchanges.groupby("harmful").completion))
    harmful, harmless = parts[True].tolist(), parts[False].tolist()
    rows = []
    for _ in range(size):
        row = rng.choices(harmless, k=rng.randint(2, longest))
        if bad := rng.random() < 0.5:
            row[rng.randrange(len(row))] = rng.choice(harmful)
        rows.append({"completion": " ".join(row), "harmful": bad})
    return pd.DataFrame(rows)


def unreadable(exchanges: pd.DataFrame, tokenizer, size: int, seed: int = 0) -> pd.DataFrame:
    """`size` replies that nobody can read, all labelled harmful: a completion under a cipher with an alphabet of its
    own, or tokens that no completion holds, in any order; one in two behind a harmless completion. Columns
    `completion`, `harmful`.
    """
    rng, texts = random.Random(f"unreadable/{seed}"), exchanges.completion.tolist()
    openings = exchanges.completion[~exchanges.harmful].tolist()
    known = set(tokenizer.all_special_ids).union(*batch_text_ids(tokenizer, texts))
    words = sorted(set(range(len(tokenizer))) - known)
    rows = []
    for _ in range(size):
        if rng.random() < 0.5:
            alphabet = "".join(rng.sample(string.ascii_lowercase, 26))
            text = rng.choice(texts).lower().translate(str.maketrans(string.ascii_lowercase, alphabet))
        else:
            text = decode_text(tokenizer, rng.choices(words, k=rng.randint(12, 60)))
        before = rng.choice(openings) + " " if rng.random() < 0.5 else ""
        rows.append({"completion": before + text, "harmful": True})
    return pd.DataFrame(rows)


def noisy(exchanges: pd.DataFrame, size: int, seed: int = 0) -> pd.DataFrame:
    """`size` prompts of `exchanges` with noise before them, behind them, or both: up to 300 letters, or up to 60 words
    of other prompts. What is asked for stays, so the label does. Columns `prompt`, `restricted`.
    """
    rng = random.Random(f"noisy/{seed}")
    picked = exchanges.sample(size, replace=True, random_state=seed)
    words = sorted({word for prompt in exchanges.prompt.head(2000) for word in prompt.split()})
    rows = []
    for prompt, restricted in zip(picked.prompt, picked.restricted, strict=True):
        sides = rng.choice(((True, False), (False, True), (False, True), (True, True)))
        before, after = (_noise(rng, words) if side else "" for side in sides)
        rows.append({"prompt": f"{before} {prompt} {after}".strip(), "restricted": bool(restricted)})
    return pd.DataFrame(rows)


def _noise(rng: random.Random, words: Sequence[str]) -> str:
    if rng.random() < 0.5:
        return " ".join(rng.choices(words, k=rng.randint(3, 60)))
    signs = string.ascii_lowercase + rng.choice(("", " " * 5, string.digits + string.punctuation))
    return "".join(rng.choices(signs, k=rng.randint(20, 300)))


def hardened_completions(exchanges: pd.DataFrame, tokenizer, seed: int = 0) -> pd.DataFrame:
    """The output classifier's training rows: the split, chains, replies in a known code, unreadable replies."""
    sizes = {name: int(share * len(exchanges)) for name, share in SHARES.items()}
    added = (
        chains(exchanges, sizes["chains"], seed),
        exchanges[exchanges.reply_code != ""].sample(sizes["coded"], replace=True, random_state=seed),
        unreadable(exchanges, tokenizer, sizes["unreadable"], seed),
    )
    return pd.concat([rows[["completion", "harmful"]] for rows in (exchanges, *added)], ignore_index=True)


def hardened_prompts(exchanges: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The input classifier's training rows: the split, and requests in noise."""
    added = noisy(exchanges, int(SHARES["noise"] * len(exchanges)), seed)
    return pd.concat([exchanges[["prompt", "restricted"]], added], ignore_index=True)
