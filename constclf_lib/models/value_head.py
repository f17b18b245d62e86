"""The second head: hidden states to the logit that the whole completion is harmful. Built in chapter 03."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ValueHead(nn.Module):
    """Linear, SiLU, Linear: hidden states [..., hidden_size] in any dtype -> float32 logits [...] of "the whole
    completion is harmful" (chapter 03).

    The last layer starts near zero with the bias at logit(base_rate), so an untrained head says the base rate
    everywhere. It computes in float32 even under autocast: in bfloat16, sigmoid is exactly 1 from a logit of about 6
    on, and no threshold above that could be told apart. Raises ValueError if base_rate is not strictly between 0 and 1.
    """

    def __init__(self, hidden_size: int, inner_size: int | None = None, base_rate: float | None = None):
        super().__init__()
        if base_rate is not None and not 0.0 < base_rate < 1.0:
            raise ValueError(f"base_rate is the share of harmful sequences, strictly between 0 and 1, not {base_rate}")
        self.inner = nn.Linear(hidden_size, inner_size or hidden_size, dtype=torch.float32)
        self.out = nn.Linear(inner_size or hidden_size, 1, dtype=torch.float32)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.constant_(self.out.bias, 0.0 if base_rate is None else math.log(base_rate / (1.0 - base_rate)))

    def forward(self, hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            inner = nn.functional.silu(self.inner(hidden.to(self.inner.weight.dtype)))
            return self.out(inner).squeeze(-1).float()


def direct(head: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """A plain ValueHead without its module calls, which at one token a pass take longer than its arithmetic.

    Works on the parameters themselves, so it follows training and moves. Any other kind of head is returned as it is.
    """
    if type(head) is not ValueHead:
        return head
    w1, b1, w2, b2 = head.inner.weight, head.inner.bias, head.out.weight, head.out.bias

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        if head._forward_hooks or head._forward_pre_hooks or torch.is_autocast_enabled(hidden.device.type):
            return head(hidden)  # it knows how to stay in float32
        if hidden.dtype != w1.dtype:
            hidden = hidden.to(w1.dtype)
        return F.linear(F.silu(F.linear(hidden, w1, b1)), w2, b2).squeeze(-1)

    return logits
