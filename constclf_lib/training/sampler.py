"""The order of training rows: random, with rows of similar length side by side. Used in every chapter that trains.

Deliberately not here: padding and masks (`tokenization.pad_batch`), the choice of a batch size.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from torch.utils.data import Sampler


class LengthGroupedOrder(Sampler):
    """Row numbers in random order, such that rows that share a batch have similar lengths and the batches themselves
    come in random order.

    Rows are sorted within pools of 16 batches: most of the padding goes, and a batch still mixes lengths, hence labels.
    The order depends on seed and epoch alone, so an interrupted run goes on with exactly the rows it has not seen.
    transformers' own sampler draws from the global generator, and reads each pool of batches from long to short.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, pool: int = 16):
        self.lengths, self.batch_size, self.seed, self.pool, self.epoch = lengths, batch_size, seed, pool, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self):
        shuffle = random.Random(f"{self.seed}/{self.epoch}").shuffle
        order = list(range(len(self)))
        shuffle(order)
        batches, size = [], self.batch_size
        for start in range(0, len(order), size * self.pool):
            pool = sorted(order[start : start + size * self.pool], key=lambda row: self.lengths[row])
            batches += [pool[i : i + size] for i in range(0, len(pool), size)]
        ragged = [batches.pop()] if len(order) % size else []  # stays last, or it would shift all batches behind it
        shuffle(batches)
        return iter([row for batch in batches + ragged for row in batch])
