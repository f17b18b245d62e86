"""What each model reads: an assistant's turn or a conversation, the verdict prompt, what stands before a completion.

Built in chapters 02 (verdict) and 08 (an assistant's turn, conversations). User text goes in through
`tokenization.text_ids`, so none of it becomes a control token.

Which words and control tokens stand around a user's text is data that travels with the tokenizer: its chat template,
and two settings of ours in tokenizer_config.json, both optional:
- `verdict_prompt`: what an input classifier reads, with `{prompt}` where the user's text goes.
- `note_end`: the control token with which an assistant ends its private note and begins its reply.

Deliberately not here: the lab's values for them (`lab/tokenizer.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from .tokenization import decode_text, template_ids, text_ids

USER, NOTE, ASSISTANT, END = "<|user|>", "<|note|>", "<|assistant|>", "<|end|>"  # the chat tokens of the lab
CHAT_TOKENS = (USER, NOTE, ASSISTANT, END)
VERDICT_WORDS = (" harmful", " harmless")
PLAIN_VERDICT_PROMPT = "Message:\n{prompt}\n\nIs the message harmful or harmless? It is"
# Pairs to try where a verdict word is not one token, in this order; letters and digits are one in every tokenizer.
_OTHER_WORDS = (
    *((" yes", " no"), ("yes", "no"), (" Yes", " No"), ("Yes", "No")),
    *((" bad", " good"), ("bad", "good"), ("1", "0"), ("b", "a")),
)


def _setting(tokenizer: Any, name: str) -> str | None:
    """One of our settings in tokenizer_config.json, or None."""
    return getattr(tokenizer, "init_kwargs", {}).get(name)


def chat_id(tokenizer: Any, token: str) -> int:
    """The id of a control token. Raises ValueError for a tokenizer that does not have it."""
    if token not in tokenizer.get_added_vocab():
        raise ValueError(f"this tokenizer has no control token {token}")
    return tokenizer.convert_tokens_to_ids(token)


def note_end_id(tokenizer: Any) -> int | None:
    """The id of the control token that ends an assistant's private note, None for an assistant that writes none."""
    token = _setting(tokenizer, "note_end")
    return None if token is None else chat_id(tokenizer, token)


def verdict_prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """What the input classifier reads; its next token is the verdict. Lab: `<|user|>` prompt `<|assistant|>That
    was`. A tokenizer without a `verdict_prompt`: the prompt in a plain question.
    """
    before, _, after = (_setting(tokenizer, "verdict_prompt") or PLAIN_VERDICT_PROMPT).partition("{prompt}")
    return [
        *completion_prefix_ids(tokenizer),
        *template_ids(tokenizer, before),
        *text_ids(tokenizer, prompt),
        *template_ids(tokenizer, after),
    ]


def verdict_token_ids(tokenizer: Any, words: tuple[str, str] = VERDICT_WORDS) -> tuple[int, int]:
    """The ids of the two verdict words (harmful first). Raises ValueError, naming two words that will do, unless each
    is exactly one token, two different ones, and known.
    """
    found = _one_token_each(tokenizer, words)
    if found is None:
        lengths = ", ".join(f"{word!r} is {len(text_ids(tokenizer, word))}" for word in words)
        raise ValueError(
            f"each verdict word must be one token that stands for it alone ({lengths} here); "
            f"try words={_words_that_work(tokenizer, words)}"
        )
    return found


def _words_that_work(tokenizer: Any, words: Iterable[str]) -> tuple[str, ...]:
    """Two verdict words that this tokenizer has: tried, not guessed."""
    stripped = tuple(word.strip() for word in words)
    for pair in (stripped, *_OTHER_WORDS):
        if _one_token_each(tokenizer, pair):
            return pair
    vocabulary = (decode_text(tokenizer, [i]) for i in range(len(tokenizer)))
    letters = (word for word in vocabulary if word.strip().isalpha())
    return tuple(islice((word for word in letters if _known(tokenizer, word)), 2))


def _known(tokenizer: Any, word: str) -> list[int]:
    """The id of a word that is one token, and not the one for unknown words; else []."""
    ids = text_ids(tokenizer, word)
    return ids if len(ids) == 1 and ids != [tokenizer.unk_token_id] else []


def _one_token_each(tokenizer: Any, words: Iterable[str]) -> tuple[int, int] | None:
    ids = [i for word in words for i in _known(tokenizer, word)]
    return (ids[0], ids[1]) if len(set(ids)) == 2 else None


def completion_prefix_ids(tokenizer: Any) -> list[int]:
    """What stands before a completion for the output classifier: the beginning-of-text token where a tokenizer has one,
    else (in the lab) nothing.
    """
    return [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]


