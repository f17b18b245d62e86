"""A linear probe on the guarded model's own hidden states: a score per token, nearly for nothing. Chapter 10.

What it does: one number per token out of the hidden states of chosen layers, which the model computed anyway while it
wrote (arXiv 2601.04603, section 4). Works with any Hugging Face causal LM through `output_hidden_states`. A probe means
something to the one model that it was trained on, so it is saved with that model's fingerprint and refuses another.

What it deliberately does not do: smooth over tokens (`streaming.ProbeScorer`), train (`training.train_probe`), choose a
threshold.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .. import _files
from ..errors import ClassifierError

WEIGHTS, RECORD = "probe.safetensors", "probe.json"
FORMAT = 1


class LinearProbe(nn.Module):
    """logit(token) = weight . (h - mean) * scale + bias, h the hidden states of `layers`, one behind the other.

    layers: numbers of hidden states as `output_hidden_states` gives them: 0 are the embeddings, n what layer n leaves.
    hidden_size: of one layer. model_fingerprint: of the model that the states come from ("" for none yet). width: over
    how many tokens the mean of its logits was trained (SWiM), 1 for none; streams take it from here. mean and scale
    [layers * hidden_size]: what makes the states alike in size; 0 and 1 until `standardise`.

    Raises ValueError for no layers or a width under 1.
    """

    kind = "probe"

    def __init__(self, hidden_size: int, layers: Sequence[int], model_fingerprint: str = "", width: int = 1):
        super().__init__()
        if not layers or width < 1:
            raise ValueError(f"a probe needs layers and a width of at least 1, not {list(layers)} and {width}")
        self.hidden_size, self.layers, self.width = hidden_size, tuple(layers), width
        self.model_fingerprint = model_fingerprint
        self.linear = nn.Linear(len(self.layers) * hidden_size, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(len(self.layers) * hidden_size))
        self.register_buffer("scale", torch.ones(len(self.layers) * hidden_size))

    @classmethod
    def for_model(cls, model, layers: Sequence[int] | None = None, width: int = 1) -> LinearProbe:
        """An untrained probe (every score is 1/2) for a causal LM; layers: all of them by default. Raises ValueError
        for a layer that the model does not have.
        """
        config = model.config.get_text_config()
        last = config.num_hidden_layers
        layers = tuple(range(last + 1)) if layers is None else tuple(layers)
        if not all(0 <= layer <= last for layer in layers):
            raise ValueError(f"this model has hidden states 0 to {last}, not {list(layers)}")
        return cls(config.hidden_size, layers, model_fingerprint(model), width)

    def forward(self, states: Tensor) -> Tensor:
        """Logits [...], float32, for hidden states [..., layers * hidden_size] (`hidden_states_of`)."""
        states = states.to(self.linear.weight.dtype)
        return self.linear((states - self.mean) * self.scale).squeeze(-1)

    @torch.no_grad()
    def standardise(self, states: Iterable[Tensor]) -> None:
        """Sets mean and scale from states [tokens, layers * hidden_size]. Raises ValueError for states that are not
        finite: some families leave the range of float16, so read them in bfloat16 or float32.
        """
        count, total, squares = 0, torch.zeros_like(self.mean).double(), torch.zeros_like(self.mean).double()
        for part in states:
            if not part.isfinite().all():
                raise ValueError(
                    "hidden states are not finite: this model leaves the range of its dtype (float16?); load it in "
                    "bfloat16 or float32"
                )
            part = part.to(self.mean.device).double()
            count, total, squares = count + len(part), total + part.sum(0), squares + part.square().sum(0)
        if count == 0:
            raise ValueError("no states to standardise on")
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(deviation > 1e-6, 1 / deviation, 0.0))  # what never changes says nothing

    def check_model(self, model) -> None:
        """Raises ClassifierError unless `model` is the one that the probe was trained on."""
        if (found := model_fingerprint(model)) != self.model_fingerprint:
            raise ClassifierError(
                f"this probe was trained on the hidden states of another model (fingerprint {self.model_fingerprint}, "
                f"this one's is {found}); train one for this model"
            )

    def save_pretrained(self, folder: str | os.PathLike, card: str | None = None) -> None:
        """Writes probe.safetensors, probe.json and, if given, README.md; whole or not at all."""
        with _files.stage(folder, (WEIGHTS, RECORD)) as new:
            save_file({name: x.detach().cpu().contiguous() for name, x in self.state_dict().items()}, new / WEIGHTS)
            record = {
                "format": FORMAT, "kind": self.kind, "hidden_size": self.hidden_size, "layers": list(self.layers),
                "width": self.width, "model_fingerprint": self.model_fingerprint,
                "files": {WEIGHTS: _files.describe(new / WEIGHTS)},
            }  # fmt: skip
            _files.write_json(new / RECORD, record)
            if card is not None:
                (new / "README.md").write_text(card, encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, model=None) -> LinearProbe:
        """What `save_pretrained` wrote. model: the model that it is to watch, checked here (`GuardedModel` checks it
        too). Raises ClassifierError, saying what to do, for a folder that is missing, damaged, or of another model.
        """
        folder = _files.standing(folder)
        again = "restore the folder, or train the probe again"
        try:
            record = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
            if (record["format"], record["kind"]) != (FORMAT, cls.kind):
                raise ClassifierError(f"{folder} holds a {record['kind']} of format {record['format']}, no probe")
            if _files.describe(Path(folder) / WEIGHTS) != record["files"][WEIGHTS]:
                raise ClassifierError(f"{Path(folder) / WEIGHTS} is not the file that was saved; {again}")
            probe = cls(record["hidden_size"], record["layers"], record["model_fingerprint"], record["width"])
            probe.load_state_dict(load_file(Path(folder) / WEIGHTS))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            if isinstance(error, ClassifierError):
                raise
            raise ClassifierError(f"{folder} holds no probe that can be loaded ({error}); {again}") from error
        if model is not None:
            probe.check_model(model)
        return probe.eval()


def hidden_states_of(output, layers: Sequence[int]) -> Tensor:
    """The chosen hidden states [batch, time, layers * hidden] of a forward pass with output_hidden_states=True."""
    states = output.hidden_states
    return torch.cat([states[layer].to(states[-1].device) for layer in layers], dim=-1)


@torch.no_grad()
def model_fingerprint(model) -> str:
    """16 hex digits that change when any weight matrix of `model` is trained, in milliseconds also for large models:
    names, shapes and a few values of every tensor, as bfloat16, so that loading in float32 or bfloat16 is no change.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().reshape(-1)
        digest.update(f"{name}{list(tensor.shape)}".encode())
        if flat.numel() and not flat.is_meta:
            places = torch.linspace(0, flat.numel() - 1, min(64, flat.numel()), dtype=torch.float64).long()
            sample = flat[places.to(flat.device)].to("cpu", torch.bfloat16)
            digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def reply_states(
    model, rows: Sequence[tuple[Sequence[int], Sequence[int]]], layers: Sequence[int], batch_size: int = 32
) -> list[Tensor]:
    """Hidden states of replies that are written already: one tensor [tokens, layers * hidden], float32 on the CPU, per
    (what the model read before, ids of the reply).

    Full passes, rows padded on the right, which no earlier token sees. The same as a probe sees while the model writes,
    up to rounding.
    """
    order = sorted((i for i, row in enumerate(rows) if row[1]), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
    empty = torch.zeros(0, len(layers) * model.config.get_text_config().hidden_size)
    found = [empty] * len(rows)
    model.eval()
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        texts = [[*rows[i][0], *rows[i][1]] for i in part]
        ids = torch.zeros(len(part), max(map(len, texts)), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(text), 1
        base = getattr(model, "base_model", model)  # the body alone: no logits are needed
        output = base(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False,
            output_hidden_states=True,
        )  # fmt: skip
        states = hidden_states_of(output, layers)
        for row, i in enumerate(part):
            before = len(rows[i][0])
            found[i] = states[row, before : before + len(rows[i][1])].float().cpu().clone()
    return found
