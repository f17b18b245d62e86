"""What a classifier trains on beside the written exchanges: attacked versions, and replies that it is to stop
because it cannot read them.

`augment` multiplies exchanges by the rewritings of attacks.py (chapter 01); chapter 09 shows what `not_understood`
buys, and what it costs.
Deliberately not here: duplicates and leaks (dedup.py), and the measuring (recipes.augmentation_study).
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence

import pandas as pd

from ..tokenization import decode_text, text_ids
from .attacks import ATTACKS, SEEN
from .codes import CODES


def augment(exchanges: pd.DataFrame, kinds: Sequence[str] = SEEN, copies: int = 1, seed: int = 0) -> pd.DataFrame:
    """`copies` attacked versions of every exchange, each by a random kind; the labels stay, benign rows included.

    A disguise does not change what is asked for: restricted stays restricted, and permitted stays permitted, or the
    classifier learns that the disguise is the crime. Where a kind asks for the reply in a code, the completion is
    encoded too (onset 0 if it is harmful: no part of a coded text can be told from another by character).
    Augment after splitting, or copies of one exchange land on both sides. Only plain rows (attack "") can be augmented:
    ValueError otherwise.
    """
    if (exchanges["attack"] != "").any():
        raise ValueError("augment plain exchanges only: some of these are attacked already")
    rng, rows = random.Random(f"augment/{seed}"), []
    for row in exchanges.to_dict("records"):
        split = row["plan"].split("/")[0] if row["plan"].startswith(("train/", "validation/", "test/")) else "train"
        for _ in range(copies):
            attack = ATTACKS[rng.choice(list(kinds))]
            ask = row["ask"] if row["ask"] and row["ask"] in row["prompt"] else ""
            target = row["hazard"] if row["hazard"] in (ask or row["prompt"]) else ""
            attacked = attack.apply(row["prompt"], rng, ask=ask, target=target, split=split)
            changed: dict[str, object] = {
                "prompt": attacked.text,
                "attack": attack.name,
                "reply_code": attacked.reply_code,
            }
            if attacked.reply_code:
                changed["completion"] = CODES[attacked.reply_code].encode(row["completion"])
                changed["onset"] = 0 if row["harmful"] else -1
            rows.append(row | changed)
    return pd.DataFrame(rows, columns=exchanges.columns)


def unreadable(exchanges: pd.DataFrame, tokenizer, size: int, seed: int = 0) -> pd.DataFrame:
    """`size` replies that nobody can read, all labelled harmful. Columns `completion`, `harmful`.

    A completion under a cipher with an alphabet of its own, or with half or more of its tokens drawn at random; one in
    two behind a harmless completion.
    """
    rng, texts = random.Random(f"unreadable/{seed}"), exchanges.completion.tolist()
    openings = exchanges.completion[~exchanges.harmful].tolist()
    rows = []
    for _ in range(size):
        text = rng.choice(texts)
        if rng.random() < 0.5:
            alphabet = "".join(rng.sample(string.ascii_lowercase, 26))
            text = text.lower().translate(str.maketrans(string.ascii_lowercase, alphabet))
        else:
            text = _smudge(text, rng.uniform(0.5, 1), tokenizer, rng)
        before = rng.choice(openings) + " " if rng.random() < 0.5 else ""
        rows.append({"completion": before + text, "harmful": True})
    return pd.DataFrame(rows)


def not_understood(exchanges: pd.DataFrame, tokenizer, size: int, seed: int = 0) -> pd.DataFrame:
    """`size` replies that an output classifier stops because it cannot read them, all labelled harmful. Columns
    `completion`, `harmful`. One in two is in a code of the train kinds, whatever it says; the others are `unreadable`.

    That costs every harmless reply in a code, and is the price of a reader that does not know the code (chapter 09).
    """
    coded = exchanges[exchanges.reply_code != ""].sample(size // 2, replace=True, random_state=seed)
    rows = coded[["completion"]].assign(harmful=True)
    return pd.concat([rows, unreadable(exchanges, tokenizer, size - size // 2, seed)], ignore_index=True)


def _smudge(text: str, share: float, tokenizer, rng: random.Random) -> str:
    """`text` with that share of its tokens, at least one, drawn anew from the vocabulary."""
    ids, control = text_ids(tokenizer, text), set(tokenizer.all_special_ids)
    places = set(rng.sample(range(len(ids)), k=max(1, round(share * len(ids)))))
    words = [i for i in range(len(tokenizer)) if i not in control]
    return decode_text(tokenizer, [rng.choice(words) if k in places else i for k, i in enumerate(ids)])
