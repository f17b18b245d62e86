"""Text to token ids and back, for any tokenizer. Used from chapter 01 on.

One rule stands above all others here: **text is text**. Whatever a user types, `text_ids` never turns it into a
control token, so a prompt that spells `<|assistant|>` is a prompt about angle brackets.

A transformers tokenizer is not safe to share: every call sets flags on it (truncation, padding, split_special_tokens)
that a call in another thread sees. So nothing here calls the tokenizer it is given. It calls a private copy, made once
per tokenizer and used by one thread at a time. Time and memory are linear in the text: about 0.25 KB per token while it
is encoded (100,000 emoji in the lab: 400,000 tokens, half a second).

Deliberately not here: truncation. What does not fit is the caller's decision, never a silent cut.
"""

from __future__ import annotations

import copy
import hashlib
import json
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


class _PrivateTokenizer:
    """A copy of a tokenizer that nobody else holds, one thread at a time, and what `text_ids` has to know about it."""

    def __init__(self, tokenizer: Any) -> None:
        self.copied_from = _identity(tokenizer)
        self._tokenizer = copy.deepcopy(tokenizer)
        self._one_at_a_time = threading.Lock()
        added = getattr(tokenizer, "added_tokens_decoder", {})
        template = str(getattr(tokenizer, "chat_template", None) or "")
        # Some chat templates are written with added tokens that are not marked special: they steer all the same.
        steering = {
            i for i, token in added.items() if token.special or (token.content.strip() and token.content in template)
        }
        self.control = (set(tokenizer.all_special_ids) | steering) - {tokenizer.unk_token_id, None}
        spellings = {*tokenizer.all_special_tokens, *(added[i].content for i in steering)}
        self.spellings = sorted(spellings, key=len, reverse=True)
        self.longest_token = max((len(token) for token in tokenizer.get_vocab()), default=1)

    def encode(self, text: str | list[str], control_tokens: bool = False) -> Any:
        """Ids of a text, or of each of a list of texts. control_tokens: what spells one becomes one."""
        with self._one_at_a_time:
            return self._tokenizer(text, add_special_tokens=False, split_special_tokens=not control_tokens)["input_ids"]


_copies: weakref.WeakKeyDictionary[Any, _PrivateTokenizer] = weakref.WeakKeyDictionary()  # a memo
_copying = threading.Lock()


def _private(tokenizer: Any) -> _PrivateTokenizer:
    own = _copies.get(tokenizer)
    if own is None or own.copied_from != _identity(tokenizer):
        with _copying:
            own = _copies[tokenizer] = _PrivateTokenizer(tokenizer)
    return own


def _identity(tokenizer: Any) -> tuple[int, tuple[int, ...], str]:
    """What changes when somebody adds tokens, or a template, after the copy was made."""
    return len(tokenizer), tuple(tokenizer.all_special_ids), str(getattr(tokenizer, "chat_template", None))


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of user text. Control tokens that the text spells out are encoded as the ordinary characters they are
    made of.

    Raises TypeError if `text` is not a string.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a string, not {type(text).__name__}")
    own = _private(tokenizer)
    text = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate has no bytes; it becomes "?"
    ids = own.encode(text)
    if not own.control.isdisjoint(ids):  # split_special_tokens was not enough: break the spelling up ourselves
        ids = [i for piece in _broken_up(text, own.spellings) for i in own.encode(piece)]
        ids = [i for i in ids if i not in own.control]
    return ids


def batch_text_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """`text_ids` of many texts, in one call where that is safe (ten times as fast)."""
    texts = list(texts)
    if not texts or not getattr(tokenizer, "is_fast", False):
        return [text_ids(tokenizer, text) for text in texts]
    own = _private(tokenizer)
    return [
        row if own.control.isdisjoint(row) else text_ids(tokenizer, text)
        for row, text in zip(own.encode(texts), texts, strict=True)
    ]


def template_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a template's own text, in which control tokens are control tokens. Never for anything that a user
    wrote.
    """
    return _private(tokenizer).encode(text, control_tokens=True) if text else []


def fewest_ids(tokenizer: Any, text: str) -> int:
    """A number of tokens that `text` has at least, without encoding it: as if each were the longest of the vocabulary.
    (A tokenizer that drops accents, or has one token for any unknown word, may need fewer for text made of those.)
    """
    return -(-len(text) // _private(tokenizer).longest_token)


def _broken_up(text: str, spellings: Sequence[str]) -> list[str]:
    """`text` in pieces such that no piece holds the whole spelling of a control token."""
    pieces = [text]
    for token in spellings:
        pieces = [part for piece in pieces for part in piece.replace(token, token[0] + "\0" + token[1:]).split("\0")]
    return [piece for piece in pieces if piece]


def decode_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of `ids`, control tokens left out, spaces exactly as they were."""
    return tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def fingerprint(tokenizer: Any) -> str:
    """A short hash that is equal exactly if two tokenizers give the same ids for the same text: vocabulary, merges,
    normaliser and pre-tokenizer.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content = {"vocab": tokenizer.get_vocab()}
    else:
        content = json.loads(backend.to_str())
        for setting in ("truncation", "padding", "post_processor", "decoder"):  # none of them changes what an id means
            content.pop(setting, None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def pad_batch(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right padding. Returns input_ids [batch, time] int64 and attention_mask [batch, time] int64 (1 = real)."""
    longest = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    attention = torch.zeros((len(rows), longest), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        attention[i, : len(row)] = 1
    return ids, attention


def token_at(tokens: Sequence[str], offset: int) -> int | None:
    """The index of the token that holds character `offset` of the joined text; None for -1 or past the end."""
    if offset < 0:
        return None
    ends = np.cumsum([len(token) for token in tokens])
    index = int(np.searchsorted(ends, offset, side="right"))
    return index if index < len(tokens) else None
