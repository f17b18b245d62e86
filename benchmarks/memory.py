"""What a step of training needs of a GPU's memory, counted from published sizes: python -m benchmarks.memory

A batch of 8 texts of 512 tokens, for backbones of several families, trained whole in float32, and with LoRA on a base
in half precision with gradient checkpointing. Nothing is loaded or measured: see constclf_lib/training/memory.py for
what is counted and what is not. Prints the table of docs/real_models.md.
"""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from constclf_lib.models.classifiers import LOGITS_AT_ONCE, LOGITS_IN_A_CHUNK
from constclf_lib.training import memory_needed

BATCH, LENGTH, RANK = 8, 512, 16
# (family, hidden, layers, heads, key-value heads, inner, vocabulary, size of a head)
SIZES = {
    "SmolLM2-135M": ("llama", 576, 30, 9, 3, 1536, 49152, 64),
    "Qwen2.5-0.5B": ("qwen2", 896, 24, 14, 2, 4864, 151936, 64),
    "Gemma-3-1B": ("gemma3_text", 1152, 26, 4, 1, 6912, 262144, 256),
    "Qwen2.5-1.5B": ("qwen2", 1536, 28, 12, 2, 8960, 151936, 128),
}


def on_paper(family, hidden, layers, heads, kv, inner, vocabulary, head):
    """A causal LM of these sizes without any weights."""
    config = AutoConfig.for_model(
        family, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv,
        intermediate_size=inner, vocab_size=vocabulary, head_dim=head, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def adapters(model) -> int:
    """Weights of LoRA of RANK on every matrix of the layers."""
    linear = (m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in n)
    return sum(RANK * (m.in_features + m.out_features) for m in linear)


def table() -> str:
    lines = [
        "| backbone | weights | whole, all logits | whole, as it is done here | LoRA, half, checkpointing |",
        "|---|---|---|---|---|",
    ]
    for name, sizes in SIZES.items():
        model = on_paper(*sizes)
        count = sum(p.numel() for p in model.parameters())
        whole = memory_needed(model, BATCH, LENGTH)
        fits = BATCH * LENGTH * model.config.vocab_size <= LOGITS_AT_ONCE
        chunk = None if fits else LOGITS_IN_A_CHUNK
        chunks = memory_needed(model, BATCH, LENGTH, logits_at_once=chunk)
        lora = memory_needed(
            model, BATCH, LENGTH, bytes_per_weight=2, trained=adapters(model), checkpointing=True, logits_at_once=chunk
        )
        cells = " | ".join(f"{m.total:.1f} GiB ({m.logits:.1f} logits)" for m in (whole, chunks, lora))
        lines.append(f"| {name} | {count / 1e6:,.0f} M | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
