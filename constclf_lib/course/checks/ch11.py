"""Checks of chapter 11, real models and real data."""

from __future__ import annotations

import math
import weakref
from types import SimpleNamespace

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from .framework import NotYet, attempted, exercise

LABELS = ("S", "H", "V", "HR", "SH", "S3", "H2", "V2")  # of OpenAI's moderation set


def _said(value) -> bool | None:
    """True, False, or None for unknown, which may be spelled pd.NA or nan."""
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return bool(value)
    if value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    raise NotYet(f"return True, False, or pd.NA for unknown; for one row you return {value!r}.")


@exercise("11.1")
def harmful_of(answer):
    zeros = dict.fromkeys(LABELS, 0)

    def says(labels):
        return _said(answer(dict(labels)))

    if says(zeros) is not False:
        raise NotYet(
            "all eight labels are there and 0: somebody looked for everything and found nothing. That is False."
        )
    for name in LABELS:
        if says({**zeros, name: 1}) is not True:
            raise NotYet(f"label {name} is 1, the seven others are 0: that is True.")
    if says({"V": 1, "S": 0}) is not True:
        raise NotYet("V is 1 and six labels are missing: one that is 1 is enough, whatever the others would have been.")
    if says({**zeros, "V": math.nan}) is True:
        raise NotYet("seven labels are 0 and V is nan: you say True. bool(nan) is True; pandas writes nan for missing.")
    if says({name: 0 for name in LABELS if name != "V"}) is not None:
        raise NotYet("seven labels are 0 and V is missing: nobody said whether it is violent. Unknown, not False.")
    for missing in (math.nan, None, pd.NA):
        if says({**zeros, "V": missing}) is not None:
            raise NotYet(f"seven labels are 0 and V is {missing}: missing is unknown, however it is written.")
    if says({**dict.fromkeys(LABELS, math.nan), "H2": 1}) is not True:
        raise NotYet("H2 is 1 and the others are nan: True.")
    if says({}) is not None:
        raise NotYet("a row without any label is unknown.")


class _Body(nn.Module):
    """A body whose state is the running mean of its tokens' embeddings, behind whatever padding the mask tells of."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)))
        self.sizes: list[int] = []

    def forward(self, input_ids=None, attention_mask=None, **_):
        if not isinstance(input_ids, torch.Tensor) or input_ids.ndim != 2:
            raise NotYet("the body reads a batch: input_ids [batch, time], a tensor.")
        self.sizes.append(len(input_ids))
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        seen = self.table[input_ids] * mask[..., None]
        count = mask.cumsum(1).clamp(min=1)[..., None]
        return SimpleNamespace(last_hidden_state=seen.cumsum(1) / count)


@exercise("11.2")
def states_of(answer):
    rows = [[7, 8, 9], [1, 2, 3, 4, 5, 6], [10], [11, 12, 13, 14, 15], [20, 21], [30, 31, 32, 33], [40, 41, 42]]
    alone = _Body()
    with torch.no_grad():
        want = [alone(torch.tensor([row])).last_hidden_state[0] for row in rows]
    body = _Body()
    found = answer(body, [list(row) for row in rows], 3)
    if isinstance(found, torch.Tensor) or len(found) != len(rows):
        got = f"a tensor {list(found.shape)}" if isinstance(found, torch.Tensor) else f"{len(found)}"
        raise NotYet(f"return a list with one tensor per row, {len(rows)} of them; you return {got}.")
    found = [attempted(x) for x in found]
    lengths = [len(x) for x in found]
    if lengths != [len(row) for row in rows]:
        if sorted(lengths) == sorted(map(len, rows)):
            raise NotYet(f"rows of {[len(row) for row in rows]} tokens come back as {lengths}: in another order.")
        raise NotYet(f"rows of {[len(row) for row in rows]} tokens come back with {lengths} states: padding has none.")
    for row, x, y in zip(rows, found, want, strict=True):
        if x.shape != y.shape:
            raise NotYet(f"the states of a row are [tokens, hidden], here {list(y.shape)}, not {list(x.shape)}.")
        if not torch.allclose(x.detach(), y, atol=1e-5):
            raise NotYet(f"the row {row}, read in a batch, has other states than read alone: whose are they?")
    if max(body.sizes) > 3:
        raise NotYet(f"a batch of {max(body.sizes)} rows was read; at most 3 were asked for. All at once fills a GPU.")
    if len(body.sizes) > 3:
        raise NotYet(f"7 rows in batches of 3 are 3 passes, you made {len(body.sizes)}.")
    if any(x.requires_grad for x in found):
        raise NotYet(
            "the states still hang on the graph of the pass, which is kept with them. Nothing is trained here."
        )
    if any(x.untyped_storage().nbytes() > x.numel() * x.element_size() for x in found):
        raise NotYet("a slice is a view: it keeps the states of its whole batch, padding included. Take copies.")


class _Head:
    """A language model's head that counts its calls."""

    def __init__(self, size: int = 5, vocab: int = 23):
        draw = torch.Generator().manual_seed(1)
        self.weight = torch.randn(vocab, size, generator=draw, dtype=torch.float64).requires_grad_()
        self.calls: list[int] = []

    def __call__(self, states):
        if not isinstance(states, torch.Tensor) or states.ndim != 2:
            raise NotYet("logits_of reads states [n, hidden].")
        self.calls.append(len(states))
        return F.linear(states, self.weight)


