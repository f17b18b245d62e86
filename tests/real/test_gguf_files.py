"""A small GGUF file, written here, as a backbone: read, trained, saved, adapted. Needs the package gguf."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM

from constclf_lib.errors import ClassifierError
from constclf_lib.models import InputClassifier, OutputClassifier, save_language_model
from constclf_lib.models.gguf import load, load_tokenizer
from constclf_lib.training import CompletionCollator, OutputClassifierTrainer, fine_tune_arguments

gguf = pytest.importorskip("gguf")
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 60, 50, 40]])
WORDS = ["Ġharmful", "Ġharmless", "Ġthe", "Ġash"]


def vocabulary():
    """Bytes, a few merges, control tokens; what a GPT-2 tokenizer is made of."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens, merges = [*bytes_to_unicode().values()], []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in tokens:
                tokens.append(word[:end])
                merges.append(f"{word[: end - 1]} {word[end - 1]}")
    return [*tokens, "<|endoftext|>", "<s>", "</s>"], merges


def permuted(weight, heads):
    """Rows of a query or key matrix in the order of llama.cpp."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(path of a Q8_0 file, the Llama whose weights are in it)."""
    tokens, merges = vocabulary()
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "max_position_embeddings": 128}
    config = LlamaConfig(
        vocab_size=len(tokens), num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False, **sizes
    )
    model, path = LlamaForCausalLM(config).eval(), tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(128)
    out.add_embedding_length(64)
    out.add_block_count(2)
    out.add_feed_forward_length(96)
    out.add_head_count(4)
    out.add_head_count_kv(2)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_dimension_count(16)
    out.add_vocab_size(len(tokens))
    out.add_tokenizer_model("gpt2")
    out.add_token_list(tokens)
    out.add_token_merges(merges)
    out.add_token_types([1] * (len(tokens) - 3) + [3, 3, 3])
    out.add_unk_token_id(len(tokens) - 3)
    out.add_bos_token_id(len(tokens) - 2)
    out.add_eos_token_id(len(tokens) - 1)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    for name, weight in model.state_dict().items():
        key = name.removesuffix(".weight").replace("model.layers.", "")
        layer, _, rest = key.partition(".")
        target = f"blk.{layer}.{names[rest]}.weight" if layer.isdigit() else f"{names[key]}.weight"
        values = weight.numpy()
        if rest.endswith(("q_proj", "k_proj")):
            values = permuted(values, 4 if "q_proj" in rest else 2)
        kind = gguf.GGMLQuantizationType.Q8_0 if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        out.add_tensor(target, gguf.quants.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path, model


def test_is_the_model_that_was_written(written):
    path, model = written
    classifier = OutputClassifier.from_backbone(path).eval()
    got = classifier(IDS).lm_logits
    assert got.dtype == torch.float32
    assert_close(got, model(IDS).logits, atol=0.03, rtol=0)  # 8 bits a weight; logits are spread ten times as wide
    assert got.std() > 0.1
    assert_close(OutputClassifier.from_backbone(path.parent).eval()(IDS).lm_logits, got)
    assert classifier.tokenizer.convert_ids_to_tokens(classifier.prefix_ids) == ["<s>"]
    assert InputClassifier.from_backbone(path).score("the ash").harm.isfinite().all()


def test_trains_and_comes_back(written, tmp_path):
    torch.manual_seed(0)
    classifier = OutputClassifier.from_backbone(written[0])
    before = classifier.lm_head.weight.detach().clone()
    rows = [{"completion": text, "harmful": text == "the ash"} for text in ("the ash", "harmless") * 4]
    trainer = OutputClassifierTrainer(
        classifier,
        fine_tune_arguments(tmp_path / "run", 2, 4, save_steps=2),
        data_collator=CompletionCollator(classifier.tokenizer),
        train_dataset=rows,
    )
    trainer.train()
    assert not torch.equal(classifier.lm_head.weight, before)
    classifier.eval().save_pretrained(tmp_path / "saved")
    for folder in (tmp_path / "saved", tmp_path / "run" / "checkpoint-2"):
        again = OutputClassifier.from_pretrained(folder)
        assert torch.equal(again(IDS).harm_logits, classifier(IDS).harm_logits)


def test_is_saved_as_an_ordinary_language_model(written, tmp_path):
    model, _ = load(str(written[0].parent), written[0].name)
    save_language_model(model, load_tokenizer(str(written[0].parent), written[0].name), tmp_path / "plain")
    assert "quantization_config" not in (tmp_path / "plain" / "config.json").read_text(encoding="utf-8")
    again = LlamaForCausalLM.from_pretrained(tmp_path / "plain")
    assert torch.equal(again(IDS).logits, model(IDS).logits)


def test_adapters_find_the_file_again(written, tmp_path):
    peft = pytest.importorskip("peft")
    model, _ = load(str(written[0].parent), written[0].name)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    classifier = OutputClassifier.from_backbone(peft.get_peft_model(model, config)).eval()
    classifier.save_pretrained(tmp_path / "adapted")
    assert not (tmp_path / "adapted" / "model.safetensors").exists()
    again = OutputClassifier.from_pretrained(tmp_path / "adapted")
    assert torch.equal(again(IDS).harm_logits, classifier(IDS).harm_logits)


def test_without_the_package_it_says_what_to_install(written, monkeypatch):
    def missing(*_, **__):
        raise ImportError("no gguf")

    monkeypatch.setattr("constclf_lib.models.gguf.AutoModelForCausalLM.from_pretrained", missing)
    with pytest.raises(ClassifierError, match="pip install gguf"):
        OutputClassifier.from_backbone(written[0])
