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
        return self.direct()(hidden)

    def direct(self) -> Callable[[Tensor], Tensor]:
        """The head as a plain function of its parameters: at one token a pass, module calls take longer than the
        arithmetic. It follows training and moves of this head; it calls no module, so hooks do not see it.
        """
        w1, b1, w2, b2 = self.inner.weight, self.inner.bias, self.out.weight, self.out.bias

        def logits(hidden: Tensor) -> Tensor:
            if torch.is_autocast_enabled(hidden.device.type):
                with torch.autocast(hidden.device.type, enabled=False):
                    return logits(hidden)
            if hidden.dtype != w1.dtype:  # asked first: a call that changes nothing is not free either
                hidden = hidden.to(w1.dtype)
            z = F.linear(F.silu(F.linear(hidden, w1, b1)), w2, b2).squeeze(-1)
            return z if z.dtype == torch.float32 else z.float()

        return logits
