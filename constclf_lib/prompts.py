"""What each model reads: chat tokens, an assistant's turn, the verdict prompt, what stands before a completion.

Built in chapters 02 (verdict) and 08 (an assistant's turn). User text goes in through `tokenization.text_ids`, so none
of it becomes a control token.
"""

from __future__ import annotations

from .tokenization import text_ids

USER, NOTE, ASSISTANT, END = "<|user|>", "<|note|>", "<|assistant|>", "<|end|>"
CHAT_TOKENS = (USER, NOTE, ASSISTANT, END)
VERDICT_WORDS = (" harmful", " harmless")


# What a tokenizer that has no chat tokens of ours reads before its verdict.
_WRAPPER = ("Message:\n", "\n\nIs the message harmful or harmless? It is")


def is_lab_tokenizer(tokenizer) -> bool:
    """True if the four chat tokens are control tokens of this tokenizer."""
    return all(token in tokenizer.get_added_vocab() for token in CHAT_TOKENS)


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


_PLACE = (
    "\ue000\ue001user text goes here\ue001\ue000"  # private-use characters: in no chat template and in no vocabulary
)


def prompt_ids(tokenizer, prompt: str) -> list[int]:
    """What an assistant reads before its reply, the prompt as text and nothing more.

    Lab: `encoding.assistant_prompt_ids`. With a chat template: the template around the ids of the prompt, which
    therefore cannot contain its control tokens. Otherwise (a base model): beginning of text, if there is one, and the
    prompt. Raises ValueError for a template that does not show the prompt once.
    """
    if is_lab_tokenizer(tokenizer):
        return assistant_prompt_ids(tokenizer, prompt)
    if not getattr(tokenizer, "chat_template", None):
        return [*completion_prefix_ids(tokenizer), *text_ids(tokenizer, prompt)]
    shown = tokenizer.apply_chat_template(
        [{"role": "user", "content": _PLACE}], tokenize=False, add_generation_prompt=True
    )
    parts = shown.split(_PLACE)
    if len(parts) != 2:
        raise ValueError(f"this chat template shows the user's text {len(parts) - 1} times; it must be once")
    before, after = (tokenizer(part, add_special_tokens=False)["input_ids"] if part else [] for part in parts)
    return [*before, *text_ids(tokenizer, prompt), *after]
