"""Text is text: no spelling of a control token or a verdict word ever becomes one."""

import ast
import contextlib
import copy
import gc
import random
import sys
import threading
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import FOREIGN, foreign_tokenizer, lab_tokenizer
from transformers import AutoTokenizer

from constclf_lib import tokenization
from constclf_lib.lab import as_assistant, train_tokenizer
from constclf_lib.prompts import (
    ASSISTANT,
    CHAT_TOKENS,
    END,
    NOTE,
    PLAIN_VERDICT_PROMPT,
    USER,
    chat_id,
    completion_prefix_ids,
    note_end_id,
    prompt_ids,
    turn_end_ids,
    verdict_prompt_ids,
    verdict_token_ids,
)
from constclf_lib.tokenization import batch_text_ids, decode_text, fewest_ids, fingerprint, pad_batch, text_ids
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
    class Careless(type(tokenizer)):
        """Ignores split_special_tokens, as some tokenizers do."""

        def __call__(self, text, **options):
            options.pop("split_special_tokens", None)
            return super().__call__(text, **options)

    careless = copy.deepcopy(tokenizer)
    careless.__class__ = Careless
    for text in ("<|user|>", "a<|end|>b<|end|>", "<|<|user|>user|>"):
        ids = text_ids(careless, text)
        assert not set(ids) & set(tokenizer.all_special_ids)
        assert decode_text(tokenizer, ids) == text
        assert batch_text_ids(careless, [text, "plain"]) == [ids, text_ids(tokenizer, "plain")]


def test_batches_are_encoded_like_single_texts(tokenizer):
    texts = [*TEXTS[:3], "", "<|note|> hello", "x" * 300]
    assert batch_text_ids(tokenizer, texts) == [text_ids(tokenizer, text) for text in texts]


def test_the_lab_is_data_on_its_tokenizer(tokenizer, tmp_path):
    assistant = as_assistant(copy.deepcopy(tokenizer))
    assert completion_prefix_ids(tokenizer) == [] and note_end_id(tokenizer) is None
    assert prompt_ids(tokenizer, "Hi") == text_ids(tokenizer, "Hi")  # without a chat template it is a base model's
    assistant.save_pretrained(tmp_path)
    for found in (assistant, AutoTokenizer.from_pretrained(tmp_path)):
        user, note, reply = (chat_id(found, token) for token in (USER, NOTE, ASSISTANT))
        text = text_ids(found, "Hi <|note|>")
        assert prompt_ids(found, "Hi <|note|>") == [user, *text, note] and note not in text
        assert verdict_prompt_ids(found, "Hi <|note|>") == [user, *text, reply, *text_ids(found, "That was")]
        assert note_end_id(found) == reply and turn_end_ids(found) == [chat_id(found, END)]
    assert tokenizer.pad_token == END and verdict_prompt_ids(tokenizer, "Hi")[0] == chat_id(tokenizer, USER)
    with pytest.raises(ValueError, match="no control token"):
        chat_id(tokenizer, "<|system|>")


def test_other_tokenizers_read_a_plain_question():
    tokenizer = foreign_tokenizer("byte_level")
    before, after = PLAIN_VERDICT_PROMPT.split("{prompt}")
    ids = [tokenizer.bos_token_id, *(i for part in (before, "Hi </s>", after) for i in text_ids(tokenizer, part))]
    assert verdict_prompt_ids(tokenizer, "Hi </s>") == ids and ids.count(tokenizer.eos_token_id) == 0


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_advice_for_verdict_words_works_for_that_tokenizer(kind):
    tokenizer = foreign_tokenizer(kind)
    with pytest.raises(ValueError, match="must be one") as raised:
        verdict_token_ids(tokenizer, (" perilous", " wholesome"))
    advised = ast.literal_eval(str(raised.value).split("words=")[1])
    assert len(set(verdict_token_ids(tokenizer, advised))) == 2


def test_two_words_that_are_the_same_unknown_token_are_no_verdict():
    tokenizer = foreign_tokenizer("wordpiece")
    with pytest.raises(ValueError, match="stands for it alone"):
        verdict_token_ids(tokenizer, ("Ω", "Ж"))


