"""Adapters of every kind that the installed peft offers: each comes back with equal scores, or is refused in words."""

import shutil
import sys

import pytest
import torch
from tiny_models import causal_lm, lab_tokenizer
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from constclf_lib.errors import ClassifierError
from constclf_lib.models import OutputClassifier, save_language_model
from constclf_lib.models.adapters import has_adapters

peft = pytest.importorskip("peft")
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [60, 50, 40, 30, 20, 10]])
PROJECTIONS = ["q_proj", "v_proj"]
PROMPTS = ("CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
KINDS = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items() if kind.value not in PROMPTS}
SETTINGS = {  # what a kind needs to fit into layers of width 32
    "ADALORA": {"total_step": 10},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 2, "target_modules": None},
    "C3A": {"block_size": 8},
    "IA3": {"feedforward_modules": []},
    "LN_TUNING": {"target_modules": None},
    "MISS": {"r": 2},
    "ROAD": {"group_size": 8},
    "SHADOW": {"target_modules": None},
    "SHIRA": {"r": 2},
    "TRAINABLE_TOKENS": {"target_modules": None, "token_indices": [5, 6, 7]},
    "VBLORA": {"vector_length": 8, "num_vectors": 16},
    "WAVEFT": {"n_frequency": 10},
    "XLORA": {"hidden_size": 32, "target_modules": None},
}
REFUSED = {"POLY": "token ids alone", "SHADOW": "outside the layers", "XLORA": "depend on the whole input"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "base"
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=64, num_key_value_heads=2, use_cache=False, **size)).save_pretrained(folder)
    return folder


def adapted(model, config):
    """`model` with adapters that do something, as after a training."""
    wrapped, generator = peft.get_peft_model(model, config), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in wrapped.parameters():
            if value.requires_grad and value.is_floating_point():
                value.add_(0.05 * torch.randn(value.shape, generator=generator))
    return wrapped


def lora(**changes):
    return peft.LoraConfig(**{"r": 2, "target_modules": PROJECTIONS, "task_type": "CAUSAL_LM", **changes})


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder)


@torch.no_grad()
def comes_back(wrapped, folder):
    want = wrapped.eval()(input_ids=IDS).logits
    torch.manual_seed(2)
    classifier = OutputClassifier.from_backbone(wrapped).eval()
    torch.nn.init.normal_(classifier.value_head.out.weight)
    scores = classifier(IDS)
    assert_close(scores.lm_logits, want)
    shutil.rmtree(folder, ignore_errors=True)
    classifier.save_pretrained(folder)
    again = OutputClassifier.from_pretrained(folder)(IDS)
    assert torch.equal(again.harm_logits, scores.harm_logits) and torch.equal(again.lm_logits, scores.lm_logits)
    assert (folder / "adapter_model.safetensors").exists() and not (folder / "model.safetensors").exists()
    return classifier


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back_or_is_refused(base, tmp_path, kind):
    settings = {"target_modules": PROJECTIONS, "task_type": "CAUSAL_LM", **SETTINGS.get(kind, {})}
    if kind == "XLORA":
        peft.get_peft_model(loaded(base), lora()).save_pretrained(tmp_path / "one")
        settings["adapters"] = {"0": str(tmp_path / "one")}
    wrapped = adapted(loaded(base), KINDS[kind](**{k: v for k, v in settings.items() if v is not None}))
    if kind in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[kind]):
            OutputClassifier.from_backbone(wrapped)
        return
    with torch.no_grad():
        plain = loaded(base)(input_ids=IDS).logits
    classifier = comes_back(wrapped, tmp_path / "x")
    with torch.no_grad():
        assert (classifier(IDS).lm_logits - plain).abs().max() > 1e-4, "these adapters did nothing: a poor test"


def test_prompt_learning_is_refused(base):
    config = peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    with pytest.raises(ValueError, match="prompt-learning"):
        OutputClassifier.from_backbone(peft.get_peft_model(loaded(base), config))


def resized(base):
    model = loaded(base)
    model.resize_token_embeddings(70)
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"use_rslora": True, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 3}},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["lm_head", "q_proj"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"trainable_token_indices": [5, 6, 7]},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"layer_replication": [(0, 2), (1, 2)]},
    ],
    ids=str,
)
def test_lora_in_its_varieties(base, tmp_path, changes):
    comes_back(adapted(loaded(base), lora(**changes)), tmp_path / "x")


@pytest.mark.parametrize("changes", [{}, {"modules_to_save": ["embed_tokens", "lm_head"]}], ids=str)
def test_adapters_on_a_vocabulary_that_was_resized(base, tmp_path, changes):
    comes_back(adapted(resized(base), lora(**changes)), tmp_path / "x")


