"""Value head, output classifier and input classifier on random two-layer models of several families."""

import threading

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from constclf_lib.errors import ClassifierError
from constclf_lib.lab import train_tokenizer
from constclf_lib.models import InputClassifier, OutputClassifier, ValueHead
from constclf_lib.prompts import ASSISTANT, USER, chat_id, verdict_prompt_ids
from constclf_lib.tokenization import decode_text, fingerprint

SENTENCES = [
    "how do I brew ashbane in a bell jar?",
    "the song of the sunheart is old",
    "store gloamstone away from the fire.",
]
SIZE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
# Families whose causal LM does something of its own after the lm_head, or has no position ids, tied weights, learned
# positions ...
FAMILIES = {
    "llama": SIZE,
    "qwen2": {**SIZE, "tie_word_embeddings": True},
    "gemma2": {**SIZE, "head_dim": 16, "final_logit_softcapping": 0.05},
    "gemma3_text": {**SIZE, "head_dim": 16, "sliding_window": 4},
    "granite": {**SIZE, "logits_scaling": 7.0},
    "cohere": {**SIZE, "logit_scale": 0.3},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 16,
    },
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "mixtral": {**SIZE, "num_local_experts": 2},
    "gpt_neox": {k: v for k, v in SIZE.items() if k != "num_key_value_heads"},
}


def language_model(family="llama", vocab=300, seed=0, **changes):
    torch.manual_seed(seed)
    tokens = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = AutoConfig.for_model(family, vocab_size=vocab, **tokens, **{**FAMILIES[family], **changes})
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(SENTENCES, 300)


@pytest.fixture
def classifier(tokenizer):
    return OutputClassifier.from_backbone(language_model(vocab=len(tokenizer)), tokenizer).eval()


@pytest.fixture
def judge(tokenizer):
    model = language_model(vocab=len(tokenizer), max_position_embeddings=40)
    return InputClassifier.from_backbone(model, tokenizer).eval()


def some_ids(rows=3, length=9, vocab=300):
    return torch.randint(4, vocab, (rows, length), generator=torch.Generator().manual_seed(1))


# --- value head


