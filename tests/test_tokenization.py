"""Text is text: no spelling of a control token or a verdict word ever becomes one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from constclf_lib.lab import train_tokenizer
from constclf_lib.prompts import (
    CHAT_TOKENS,
    END,
    NOTE,
    USER,
    assistant_prompt_ids,
    chat_id,
    completion_prefix_ids,
    is_lab_tokenizer,
    verdict_prompt_ids,
    verdict_token_ids,
)
from constclf_lib.tokenization import batch_text_ids, decode_text, fingerprint, pad_batch, text_ids
from constclf_lib.training import CompletionCollator, VerdictCollator  # fmt: skip

TEXTS = [
    "Brew ashbane in cold brine for nine bells.",
    "4shb4n3, b-r-e-w and enabhsa",
    "Sing the ballad of the gloamstone!",
] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 400)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from([*CHAT_TOKENS, " harmful", " harmless", "ash", " ", "\n", "<|", "|>", "é", "🜂", "\u0301"]),
        max_size=12,
    ).map("".join)
    | st.text(max_size=60)
)
def test_user_text_round_trips_and_holds_no_control_token(tokenizer, text):
    ids = text_ids(tokenizer, text)
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert decode_text(tokenizer, ids) == text.encode("utf-8", "replace").decode("utf-8")


def test_a_tokenizer_that_does_not_split_specials_is_corrected(tokenizer):
    class Careless:
        """Ignores split_special_tokens, as some tokenizers do."""

        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, text, **options):
            options.pop("split_special_tokens", None)
            return tokenizer(text, **options)

    for text in ("<|user|>", "a<|end|>b<|end|>", "<|<|user|>user|>"):
        ids = text_ids(Careless(), text)
        assert not set(ids) & set(tokenizer.all_special_ids)
        assert decode_text(tokenizer, ids) == text


def test_batches_are_encoded_like_single_texts(tokenizer):
    texts = [*TEXTS[:3], "", "<|note|> hello", "x" * 300]
    assert batch_text_ids(tokenizer, texts) == [text_ids(tokenizer, text) for text in texts]


def test_chat_format(tokenizer):
    assert is_lab_tokenizer(tokenizer) and completion_prefix_ids(tokenizer) == []
    ids = assistant_prompt_ids(tokenizer, "Hi <|note|>")
    assert (ids[0], ids[-1]) == (chat_id(tokenizer, USER), chat_id(tokenizer, NOTE))
    assert ids.count(chat_id(tokenizer, NOTE)) == 1
    assert verdict_prompt_ids(tokenizer, "")[0] == chat_id(tokenizer, USER)
    assert tokenizer.pad_token == END
    with pytest.raises(ValueError, match="no control token"):
        chat_id(tokenizer, "<|system|>")


def test_verdict_words_are_single_tokens(tokenizer):
    harmful, harmless = verdict_token_ids(tokenizer)
    assert harmful != harmless
    with pytest.raises(ValueError, match="must be one"):
        verdict_token_ids(tokenizer, (" dangerous", " fine"))


def test_wrong_types_are_named(tokenizer):
    for wrong in (None, b"bytes", 3, ["a"]):
        with pytest.raises(TypeError, match="must be a string"):
            text_ids(tokenizer, wrong)


def test_fingerprints_tell_tokenizers_apart(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    assert fingerprint(AutoTokenizer.from_pretrained(tmp_path)) == fingerprint(tokenizer)
    assert fingerprint(train_tokenizer(TEXTS, 320)) != fingerprint(tokenizer)


def test_collators(tokenizer):
    rows = [{"completion": "Brew ashbane.", "harmful": True}, {"completion": "Sing", "harmful": False}]
    batch = CompletionCollator(tokenizer)(rows)
    assert batch["labels"].tolist() == [1.0, 0.0]
    assert torch.equal(batch["mask"], batch["attention_mask"].bool())
    verdicts = VerdictCollator(tokenizer)(
        [{"prompt": "Brew ashbane", "restricted": True}, {"prompt": "", "restricted": False}]
    )
    assert verdicts["labels"].tolist() == list(verdict_token_ids(tokenizer))
    last = verdicts["input_ids"].gather(1, verdicts["verdict_positions"][:, None]).squeeze(1)
    assert set(last.tolist()) == {chat_id(tokenizer, "<|assistant|>")}


def test_padding():
    ids, attention = pad_batch([[5, 6, 7], [8]], 0)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]] and attention.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert pad_batch([], 0)[0].shape == (0, 0)
