"""How chapter 10's monitors are made: the exchange classifier and the probe on the assistant's own hidden states.

Both stand in `data/monitors/` and change nothing in `data/models/`. Deliberately not here: their thresholds and what
they catch (monitors.py), comparisons of losses, layers and widths (probe_ablations.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..guard import GuardedModel
from ..lab import Part, answer_all, gives_know_how, lab_tokenizer, load_split, unreadable
from ..models import ExchangeClassifier, LinearProbe, OutputClassifier, reply_states
from ..prompts import note_end_id, prompt_ids
from ..training import add_adapters, train_output_classifier, train_probe
from .make import SHORT, WINDOWS, Progress, fits
from .measure import NEVER, guard_of

UNREAD = 0.05  # unreadable replies of the rows of the exchange classifier, which it is to stop
ANSWERED = 4000  # train prompts that the assistant answers for the probe


# Of the exchange classifier, chosen by hand among five trainings on validation: at 2e-3 it caught few plain replies in
# wordings that train lacks; with rows in a code once it told less by the question. The next-token loss is left out
# (lam 0): the language model below is the output classifier's, which had it, and keeps its weights.
EXCHANGE_STEPS, EXCHANGE_LR, RANK = 400, 5e-4, 16
CODED = 4  # times that each row in a code is among the rows of the exchange classifier


def make_exchange(data: Path, log: Callable[[str], None]) -> None:
    """The exchange classifier: the output classifier, which tells harm in plain replies already, with adapters (LoRA)
    and a head of its own that learn to read behind the prompt, on `exchange_rows`. Saved as adapters on the output
    classifier's language model, a tenth of its size, and without a tokenizer of its own.
    """
    classifier, _ = train_output_classifier(
        adapted_output_classifier(data),
        exchange_rows(load_split("train"), lab_tokenizer(data)),
        EXCHANGE_STEPS,
        loss="annealed",
        lam=0.0,
        lr=EXCHANGE_LR,
        weight_decay=0.0,
        output_dir=data / ".build" / "exchange",
        progress=True,
        save_steps=250,
        logging_steps=50,
        callbacks=[Progress(log)],
    )
    classifier.window = WINDOWS["output"]
    folder = data / "monitors" / "exchange_classifier"
    classifier.save_pretrained(folder)
    for copied in folder.glob("tokenizer*"):
        copied.unlink()  # its base has the same, which its record's fingerprint checks


def adapted_output_classifier(data: Path) -> ExchangeClassifier:
    """An exchange classifier that has yet to be trained: the output classifier's language model with new adapters, and
    a copy of its head.
    """
    torch.manual_seed(0)
    base = OutputClassifier.from_pretrained(data / "models" / "output_classifier")
    adapted = add_adapters(base.model, RANK, 2 * RANK, dropout=0.0)
    adapted.peft_config["default"].base_model_name_or_path = "models/output_classifier"  # below data/, wherever that is
    classifier = ExchangeClassifier(adapted, base.tokenizer)
    classifier.value_head.load_state_dict(base.value_head.state_dict())
    return classifier


def exchange_rows(train: pd.DataFrame, tokenizer) -> pd.DataFrame:
    """Exchanges whose prompt and completion are short, in a code too (CODED times), with what they really are: beside a
    question that it can read, a reply in a code need not be read. And unreadable replies, labelled harmful, behind
    prompts of train.
    """
    short = train[np.array(fits(tokenizer, train.completion, SHORT)) & fits(tokenizer, train.prompt, SHORT)]
    rows = short[["prompt", "completion", "harmful"]]
    odd = unreadable(short, tokenizer, int(UNREAD * len(short)))
    odd = odd.assign(prompt=short.prompt.sample(len(odd), replace=True, random_state=1).to_numpy())
    coded = rows[short.reply_code != ""]
    return pd.concat([rows, *[coded] * (CODED - 1), odd[["prompt", "completion", "harmful"]]], ignore_index=True)


def answered_train(guard: GuardedModel, size: int = ANSWERED) -> tuple[Part, np.ndarray]:
    """The assistant's own replies to train prompts, and whether the oracle finds know-how in each."""
    frame = load_split("train").sample(size, random_state=2)
    part = answer_all(guard, frame)
    return part, gives_know_how(part)


def states_of(guard: GuardedModel, part: Part, layers) -> list[torch.Tensor]:
    """Hidden states of every reply of `part` as the assistant had them: behind prompt and private note."""
    closing = note_end_id(guard.tokenizer)
    rows = [
        ([*prompt_ids(guard.tokenizer, prompt), *reply["note_ids"], closing], reply["ids"])
        for prompt, reply in zip(part.prompts, part.replies, strict=True)
    ]
    return reply_states(guard.assistant, rows, layers)


def make_probe(data: Path, log: Callable[[str], None]) -> None:
    """The probe: all layers, softmax-weighted loss, on the assistant's own replies to train prompts."""
    guard = guard_of(data, NEVER)
    part, harmful = answered_train(guard)
    log(f"{len(harmful)} replies, {harmful.mean():.1%} with know-how")
    probe = LinearProbe.for_model(guard.assistant)
    probe, _ = train_probe(probe, states_of(guard, part, probe.layers), harmful, disable_tqdm=True)
    probe.save_pretrained(data / "monitors" / "probe")
