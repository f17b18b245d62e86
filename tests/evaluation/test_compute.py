"""FLOPs against PyTorch's counter and by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from constclf_lib.evaluation import compute_overhead, flops_per_token, forward_flops, output_flops, probe_flops
from constclf_lib.evaluation.compute import _MATRICES
from constclf_lib.models import ExchangeClassifier, LinearProbe
from constclf_lib.streaming.reader import Reader
from tests.tiny_models import causal_lm, lab_tokenizer, llama


@pytest.mark.parametrize("kv_heads, tied", [(4, True), (2, False)])
def test_flops_against_the_counter_of_pytorch(kv_heads, tied):
    model = llama(num_key_value_heads=kv_heads)
    model.config._attn_implementation = "eager"
    n = 16
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.arange(n)[None])
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    # eager attention multiplies the full n x n square and masks half of it away; the closed form counts what is needed
    square = layers * 4 * width * (n * n - n * (n + 1) / 2)
    rotary = counter.get_total_flops() - square - forward_flops(model.config, n, n)
    assert 0 <= rotary <= 0.005 * counter.get_total_flops()
    steps = sum(flops_per_token(model.config, context=t + 1) for t in range(n))
    assert steps == pytest.approx(forward_flops(model.config, n, n))


SMALL = {
    "vocab_size": 100, "hidden_size": 64, "n_embd": 64, "num_attention_heads": 4, "n_head": 4, "head_dim": 24,
    "num_key_value_heads": 2, "intermediate_size": 96, "ffn_dim": 96, "word_embed_proj_dim": 64, "n_layer": 2,
    "num_hidden_layers": 2, "num_layers": 2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip


def small(family, **more):
    config = AutoConfig.for_model(family)
    own = {name for name in {**SMALL, **more} if name in config.to_dict() or name in config.attribute_map}
    if family == "gpt_neo":
        more["attention_types"], own = [[["global", "local"], 1]], own | {"attention_types"}
    values = {name: value for name, value in {**SMALL, **more}.items() if name in own}
    with torch.device("meta"):  # only shapes are looked at
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **values))


@pytest.mark.parametrize("family", sorted(_MATRICES))
def test_the_config_of_a_known_family_says_what_the_matrices_of_the_model_sum_to(family):
    model = small(family)
    assert flops_per_token(model.config, context=7) == flops_per_token(model, context=7)
    assert forward_flops(model.config, 9, 3) == forward_flops(model, 9, 3)


@pytest.mark.parametrize(("family", "message"), [("glm4", "pass the model instead"), ("mamba", "no attention heads")])
def test_what_an_unknown_config_costs_is_not_guessed(family, message):
    with pytest.raises(ValueError, match=message):
        flops_per_token(AutoConfig.for_model(family))


def test_an_unknown_family_is_summed_and_a_mixture_of_experts_refused():
    model = small("glm4")
    linear = sum(m.weight.numel() for m in model.model.modules() if isinstance(m, torch.nn.Linear))
    assert flops_per_token(model, lm_head=False) == 2 * linear
    with pytest.raises(ValueError, match="experts"):
        flops_per_token(small("mixtral", num_local_experts=2))


def test_overhead_by_hand(lab):
    replies = [{"prompt_tokens": 10, "note_tokens": 4, "completion_tokens": 20}] * 3
    overhead = compute_overhead(lab.assistant, lab.input, lab.output, replies)
    config = lab.assistant.config  # all three have the same shape here
    head = 20 * 2 * (32 * 32 + 32)
    base = forward_flops(config, 34, 25)
    assert overhead.input_share == pytest.approx(float(forward_flops(config, 10, 1) / base))
    assert overhead.output_share == pytest.approx(float((forward_flops(config, 20) + head) / base))
    assert overhead.fraction == pytest.approx(overhead.low) == pytest.approx(overhead.high) and overhead.n == 3
    with pytest.raises(ValueError):
        compute_overhead(lab.assistant, lab.input, lab.output, [])


def test_what_windows_read_again_is_counted(lab, monkeypatch):
    """20 tokens in windows of 8: 8, then three times 4 tokens again and 4 new ones."""
    replies = [{"prompt_tokens": 10, "note_tokens": 4, "completion_tokens": 20}]
    monkeypatch.setattr(lab.output, "window", 8, raising=False)
    monkeypatch.setattr(lab.input, "window", 8, raising=False)
    overhead = compute_overhead(lab.assistant, lab.input, lab.output, replies)
    config, head = lab.assistant.config, 20 * 2 * (32 * 32 + 32)
    prefix = len(lab.output.prefix_ids)
    windows = Reader(lab.output, window=8).windows(20)
    read = sum(float(forward_flops(config, end - start + prefix)) for start, _, end in windows)
    base = float(forward_flops(config, 34, 25))
    assert overhead.output_share == pytest.approx((read + head) / base)
    assert overhead.input_share == pytest.approx(
        float(forward_flops(config, 8, 1) + forward_flops(config, 6, 1)) / base
    )


def test_an_exchange_classifier_reads_the_prompt_in_every_window():
    torch.manual_seed(0)
    classifier = ExchangeClassifier.from_backbone(causal_lm(vocab=len(lab_tokenizer())), lab_tokenizer())
    head = 2 * sum(p.numel() for p in classifier.value_head.parameters() if p.ndim == 2)
    one_pass = forward_flops(classifier.model, 12 + 30) + 30 * head
    assert output_flops(classifier, 30, 10) == pytest.approx(one_pass)
    classifier.window = 8
    windows = Reader(classifier).windows(30, 8)
    want = sum(forward_flops(classifier.model, 12 + end - start) for start, _, end in windows) + 30 * head
    assert output_flops(classifier, [30.0], [10.0])[0] == pytest.approx(want)


def test_a_probe_costs_one_product_per_token():
    assert probe_flops(LinearProbe(32, [0, 1]), [3, 0]).tolist() == [2 * 64 * 3, 0]