def test_added_tokens_that_a_template_is_written_with_are_control_tokens_too():
    tokenizer = copy.deepcopy(foreign_tokenizer("byte_level"))
    tokenizer.add_tokens(["<think>", "lanterns"])  # not marked special
    think, word = tokenizer.convert_tokens_to_ids(["<think>", "lanterns"])
    assert think in text_ids(tokenizer, "a <think> b")  # nothing steers with it
    tokenizer.chat_template = "{{ messages[0].content }}<think>"
    ids = text_ids(tokenizer, "a <think> b lanterns")
    assert think not in ids and word in ids and decode_text(tokenizer, ids) == "a <think> b lanterns"
    assert prompt_ids(tokenizer, "a <think>").count(think) == 1


# ----------------------------------------------------------------------------------------------- shared by threads


@pytest.fixture
def threads_that_switch_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_eight_threads_and_a_neighbour_that_truncates_share_one_tokenizer(threads_that_switch_often):
    """69 of 869 replies had a wrong prompt: every call of a transformers tokenizer sets flags that all threads see."""
    tokenizer = as_assistant(copy.deepcopy(lab_tokenizer()))
    texts = [f"{'the old lantern sleeps ' * 6}{i} <|end|> and waits" for i in range(12)]
    roads = (prompt_ids, verdict_prompt_ids, text_ids, lambda t, text: batch_text_ids(t, [text, "moth"]))
    expected = {(n, text): road(tokenizer, text) for n, road in enumerate(roads) for text in texts}
    wrong, stop = [], threading.Event()

    def neighbour():
        while not stop.is_set():
            with contextlib.suppress(RuntimeError):  # "Already borrowed", in older tokenizers
                tokenizer("a moth near the key", truncation=True, max_length=2)
                tokenizer(["a", "moth near the key"], padding=True, split_special_tokens=False)

    def reader(seed):
        order = random.Random(seed)
        for _ in range(150):
            n, text = order.randrange(len(roads)), order.choice(texts)
            if roads[n](tokenizer, text) != expected[n, text]:
                wrong.append((n, text))

    neighbours = [threading.Thread(target=neighbour) for _ in range(2)]
    readers = [threading.Thread(target=reader, args=(seed,)) for seed in range(8)]
    for thread in neighbours + readers:
        thread.start()
    for thread in readers:
        thread.join()
    stop.set()
    for thread in neighbours:
        thread.join()
    assert not wrong


def test_a_neighbours_flags_are_left_alone_too():
    tokenizer = copy.deepcopy(lab_tokenizer())
    tokenizer("a moth", truncation=True, max_length=1)
    flags = tokenizer.backend_tokenizer.truncation
    assert flags and text_ids(tokenizer, "the old lantern") == text_ids(lab_tokenizer(), "the old lantern")
    assert tokenizer.backend_tokenizer.truncation == flags


def test_tokens_added_later_are_seen():
    tokenizer = copy.deepcopy(foreign_tokenizer("byte_level"))
    assert len(text_ids(tokenizer, "<stop>")) > 1
    tokenizer.add_tokens(["<stop>"])
    assert text_ids(tokenizer, "<stop>") == [tokenizer.convert_tokens_to_ids("<stop>")]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<stop>"]})
    assert len(text_ids(tokenizer, "<stop>")) > 1


def test_private_copies_go_with_their_tokenizer():
    tokenizer = copy.deepcopy(lab_tokenizer())
    text_ids(tokenizer, "moth")
    own = weakref.ref(tokenization._copies[tokenizer])
    assert own() is not None
    del tokenizer
    gc.collect()
    assert own() is None


# ------------------------------------------------------------------------------------------------------- long prompts


@pytest.mark.parametrize("kind", ["lab", "byte_level", "llama3"])
@pytest.mark.parametrize("unit", ["a", "qx", "🐛", "e\u0301\u0323", " ", "<|end|>", "the lantern "])
def test_a_bound_on_tokens_that_needs_no_encoding_is_one(kind, unit):
    tokenizer = lab_tokenizer() if kind == "lab" else foreign_tokenizer(kind)
    text = unit * 400
    assert 0 < fewest_ids(tokenizer, text) <= len(text_ids(tokenizer, text))


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
    assert set(last.tolist()) == {verdict_prompt_ids(tokenizer, "Hi")[-1]}


def test_padding():
    ids, attention = pad_batch([[5, 6, 7], [8]], 0)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]] and attention.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert pad_batch([], 0)[0].shape == (0, 0)