def test_what_peft_does_not_save_is_refused_and_the_old_save_stays(base, tmp_path):
    folder = tmp_path / "x"
    comes_back(adapted(loaded(base), lora()), folder)
    before = OutputClassifier.from_pretrained(folder).state_dict()

    def changed(make):
        classifier = OutputClassifier.from_backbone(make())
        with pytest.raises(ClassifierError, match="not saved: .*save the base, load it from there and adapt that"):
            classifier.save_pretrained(folder)
        after = OutputClassifier.from_pretrained(folder).state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())

    def trained_norm():
        wrapped = adapted(loaded(base), lora())
        wrapped.get_base_model().model.norm.weight.data.mul_(2)
        return wrapped

    def resized_embeddings_under_adapters():
        return adapted(resized(base), lora(target_modules=["embed_tokens", "q_proj"]))

    def resized_and_single_tokens():
        return adapted(resized(base), lora(trainable_token_indices=[65, 66]))

    def switched_off():
        wrapped = adapted(loaded(base), lora())
        wrapped.base_model.disable_adapter_layers()
        return wrapped

    def another_scaling():
        wrapped = adapted(loaded(base), lora())
        wrapped.base_model.set_scale("default", 0.1) if hasattr(wrapped.base_model, "set_scale") else [
            module.set_scale("default", 0.1) for module in wrapped.modules() if hasattr(module, "set_scale")
        ]
        return wrapped

    for make in (trained_norm, resized_embeddings_under_adapters, resized_and_single_tokens, switched_off,
                 another_scaling):  # fmt: skip
        changed(make)


def test_one_adapter_of_any_name_is_saved_and_two_are_not(base, tmp_path):
    wrapped = adapted(loaded(base), lora())
    wrapped.add_adapter("second", lora(init_lora_weights=False))
    wrapped.set_adapter("second")
    want = wrapped.eval()(input_ids=IDS).logits
    classifier = OutputClassifier.from_backbone(wrapped)
    with pytest.raises(ValueError, match=r"one adapter can be saved, not \['default', 'second'\]"):
        classifier.save_pretrained(tmp_path / "x")
    wrapped.delete_adapter("default")
    classifier.save_pretrained(tmp_path / "x")
    again = OutputClassifier.from_pretrained(tmp_path / "x")
    assert torch.equal(again(IDS).lm_logits, want)
    assert again.state_dict().keys() == classifier.state_dict().keys()  # or a Trainer would resume nothing


def test_adapters_without_a_wrapper(base, tmp_path):
    """As transformers' own integration puts them into a model."""
    model = peft.inject_adapter_in_model(lora(init_lora_weights=False), loaded(base))
    assert has_adapters(model)
    classifier = OutputClassifier.from_backbone(model).eval()
    classifier.save_pretrained(tmp_path / "x")
    assert torch.equal(OutputClassifier.from_pretrained(tmp_path / "x")(IDS).lm_logits, classifier(IDS).lm_logits)


def test_a_lora_backbone_trains_scores_and_comes_back(tmp_path):
    tokenizer = lab_tokenizer()
    causal_lm(vocab=len(tokenizer)).save_pretrained(tmp_path / "base")
    wrapped = adapted(loaded(tmp_path / "base"), lora()).eval()
    want = wrapped(input_ids=IDS).logits
    classifier = OutputClassifier.from_backbone(wrapped, tokenizer).eval()
    output = classifier(IDS)
    assert torch.equal(output.lm_logits, want)
    output.harm_logits.sum().backward()
    trained = {name for name, value in classifier.named_parameters() if value.grad is not None}
    assert trained and all("lora_" in name or name.startswith("value_head.") for name in trained)
    classifier.save_pretrained(tmp_path / "adapted")
    assert_close(OutputClassifier.from_pretrained(tmp_path / "adapted")(IDS).harm_logits, output.harm_logits)
    half = OutputClassifier.from_pretrained(tmp_path / "adapted", dtype=torch.bfloat16)
    assert half.lm_head.weight.dtype == torch.bfloat16 and half(IDS).harm_logits.isfinite().all()


def test_merged_adapters_score_the_same_and_are_saved_whole(base, tmp_path):
    classifier = OutputClassifier.from_backbone(adapted(loaded(base), lora())).eval()
    torch.nn.init.normal_(classifier.value_head.out.weight)
    want = classifier(IDS)
    assert classifier.merge_adapters() is classifier and not has_adapters(classifier.model)
    assert_close(classifier(IDS).harm_logits, want.harm_logits, rtol=1e-4, atol=1e-5)
    assert_close(classifier(IDS).lm_logits, want.lm_logits, rtol=1e-4, atol=1e-5)
    again = classifier.merge_adapters()(IDS)
    classifier.save_pretrained(tmp_path / "x")
    assert (tmp_path / "x" / "model.safetensors").exists()
    assert torch.equal(OutputClassifier.from_pretrained(tmp_path / "x")(IDS).harm_logits, again.harm_logits)


