"""Text to token ids and back: the lab's tokenizer, the chat format, masks and collators.

Built in chapters 02 and 03. One rule stands above all others here: **text is text**. Whatever a user types, `text_ids`
never turns it into a control
token, so a prompt that spells `<|assistant|>` is a prompt about angle brackets.

Deliberately not here: truncation. What does not fit is the caller's decision, never a silent cut.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

USER, NOTE, ASSISTANT, END = "<|user|>", "<|note|>", "<|assistant|>", "<|end|>"
CHAT_TOKENS = (USER, NOTE, ASSISTANT, END)
VERDICT_WORDS = (" harmful", " harmless")

# A word with its leading space is one piece; sentence punctuation stands alone; digits and hyphens stay inside a word,
# so that an encoded word
# ("4shb4n3", "a-s-h-b-a-n-e") can become a single token, as a synonym would.
_PIECES = Regex(r""" ?[^\s.,!?:;"()]+| ?[.,!?:;"()]+|\s+""")

# What a tokenizer that has no chat tokens of ours reads before its verdict.
_WRAPPER = ("Message:\n", "\n\nIs the message harmful or harmless? It is")


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on `texts`, with the four chat tokens and both verdict words. Padding reuses `<|end|>`;
    masks say what is real.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_PIECES, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(CHAT_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The verdict words are ordinary vocabulary; repeating them makes sure that each becomes one token.
    tokenizer.train_from_iterator([*texts, *VERDICT_WORDS * 100_000], trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, clean_up_tokenization_spaces=False
    )
    wrapped.add_special_tokens(
        {"additional_special_tokens": [USER, NOTE, ASSISTANT]}, replace_extra_special_tokens=False
    )
    return wrapped


def is_lab_tokenizer(tokenizer) -> bool:
    """True if the four chat tokens are control tokens of this tokenizer."""
    return all(token in tokenizer.get_added_vocab() for token in CHAT_TOKENS)


def text_ids(tokenizer, text: str) -> list[int]:
    """Token ids of user text. Control tokens that the text spells out are encoded as the ordinary characters they are
    made of.

    Raises TypeError if `text` is not a string.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a string, not {type(text).__name__}")
    text = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate has no bytes; it becomes "?"
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    control = set(tokenizer.all_special_ids)
    if control.intersection(ids):  # some tokenizers ignore split_special_tokens: break the spelling up ourselves
        ids = [
            i for piece in _broken_up(tokenizer, text) for i in tokenizer(piece, add_special_tokens=False)["input_ids"]
        ]
        ids = [i for i in ids if i not in control or i == tokenizer.unk_token_id]
    return ids


