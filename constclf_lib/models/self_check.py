"""A backbone is believed only when it was seen to work: a dozen tokens, read in every way that this library reads.

What it does: compares the hidden states of each way of reading with those of one full pass, on the model itself, where
it stands and in the precision it has. What was seen is kept per model, and looked at again after a move. Built in
chapter 07.

What it deliberately does not do: go by names of classes, families or versions, or look beyond a dozen tokens.
docs/backbones.md tries every family with windows and chunks shorter than that.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ClassifierError
from ..tokenization import pad_batch

TOKENS = 12
# The largest difference from one pass that is rounding, relative to the hidden state of a token. Reduced precision
# rounds differently for different shapes; what is wrong differs by more. Other devices round float32 more coarsely.
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
ELSEWHERE, QUANTIZED = 1e-3, 1e-1

STREAMED = ("in one pass with a cache", "token by token")  # without these there is no stream
WAYS = (
    *STREAMED,
    "in uneven chunks",
    "after a rewind",
    "padded on the right",
    "padded on the left",
    "with pauses in a batch",
    "with its padding token as text",
)

_SEEN: weakref.WeakKeyDictionary[nn.Module, dict[tuple, dict[str, str]]] = weakref.WeakKeyDictionary()


def faults(reader) -> dict[str, str]:
    """What is wrong with each of WAYS on this backbone, in words; "" where it gives the hidden states of one pass.

    reader: a LanguageModelReader. Some thirty short passes, once per model, device, precision and attention kernel.
    Raises ClassifierError if one pass itself gives no numbers, and whatever that pass raises.
    """
    kernel = getattr(reader.config, "_attn_implementation", None)
    key = (reader.device, next(reader.model.parameters()).dtype, kernel)
    known = _SEEN.setdefault(reader.model, {})
    if key not in known:
        with still(reader.model):
            known[key] = _look(reader)
    return known[key]


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """Without gradients, and with every module in eval mode; the modes come back afterwards."""
    trained = [module for module in model.modules() if module.training]
    for module in trained:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in trained:
            module.training = True


def some_ids(reader, count: int = TOKENS) -> list[int]:
    """`count` token ids from all over the vocabulary, fewer if the context is shorter; no control tokens, for some
    stand for a picture that is not there.
    """
    known = {**reader.config.to_dict(), **reader.config.get_text_config().to_dict()}
    control = {value for name, value in known.items() if "token" in name and isinstance(value, int)}
    size = reader.vocab_size
    count = min(count, reader.context_length or count)
    places = [(1 + 2 * k) * size // (2 * count) for k in range(count)]
    return [next((i for i in range(place, size) if i not in control), place) for place in places]


def distance(got: Tensor, want: Tensor) -> float:
    """The largest difference of two vectors [..., size] relative to the length of the wanted one; infinity for other
    shapes and no numbers.
    """
    if got.shape != want.shape:
        return math.inf
    got, want = got.cpu().double(), want.cpu().double()  # not every device has doubles
    worst = float(((got - want).norm(dim=-1) / want.norm(dim=-1).clamp(min=1e-12)).max())
    return worst if math.isfinite(worst) else math.inf


def tolerance(model, hidden: Tensor) -> float:
    """The largest `distance` that is rounding: by the precision of the hidden states, or of weights below float16."""
    config, body = model.config, model.base_model
    matrices = (p for m in body.modules() if not hasattr(m, "num_embeddings") for p in m.parameters(recurse=False))
    if getattr(config, "quantization_config", None) or not any(p.ndim > 1 and p.is_floating_point() for p in matrices):
        return QUANTIZED
    known = TOLERANCE.get(hidden.dtype, QUANTIZED)
    return known if hidden.device.type == "cpu" else max(known, ELSEWHERE)


def advice(dtype: torch.dtype) -> str:
    """What to do where hidden states of this dtype are not finite numbers."""
    if dtype == torch.float16:
        return "float16 ends at 65,504 and some families go beyond it (Gemma); load it in bfloat16 or float32"
    return "restore its weights"


def _look(reader) -> dict[str, str]:
    ids = some_ids(reader)
    tried = _Tried(reader, ids, ids[: max(1, len(ids) // 2)][::-1])
    looks = (
        tried.with_a_cache,
        tried.token_by_token,
        tried.in_chunks,
        tried.rewound,
        tried.padded_right,
        tried.padded_left,
        tried.with_pauses,
        tried.with_padding_token,
    )
    return {way: _said(look) for way, look in zip(WAYS, looks, strict=True)}


def _said(look: Callable[[], float]) -> str:
    try:
        worst = look()
    except (MemoryError, torch.OutOfMemoryError):  # says nothing about the backbone, and must not be remembered
        raise
    except Exception as error:  # whatever it is, this way of reading does not work
        return f"{type(error).__name__}: {error}"
    return "" if worst <= 1 else f"off by {worst:.1g} times what rounding does"


def _real(hidden: Tensor, mask: Tensor) -> list[Tensor]:
    """Of hidden [rows, time, hidden], what stands at real tokens, row by row."""
    return [row[seen] for row, seen in zip(hidden, mask.bool().to(hidden.device), strict=True)]


class _Tried:
    """Two rows of token ids, what one pass makes of each, and every other way; distances in units of the tolerance."""

    def __init__(self, reader, a: list[int], b: list[int]):
        self.reader, self.rows, self.chunks = reader, (a, b), False
        self.want = [self.read([row]).last_hidden_state[0] for row in self.rows]
        self.tolerance = tolerance(reader.model, self.want[0])
        if not all(hidden.isfinite().all() for hidden in self.want):
            name = type(reader.backbone).__name__
            raise ClassifierError(f"the hidden states of {name} are not finite numbers; {advice(self.want[0].dtype)}")

    def read(self, rows: list[list[int]], mask: Tensor | None = None, cache: Any = None, use_cache: bool = False):
        ids, device = torch.tensor(rows), self.reader.device
        mask = None if mask is None else mask.to(device)
        reading = self.reader.read_unchecked(ids.to(device), mask, cache, use_cache)
        if use_cache and reading.cache is None:
            raise RuntimeError("the forward pass returns no cache")
        return reading

    def off(self, got: list[Tensor]) -> float:
        worst = max(distance(x, y[: len(x)]) for x, y in zip(got, self.want, strict=False))
        return worst / self.tolerance

    def through_cache(self, row: list[int], sizes: list[int]) -> Tensor:
        cache, hidden = None, []
        for size in sizes:
            part, row = row[:size], row[size:]
            if part:
                output = self.read([part], cache=cache, use_cache=True)
                cache = output.cache
                hidden.append(output.last_hidden_state[0])
        return torch.cat(hidden)

    def with_padding_token(self) -> float:
        """A model that takes this token for padding wherever it stands counts positions otherwise in chunks."""
        row, pad = list(self.rows[0]), self.reader.padding_token
        if pad is None:
            return 0.0
        row[len(row) // 2] = pad
        want = self.read([row]).last_hidden_state[0]
        singles = self.through_cache(row, [len(row) // 4, *([1] * len(row))])
        chunks = self.through_cache(row, [len(row) // 3, len(row) // 3, len(row)]) if self.chunks else want
        return max(distance(singles, want), distance(chunks, want)) / self.tolerance

    def with_a_cache(self) -> float:
        return self.off([self.through_cache(self.rows[0], [len(self.rows[0])])])

    def in_chunks(self) -> float:
        worst = self.off([self.through_cache(self.rows[0], [5, 1, 4, len(self.rows[0])])])
        self.chunks = worst <= 1
        return worst

    def token_by_token(self) -> float:
        """Two streams that take turns, for they must not share a state either; one opens with several tokens."""
        caches: list[Any] = [None, None]
        hidden: list[list[Tensor]] = [[], []]
        left = [[[token] for token in self.rows[0]], [self.rows[1][:3], *([token] for token in self.rows[1][3:])]]
        while any(left):
            for i, parts in enumerate(left):
                if parts:
                    output = self.read([parts.pop(0)], cache=caches[i], use_cache=True)
                    caches[i] = output.cache
                    hidden[i].append(output.last_hidden_state[0])
        return self.off([torch.cat(parts) for parts in hidden])

    def rewound(self) -> float:
        """The cache of too many tokens, cropped."""
        a, keep = self.rows[0], len(self.rows[0]) // 2
        cache = self.read([[*a[:keep], *self.rows[1][:2]]], use_cache=True).cache
        cache.crop(-len(self.rows[1][:2]))
        output = self.read([a[keep:]], cache=cache, use_cache=True)
        return self.off([torch.cat([self.want[0][:keep], output.last_hidden_state[0]])])

    def padded_right(self) -> float:
        ids, mask = pad_batch(self.rows, 0)
        return self.off(_real(self.read(ids.tolist(), mask).last_hidden_state, mask))

    def padded_left(self) -> float:
        """In one pass, and in two through the cache."""
        ids, mask = pad_batch(self.rows, 0)
        lengths = mask.sum(1).tolist()
        ids, mask = (torch.stack([x.roll(-n) for x, n in zip(t, lengths, strict=True)]) for t in (ids, mask))
        whole, cut = self.read(ids.tolist(), mask).last_hidden_state, ids.shape[1] - 2
        first = self.read(ids[:, :cut].tolist(), mask[:, :cut], None, True)
        second = self.read(ids[:, cut:].tolist(), mask, first.cache, True)
        halves = torch.cat([first.last_hidden_state, second.last_hidden_state], dim=1)
        return max(self.off(_real(whole, mask)), self.off(_real(halves, mask)))

    def with_pauses(self) -> float:
        """A batch as batch_stream.py reads it: rows start late, pause and bring different numbers of tokens, until one
        of them is left.
        """
        a, b = self.rows
        left = [list(a), list(b), list(b)]
        mask, cache = torch.zeros(3, 0, dtype=torch.long), None
        hidden: list[list[Tensor]] = [[], [], []]
        for counts in ((3, 1, 0), (1, 0, 2), (1, 0, 0), (0, 1, 1), (len(a), 1, len(b))):
            parts = [row[:count] for row, count in zip(left, counts, strict=True)]
            left = [row[count:] for row, count in zip(left, counts, strict=True)]
            ids, new = pad_batch(parts, 0)
            mask = torch.cat([mask, new], dim=1)
            output = self.read(ids.tolist(), mask.masked_fill(mask.sum(1, keepdim=True) == 0, 1), cache, True)
            cache = output.cache
            for i, part in enumerate(parts):
                hidden[i].append(output.last_hidden_state[i, : len(part)])
        assert cache is not None
        if left[1]:
            cache.batch_select_indices(torch.tensor([1], device=self.reader.device))
            mask = torch.cat([mask[1:2], torch.ones(1, len(left[1]), dtype=torch.long)], dim=1)
            hidden[1].append(self.read([left[1]], mask, cache, True).last_hidden_state[0])
        first, second, third = (torch.cat(parts) for parts in hidden)
        return max(self.off([first, second]), self.off([first, third]))
