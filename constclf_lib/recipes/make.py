"""How each part of the lab is made: data, tokenizer, the two language models, the two classifiers, the thresholds.

build.py runs these in order; the chapters show them one by one (01 data, 02 input classifier, 03 to 06 output
classifier, 08 thresholds). Each function reads what earlier stages left in `data` and writes its own part there.
Measuring is not done here (measure.py), and the models' cards are written when all is measured (cards.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from .. import _files
from ..lab import (
    SIZES,
    Exchange,
    as_assistant,
    assistant_corpus,
    backbone_corpus,
    hardened_completions,
    hardened_prompts,
    lab_tokenizer,
    load_split,
    make_split,
    save_split,
    train_tokenizer,
)
from ..models import save_language_model
from ..prompts import ASSISTANT, END, NOTE, USER, chat_id
from ..tokenization import batch_text_ids
from ..training import pack, pretrain, pretrain_arguments, train_input_classifier, train_output_classifier

VOCABULARY = 4096
TALES = 60_000  # of four sentences each: fewer do not teach a backbone who does what to whom
ASSISTANT_SHAPE = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}
BODYGUARD_SHAPE = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256}
CONTEXT = 2048

STEPS = {
    "world": 1500,
    "codes": 3000,
    "careful": 1500,
    "bodyguard": 2500,
    "input": 3000,
    "output": 2000,
    "hardening": 1500,
}


def make_data(data: Path, log: Callable[[str], None]) -> None:
    """Every split but the sealed red team, which is drawn when the models stand (measure.py)."""
    for name in (name for name in SIZES if name != "sealed"):
        frame = make_split(name)
        save_split(data, name, frame)
        log(f"{name}: {len(frame)} exchanges, {frame.harmful.mean():.1%} harmful")


def make_tokenizer(data: Path, log: Callable[[str], None]) -> None:
    """Trained on what the bodyguards' backbone reads, so that no held-out kind of attack has tokens of its own. The
    codes of the train kinds do: an encoded word becomes a token or two, like a synonym.
    """
    corpus = backbone_corpus(load_split("train"), TALES)
    texts = pd.concat([corpus[corpus.prompt != ""].sample(20_000, random_state=0), corpus[corpus.prompt == ""]])
    tokenizer = train_tokenizer([*texts.prompt, *texts.completion], VOCABULARY)
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


def assistant_rows(tokenizer, exchanges: Sequence[Exchange]) -> list[dict[str, list[int]]]:
    """`<|user|>` prompt `<|note|>` private note `<|assistant|>` reply `<|end|>`; only what the assistant writes itself
    is learnt.
    """
    user, note, assistant, end = (chat_id(tokenizer, token) for token in (USER, NOTE, ASSISTANT, END))
    parts = (
        batch_text_ids(tokenizer, [getattr(e, field) for e in exchanges]) for field in ("prompt", "note", "completion")
    )
    rows = []
    for prompt, thought, reply in zip(*parts, strict=True):
        given, written = [user, *prompt, note], [*thought, assistant, *reply, end]
        rows.append({"input_ids": given + written, "loss_mask": [0] * len(given) + [1] * len(written)})
    return rows


# Of the assistant's training: learning rate, then what `assistant_corpus` is asked for. First the world, plainly; then
# the codes, compositions and several matters at once. Last, requests that are easily misread: an assistant that
# misreads them gives restricted know-how to people who asked for something else, and the guard then has to refuse them.
# The answers open with one sentence at most from then on: otherwise a greedy reply may go on opening for ever, since
# the likeliest next sentence is one more opening. No kind is ever left out again: it would be forgotten in minutes.
PHASES: dict[str, tuple[float, dict]] = {
    "world": (3e-3, {"attacked": 0.4, "others": 0.1, "lengths": (0, 1)}),
    "codes": (2e-3, {"attacked": 0.8, "others": 0.15, "composed": 0.3, "lengths": (0, 1)}),
    "careful": (1.5e-3, {"attacked": 0.75, "others": 0.3, "composed": 0.4, "lengths": (0, 1), "hard": 0.3}),
}


def make_assistant(data: Path, log: Callable[[str], None]) -> None:
    """In PHASES."""
    tokenizer = lab_tokenizer(data)
    model = new_language_model(tokenizer, ASSISTANT_SHAPE)
    for seed, (phase, (lr, mixture)) in enumerate(PHASES.items()):
        rows = assistant_rows(tokenizer, assistant_corpus(STEPS[phase] * 32, seed, **mixture))
        train_assistant(model, tokenizer, rows, data / ".build" / "assistant" / phase, STEPS[phase], lr, log)
    save_language_model(model, as_assistant(tokenizer), data / "models" / "assistant")


def train_assistant(model, tokenizer, rows: list[dict], output_dir: Path, steps: int, lr: float, log) -> None:
    """One phase of next-token training, in bfloat16 also on a CPU, where that halves the time."""
    cpu = {} if torch.cuda.is_available() else {"bf16": True, "use_cpu": True}
    arguments = pretrain_arguments(output_dir, steps, 32, lr, progress=True, save_steps=500, logging_steps=100, **cpu)
    pretrain(model, rows, arguments, tokenizer.pad_token_id, callbacks=[Progress(log)])


def bodyguard_documents(tokenizer, corpus: pd.DataFrame) -> list[list[int]]:
    """Prompts and completions as a chat, tales as they are."""
    user, assistant, end = (chat_id(tokenizer, token) for token in (USER, ASSISTANT, END))
    pairs = zip(batch_text_ids(tokenizer, corpus.prompt), batch_text_ids(tokenizer, corpus.completion), strict=True)
    return [[*([user, *prompt] if prompt else []), assistant, *completion, end] for prompt, completion in pairs]


def make_bodyguard(data: Path, log: Callable[[str], None]) -> None:
    """On the train exchanges and on tales: it meets the words of every split, and no held-out kind of attack."""
    tokenizer = lab_tokenizer(data)
    documents = bodyguard_documents(tokenizer, backbone_corpus(load_split("train"), TALES))
    random.Random(0).shuffle(documents)
    model = new_language_model(tokenizer, BODYGUARD_SHAPE)
    cpu = {} if torch.cuda.is_available() else {"bf16": True, "use_cpu": True}
    arguments = pretrain_arguments(
        data / ".build" / "bodyguard", STEPS["bodyguard"], 16, 4e-3, progress=True, save_steps=500, logging_steps=100,
        **cpu,
    )  # fmt: skip
    pretrain(model, pack(documents, 256), arguments, callbacks=[Progress(log)])
    save_language_model(model, tokenizer, data / "models" / "bodyguard")


def make_input(data: Path, log: Callable[[str], None]) -> None:
    """On the train split and on its requests in noise."""
    classifier, _ = train_input_classifier(
        str(data / "models" / "bodyguard"),
        hardened_prompts(load_split("train")),
        STEPS["input"],
        lr=FINE,
        output_dir=data / ".build" / "input",
        progress=True,
        save_steps=500,
        logging_steps=250,
        callbacks=[Progress(log)],
    )
    classifier.save_pretrained(data / "models" / "input_classifier")


FINE = 3e-4  # learning rate of both classifiers: 1e-3 undoes what the backbone has learnt from tales
WINDOW = 96  # tokens that the output classifier reads at once
SHORT = 150  # words of a completion in the first phase


def make_output(data: Path, log: Callable[[str], None]) -> None:
    """Two phases. The shorter completions of the train split as they are, annealed: there a label belongs to one
    matter. Then all of them, up to a thousand tokens, and what `hardened_completions` adds, with option B: the label of
    a long reply does not say which of its matters is the harmful one, but the running maximum can find it in a
    classifier that knows already.
    """
    train, tokenizer = load_split("train"), lab_tokenizer(data)
    short = train[train.completion.str.split().str.len() < SHORT]
    hardened = hardened_completions(train, tokenizer)
    phases = (("output", short, "annealed", FINE, 32), ("hardening", hardened, "cumulative_max", FINE, 16))
    classifier: Any = str(data / "models" / "bodyguard")
    for phase, rows, loss, lr, batch in phases:
        classifier, _ = train_output_classifier(
            classifier,
            rows.reset_index(drop=True),
            STEPS[phase],
            loss=loss,
            lam=0.1,
            lr=lr,
            batch=batch,
            output_dir=data / ".build" / "output" / phase,
            progress=True,
            save_steps=250,
            logging_steps=250,
            callbacks=[Progress(log)],
        )
    classifier.window = WINDOW
    classifier.save_pretrained(data / "models" / "output_classifier")


class Progress(TrainerCallback):
    """Hands the Trainer's log lines to `log`."""

    def __init__(self, log: Callable[[str], None]):
        self._log = log

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