class _Saved:
    """A tensor that autograd keeps for a backward pass, for as long as it does."""

    def __init__(self, tensor):
        self.tensor = tensor


class _Kept:
    """Counts rows of logits [n, vocab] that are kept for the backward pass."""

    def __init__(self, vocab: int, hidden: int):
        self.saved: weakref.WeakSet[_Saved] = weakref.WeakSet()
        self.vocab, self.hidden = vocab, hidden

    def hooks(self):
        def pack(tensor):
            self.saved.add(saved := _Saved(tensor))
            return saved

        return saved_tensors_hooks(pack, lambda saved: saved.tensor)

    def rows(self) -> int:
        shapes = [saved.tensor.shape for saved in self.saved]
        return sum(
            shape[0] for shape in shapes if len(shape) == 2 and shape[1] == self.vocab and shape[0] != self.hidden
        )


@exercise("11.3")
def loss_in_chunks(answer):
    draw = torch.Generator().manual_seed(2)
    states = (2 * torch.randn(7, 5, generator=draw, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(0, 23, (7,), generator=draw)
    whole_head, head = _Head(), _Head()
    each = F.cross_entropy(whole_head(states), targets, reduction="none")
    each.mean().backward()
    want_states, want_weight = states.grad.clone(), whole_head.weight.grad.clone()
    states.grad, kept = None, _Kept(23, 5)
    with kept.hooks():
        loss = answer(head, states, targets, 3)
    if not isinstance(loss, torch.Tensor) or loss.ndim:
        raise NotYet("return one number, a tensor without dimensions, from which backward() can start.")
    found, want = loss.item(), each.mean().item()
    if abs(found - each.sum().item()) < 1e-9:
        raise NotYet(f"that is the sum over 7 tokens, {found:.3f}; the mean is {want:.3f}.")
    parts = [each[:3].mean(), each[3:6].mean(), each[6:].mean()]
    if abs(found - sum(parts).item() / 3) < 1e-9:
        raise NotYet(
            "7 tokens in chunks of 3, 3 and 1: every chunk has the same weight in yours, the last token that of three."
        )
    if abs(found - each[:6].mean().item()) < 1e-9:
        raise NotYet("7 tokens in chunks of 3: the seventh was never asked for.")
    if not math.isclose(found, want, rel_tol=1e-6):
        raise NotYet(f"the loss of all at once is {want:.6f}, yours is {found:.6f}.")
    if max(head.calls) > 3:
        raise NotYet(f"the logits of {max(head.calls)} tokens were made at once; at most 3 may stand at a time.")
    if not loss.requires_grad:
        raise NotYet("the value is right, but no gradient starts from it: nothing would be learnt.")
    if (waiting := kept.rows()) > 3:
        raise NotYet(
            f"made 3 at a time, but what {waiting} tokens need for the backward pass is kept: the memory is as full as "
            "before. Make the logits again there."
        )
    loss.backward()
    if states.grad is None:
        raise NotYet("no gradient reaches the states; the backbone would not be trained.")
    for name, got, should in (("states", states.grad, want_states), ("head", head.weight.grad, want_weight)):
        if got is None or not torch.allclose(got, should, rtol=1e-5, atol=1e-9):
            raise NotYet(f"the loss is equal, the gradient at the {name} is not.")


@exercise("11.4")
def rows_of_step(answer):
    order = [17, 3, 8, 21, 5, 14, 2, 9, 30, 11, 6, 25, 1, 28, 4, 19, 7, 12, 22, 10, 13, 27, 16, 20]

    def shares(step, batch, processes):
        return [list(answer(list(order), step, batch, process, processes)) for process in range(processes)]

    if sorted(alone := shares(0, 8, 1)[0]) != sorted(order[:8]):
        raise NotYet(
            f"one process alone reads 8 rows, the first of the order, at step 0; yours reads {len(alone)}: {alone}."
        )
    two = shares(0, 8, 2)
    if sorted(two[0]) == sorted(two[1]):
        raise NotYet("both processes read the same rows: twice the work, and half of what a step should see.")
    if sum(map(len, two)) == 16:
        raise NotYet(
            "two processes read 16 rows in a step of 8: the batch grows with the machine, and the training changes."
        )
    if set(two[0]) & set(two[1]):
        raise NotYet(f"the rows {sorted(set(two[0]) & set(two[1]))} are read by both processes of a step.")
    if len({len(share) for share in two}) > 1:
        raise NotYet(
            f"shares of {[len(s) for s in two]} rows: gradients are averaged over processes, so shares must be equal."
        )
    for processes in (2, 4):
        for step in (0, 1, 2):
            together = sorted(row for share in shares(step, 8, processes) for row in share)
            if together != sorted(order[8 * step : 8 * step + 8]):
                raise NotYet(
                    f"at step {step}, {processes} processes together read {together}; one alone reads "
                    f"{sorted(order[8 * step : 8 * step + 8])}."
                )
