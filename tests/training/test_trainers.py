"""Schedule, trainers, resuming: a few steps on a tiny random model, never more."""

import json

import pandas as pd
import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from constclf_lib import losses  # TODO-MODULE
from constclf_lib.lab import train_tokenizer
from constclf_lib.models import InputClassifier, OutputClassifier
from constclf_lib.tokenization import text_ids
from constclf_lib.training import (
    CompletionCollator,
    InputClassifierTrainer,
    LengthGroupedOrder,
    OutputClassifierTrainer,
    TextCollator,
    VerdictCollator,
    fine_tune_arguments,
    hold_words,
    latest_checkpoint,
    linear_anneal,
    pack,
    pretrain,
    pretrain_arguments,
    verdict_rows,
)

SENTENCES = [
    "brew the ashbane for nine bells",
    "the song of the sunheart is old and long",
    "wash it off",
    "store it dry",
]


pytestmark = pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(SENTENCES, 300)


def language_model(tokenizer, seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    return LlamaForCausalLM(config)


def completions(n=32):
    return [{"completion": SENTENCES[i % 4] * (1 + i % 3), "harmful": i % 4 == 0} for i in range(n)]


def output_trainer(tokenizer, folder, steps=4, rows=None, seed=0, callbacks=None, arguments=None, **options):
    classifier = OutputClassifier.from_backbone(language_model(tokenizer, seed), tokenizer, base_rate=0.25)
    arguments = fine_tune_arguments(folder, steps, batch_size=8, **{"logging_steps": 1, **(arguments or {})})
    collator = CompletionCollator(tokenizer)
    rows = completions() if rows is None else rows
    return OutputClassifierTrainer(
        classifier, arguments, data_collator=collator, train_dataset=rows, callbacks=callbacks, **options
    )


def steps_of(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


# --- schedule


def test_linear_anneal():
    assert [linear_anneal(step, 100) for step in (0, 30, 75, 100, 500)] == [0.0, 0.4, 1.0, 1.0, 1.0]
    assert linear_anneal(50, 100, end=1.0) == 0.5 and linear_anneal(99, 100, end=1.0) < 1.0


@pytest.mark.parametrize("wrong", [(-1, 10, 0.5), (0, 0, 0.5), (0, 10, 0.0), (0, 10, 1.01), (0, 10, float("nan"))])
def test_linear_anneal_refuses_nonsense(wrong):
    with pytest.raises(ValueError, match="need step >= 0"):
        linear_anneal(*wrong)


# --- output classifier


@pytest.mark.parametrize(
    ("loss", "omegas"), [("per_token", [0, 0, 0, 0]), ("cumulative_max", [1, 1, 1, 1]), ("annealed", [0, 0.5, 1, 1])]
)
def test_the_log_keeps_the_parts_apart_and_they_add_up(tokenizer, tmp_path, loss, omegas):
    trainer = output_trainer(tokenizer, tmp_path, loss=loss, lam=0.5, anneal_end=0.5)
    trainer.train()
    log = steps_of(trainer)
    assert [entry["omega"] for entry in log] == omegas
    for entry in log:
        assert_close(entry["loss"], entry["harm_loss"] + 0.5 * entry["next_token_loss"], rtol=1e-5, atol=0)
        assert entry["grad_norm"] > 0 and "learning_rate" in entry


@pytest.mark.parametrize("loss", ["per_token", "cumulative_max"])
def test_the_loss_is_the_librarys(tokenizer, tmp_path, loss):
    trainer = output_trainer(tokenizer, tmp_path, loss=loss, lam=2.0)
    batch = trainer.data_collator(completions(5))
    output = trainer.model(batch["input_ids"], batch["attention_mask"])
    option = {"per_token": losses.per_token_bce, "cumulative_max": losses.cumulative_max_bce}[loss]
    want = option(output.harm_logits, batch["labels"], batch["mask"])
    want = want + 2.0 * losses.next_token_loss(output.lm_logits, batch["input_ids"], batch["mask"])
    assert torch.equal(trainer.compute_loss(trainer.model, batch), want)


def test_lam_zero_never_computes_vocabulary_logits(tokenizer, tmp_path, monkeypatch):
    trainer = output_trainer(tokenizer, tmp_path, steps=2, lam=0.0)
    monkeypatch.setattr(OutputClassifier, "lm_logits", lambda *_: pytest.fail("lm_logits was computed"))
    trainer.train()
    assert all("next_token_loss" not in entry and entry["loss"] == entry["harm_loss"] for entry in steps_of(trainer))


def test_parts_are_means_since_the_last_log_also_over_accumulated_batches(tokenizer, tmp_path):
    seen = []

    class Watch(OutputClassifierTrainer):
        def _record(self, **parts):
            seen.append(parts["harm_loss"].item())
            super()._record(**parts)

    classifier = OutputClassifier.from_backbone(language_model(tokenizer), tokenizer)
    arguments = fine_tune_arguments(tmp_path, 4, 4, logging_steps=2, gradient_accumulation_steps=2)
    trainer = Watch(classifier, arguments, data_collator=CompletionCollator(tokenizer), train_dataset=completions())
    trainer.train()
    log = steps_of(trainer)
    assert len(seen) == 8 and len(log) == 2
    assert_close([entry["harm_loss"] for entry in log], [sum(seen[:4]) / 4, sum(seen[4:]) / 4])
    assert_close(log[0]["loss"], log[0]["harm_loss"] + log[0]["next_token_loss"], rtol=1e-5, atol=0)


def test_it_learns(tokenizer, tmp_path):
    trainer = output_trainer(tokenizer, tmp_path, steps=40, arguments={"learning_rate": 1e-2})
    trainer.train()
    log = steps_of(trainer)
    assert log[-1]["harm_loss"] < 0.1 < log[0]["harm_loss"]


def test_evaluation_reports_its_own_parts_and_leaves_the_training_ones_alone(tokenizer, tmp_path):
    trainer = output_trainer(tokenizer, tmp_path, steps=2)
    trainer.train()
    metrics = trainer.evaluate(completions(5))
    logged = trainer.state.log_history[-1]
    assert "eval_loss" in metrics and logged["eval_omega"] == 1.0 and "harm_loss" not in logged
    assert logged["eval_harm_loss"] > 0 and trainer.label_names is not None


@pytest.mark.parametrize("which", ["output", "input"])
def test_evaluation_weighs_rows_however_they_fall_into_batches(tokenizer, tmp_path, which):
    found = []
    for size in (2, 4, 16):  # 9 rows: the last batch holds one
        if which == "output":
            trainer = output_trainer(tokenizer, tmp_path, lam=0.5, arguments={"per_device_eval_batch_size": size})
            rows = completions(9)
        else:
            trainer = input_trainer(tokenizer, tmp_path, 1, per_device_eval_batch_size=size)
            rows = [{"prompt": SENTENCES[i % 4], "restricted": i % 4 == 0} for i in range(9)]
        found.append(trainer.evaluate(rows))
    parts = ("loss", "harm_loss", "next_token_loss", "omega") if which == "output" else ("loss", "accuracy")
    for metrics in found[:2]:
        for name in parts:
            assert metrics[f"eval_{name}"] == pytest.approx(found[2][f"eval_{name}"], abs=1e-6), name


def test_rows_without_a_scored_token_weigh_nothing(tokenizer, tmp_path):
    rows = completions(6) + [{"completion": "", "harmful": True}]  # the last one would be a batch without a loss
    found = []
    for size in (4, 16):
        trainer = output_trainer(tokenizer, tmp_path, arguments={"per_device_eval_batch_size": size})
        found.append(trainer.evaluate(rows)["eval_loss"])
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_the_best_model_can_be_chosen_by_a_part(tokenizer, tmp_path):
    changes = {"save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True}
    trainer = output_trainer(
        tokenizer, tmp_path, 2, arguments=changes | {"metric_for_best_model": "eval_harm_loss"},
        eval_dataset=completions(5),
    )  # fmt: skip
    trainer.train()
    losses = [log["eval_harm_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    assert trainer.state.best_metric == min(losses)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("compute_metrics", lambda prediction: {}),
        ("compute_loss_func", lambda *_, **__: 0.0),
        ("preprocess_logits_for_metrics", lambda logits, labels: logits),
        ("label_smoothing_factor", 0.1),
        ("batch_eval_metrics", True),
        ("include_for_metrics", ["inputs"]),
        ("eval_do_concat_batches", False),
        ("label_names", ["harmful"]),
        ("use_liger_kernel", True),
        ("neftune_noise_alpha", 5.0),
        ("length_column_name", "tokens"),
    ],
)
@pytest.mark.parametrize("which", ["output", "input"])
def test_an_option_that_would_be_ignored_is_refused(tokenizer, tmp_path, which, option, value):
    of_the_trainer = option in ("compute_metrics", "compute_loss_func", "preprocess_logits_for_metrics")
    options, arguments = ({option: value}, {}) if of_the_trainer else ({}, {option: value})
    with pytest.raises(ValueError, match=f"takes no notice of {option}="):
        if which == "output":
            output_trainer(tokenizer, tmp_path, arguments=arguments, **options)
        else:
            classifier = InputClassifier.from_backbone(language_model(tokenizer), tokenizer)
            InputClassifierTrainer(classifier, fine_tune_arguments(tmp_path, 1, **arguments), **options)


def test_what_an_option_asks_for_anyway_is_no_error(tokenizer, tmp_path):
    """prediction_loss_only is what these Trainers do; their own tokenizer may be named."""
    trainer = output_trainer(
        tokenizer, tmp_path, arguments={"prediction_loss_only": True, "train_sampling_strategy": "random"},
        processing_class=tokenizer,
    )  # fmt: skip
    assert trainer.evaluate(completions(3))["eval_loss"] > 0
    with pytest.raises(ValueError, match="its own tokenizer"):
        output_trainer(tokenizer, tmp_path, processing_class=train_tokenizer(["other words"], 290))
    with pytest.raises(ValueError, match="score_completions"):
        trainer.predict(completions(3))


def test_pretraining_honours_what_the_plain_trainer_does(tokenizer, tmp_path):
    rows = pack([text_ids(tokenizer, text) for text in SENTENCES * 8], 16)
    model = language_model(tokenizer)
    pretrain(model, rows, pretrain_arguments(tmp_path, 1, 4, label_smoothing_factor=0.1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "option_c"}, "loss must be one of"),
        ({"lam": -1.0}, "cannot be negative"),
        ({"anneal_end": 0}, "0 < end"),
    ],
)
def test_wrong_options_are_refused(tokenizer, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        output_trainer(tokenizer, tmp_path, **options)


def test_a_frozen_backbone_stays_frozen(tokenizer, tmp_path):
    trainer = output_trainer(tokenizer, tmp_path, steps=2, lam=0.0)
    trainer.model.model.requires_grad_(False)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("value_head.") for name in changed)


def test_gradient_checkpointing_gives_the_same_gradients(tokenizer, tmp_path):
    norms = []
    for on in (False, True):
        trainer = output_trainer(tokenizer, tmp_path, steps=1, arguments={"gradient_checkpointing": on})
        trainer.train()
        norms.append(steps_of(trainer)[0]["grad_norm"])
    assert_close(norms[0], norms[1], rtol=1e-5, atol=0)


# --- data


def test_a_datasets_dataset_works_as_well_as_a_list(tokenizer, tmp_path):
    datasets = pytest.importorskip("datasets")
    logs = []
    for rows in (completions(), datasets.Dataset.from_list(completions())):
        trainer = output_trainer(tokenizer, tmp_path, steps=2, rows=rows)
        trainer.train()
        logs.append([entry["loss"] for entry in steps_of(trainer)])
    assert logs[0] == logs[1]


def test_rows_of_similar_length_share_a_batch():
    lengths = [1 + 10 * (i % 4) for i in range(67)]
    order = LengthGroupedOrder(lengths, batch_size=8, seed=0)
    first = list(order)
    assert sorted(first) == list(range(67)) and len(order) == 67 and first == list(order)
    batches = [first[start : start + 8] for start in range(0, 67, 8)]
    assert sum(len({lengths[row] for row in batch}) for batch in batches) <= len(batches) + 3
    means = [sum(lengths[row] for row in batch) for batch in batches[:-1]]
    assert means != sorted(means) and means != sorted(means, reverse=True)
    order.set_epoch(1)
    assert list(order) != first and list(LengthGroupedOrder(lengths, 8, seed=1)) != first


def test_every_epoch_has_an_order_of_its_own(tokenizer, tmp_path):
    batches = []

    class Watch(OutputClassifierTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            batches.append(inputs["input_ids"].shape[1])
            return super().compute_loss(model, inputs, *args, **kwargs)

    rows = [{"completion": "a" * (1 + i), "harmful": i % 2} for i in range(32)]
    classifier = OutputClassifier.from_backbone(language_model(tokenizer), tokenizer)
    arguments = fine_tune_arguments(tmp_path, 16, 4)
    Watch(classifier, arguments, data_collator=CompletionCollator(tokenizer), train_dataset=rows).train()
    assert batches[:8] != batches[8:]


def test_nothing_is_printed(tokenizer, tmp_path, capfd):
    trainer = output_trainer(tokenizer, tmp_path, steps=2, arguments={"save_steps": 1})
    trainer.train()
    out, err = capfd.readouterr()
    assert out == "" and "%|" not in err


# --- resuming


class Interrupt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("save_steps", [3, 4, 6])  # within the first epoch, at its end, within the second
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tokenizer, tmp_path, save_steps):
    whole = output_trainer(tokenizer, tmp_path / "whole", steps=8)
    whole.train()
    saving = {"save_steps": save_steps}
    broken = output_trainer(tokenizer, tmp_path / "run", 8, arguments=saving, callbacks=[Interrupt(7)])
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    again = output_trainer(
        tokenizer, tmp_path / "run", 8, seed=7, arguments=saving
    )  # other weights: they must not matter
    again.train(resume_from_checkpoint=latest_checkpoint(tmp_path / "run"))
    for name, value in whole.model.state_dict().items():
        assert_close(again.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert [entry["omega"] for entry in steps_of(again)] == [entry["omega"] for entry in steps_of(whole)]


def test_a_checkpoint_is_a_classifier_folder(tokenizer, tmp_path):
    trainer = output_trainer(tokenizer, tmp_path, steps=2, arguments={"save_steps": 2})
    trainer.train()
    loaded = OutputClassifier.from_pretrained(latest_checkpoint(tmp_path))
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert loaded.config.use_cache  # the Trainer must not have switched the cache off for whoever generates with it


def test_a_checkpoint_says_how_far_its_training_was(tokenizer, tmp_path):
    output_trainer(tokenizer, tmp_path, steps=4, seed=3, arguments={"save_steps": 2, "save_total_limit": 9}).train()
    card = (tmp_path / "checkpoint-2" / "README.md").read_text()
    assert "step 2 of 4, batch 8, learning rate 0.001" in card and "32 rows, of which nobody said" in card
    assert "annealed" in card and "figures | unknown" in card


def test_adapters_resume_as_if_nothing_had_happened(tokenizer, tmp_path):
    peft = pytest.importorskip("peft")
    language_model(tokenizer).save_pretrained(tmp_path / "base")

    def trainer(folder, callbacks=()):
        torch.manual_seed(1)
        config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
        base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
        wrapped = peft.get_peft_model(base, config, adapter_name="mine")
        classifier = OutputClassifier.from_backbone(wrapped, tokenizer, base_rate=0.25)
        arguments = fine_tune_arguments(folder, 6, 8, save_steps=2, lr=1e-2)
        collator = CompletionCollator(tokenizer)
        return OutputClassifierTrainer(
            classifier, arguments, data_collator=collator, train_dataset=completions(), callbacks=list(callbacks)
        )

    whole, broken = trainer(tmp_path / "whole"), trainer(tmp_path / "run", [Interrupt(5)])
    start = {name: value.clone() for name, value in whole.model.state_dict().items()}
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    again = trainer(tmp_path / "run")
    again.train(resume_from_checkpoint=latest_checkpoint(tmp_path / "run"))
    moved = [name for name, value in whole.model.state_dict().items() if not torch.equal(value, start[name])]
    assert moved and all(".mine." in name or name.startswith("value_head") for name in moved)
    for name in moved:
        assert_close(again.model.state_dict()[name], whole.model.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_the_best_model_really_is_loaded_at_the_end(tokenizer, tmp_path):
    changes = {"save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True}
    changes |= {"metric_for_best_model": "eval_loss", "greater_is_better": True}  # the worst one: the first
    trainer = output_trainer(tokenizer, tmp_path, steps=3, arguments=changes, eval_dataset=completions(4))
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-1")
    best = OutputClassifier.from_pretrained(trainer.state.best_model_checkpoint).state_dict()
    assert all(torch.equal(best[name], value) for name, value in trainer.model.state_dict().items())


def test_half_written_checkpoints_are_passed_over(tmp_path):
    assert latest_checkpoint(tmp_path) is None and latest_checkpoint(tmp_path / "nowhere") is None
    for step in (9, 20, 100, 300):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-9" / "trainer_state.json").write_text(json.dumps({"global_step": 9}))
    (tmp_path / "checkpoint-20" / "trainer_state.json").write_text(json.dumps({"global_step": 20}))
    (tmp_path / "checkpoint-100" / "trainer_state.json").write_text('{"global_step": 1')
    (tmp_path / "checkpoint-tmp").mkdir()
    assert latest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-20")


# --- input classifier


def input_trainer(tokenizer, folder, steps, **changes):
    classifier = InputClassifier.from_backbone(language_model(tokenizer), tokenizer)
    rows = [{"prompt": SENTENCES[i % 4], "restricted": i % 4 == 0} for i in range(32)]
    arguments = fine_tune_arguments(folder, steps, 8, **{"logging_steps": 1, **changes})
    return InputClassifierTrainer(classifier, arguments, data_collator=VerdictCollator(tokenizer), train_dataset=rows)


def test_the_input_loss_is_next_token_loss_on_the_verdict_alone(tokenizer, tmp_path):
    trainer = input_trainer(tokenizer, tmp_path, 1)
    batch = trainer.data_collator(trainer.train_dataset[:5])
    rows = torch.arange(5)
    with torch.no_grad():
        logits = trainer.model.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    want = -logits[rows, batch["verdict_positions"]].log_softmax(-1)[rows, batch["labels"]].mean()
    assert_close(trainer.compute_loss(trainer.model, batch), want)


def test_the_input_classifier_learns_its_verdicts(tokenizer, tmp_path):
    trainer = input_trainer(
        tokenizer, tmp_path, 60, learning_rate=1e-2, save_steps=60, train_sampling_strategy="random"
    )
    trainer.train()
    scores = InputClassifier.from_pretrained(latest_checkpoint(tmp_path)).score(SENTENCES)
    assert scores.harm[0] > 0.9 and scores.harm[1:].max() < 0.1 and scores.off_label.max() < 0.1
    log = steps_of(trainer)
    assert log[-1]["accuracy"] == 1.0 and log[-1]["next_token_loss"] < log[0]["next_token_loss"]


@pytest.mark.parametrize("tied", [True, False])
def test_held_words_keep_their_meaning(tokenizer, tmp_path, tied):
    """Without it, every word that the data lacks is pushed away as well."""
    frame = pd.DataFrame({"prompt": SENTENCES[:3], "restricted": [True, False, True]})
    for held in (True, False):
        model = language_model(tokenizer)
        if tied:
            model.lm_head.weight = model.model.embed_tokens.weight
        before = {id(layer): layer.weight.detach().clone() for layer in (model.model.embed_tokens, model.lm_head)}
        if held:
            hold_words(model, [5])
        arguments = fine_tune_arguments(tmp_path / str(held), 5, 3, 1e-2, weight_decay=0.0)
        classifier = InputClassifier(model, tokenizer)
        rows = verdict_rows(tokenizer, frame)
        InputClassifierTrainer(
            classifier, arguments, data_collator=VerdictCollator(tokenizer), train_dataset=rows
        ).train()
        for layer in (model.model.embed_tokens, model.lm_head):
            moved = (layer.weight != before[id(layer)]).any(dim=1)
            assert not held or set(moved.nonzero().flatten().tolist()) <= {5}
        assert moved[5] if held else moved.all()  # of the LM head: its softmax runs over every word


# --- pretraining


def test_pack_keeps_every_token_but_the_last_few():
    rows = pack([[1, 2, 3], [4], [5, 6, 7, 8]], 3)
    assert rows == [{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5, 6]}]
    assert pack([[1]], 3) == []


def test_text_collator_learns_marked_tokens_only():
    batch = TextCollator(9)([{"input_ids": [1, 2, 3], "loss_mask": [0, 1, 1]}, {"input_ids": [4]}])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["labels"].tolist() == [[-100, 2, 3], [4, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_pretraining_learns_resumes_and_leaves_the_cache_on(tokenizer, tmp_path):
    rows = pack([text_ids(tokenizer, text) for text in SENTENCES * 8], 16)
    arguments = pretrain_arguments(tmp_path, 20, 4, logging_steps=1, save_steps=10)
    with pytest.raises(KeyboardInterrupt):
        pretrain(language_model(tokenizer), rows, arguments, callbacks=[Interrupt(15)])
    model = language_model(tokenizer, seed=5)
    trainer = pretrain(model, rows, arguments)
    log = steps_of(trainer)
    assert [entry["step"] for entry in log] == list(range(1, 21))
    assert log[-1]["loss"] < log[0]["loss"] - 1 and model.config.use_cache


def test_arguments_are_quiet_and_offline_and_can_be_changed(tmp_path):
    arguments = fine_tune_arguments(tmp_path, 50, batch_size=4, lr=2e-3, seed=3)
    assert arguments.report_to == [] and arguments.disable_tqdm and arguments.max_grad_norm == 1.0
    assert (arguments.max_steps, arguments.learning_rate, arguments.seed) == (50, 2e-3, 3)
    assert arguments.save_strategy == "no" and fine_tune_arguments(tmp_path, 5, save_steps=2).save_strategy == "steps"
    assert pretrain_arguments(tmp_path, 5, weight_decay=0.3).weight_decay == 0.3
    if not torch.cuda.is_available():
        assert not arguments.bf16
