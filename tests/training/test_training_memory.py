"""Bytes counted, out-of-memory turned into advice, precision by what a device can, adapters in float32."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from constclf_lib.errors import ClassifierError
from constclf_lib.models import OutputClassifier
from constclf_lib.training import (
    CompletionCollator,
    OutputClassifierTrainer,
    add_adapters,
    fine_tune_arguments,
    memory_needed,
    precision,
    resting_dtype,
)
from tests.tiny_models import causal_lm, lab_tokenizer

ROWS = [{"completion": text, "harmful": text == "the ash"} for text in ("the ash", "the bell") * 4]


def trainer(classifier, folder, **arguments):
    tokenizer = lab_tokenizer()
    return OutputClassifierTrainer(
        classifier,
        fine_tune_arguments(folder, 2, 4, **arguments),
        data_collator=CompletionCollator(tokenizer),
        train_dataset=ROWS,
    )


def classifier():
    return OutputClassifier.from_backbone(causal_lm(vocab=len(lab_tokenizer())), lab_tokenizer())


def test_memory_is_counted_from_the_sizes():
    with torch.device("meta"):
        config = LlamaConfig(vocab_size=1024, hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
        model = AutoModelForCausalLM.from_config(config)
    count = sum(p.numel() for p in model.parameters())
    full = memory_needed(model, 4, 100)
    assert full.weights * 2**30 == 4 * count and full.training * 2**30 == 12 * count
    assert full.activations * 2**30 == 400 * 34 * 64 * 2 and full.logits * 2**30 == 400 * 1024 * 10
    less = memory_needed(model, 4, 100, bytes_per_weight=2, trained=1000, checkpointing=True, logits_at_once=2**16)
    assert less.weights * 2**30 == 2 * (count - 1000) + 4000 and less.training * 2**30 == 12_000
    assert less.activations < full.activations and less.logits * 2**30 == 2**16 * 10
    assert less.total == sum(less)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory_says_what_to_change(tmp_path, monkeypatch, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(OutputClassifier, "forward", full)
    with pytest.raises(ClassifierError, match="out of memory at 4 rows of") as told:
        trainer(classifier(), tmp_path, gradient_accumulation_steps=3).train()
    said = str(told.value)
    assert "per_device_train_batch_size=2 with gradient_accumulation_steps=6" in said
    places = [said.index(word) for word in ("per_device", "gradient_checkpointing=True", "LoRA", "shorter")]
    assert places == sorted(places)
    assert told.value.__cause__ is error


def test_advice_leaves_out_what_is_done_already(tmp_path, monkeypatch):
    pytest.importorskip("peft")
    model = add_adapters(causal_lm(vocab=len(lab_tokenizer())), rank=2)
    adapted = OutputClassifier.from_backbone(model, lab_tokenizer())

    def full(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(OutputClassifier, "forward", full)
    with pytest.raises(ClassifierError) as told:
        run = trainer(adapted, tmp_path, gradient_checkpointing=True)
        run.args.per_device_train_batch_size = 1
        run.train()
    assert "LoRA" not in str(told.value) and "gradient_checkpointing=True" not in str(told.value)


def test_another_error_stays_what_it_is(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(OutputClassifier, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        trainer(classifier(), tmp_path).train()


@pytest.mark.parametrize(
    "capability, bf16, fp16, dtype",
    [
        (None, False, False, torch.float32),
        ((6, 1), False, False, torch.float32),
        ((7, 5), False, True, torch.float16),
        ((8, 0), True, False, torch.bfloat16),
        ((9, 0), True, False, torch.bfloat16),
    ],
)
def test_precision_by_capability(monkeypatch, capability, bf16, fp16, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert precision() == {"bf16": bf16, "fp16": fp16} and resting_dtype() == dtype


def test_a_loss_that_float16_made_nan_stops_the_run(tmp_path, monkeypatch):
    half = classifier()
    half.model.to(torch.float16)
    run = trainer(half, tmp_path, logging_steps=1)
    real = OutputClassifier.forward

    def overflows(self, *given, **options):
        output = real(self, *given, **options)
        output.harm_logits = output.harm_logits * float("nan")
        return output

    monkeypatch.setattr(OutputClassifier, "forward", overflows)
    with pytest.raises(ClassifierError, match="not a number; float16 ends at 65,504"):
        run.train()


def test_adapters_train_in_float32_on_a_resting_half(tmp_path):
    pytest.importorskip("peft")
    model = add_adapters(causal_lm(vocab=len(lab_tokenizer())).to(torch.bfloat16), rank=2)
    torch.manual_seed(0)
    adapted = OutputClassifier.from_backbone(model, lab_tokenizer())
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert any("lora_A" in name for name in trained) and any("value_head" in name for name in trained)
    resting = {name: p.clone() for name, p in adapted.named_parameters() if not p.requires_grad}
    before = {name: p.clone() for name, p in trained.items()}
    trainer(adapted, tmp_path, gradient_checkpointing=True, gradient_accumulation_steps=2).train()
    now = dict(adapted.named_parameters())
    assert all(torch.equal(now[name], p) for name, p in resting.items())
    assert not any(torch.equal(now[name], p) for name, p in before.items() if "lora_B" in name or "value_head" in name)


@pytest.mark.parametrize("plugin", ["fsdp_plugin", "deepspeed_plugin"])
def test_sharded_training_is_refused_also_where_accelerate_was_told_of_it(tmp_path, monkeypatch, plugin):
    from accelerate.state import AcceleratorState

    made = OutputClassifierTrainer.create_accelerator_and_postprocess

    def told(self):
        made(self)
        monkeypatch.setattr(AcceleratorState, plugin, object(), raising=False)

    monkeypatch.setattr(OutputClassifierTrainer, "create_accelerator_and_postprocess", told)
    with pytest.raises(ValueError, match="saves whole classifiers; under"):
        trainer(classifier(), tmp_path)
