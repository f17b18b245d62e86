"""What the guard costs, counted in floating-point operations of the forward passes (chapter 08).

Closed forms; a test compares them with PyTorch's own FLOP counter. A multiply-add is two FLOPs. The matrices are summed
where a model comes in, and taken from the config where only that does, for families whose blocks are known here.
Deliberately not here: seconds (benchmarks/ measures those), what does not multiply matrices (norms, activations), and
models that do not multiply every token by every matrix (mixtures of experts): those are refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .intervals import bootstrap_interval

# Matrices of a feed-forward block: up and down, and in most families a gate. Seen by a test that sums the real ones.
_MATRICES = {
    **dict.fromkeys(("gpt2", "gpt_neo", "gpt_neox", "gptj", "opt", "phi", "bloom", "starcoder2"), 2),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "granite", "cohere"), 3),
    **dict.fromkeys(("olmo", "olmo2", "phi3", "smollm3", "stablelm"), 3),
}


class _Shape(NamedTuple):
    layers: int
    attention_width: int  # heads times the width of one
    body: float  # weights of the matrices that every token is multiplied by, without the LM head
    head: float  # weights of the LM head


def _shape(model_or_config: Any) -> _Shape:
    config = getattr(model_or_config, "config", model_or_config).get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        raise ValueError(f"FLOPs of {config.model_type} are not known here: it has no attention heads")
    hidden, layers = config.hidden_size, config.num_hidden_layers
    width = heads * (getattr(config, "head_dim", None) or hidden // heads)
    body = _summed(model_or_config) if hasattr(model_or_config, "base_model") else _closed_form(config, width)
    return _Shape(layers, width, body, hidden * config.vocab_size)


def _summed(model: Any) -> int:
    """The weights of every matrix of the body but its embeddings, which are looked up, not multiplied."""
    weights = [
        weight
        for module in model.base_model.modules()
        if not hasattr(module, "num_embeddings")
        for weight in module.parameters(recurse=False)
    ]
    if any(weight.ndim > 2 for weight in weights):
        raise ValueError(
            f"{type(model).__name__} holds experts or convolutions: which weights a token meets is not known here"
        )
    return sum(weight.numel() for weight in weights if weight.ndim == 2)


def _closed_form(config: Any, width: int) -> int:
    """The same from the config of a known family."""
    if config.model_type not in _MATRICES:
        raise ValueError(
            f"the blocks of {config.model_type!r} are not known here; pass the model instead of its config, and its "
            "matrices are summed"
        )
    hidden, heads = config.hidden_size, config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    inner = inner or getattr(config, "ffn_dim", None) or 4 * hidden
    key_value = kv_heads * width // heads
    per_layer = 2 * hidden * width + 2 * hidden * key_value + _MATRICES[config.model_type] * hidden * inner
    return config.num_hidden_layers * per_layer


def flops_per_token(model_or_config: Any, lm_head: bool = True, context: float = 0) -> float:
    """FLOPs of one token's forward pass that attends to `context` positions: every matrix of the body, attention over
    the context in every layer, and the LM head if asked for.

    model_or_config: a causal LM (dense, with attention) or the config of a known family. Raises ValueError for others.
    """
    shape = _shape(model_or_config)
    attention = shape.layers * 4 * shape.attention_width * context
    return 2 * shape.body + attention + (2 * shape.head if lm_head else 0)


def forward_flops(model_or_config: Any, tokens: ArrayLike, lm_head_tokens: ArrayLike = 0) -> Any:
    """FLOPs of a causal pass over `tokens` positions (cached or not: the same work), the LM head at some of them.

    Numbers or arrays of them. Position t attends to t + 1 positions. Raises ValueError as `flops_per_token` does.
    """
    shape, tokens = _shape(model_or_config), np.asarray(tokens, float)
    attention = shape.layers * 4 * shape.attention_width * tokens * (tokens + 1) / 2
    return 2 * shape.body * tokens + attention + 2 * shape.head * np.asarray(lm_head_tokens, float)


def _in_windows(model: Any, tokens: np.ndarray, wrapper: Any, room: int | None, heads: int = 0) -> np.ndarray:
    """FLOPs of reading so many tokens behind a wrapper, in one pass (room None) or in windows of `room` that overlap by
    half; the LM head at `heads` positions of each window.
    """
    if room is None:
        return forward_flops(model, tokens + wrapper, heads)
    again = np.maximum(0, np.ceil((tokens - room) / (room - room // 2)))  # full windows before the last
    last = tokens - again * (room - room // 2)
    return again * forward_flops(model, wrapper + room, heads) + forward_flops(model, last + wrapper, heads)


def input_flops(input_classifier: Any, prompt_tokens: ArrayLike) -> np.ndarray:
    """FLOPs of an input classifier per prompt of so many tokens, its LM head at the verdict only. Windows are counted
    as if they were cut between tokens (they are cut between characters).
    """
    return _in_windows(input_classifier.model, np.asarray(prompt_tokens, float), 0, input_classifier.window, heads=1)


def output_flops(classifier: Any, completion_tokens: ArrayLike, prompt_tokens: ArrayLike = 0) -> np.ndarray:
    """FLOPs of an output classifier per completion: backbone and value head over every token, no LM head; what its
    windows read again included. prompt_tokens: what an exchange classifier reads before, in every window.
    """
    tokens = np.asarray(completion_tokens, float)
    head = 2 * sum(p.numel() for p in classifier.value_head.parameters() if p.ndim == 2)
    own, room = len(classifier.prefix_ids), classifier.window
    wrapper: Any = own
    if getattr(classifier, "reads_prompt", False):
        wrapper = np.asarray(prompt_tokens, float) + 2  # the tokens of the two turns
    elif room is not None:
        room -= own
    return _in_windows(classifier.model, tokens, wrapper, room) + tokens * head


def probe_flops(probe: Any, completion_tokens: ArrayLike) -> np.ndarray:
    """FLOPs of a linear probe per completion: one product per token, the states are there."""
    return 2.0 * probe.linear.in_features * np.asarray(completion_tokens, float)


def assistant_flops(assistant: Any, replies: Sequence[dict[str, Any]]) -> np.ndarray:
    """FLOPs of the assistant per reply (of `generate_replies`): prompt, private note and completion, the LM head at
    every token it wrote.
    """
    prompt, note, written = _lengths(replies)
    return forward_flops(assistant, prompt + note + written, note + written + 1)


def _lengths(replies: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    names = ("prompt_tokens", "note_tokens", "completion_tokens")
    return [np.array([reply[name] for reply in replies], float) for name in names]


class Overhead(NamedTuple):
    """Compute added by the guard, as a fraction of the assistant's, with a bootstrap interval over `n` requests."""

    fraction: float
    low: float
    high: float
    n: int
    input_share: float
    output_share: float


def compute_overhead(
    assistant: Any, input_classifier: Any, output_classifier: Any, replies: Sequence[dict[str, Any]], seed: int = 0
) -> Overhead:
    """(input classifier + output classifier) / assistant, in FLOPs, over replies that ran to their end (paper 1.6).

    Counted as in `input_flops`, `output_flops` and `assistant_flops`.
    `replies`: from `generate_replies` (only the lengths are read). None of them is cut short here: a guard that halts
    saves compute, and that is not held in its favour.
    """
    if not replies:
        raise ValueError("the overhead needs at least one reply")
    prompt, _, written = _lengths(replies)
    base = assistant_flops(assistant, replies)
    before, during = input_flops(input_classifier, prompt), output_flops(output_classifier, written, prompt)
    low, high = bootstrap_interval(before + during, base, statistic=lambda a, b: a.sum() / b.sum(), seed=seed)
    shares = before.sum() / base.sum(), during.sum() / base.sum()
    return Overhead(float(sum(shares)), low, high, int(prompt.size), float(shares[0]), float(shares[1]))