def batch_text_ids(tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """`text_ids` of many texts, in one call where that is safe (ten times as fast)."""
    texts = list(texts)
    if not texts or not is_lab_tokenizer(tokenizer):
        return [text_ids(tokenizer, text) for text in texts]
    rows = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    control = set(tokenizer.all_special_ids)
    return [
        row if control.isdisjoint(row) else text_ids(tokenizer, text) for row, text in zip(rows, texts, strict=True)
    ]


def _broken_up(tokenizer, text: str) -> list[str]:
    """`text` in pieces such that no piece holds the whole spelling of a control token."""
    pieces = [text]
    for token in sorted(tokenizer.all_special_tokens, key=len, reverse=True):
        pieces = [part for piece in pieces for part in piece.replace(token, token[0] + "\0" + token[1:]).split("\0")]
    return [piece for piece in pieces if piece]


def decode_text(tokenizer, ids: Sequence[int]) -> str:
    """The text of `ids`, control tokens left out, spaces exactly as they were."""
    return tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def chat_id(tokenizer, token: str) -> int:
    """The id of a chat token. Raises ValueError for a tokenizer that does not have it."""
    if token not in tokenizer.get_added_vocab():
        raise ValueError(
            f"this tokenizer has no control token {token}; use a lab tokenizer (constclf_lib.encoding.train_tokenizer)"
        )
    return tokenizer.convert_tokens_to_ids(token)


def assistant_prompt_ids(tokenizer, prompt: str) -> list[int]:
    """What the assistant reads before it writes: `<|user|>` prompt `<|note|>`. It continues with its private note,
    `<|assistant|>`, the reply, `<|end|>`.
    """
    return [chat_id(tokenizer, USER), *text_ids(tokenizer, prompt), chat_id(tokenizer, NOTE)]


def verdict_prompt_ids(tokenizer, prompt: str) -> list[int]:
    """What the input classifier reads; its next token is the verdict. Lab: `<|user|>` prompt `<|assistant|>`. Others:
    the prompt in a plain wrapper.
    """
    if is_lab_tokenizer(tokenizer):
        return [chat_id(tokenizer, USER), *text_ids(tokenizer, prompt), chat_id(tokenizer, ASSISTANT)]
    before, after = _WRAPPER
    return [
        *completion_prefix_ids(tokenizer),
        *text_ids(tokenizer, before),
        *text_ids(tokenizer, prompt),
        *text_ids(tokenizer, after),
    ]


def verdict_token_ids(tokenizer, words: tuple[str, str] = VERDICT_WORDS) -> tuple[int, int]:
    """The ids of the two verdict words (harmful first). Raises ValueError unless each is exactly one token."""
    ids = [text_ids(tokenizer, word) for word in words]
    for word, row in zip(words, ids, strict=True):
        if len(row) != 1:
            raise ValueError(
                f"the verdict word {word!r} is {len(row)} tokens here, it must be one; try words=(' yes', ' no')"
            )
    return ids[0][0], ids[1][0]


def completion_prefix_ids(tokenizer) -> list[int]:
    """What stands before a completion for the output classifier: nothing in the lab, the beginning-of-text token where
    a tokenizer has one.
    """
    if tokenizer.bos_token_id is None or is_lab_tokenizer(tokenizer):
        return []
    return [tokenizer.bos_token_id]


def fingerprint(tokenizer) -> str:
    """A short hash that is equal exactly if two tokenizers give the same ids for the same text: vocabulary, merges,
    normaliser and pre-tokenizer.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content = {"vocab": tokenizer.get_vocab()}
    else:
        content = json.loads(backend.to_str())
        for setting in (
            "truncation",
            "padding",
            "post_processor",
            "decoder",
        ):  # these do not change which id means what
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


class VerdictCollator:
    """Rows with `prompt` and `restricted` -> a batch for the input classifier: the loss is taken at one position per
    row, the verdict's.

    Batch: input_ids and attention_mask [batch, time], verdict_positions [batch] (the last prompt token), labels [batch]
    (verdict token ids).
    """

    def __init__(self, tokenizer, words: tuple[str, str] = VERDICT_WORDS):
        self.tokenizer = tokenizer
        self.harmful_id, self.harmless_id = verdict_token_ids(tokenizer, words)

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        prompts = [
            row["input_ids"] if "input_ids" in row else verdict_prompt_ids(self.tokenizer, row["prompt"])
            for row in rows
        ]
        input_ids, attention_mask = pad_batch(prompts, self.tokenizer.pad_token_id or 0)
        labels = torch.tensor([self.harmful_id if row["restricted"] else self.harmless_id for row in rows])
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "verdict_positions": attention_mask.sum(1) - 1,
            "labels": labels,
        }


class CompletionCollator:
    """Rows with `completion` and `harmful` -> a batch for the output classifier. It sees the completion only, never the
    prompt.

    Batch: input_ids and attention_mask [batch, time], mask [batch, time] bool (True at completion tokens), labels
    [batch] float in [0, 1].
    """

    def __init__(self, tokenizer, max_length: int | None = None):
        self.tokenizer, self.max_length = tokenizer, max_length
        self.prefix = completion_prefix_ids(tokenizer)

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        bodies = [
            row["input_ids"] if "input_ids" in row else text_ids(self.tokenizer, row["completion"]) for row in rows
        ]
        bodies = [
            list(body)[: self.max_length] for body in bodies
        ]  # a training crop, asked for by name; None crops nothing
        input_ids, attention_mask = pad_batch([self.prefix + body for body in bodies], self.tokenizer.pad_token_id or 0)
        mask = attention_mask.bool()
        mask[:, : len(self.prefix)] = False
        labels = torch.tensor([float(row["harmful"]) for row in rows])
        return {"input_ids": input_ids, "attention_mask": attention_mask, "mask": mask, "labels": labels}
