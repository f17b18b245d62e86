"""The KV cache of rows that come and go while others are being read. Built in chapter 08.

One tensor per layer and side, [rows, heads, columns, size], and a mask of the columns that hold a real token of a row.
Rows are aligned on the right: a row that joins is put at the end of the columns, so rows that then step together leave
no holes; a row that pauses gets one, and once holes outweigh what is real, every row's columns are moved together.
Nothing is computed again: keys know their position already, and attention does not ask in which column they stand.

Deliberately not here: forward passes, and whether a model bears holes (self_check.py). Only for caches whose layers
keep every token (`keeps_every_token`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

SPARE = 32  # columns of holes that are not worth a move


def keeps_every_token(config) -> bool:
    """Whether all layers of a model's cache are plain ones: no sliding window, no recurrent state."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


class RunningCache:
    """`cache`: what a model reads and appends to, None while there are no rows. `mask` [rows, columns] int64 on the
    CPU, 1 at real tokens; after a pass over new columns, the caller sets it to `extended(new)`.
    """

    def __init__(self) -> None:
        self.cache: Any = None  # a DynamicCache, whose layers all have keys and values
        self.mask = torch.zeros(0, 0, dtype=torch.long)

    def extended(self, new: Tensor) -> Tensor:
        """The mask with the columns `new` [rows, time] behind it."""
        return torch.cat([self.mask, new], dim=1)

    def join(self, cache: Any, mask: Tensor) -> None:
        """Appends the rows of another cache, whose columns are real where `mask` [rows, columns] is 1."""
        _align(cache, mask)
        mask = mask.sort(dim=1, stable=True).values
        if self.cache is None:
            self.cache, self.mask = cache, mask
            return
        columns = max(self.mask.shape[1], mask.shape[1])
        for ours, theirs in zip(self.cache.layers, cache.layers, strict=True):
            ours.keys = torch.cat([_widened(ours.keys, columns), _widened(theirs.keys, columns)])
            ours.values = torch.cat([_widened(ours.values, columns), _widened(theirs.values, columns)])
        self.mask = torch.cat([_widened(self.mask, columns, 1), _widened(mask, columns, 1)])

    def keep(self, places: Sequence[int]) -> None:
        """Only these rows stay, in this order; columns that none of them uses go."""
        if not places:
            self.cache, self.mask = None, self.mask[:0, :0]
        elif self.cache is not None and list(places) != list(range(len(self.mask))):
            self.mask = self.mask[list(places)]
            used = self.mask.any(dim=0).nonzero()
            start = int(used[0]) if len(used) else self.mask.shape[1]
            self.mask = self.mask[:, start:]
            for layer in self.cache.layers:
                index = torch.tensor(list(places), device=layer.keys.device)
                layer.keys = layer.keys[:, :, start:].index_select(0, index)
                layer.values = layer.values[:, :, start:].index_select(0, index)

    def forget(self, place: int, count: int) -> None:
        """The last `count` tokens of a row become holes."""
        mask = self.mask.clone()  # it may come from a pass, whose tensors are not to be written on
        real = mask[place].nonzero()[:, 0]
        mask[place, real[len(real) - count :]] = 0
        self.mask = mask

    def compact(self) -> None:
        """Moves every row's columns together if holes are worth it."""
        need = int(self.mask.sum(dim=1).max()) if len(self.mask) else 0
        if self.cache is None or self.mask.shape[1] <= need + max(SPARE, need // 2):
            return
        _align(self.cache, self.mask, need)
        self.mask = self.mask.sort(dim=1, stable=True).values[:, self.mask.shape[1] - need :]


def _align(cache: Any, mask: Tensor, last: int | None = None) -> None:
    """Puts real columns on the right, in their order, and keeps the last `last` columns (all of them for None)."""
    order = mask.argsort(dim=1, stable=True)  # holes first, then what is real
    if last is None and torch.equal(order, torch.arange(mask.shape[1]).expand_as(order)):
        return
    order = order[:, mask.shape[1] - (mask.shape[1] if last is None else last) :]
    for layer in cache.layers:
        index = order.to(layer.keys.device)[:, None, :, None]
        layer.keys = layer.keys.gather(2, index.expand(-1, layer.keys.shape[1], -1, layer.keys.shape[3]))
        layer.values = layer.values.gather(2, index.expand(-1, layer.values.shape[1], -1, layer.values.shape[3]))


def _widened(states: Tensor, columns: int, dim: int = 2) -> Tensor:
    """Holes in front, up to `columns`."""
    shape = list(states.shape)
    shape[dim] = columns - shape[dim]
    return torch.cat([states.new_zeros(shape), states], dim=dim) if shape[dim] else states
