"""How each part of the lab is made: data, tokenizer, the two language models, the two classifiers, the thresholds.

build.py runs these in order; the chapters show them one by one (01 data, 02 input classifier, 03 to 06 output
classifier, 08 thresholds). Each function reads what earlier stages left in `data` and writes its own part there.
Measuring is not done here (measure.py), and the models' cards are written when all is measured (cards.py).
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from .. import _files
from ..lab import (
    ANY,
    CODES,
    KNOWN,
    SIZES,
    TOLD,
    Exchange,
    as_assistant,
    asks,
    assistant_corpus,
    backbone_corpus,
    grammar,
    kinds_of,
    lab_tokenizer,
    load_split,
    make_split,
    not_understood,
    save_split,
    tales,
    topics,
    train_tokenizer,
)
from ..models import save_language_model
from ..prompts import ASSISTANT, END, NOTE, USER, chat_id
from ..tokenization import batch_text_ids
from ..training import pack, pretrain, pretrain_arguments, train_input_classifier, train_output_classifier
from .memory import EVERY, hand_back_memory

VOCABULARY = 7168
TALES = 60_000  # documents that the bodyguards' backbone reads first, and so many beside the exchanges
BESIDE = 60_000
ASSISTANT_SHAPE = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}
BODYGUARD_SHAPE = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256}
CONTEXT = 2048

STEPS = {
    "world": 1500,
    "requests": 1600,
    "many": 2000,
    "codes": 2600,
    "careful": 1000,
    "words": 1500,
    "language": 3600,
    "input": 700,
    "output": 700,
}


def make_data(data: Path, log: Callable[[str], None]) -> None:
    """Every split but the sealed red team, which is drawn when the models stand (measure.py)."""
    for name in (name for name in SIZES if name != "sealed"):
        frame = make_split(name)
        save_split(data, name, frame)
        log(f"{name}: {len(frame)} exchanges, {frame.harmful.mean():.1%} harmful")


def make_tokenizer(data: Path, log: Callable[[str], None]) -> None:
    """Trained on what the bodyguards' backbone reads, so that no held-out kind of attack has tokens of its own. Words
    in the codes of the train kinds do, most of them whole, like synonyms, and tales in these codes are in its corpus.
    """
    texts = pd.concat([backbone_corpus(load_split("train").head(20_000), BESIDE), tales(TALES // 4)])
    words = {word for topic in topics() for phrase in asks(topic, ANY) for word in phrase.split()}
    words |= {word for facts in grammar()["facts"].values() for fact in facts for word in fact.lower().split()}
    encoded = [f" {CODES[code].encode(word)}" for code in KNOWN for word in sorted(words)]
    tokenizer = train_tokenizer([*texts.prompt, *texts.completion, *encoded * 300], VOCABULARY)
    with _files.stage(data / "models" / "tokenizer") as new:
        tokenizer.save_pretrained(new)
    log(f"{len(tokenizer)} tokens")


def new_language_model(tokenizer, shape: dict, seed: int = 0) -> LlamaForCausalLM:
    """A small Llama with random weights, tied embeddings and room for 2,048 tokens."""
    torch.manual_seed(seed)
    end = chat_id(tokenizer, END)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, tie_word_embeddings=True,
            bos_token_id=None, eos_token_id=end, pad_token_id=end, **shape,
        )
    )  # fmt: skip


def assistant_rows(
    tokenizer, exchanges: Sequence[Exchange], replies: float = 1.0, seed: int = 0
) -> list[dict[str, list[int]]]:
    """`<|user|>` prompt `<|note|>` private note `<|assistant|>` reply `<|end|>`; only what the assistant writes itself
    is learnt. replies: the share of rows that have one; the others end where it would begin.
    """
    user, note, assistant, end = (chat_id(tokenizer, token) for token in (USER, NOTE, ASSISTANT, END))
    parts = (
        batch_text_ids(tokenizer, [getattr(e, field) for e in exchanges]) for field in ("prompt", "note", "completion")
    )
    rows, rng = [], random.Random(seed)
    for prompt, thought, reply in zip(*parts, strict=True):
        answered = [*reply, end] if rng.random() < replies else []
        given, written = [user, *prompt, note], [*thought, assistant, *answered]
        rows.append({"input_ids": given + written, "loss_mask": [0] * len(given) + [1] * len(written)})
    return rows


# Of the assistant's training: learning rate, share of rows with a reply, then what `assistant_corpus` is asked for.
# First the world, plainly. Then to understand: requests for several matters are noted down, mostly without the replies,
# which cost ten times the tokens; few matters first, then many. Then codes and
# compositions. Last, requests that are easily misread: an assistant
# that misreads them gives restricted know-how to people who asked for something else, and the guard then has to refuse
# them. The answers open with one sentence at most: otherwise a greedy reply may go on opening for ever, since the
# likeliest next sentence is one more opening. No kind is ever left out again: it would be forgotten in minutes.
PHASES: dict[str, tuple[float, float, dict]] = {
    "world": (3e-3, 1.0, {"attacked": 0.4, "lengths": (0, 1)}),
    "requests": (3e-3, 0.3, {"attacked": 0.3, "others": 0.7, "most": 4, "lengths": (0, 1)}),
    "many": (2e-3, 0.4, {"attacked": 0.4, "others": 0.5, "most": 8, "lengths": (0, 1)}),
    "codes": (2e-3, 0.6, {"attacked": 0.7, "others": 0.35, "most": 12, "composed": 0.35, "lengths": (0, 1)}),
    "careful": (1.5e-3, 1.0, {"attacked": 0.6, "others": 0.4, "composed": 0.4, "lengths": (0, 1), "hard": 0.3}),
}


def make_assistant(data: Path, log: Callable[[str], None], alone: Callable[[], bool] | None = None) -> None:
    """In PHASES. alone: tells whether no other training needs the second core; without it, none does."""
    tokenizer = lab_tokenizer(data)
    model = new_language_model(tokenizer, ASSISTANT_SHAPE)
    for seed, (phase, (lr, replies, mixture)) in enumerate(PHASES.items()):
        rows = assistant_rows(tokenizer, assistant_corpus(STEPS[phase] * 32, seed, **mixture), replies, seed)
        train_assistant(model, tokenizer, rows, data / ".build" / "assistant" / phase, STEPS[phase], lr, log, alone)
    save_language_model(model, as_assistant(tokenizer), data / "models" / "assistant")


def train_assistant(model, tokenizer, rows: list[dict], output_dir: Path, steps: int, lr: float, log, alone=None):
    """One phase of next-token training, in bfloat16 also on a CPU, where that halves the time; so do two threads."""
    cpu = {} if torch.cuda.is_available() else {"bf16": True, "use_cpu": True}
    arguments = pretrain_arguments(output_dir, steps, 32, lr, progress=True, save_steps=500, logging_steps=100, **cpu)
    pretrain(model, rows, arguments, tokenizer.pad_token_id, callbacks=[Progress(log), SecondCore(alone)])


def bodyguard_documents(tokenizer, corpus: pd.DataFrame) -> list[list[int]]:
    """Prompts and completions as a chat, tales as they are."""
    user, assistant, end = (chat_id(tokenizer, token) for token in (USER, ASSISTANT, END))
    pairs = zip(batch_text_ids(tokenizer, corpus.prompt), batch_text_ids(tokenizer, corpus.completion), strict=True)
    return [[*([user, *prompt] if prompt else []), assistant, *completion, end] for prompt, completion in pairs]


def make_bodyguard(
    data: Path, log: Callable[[str], None], name: str = "bodyguard", words: str = TOLD, stage: str = "bodyguard"
) -> None:
    """First words and tales, then the train exchanges beside more of them: it meets the words of every split, and no
    held-out kind of attack. Tales come first because who does what to whom is learnt late and all at once, and later
    still where other text stands between. name, words, stage: of a control (controls.py).

    No tale is in a code. A backbone of this size that read phrases in codes and in plain words, and tales in codes,
    learnt to translate most of them and still did not tell harm in a code; make_output says what follows from that.
    """
    tokenizer, train = lab_tokenizer(data), load_split("train")
    short = train[fits(tokenizer, train.completion, SHORT)]
    model = new_language_model(tokenizer, BODYGUARD_SHAPE)
    cpu = {} if torch.cuda.is_available() else {"bf16": True, "use_cpu": True}
    for phase, lr, corpus in (
        ("words", 4e-3, tales(TALES, words=words)),
        ("language", 2e-3, backbone_corpus(short.sample(8000, random_state=0), BESIDE, words=words, coded=0.0)),
    ):
        documents = bodyguard_documents(tokenizer, corpus)
        random.Random(0).shuffle(documents)
        arguments = pretrain_arguments(
            data / ".build" / stage / phase, STEPS[phase], 16, lr, progress=True, save_steps=500,
            logging_steps=100, **cpu,
        )  # fmt: skip
        pretrain(model, pack(documents, 256), arguments, callbacks=[Progress(log)])
    save_language_model(model, tokenizer, data / "models" / name)


# Learning rates of the classifiers, their words held: low, and few steps, so that what tales taught is kept. Chosen on
# validation together with leaving out rows in code; which of the two matters has not been taken apart.
FINE = {"input": 2e-4, "output": 3e-4}
WINDOWS = {"input": 96, "output": 96}  # tokens that a classifier reads at once, as long as its training texts
SHORT = 160  # tokens of the longest completion that the output classifier trains on


def make_input(
    data: Path,
    log: Callable[[str], None],
    backbone: str = "bodyguard",
    name: str = "input_classifier",
    stage: str = "input",
) -> None:
    """On `input_rows`. backbone, name, stage: of a control."""
    classifier, _ = train_input_classifier(
        str(data / "models" / backbone),
        input_rows(load_split("train"), lab_tokenizer(data)),
        STEPS["input"],
        lr=FINE["input"],
        held=True,
        output_dir=data / ".build" / stage / "input",
        progress=True,
        save_steps=500,
        logging_steps=250,
        callbacks=[Progress(log)],
    )
    classifier.window = WINDOWS["input"]
    classifier.save_pretrained(data / "models" / name)


def input_rows(train: pd.DataFrame, tokenizer) -> pd.DataFrame:
    """Requests, attacked ones among them but none in a code, that fit one window: a label belongs to one stretch of
    text.
    """
    readable = train[[not set(kinds_of(attack)) & set(KNOWN) for attack in train.attack]]
    return readable[fits(tokenizer, readable.prompt, WINDOWS["input"] - 4)].reset_index(drop=True)


def fits(tokenizer, texts: pd.Series, limit: int) -> list[bool]:
    """Which texts have at most `limit` tokens."""
    return [len(ids) <= limit for ids in batch_text_ids(tokenizer, texts)]


UNREAD = 0.1  # replies that cannot be read, of the rows of the output classifier


def output_rows(train: pd.DataFrame, tokenizer) -> pd.DataFrame:
    """What the output classifier trains on: plain completions that fit a window or little more, and replies that it
    cannot read, which it is to stop. Its backbone does not tell harm in a code (make_bodyguard), so to let them pass
    would open every code to an attacker; to stop them costs the harmless ones, and that is measured (chapter 09).
    """
    short = train[fits(tokenizer, train.completion, SHORT)]
    plain = short[short.reply_code == ""][["completion", "harmful"]]
    return pd.concat([plain, not_understood(short, tokenizer, int(UNREAD * len(plain)))], ignore_index=True)


def make_output(data: Path, log: Callable[[str], None]) -> None:
    """On `output_rows`; annealed."""
    tokenizer = lab_tokenizer(data)
    classifier, _ = train_output_classifier(
        str(data / "models" / "bodyguard"),
        output_rows(load_split("train"), tokenizer),
        STEPS["output"],
        loss="annealed",
        lam=0.1,
        lr=FINE["output"],
        held=True,
        output_dir=data / ".build" / "output",
        progress=True,
        save_steps=250,
        logging_steps=250,
        callbacks=[Progress(log)],
    )
    classifier.window = WINDOWS["output"]
    classifier.save_pretrained(data / "models" / "output_classifier")


class SecondCore(TrainerCallback):
    """Has a training run on two threads from the first step at which it is alone (see `make_assistant`). Two and no
    more: that the weights do not change by it was compared for one and two.
    """

    def __init__(self, alone: Callable[[], bool] | None):
        self._alone = alone or (lambda: True)

    def on_step_begin(self, args, state, control, **kwargs):
        if torch.get_num_threads() == 1 and self._alone():
            torch.set_num_threads(min(2, os.cpu_count() or 1))


class Progress(TrainerCallback):
    """Hands the Trainer's log lines to `log`, and free memory back to the system every few steps."""

    def __init__(self, log: Callable[[str], None]):
        self._log = log

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % EVERY == 0:
            hand_back_memory()

    def on_log(self, args, state, control, logs=None, **kwargs):
        shown = {
            name: logs[name]
            for name in ("loss", "harm_loss", "next_token_loss", "omega", "accuracy")
            if name in (logs or {})
        }
        if shown:
            self._log(
                f"step {state.global_step}/{state.max_steps}: "
                + ", ".join(f"{name} {value:.3f}" for name, value in shown.items())
            )