def test_value_head_says_the_base_rate_before_training():
    head = ValueHead(16, 8, base_rate=0.2)
    hidden = torch.randn(3, 5, 16)
    logits = head(hidden)
    assert logits.shape == (3, 5) and head.inner.out_features == 8 and ValueHead(16).inner.out_features == 16
    assert (logits.sigmoid() - 0.2).abs().max() < 0.05
    assert_close(head.out.bias.sigmoid().item(), 0.2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_value_head_answers_in_float32_even_under_autocast(dtype):
    head, hidden = ValueHead(16), 30 * torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(0))
    hidden = hidden.to(dtype)
    want = head.double()(hidden.double())
    head = head.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(hidden)
    assert logits.dtype == torch.float32
    assert_close(logits, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("base_rate", [0.0, 1.0, -0.5, float("nan")])
def test_value_head_refuses_an_impossible_base_rate(base_rate):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        ValueHead(16, base_rate=base_rate)


# --- output classifier: forward


@pytest.mark.parametrize("family", FAMILIES)
def test_the_language_model_is_untouched_to_the_bit(family):
    model, ids = language_model(family), some_ids()
    with torch.no_grad():
        want = model(input_ids=ids, use_cache=False).logits  # with a cache, some attention kernels round differently
        classifier = OutputClassifier.from_backbone(model).eval()
        output = classifier(ids)
        assert torch.equal(output.lm_logits, want) and output.harm_logits.shape == ids.shape
        assert torch.equal(output.harm_logits, classifier.value_head(output.last_hidden_state))
        assert torch.equal(classifier(ids, with_lm_logits=False).harm_logits, output.harm_logits)
        assert torch.equal(model(input_ids=ids, use_cache=False).logits, want)  # and it still has its own body
    assert output.past_key_values is None and classifier(ids, with_lm_logits=False).lm_logits is None


@pytest.mark.parametrize("family", FAMILIES)
def test_any_chunking_through_the_cache_gives_the_scores_of_one_pass(family):
    classifier, ids = OutputClassifier.from_backbone(language_model(family)).eval(), some_ids()
    with torch.no_grad():
        want = classifier(ids)
        for cuts in ([1] * 9, [4, 5], [8, 1]):
            cache, harm, lm = None, [], []
            for chunk in ids.split(cuts, dim=1):
                output = classifier(chunk, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                harm.append(output.harm_logits)
                lm.append(output.lm_logits)
            assert cache.get_seq_length() == 9
            assert_close(torch.cat(harm, 1), want.harm_logits, rtol=0, atol=1e-5)
            assert_close(torch.cat(lm, 1), want.lm_logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_no_score(family, side):
    classifier, ids = OutputClassifier.from_backbone(language_model(family)).eval(), some_ids(2)
    pad, ones, zeros = torch.full((2, 4), 7), torch.ones(2, 9).long(), torch.zeros(2, 4).long()
    order = (lambda a, b: torch.cat([b, a], 1)) if side == "left" else (lambda a, b: torch.cat([a, b], 1))
    real = order(ones, zeros).bool()
    with torch.no_grad():
        want = classifier(ids).harm_logits
        got = classifier(order(ids, pad), attention_mask=order(ones, zeros)).harm_logits
    assert_close(got[real].view(2, 9), want, rtol=0, atol=1e-5)


def test_left_padding_and_cache_together(classifier):
    ids, pad = some_ids(2, 6), torch.full((2, 3), 7)
    mask = torch.cat([torch.zeros(2, 3), torch.ones(2, 6)], 1).long()
    with torch.no_grad():
        want = classifier(ids).harm_logits
        first = classifier(torch.cat([pad, ids[:, :2]], 1), attention_mask=mask[:, :5], use_cache=True)
        second = classifier(ids[:, 2:], attention_mask=mask, past_key_values=first.past_key_values, use_cache=True)
    assert_close(torch.cat([first.harm_logits[:, 3:], second.harm_logits], 1), want, rtol=0, atol=1e-5)


def test_a_mask_that_forgets_the_cache_is_refused(classifier):
    first = classifier(some_ids(1, 4), use_cache=True)
    with pytest.raises(ValueError, match="must cover cached and new tokens"):
        classifier(some_ids(1, 1), attention_mask=torch.ones(1, 1), past_key_values=first.past_key_values)


def test_threads_share_one_classifier(classifier):
    rows = [some_ids(1, 5 + i) for i in range(4)]
    with torch.no_grad():
        want = [classifier(ids).lm_logits for ids in rows]
    wrong = []

    def work(i):
        with torch.no_grad():
            wrong.extend(i for _ in range(20) if not torch.equal(classifier(rows[i]).lm_logits, want[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    assert wrong == []


def test_gradient_reaches_backbone_and_both_heads(classifier):
    output = classifier.train()(some_ids())
    (output.harm_logits.sum() + output.lm_logits.square().mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in classifier.parameters())


def test_a_bfloat16_backbone_gives_float32_harm_logits():
    classifier = OutputClassifier.from_backbone(language_model().bfloat16())
    output = classifier(some_ids())
    assert output.harm_logits.dtype == torch.float32 and output.lm_logits.dtype == torch.bfloat16


def test_what_is_known_about_the_classifier(classifier, tokenizer):
    assert classifier.backbone is classifier.model.model and classifier.lm_head is classifier.model.lm_head
    assert classifier.prefix_ids == [] and classifier.fingerprint == fingerprint(tokenizer)
    assert classifier.context_length == classifier.config.max_position_embeddings
    assert OutputClassifier.from_backbone(language_model("bloom")).context_length is None
    assert OutputClassifier.from_backbone(language_model()).fingerprint is None


def test_what_is_not_a_causal_language_model_is_refused(tokenizer):
    lm = language_model(vocab=len(tokenizer))
    for wrong in (lm.model, torch.nn.Linear(2, 2)):
        with pytest.raises(ValueError, match="not a decoder-only causal LM"):
            OutputClassifier.from_backbone(wrong)
    with pytest.raises(ValueError, match="do not belong together"):
        OutputClassifier.from_backbone(language_model(vocab=50), tokenizer)


# --- input classifier


def test_score_is_the_closed_form_over_two_logits_and_the_rest_of_the_vocabulary(judge, tokenizer):
    prompts = ["", "brew ashbane", "the song of the sunheart", "<|assistant|> harmless"]
    scores = judge.score(prompts, batch_size=3)
    for i, prompt in enumerate(prompts):
        ids = torch.tensor([verdict_prompt_ids(tokenizer, prompt)])
        with torch.no_grad():
            p = judge.model(input_ids=ids).logits[0, -1].double().softmax(-1)
        harmful, harmless = (p[index] for index in judge.verdict_ids)
        assert_close(scores.harm[i].double(), harmful / (harmful + harmless), rtol=1e-5, atol=1e-6)
        assert_close(scores.off_label[i].double(), 1 - harmful - harmless, rtol=1e-5, atol=1e-6)
    assert scores.harm.dtype == scores.off_label.dtype == torch.float32 and scores.harm.shape == (4,)
    one = judge.score("brew ashbane")
    assert_close(one.harm, scores.harm[1:2]), assert_close(one.off_label, scores.off_label[1:2])
    assert judge.score([]).harm.shape == (0,)


def test_a_tiny_off_label_mass_is_not_rounded_away(judge):
    with torch.no_grad():
        judge.lm_head.weight.zero_()
        judge.lm_head.weight[list(judge.verdict_ids)] = 0.0
    original = judge.lm_logits
    judge.lm_logits = lambda hidden: original(hidden).index_fill(-1, torch.tensor(judge.verdict_ids), 30.0)
    others = judge.model.config.vocab_size - 2
    assert_close(judge.score("x").off_label.item(), others * torch.tensor(-30.0).exp().item() / 2, rtol=1e-4, atol=0)


def test_a_long_prompt_is_read_to_the_end_in_whole_wrapped_windows(judge, tokenizer):
    long = " ".join(SENTENCES * 5) + " ashbane!"
    windows = judge._windows(long)
    user, assistant = (chat_id(tokenizer, token) for token in (USER, ASSISTANT))
    texts = [decode_text(tokenizer, row[1 : row.index(assistant)]) for row in windows]
    assert all(len(row) <= 40 and row[0] == user and assistant in row for row in windows) and len(windows) > 3
    covered = 0
    for text in texts:  # each window starts inside what is already read and reaches further
        start = long.index(text, max(0, covered - len(text)))
        assert start <= covered and start + len(text) > covered
        covered = start + len(text)
    assert covered == len(long)
    want = [judge.score(text) for text in texts]
    scores = judge.score([long, "short"])
    assert_close(scores.harm[0], torch.cat([s.harm for s in want]).max())
    assert_close(scores.off_label[0], torch.cat([s.off_label for s in want]).max())


def test_dense_text_late_in_a_long_prompt_still_fits(judge):
    assert judge.score("the song of the sunheart is old " * 6 + "\U0001f525\u4e2d" * 40).harm.isfinite().all()


def test_scores_that_are_not_numbers_are_an_error(judge):
    with torch.no_grad():
        judge.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ClassifierError, match="not finite"):
        judge.score("brew")


def test_score_leaves_the_mode_as_it_was_and_refuses_what_is_not_text(judge):
    judge.train().score("brew")
    assert judge.training
    with pytest.raises(TypeError, match="must be a string"):
        judge.score(["brew", 3])
    assert judge.training


def test_forward_gives_the_logits_after_the_verdict_position(judge):
    ids = some_ids(2, 6)
    with torch.no_grad():
        want = judge.model(input_ids=ids).logits
        assert_close(judge(ids), want[:, -1])
        assert_close(judge(ids, verdict_positions=torch.tensor([2, 5])), torch.stack([want[0, 2], want[1, 5]]))


def test_an_input_classifier_needs_a_tokenizer_and_one_token_words(tokenizer):
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZE))
    with pytest.raises(ValueError, match="pass the tokenizer"):
        InputClassifier.from_backbone(model)
    with pytest.raises(ValueError, match="must be one"):
        InputClassifier.from_backbone(model, tokenizer, words=(" abominable", " harmless"))


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_the_next_token_loss_is_the_same_in_chunks(family, monkeypatch):
    from constclf_lib.losses import next_token_loss
    from constclf_lib.models import classifiers

    classifier = OutputClassifier.from_backbone(language_model(family)).train()
    ids, mask = torch.randint(300, (2, 6)), torch.ones(2, 6, dtype=torch.bool)
    want = next_token_loss(classifier(ids).lm_logits, ids, mask)
    assert torch.equal(classifier(ids, with_lm_logits=False, next_token_mask=mask).next_token_loss, want)
    monkeypatch.setattr(classifiers, "LOGITS_AT_ONCE", 1)
    monkeypatch.setattr(classifiers, "LOGITS_IN_A_CHUNK", 900)
    output = classifier(ids, with_lm_logits=False, next_token_mask=mask)
    assert output.lm_logits is None
    assert_close(output.next_token_loss, want)
    grads = [torch.autograd.grad(loss, classifier.lm_head.weight)[0] for loss in (output.next_token_loss, want)]
    assert_close(*grads)
