"""The lab's own tokenizer: a byte-level BPE with four chat tokens. Built in chapter 01."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ..prompts import ASSISTANT, CHAT_TOKENS, END, NOTE, USER, VERDICT_WORDS

# A word with its leading space is one piece; sentence punctuation stands alone; digits and hyphens stay inside a word,
# so that an encoded word ("4shb4n3", "a-s-h-b-a-n-e") can become a single token, as a synonym would.
_PIECES = Regex(r""" ?[^\s.,!?:;"()]+| ?[.,!?:;"()]+|\s+""")

# What the lab's input classifier reads (prompts.py): a verdict in words that the backbone has met in tales.
VERDICT_PROMPT = USER + "{prompt}" + ASSISTANT + "That was"
# The reply to a message opens with the private note; the assistant itself ends it with <|assistant|>.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content }}"
    "{% if message.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|note|>{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on `texts`, with the four chat tokens, both verdict words and the verdict prompt.

    Padding reuses `<|end|>`; masks say what is real.
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
    wrapped.init_kwargs["verdict_prompt"] = VERDICT_PROMPT  # what stands here is saved in tokenizer_config.json
    return wrapped


def as_assistant(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same tokenizer, told how the lab's assistant is talked to: its chat template, and where its note ends."""
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.init_kwargs["note_end"] = ASSISTANT
    return tokenizer
