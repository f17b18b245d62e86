"""What the guard costs, counted in floating-point operations of the forward passes (chapter 08).

Closed forms from a model's config; a test compares them with PyTorch's own FLOP counter. A multiply-add is two FLOPs.
Deliberately not here: seconds (benchmarks/ measures those), and what does not multiply matrices (norms, activations).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .intervals import bootstrap_interval

# Feed-forward blocks of these families have two matrices; every other family here has a gate as well, so three.
_TWO_MATRIX = ("gpt2", "gpt_neo", "gpt_neox", "gptj", "opt", "phi", "bloom", "falcon", "pythia")


def _shape(config) -> tuple[int, int, int, int, int, int]:
    """(layers, hidden, query width, key-value width, feed-forward width, matrices per feed-forward block)."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden
    return (
        config.num_hidden_layers,
        hidden,
        heads * head,
        kv_heads * head,
        inner,
        2 if config.model_type in _TWO_MATRIX else 3,
    )


def flops_per_token(config, lm_head: bool = True, context: float = 0) -> float:
    """FLOPs of one token's forward pass that attends to `context` positions; dense decoder models only.

    Per layer: query and output projections, key and value projections, attention over the context, feed-forward block.
    """
    layers, hidden, query, key_value, inner, matrices = _shape(config)
    per_layer = 2 * (2 * hidden * query + 2 * hidden * key_value + matrices * hidden * inner) + 4 * query * context
    return layers * per_layer + (2 * hidden * config.vocab_size if lm_head else 0)


def forward_flops(config, tokens, lm_head_tokens=0):
    """FLOPs of a causal pass over `tokens` positions (cached or not: the same work), the LM head at some of them.

    Numbers or arrays of them. Position t attends to t + 1 positions.
    """
    tokens = np.asarray(tokens, float)
    body = tokens * flops_per_token(config, lm_head=False, context=0)
    layers, _, query, *_ = _shape(config)
    attention = layers * 4 * query * tokens * (tokens + 1) / 2
    return body + attention + np.asarray(lm_head_tokens, float) * 2 * config.hidden_size * config.vocab_size


class Overhead(NamedTuple):
    """Compute added by the guard, as a fraction of the assistant's, with a bootstrap interval over `n` requests."""

    fraction: float
    low: float
    high: float
    n: int
    input_share: float
    output_share: float


def compute_overhead(
    assistant, input_classifier, output_classifier, replies: Sequence[dict], seed: int = 0
) -> Overhead:
    """(input classifier + output classifier) / assistant, in FLOPs, over replies that ran to their end (paper 1.6).

    Counted: the input classifier over the prompt with its LM head at the verdict only; the output classifier's backbone
    and value head over every completion token, no LM head; the assistant over prompt, private note and completion, its
    LM head at every token it wrote. `replies`: from `generate_replies` (only the lengths are read). None of them is cut
    short here: a guard that halts saves compute, and that is not held in its favour.
    """
    prompt, note, written = (
        np.array([reply[f"{part}_tokens"] for reply in replies], float) for part in ("prompt", "note", "completion")
    )
    if prompt.size == 0:
        raise ValueError("the overhead needs at least one reply")
    head = 2 * sum(p.numel() for p in output_classifier.value_head.parameters() if p.ndim == 2)
    base = forward_flops(assistant.config, prompt + note + written, note + written + 1)
    before = forward_flops(input_classifier.model.config, prompt, 1)
    during = forward_flops(output_classifier.config, written + len(output_classifier.prefix_ids)) + written * head
    low, high = bootstrap_interval(before + during, base, statistic=lambda a, b: a.sum() / b.sum(), seed=seed)
    shares = before.sum() / base.sum(), during.sum() / base.sum()
    return Overhead(float(sum(shares)), low, high, int(prompt.size), float(shares[0]), float(shares[1]))
