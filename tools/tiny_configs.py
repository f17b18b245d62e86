"""Sizes at which every causal LM family of transformers is tiny: what configs call things, and who differs.

Used by backbone_families.py. A name is set only where a config has it. Windows and chunks are four tokens long, so that
a dozen tokens show what happens beyond them.
"""

from __future__ import annotations

from typing import Any

VOCABULARY, WIDTH, HEADS, LAYERS, INNER, WINDOW = 320, 64, 4, 4, 96, 4

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "is_decoder": True,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 128),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_size", "emb_dim", "word_embed_proj_dim"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("decoder_layers", "encoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), HEADS),
    **dict.fromkeys(("decoder_attention_heads", "num_decoder_attention_heads"), HEADS),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_kv_heads"), 2), "head_dim": 16, "rotary_dim": 8,
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "d_inner", "ffn_hidden_size", "d_ff"), INNER),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "moe_intermediate_size", "expert_ffn_hidden_size"), INNER),
    **dict.fromkeys(("shared_intermediate_size", "shared_expert_intermediate_size"), INNER),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts"), 2),
    "zero_expert_num": 2, "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 16,
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "num_mtp_layers", "n_shared_experts"), 1),
    # latent attention
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
    "index_n_heads": 16, "index_head_dim": 16,  # few heads make ties, and a top-k of ties is a coin
    # state spaces and linear attention beside attention
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "state_size", "mamba_d_head", "mamba_head_dim"), 16),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 8), **dict.fromkeys(("mamba_n_groups", "n_groups"), 1),
    **dict.fromkeys(("linear_head_dim", "linear_key_head_dim", "linear_value_head_dim"), 16),
    **dict.fromkeys(("linear_num_heads", "linear_num_key_heads", "linear_num_value_heads"), 4),
    "mamba_d_ssm": 128,
    "attn_layer_period": 2, "attn_layer_offset": 1, "attn_layer_indices": [1, 3], "layer_group_size": 2,
    # windows and chunks
    **dict.fromkeys(("sliding_window", "attention_window_size", "window_size", "attention_chunk_size"), WINDOW),
    **dict.fromkeys(("chunk_size", "block_size", "mamba_chunk_size", "index_topk"), WINDOW),
}  # fmt: skip

HYBRID = {"layer_types": ["linear_attention", "full_attention"] * 2}
SHARED = {"layer_types": ["linear_attention", "hybrid"] * 2}
ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
SLIDING = {"layer_types": ["sliding_attention", "full_attention"] * 2}

# model_type (of a whole config or of an inner one) -> what only this one needs
SPECIAL: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {**SLIDING, "rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "dory": {"n_input_layers": 1, "n_recurrent_layers": 2, "n_output_layers": 1},
    "gemma3n_text": {**SLIDING, "num_kv_shared_layers": 2, "laurel_rank": 8, "activation_sparsity_pattern": None},
    "gemma4_text": {**SLIDING, "num_kv_shared_layers": 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": HYBRID,
    "kimi_linear": HYBRID,
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8},
    "qwen4_exp_text": {"indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": WINDOW,
                       "indexer_compress_ratio": 2, "hc_lowrank": 16},
    "reformer": {"axial_pos_embds_dim": [32, 32], "axial_pos_shape": [8, 16], "attn_layers": ["local", "lsh"] * 2},
    "xlstm": {"qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba": SHARED,
    "zamba2": SHARED,
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