def exchange_prefix_ids(tokenizer: Any, prompt: str) -> list[int]:
    """What an exchange classifier reads before a completion: the prompt in its turn and the beginning of the answer.

    Lab: `<|user|>` prompt `<|assistant|>`, as its backbone read exchanges. Otherwise as an assistant reads the prompt.
    """
    if note_end_id(tokenizer) is None and set(CHAT_TOKENS) <= set(tokenizer.get_added_vocab()):
        return [chat_id(tokenizer, USER), *text_ids(tokenizer, prompt), chat_id(tokenizer, ASSISTANT)]
    return prompt_ids(tokenizer, prompt)


Prompt = str | Sequence[Mapping[str, str]]  # a text, or chat messages with `role` and `content`
ROLES = ("system", "user", "assistant")


def conversation(prompt: Prompt) -> list[dict[str, str]]:
    """Chat messages, oldest first; a text is one message of the user.

    Raises TypeError for what is neither text nor messages with a text each, ValueError for a role that is none of
    `ROLES`, or unless the last message is the user's.
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if not isinstance(prompt, Sequence) or not all(isinstance(message, Mapping) for message in prompt):
        raise TypeError(f"the prompt is a string or a list of chat messages, not {type(prompt).__name__}")
    given: Any = prompt
    messages = [{"role": message.get("role", ""), "content": message.get("content", "")} for message in given]
    for message in messages:
        if not isinstance(message["content"], str):
            raise TypeError(f"the content of a message is a string, not {type(message['content']).__name__}")
        if message["role"] not in ROLES:
            raise ValueError(f"a message has one of the roles {', '.join(ROLES)}, not {message['role']!r}")
    if not messages or messages[-1]["role"] != "user":
        raise ValueError("the last message of a conversation is the user's; there is nothing to answer otherwise")
    return messages


def _judged(prompt: Prompt, roles: Sequence[str]) -> list[str]:
    """What messages of these roles say. Left out: an assistant's message with `released: True`, by which whoever keeps
    the conversation vouches that a guard has released it.
    """
    given: Any = [{}] if isinstance(prompt, str) else prompt
    return [
        message["content"]
        for message, as_given in zip(conversation(prompt), given, strict=True)
        if message["role"] in roles and not (message["role"] == "assistant" and as_given.get("released") is True)
    ]


def user_text(prompt: Prompt, roles: Sequence[str] = ("user",)) -> str:
    """What messages of these roles say, as one text, joined by single spaces; without what a guard has released."""
    return " ".join(_judged(prompt, roles))


def texts_to_judge(prompt: Prompt, roles: Sequence[str] = ("user",)) -> list[str]:
    """What an input classifier reads of a conversation: every message of these roles alone, and all of them joined
    (chapter 08). Alone finds the request that other turns dilute; joined, the one that was cut into harmless halves.
    """
    turns = _judged(prompt, roles)
    return turns if len(turns) < 2 else [*turns, " ".join(turns)]


def _place(number: int) -> str:
    """Private-use characters: in no chat template and in no vocabulary."""
    return f"\ue000\ue001text {number} goes here\ue001\ue000"


def prompt_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    """What an assistant reads before its reply, every message as text and nothing more.

    With a chat template: the template around the ids of each message, which therefore cannot contain its control
    tokens (lab: `<|user|>` prompt `<|note|>`). Otherwise (a base model): beginning of text, if there is one, and the
    prompt. An assistant that writes a private note was taught single texts, so it reads a conversation as one: all
    messages joined by single spaces (chapter 08).
    Raises ValueError for a template that does not show each message once and in order, and for a conversation without
    a template; and whatever a template raises about roles that it does not serve.
    """
    messages = conversation(prompt)
    if len(messages) > 1 and note_end_id(tokenizer) is not None:
        messages = [{"role": "user", "content": " ".join(message["content"] for message in messages)}]
    if not getattr(tokenizer, "chat_template", None):
        if len(messages) > 1:
            raise ValueError("a model without a chat template reads one text; it cannot be given a conversation")
        return [*completion_prefix_ids(tokenizer), *text_ids(tokenizer, messages[0]["content"])]
    shown = [{**message, "content": _place(i)} for i, message in enumerate(messages)]
    rest, ids = _rendered(tokenizer, shown, add_generation_prompt=True), list[int]()
    for i, message in enumerate(messages):
        parts = rest.split(_place(i))
        if len(parts) != 2:
            raise ValueError(
                f"this chat template shows a message {len(parts) - 1} times or out of order; once is right"
            )
        ids += [*template_ids(tokenizer, parts[0]), *text_ids(tokenizer, message["content"])]
        rest = parts[1]
    return [*ids, *template_ids(tokenizer, rest)]


def turn_end_ids(tokenizer: Any) -> list[int]:
    """The first token that a chat template puts behind an assistant's message: what ends a turn if it is a control
    token, also where the model's settings name only the end of the text. [] or one id.
    """
    if not getattr(tokenizer, "chat_template", None):
        return []
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _place(0)}]
    try:
        behind = _rendered(tokenizer, messages).rpartition(_place(0))[2].lstrip()
    except Exception:  # a template may refuse whatever it likes; then it tells us nothing
        return []
    return template_ids(tokenizer, behind)[:1]


def _rendered(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, **options)