def test_a_plain_adapter_folder_is_a_backbone(base, tmp_path):
    wrapped = adapted(loaded(base), lora()).eval()
    wrapped.save_pretrained(tmp_path / "lora")
    lab_tokenizer()
    classifier = OutputClassifier.from_backbone(tmp_path / "lora", tokenizer=_small_tokenizer())
    assert torch.equal(classifier.eval()(IDS).lm_logits, wrapped(input_ids=IDS).logits)


def _small_tokenizer():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = models.WordLevel({f"w{i}": i for i in range(60)}, unk_token="w0")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), unk_token="w0")


def test_adapters_on_a_base_without_a_name_are_not_saved_for_nothing(tmp_path):
    classifier = OutputClassifier.from_backbone(adapted(causal_lm(), lora()))
    with pytest.raises(ValueError, match="nothing could find it again"):
        classifier.save_pretrained(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_adapters_do_not_replace_their_own_base(base, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    classifier = OutputClassifier.from_backbone(adapted(loaded(tmp_path / "base"), lora()))
    with pytest.raises(ValueError, match="not saved over their own base"):
        classifier.save_pretrained(tmp_path / "base")
    assert (tmp_path / "base" / "model.safetensors").exists()
    classifier.save_pretrained(tmp_path / "base" / "adapted")


def test_base_and_adapters_move_together_where_the_base_is_named_from_above(base, tmp_path):
    tree = tmp_path / "tree"
    shutil.copytree(base, tree / "models" / "base")
    wrapped = adapted(loaded(tree / "models" / "base"), lora())
    wrapped.peft_config["default"].base_model_name_or_path = "models/base"
    classifier = OutputClassifier.from_backbone(wrapped).eval()
    classifier.save_pretrained(tree / "monitors" / "adapted")
    shutil.move(tree, tmp_path / "elsewhere")
    again = OutputClassifier.from_pretrained(tmp_path / "elsewhere" / "monitors" / "adapted")
    assert torch.equal(again(IDS).lm_logits, classifier(IDS).lm_logits)
    assert again.tokenizer is None
    shutil.rmtree(tmp_path / "elsewhere" / "models")
    with pytest.raises(ClassifierError, match="cannot be loaded"):
        OutputClassifier.from_pretrained(tmp_path / "elsewhere" / "monitors" / "adapted")


def test_adapters_may_leave_the_tokenizer_to_their_base(tmp_path):
    tokenizer = lab_tokenizer()
    save_language_model(causal_lm(vocab=len(tokenizer)), tokenizer, tmp_path / "base")
    classifier = OutputClassifier.from_backbone(adapted(loaded(tmp_path / "base"), lora()), tokenizer).eval()
    classifier.save_pretrained(tmp_path / "adapted")
    for file in (tmp_path / "adapted").glob("tokenizer*"):
        file.unlink()
    again = OutputClassifier.from_pretrained(tmp_path / "adapted")
    assert again.fingerprint == classifier.fingerprint and torch.equal(again(IDS).lm_logits, classifier(IDS).lm_logits)
    for file in (tmp_path / "base").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ClassifierError, match="tokenizer"):
        OutputClassifier.from_pretrained(tmp_path / "adapted")


def test_pickled_adapters_and_a_missing_peft(base, tmp_path, monkeypatch):
    wrapped = adapted(loaded(base), lora())
    wrapped.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    with pytest.raises(OSError, match="adapter_model.safetensors"):
        OutputClassifier.from_backbone(tmp_path / "pickled")
    comes_back(wrapped, tmp_path / "x")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ClassifierError, match="pip install peft"):
        OutputClassifier.from_pretrained(tmp_path / "x")


def test_a_merged_model_takes_the_place_of_its_adapters(base, tmp_path):
    wrapped = adapted(loaded(base), lora())
    comes_back(wrapped, tmp_path / "x")
    with pytest.raises(ValueError, match="merge them first"):
        save_language_model(wrapped, lab_tokenizer(), tmp_path / "y")
    merged = OutputClassifier.from_backbone(wrapped.merge_and_unload()).eval()
    merged.save_pretrained(tmp_path / "x")
    assert not list((tmp_path / "x").glob("adapter*"))
    assert torch.equal(OutputClassifier.from_pretrained(tmp_path / "x")(IDS).lm_logits, merged(IDS).lm_logits)
