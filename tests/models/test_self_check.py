"""A backbone is believed only when it was seen to work: faults made on purpose are found, and read round or refused."""

import copy
import gc

import pytest
import torch
from accelerate import dispatch_model
from transformers.cache_utils import DynamicCache

from constclf_lib.errors import ClassifierError
from constclf_lib.models import InputClassifier, OutputClassifier, Reading, Seen, ValueHead
from constclf_lib.models.self_check import _SEEN, WAYS, faults
from constclf_lib.streaming import StreamingScorer, score_completions
from tests.tiny_models import PositionCounter, causal_lm, lab_tokenizer, output_classifier

ROWS = [[10, 20, 30, 40, 50, 60, 70, 80], [11, 21, 31], [12, 22, 32, 42, 52]]


def full_pass(classifier, ids):
    with torch.no_grad():
        hidden = classifier.backbone(input_ids=torch.tensor([ids])).last_hidden_state
        return classifier.value_head(hidden)[0].sigmoid().tolist()


def spoiled(when, kind="llama"):
    """A classifier whose hidden states are wrong where `when(ids, mask, cache)`."""
    classifier = output_classifier(kind)
    real = classifier.read_unchecked

    def read(input_ids, attention_mask=None, cache=None, use_cache=False):
        wrong = when(input_ids, attention_mask, cache)
        hidden, cache = real(input_ids, attention_mask, cache, use_cache)
        return Reading(hidden.flip(-1) if wrong else hidden, cache)

    classifier.read_unchecked = read
    return classifier


def chunk(ids, mask, cache):
    return mask is None and cache is not None and ids.shape[1] > 1


def right_padding(ids, mask, cache):
    return mask is not None and cache is None and bool((mask[:, 0] > mask[:, -1]).any())


def left_padding(ids, mask, cache):
    return mask is not None and bool((mask[:, 0] < mask[:, -1]).any())


def pause(ids, mask, cache):
    return mask is not None and cache is not None and bool((mask[:, :-1] < mask[:, 1:]).any())


def close(a, b):
    return len(a) == len(b) and all(abs(x - y) <= 1e-5 for x, y in zip(a, b, strict=True))


def batch_scores(scorer):
    left = [list(row) for row in ROWS]
    with scorer.open_batch(len(ROWS)) as batch:
        for counts in ((2, 0, 1), (1, 1, 0), (0, 1, 2), (8, 8, 8)):
            batch.push([row[:n] for row, n in zip(left, counts, strict=True)])
            left = [row[n:] for row, n in zip(left, counts, strict=True)]
        return batch.scores, batch.reads_alone


# -------------------------------------------------------------------------------------------------------- what is seen


def test_a_good_backbone_is_seen_to_be_good_in_every_way():
    classifier = output_classifier()
    assert faults(classifier) == dict.fromkeys(WAYS, "")
    assert classifier.check_streaming() == Seen(*[True] * len(Seen._fields)) and classifier.not_borne() == {}


def test_a_sliding_window_is_seen_to_bear_no_pauses_and_no_cropping():
    seen = output_classifier("mistral").check_streaming()
    assert seen == Seen(chunks=True, padding=True, pauses=False, rewinding=False, padding_token=True)


def test_a_window_wider_than_the_check_is_not_believed_either():
    classifier = output_classifier("mistral")
    classifier.config.sliding_window = 64
    scorer = StreamingScorer(classifier)
    assert scorer.open_batch(2).reads_alone


@pytest.mark.parametrize(
    ("when", "way"),
    [
        (lambda ids, mask, cache: cache is not None, "token by token"),
        (lambda ids, mask, cache: ids.shape == (1, 1), "token by token"),
        (chunk, "in uneven chunks"),
        (right_padding, "padded on the right"),
        (left_padding, "padded on the left"),
        (pause, "with pauses in a batch"),
    ],
)
def test_each_fault_is_found_and_named(when, way):
    seen = faults(spoiled(when))
    assert "times what rounding does" in seen[way]
    assert seen["in one pass with a cache"] == ""


# ----------------------------------------------------------------------------------------------- read round, or refused


def test_a_cache_that_is_forgotten_is_refused_and_the_property_named():
    classifier = output_classifier()
    real = classifier.read_unchecked
    classifier.read_unchecked = lambda ids, mask=None, cache=None, use_cache=False: real(ids, mask, None, use_cache)
    with pytest.raises(ClassifierError, match="LlamaModel cannot be streamed: read token by token"):
        StreamingScorer(classifier)
    with pytest.raises(ClassifierError, match="token by token"):
        score_completions(classifier, ROWS)


def test_a_state_that_two_streams_share_is_refused():
    classifier = output_classifier()
    real, kept = classifier.read_unchecked, {}

    def read(ids, mask=None, cache=None, use_cache=False):
        cache = kept.get("cache") if cache is not None else None  # as a model that keeps its state in itself
        reading = real(ids, mask, cache, use_cache)
        kept["cache"] = reading.cache
        return reading

    classifier.read_unchecked = read
    with pytest.raises(ClassifierError, match="token by token"):
        StreamingScorer(classifier)


def test_where_chunks_are_wrong_tokens_are_read_singly():
    classifier = spoiled(chunk)
    scorer = StreamingScorer(classifier)
    with PositionCounter(classifier.backbone) as counter, scorer.open() as stream:
        scores = stream.push(ROWS[0][:3]) + stream.push(ROWS[0][3:])
    assert (counter.count, counter.passes) == (8, 6)
    assert close(scores, full_pass(classifier, ROWS[0]))
    long = ROWS[0] * 4
    short = StreamingScorer(classifier, window=6)
    with short.open() as whole, short.open() as cut:
        whole.push(long)
        for token in long:
            cut.push([token])
        assert close(whole.scores, cut.scores)


@pytest.mark.parametrize("when", [pause, left_padding, right_padding])
def test_where_batches_are_wrong_rows_are_read_alone(when):
    classifier = spoiled(when)
    want = [full_pass(classifier, row) for row in ROWS]
    scorer = StreamingScorer(classifier)
    scores, alone = batch_scores(scorer)
    assert alone
    assert all(close(a, b) for a, b in zip(scores, want, strict=True))
    assert all(close(a.tolist(), b) for a, b in zip(score_completions(classifier, ROWS), want, strict=True))


def test_padding_on_the_left_is_refused_where_it_is_wrong_and_read_where_it_is_right():
    ids, mask = torch.tensor([[7, 7, 10, 20], [1, 2, 3, 4]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    with pytest.raises(ClassifierError, match="when padded on the left.*pad on the other side"):
        spoiled(left_padding)(ids, mask)
    good = output_classifier()
    scores = good(ids, mask).harm_logits[0, 2:].sigmoid().tolist()
    assert close(scores, full_pass(good, [10, 20]))


def test_a_cache_that_cannot_be_cropped_is_read_again(monkeypatch):
    monkeypatch.setattr(DynamicCache, "crop", lambda self, count: None)
    classifier = output_classifier()
    assert not classifier.check_streaming().rewinding
    with StreamingScorer(classifier).open() as stream:
        stream.push([*ROWS[0][:4], 99, 98])
        stream.rewind(2)
        stream.push(ROWS[0][4:])
        assert close(stream.scores, full_pass(classifier, ROWS[0]))


def test_a_token_that_is_padding_wherever_it_stands_is_no_text():
    classifier = output_classifier()
    classifier.config.pad_token_id = 9
    real = classifier.read_unchecked
    classifier.read_unchecked = lambda ids, mask=None, cache=None, use_cache=False: real(
        ids.masked_fill(ids == 9, 10 if cache is None else 11), mask, cache, use_cache
    )
    scorer = StreamingScorer(classifier)
    with scorer.open() as stream, pytest.raises(ValueError, match="token 9 is padding to this backbone"):
        stream.push([1, 9])
    with pytest.raises(ValueError, match="token 9"):
        score_completions(classifier, [[1, 9]])
    assert len(scorer.score([1, 8])) == 2


def test_an_input_classifier_reads_prompts_alone_where_padding_is_wrong():
    tokenizer = lab_tokenizer()
    judge = InputClassifier.from_backbone(causal_lm(vocab=len(tokenizer)), tokenizer)
    prompts = ["who keeps the key?", "warm it", "Grind the ashbane and wait"]
    want = torch.cat([judge.score(prompt).harm for prompt in prompts])
    real = judge.read_unchecked

    def read(ids, mask=None, cache=None, use_cache=False):
        hidden, cache = real(ids, mask, cache, use_cache)
        return Reading(hidden.flip(-1) if right_padding(ids, mask, cache) else hidden, cache)

    judge.read_unchecked = read
    assert faults(judge)["padded on the right"]
    assert torch.allclose(judge.score(prompts).harm, want, atol=1e-6)


# ----------------------------------------------------------------------------------------------------- when it is asked


def counted(monkeypatch):
    asked = []
    look = "constclf_lib.models.self_check._look"
    real = __import__("constclf_lib.models.self_check", fromlist=["_look"])._look
    monkeypatch.setattr(look, lambda reader: asked.append(next(reader.model.parameters()).dtype) or real(reader))
    return asked


def test_a_model_is_asked_once_and_again_after_a_move(monkeypatch):
    asked = counted(monkeypatch)
    classifier = output_classifier()
    for _ in range(3):
        StreamingScorer(classifier).open().close()
    assert asked == [torch.float32]
    scorer = StreamingScorer(classifier)
    classifier.model.to(torch.bfloat16)
    scorer.open().close()  # a scorer that was made before the move asks too
    assert asked == [torch.float32, torch.bfloat16]
    StreamingScorer(copy.deepcopy(classifier))
    assert len(asked) == 3


def test_a_model_that_is_gone_is_forgotten():
    classifier = output_classifier()
    StreamingScorer(classifier)
    assert classifier.model in _SEEN
    before = len(_SEEN)
    del classifier
    gc.collect()
    assert len(_SEEN) < before


def test_the_check_leaves_modes_gradients_and_random_numbers_alone():
    model = causal_lm("gpt2").train()
    model.transformer.h[0].eval()
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    classifier = OutputClassifier.from_backbone(model)
    torch.set_rng_state(state)
    assert torch.equal(ValueHead(32).inner.weight, classifier.value_head.inner.weight)  # nothing drew before the head
    state = torch.get_rng_state()
    faults(classifier)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_weights_that_are_no_numbers_are_refused_and_asked_again_when_mended():
    classifier = output_classifier()
    norm = classifier.backbone.norm.weight
    good = norm.detach().clone()
    norm.data.fill_(torch.nan)
    with pytest.raises(ClassifierError, match="not finite numbers"):
        StreamingScorer(classifier)
    norm.data.copy_(good)
    StreamingScorer(classifier)


def test_a_check_that_ran_out_of_memory_is_not_remembered_as_a_fault():
    room = [False]

    def crowded(ids, mask, cache):
        if cache is not None and not room[0]:
            raise torch.OutOfMemoryError("no room")

    classifier = spoiled(crowded)
    with pytest.raises(torch.OutOfMemoryError):
        StreamingScorer(classifier)
    room[0] = True
    assert len(StreamingScorer(classifier).score(ROWS[0])) == 8


# ------------------------------------------------------------------------------------------------------- the first pass


def test_a_compiled_model_is_told_what_to_do_and_that_works():
    model = causal_lm()
    with pytest.raises(ValueError, match="compile its body in place"):
        OutputClassifier.from_backbone(torch.compile(model, backend="eager"))
    classifier = OutputClassifier.from_backbone(model).eval()
    want = StreamingScorer(classifier).score(ROWS[0])
    classifier.backbone.compile(backend="eager")
    assert close(StreamingScorer(classifier).score(ROWS[0]), want)


def test_a_model_that_cannot_be_read_is_refused_before_anything_is_built_on_it():
    model = causal_lm()
    model.model.forward = lambda **_: 1 / 0
    with pytest.raises(ClassifierError, match="LlamaForCausalLM was loaded but cannot be read: ZeroDivisionError"):
        OutputClassifier.from_backbone(model)


def test_logits_that_are_not_made_of_the_hidden_states_are_refused():
    class Odd(type(causal_lm())):
        def forward(self, input_ids=None, inputs_embeds=None, **options):
            output = super().forward(input_ids=input_ids, inputs_embeds=inputs_embeds, **options)
            if input_ids is not None:
                output.logits = output.logits + input_ids[..., None]
            return output

    with pytest.raises(ClassifierError, match="from the hidden states of its body alone"):
        OutputClassifier.from_backbone(Odd(causal_lm().config).eval())


def test_nothing_to_read_is_said_so():
    classifier = output_classifier()
    with pytest.raises(ValueError, match="leave out empty texts"):
        classifier(torch.zeros(1, 0, dtype=torch.long))
    assert [len(row) for row in score_completions(classifier, [[]])] == [0]


@pytest.mark.parametrize("part", ["lm_head", "model"])
def test_weights_on_disk_stand_where_hidden_states_come_out(part, tmp_path):
    want = StreamingScorer(OutputClassifier.from_backbone(causal_lm()).eval()).score(ROWS[0])
    places = {"model": "cpu", "lm_head": "cpu", part: "disk"}
    model = dispatch_model(causal_lm(), places, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    assert any(weight.device.type == "meta" for weight in model.parameters())
    torch.manual_seed(0)
    classifier = OutputClassifier.from_backbone(model).eval()
    assert classifier.device.type == classifier.value_head.out.weight.device.type == "cpu"
    assert classifier(torch.tensor([ROWS[0]])).lm_logits.device.type == "cpu"
    assert len(StreamingScorer(classifier).score(ROWS[0])) == len(want)


def test_adapters_around_the_embeddings_are_read_too():
    peft = pytest.importorskip("peft")
    model = causal_lm()
    model.config.pad_token_id = 3
    options = {"target_modules": ["q_proj", "embed_tokens"], "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    classifier = OutputClassifier.from_backbone(peft.get_peft_model(model, peft.LoraConfig(r=2, **options))).eval()
    assert (classifier.vocab_size, classifier.padding_token, classifier.not_borne()) == (400, 3, {})
    assert close(StreamingScorer(classifier).score(ROWS[0]), full_pass(classifier, ROWS[0]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_int8_weights_on_the_cpu_are_read_within_their_own_rounding():
    exact = OutputClassifier.from_backbone(causal_lm()).eval()
    coarse = torch.ao.quantization.quantize_dynamic(causal_lm(), {torch.nn.Linear}, torch.qint8)
    classifier = OutputClassifier.from_backbone(coarse).eval()
    classifier.value_head = exact.value_head
    assert StreamingScorer(classifier).score(ROWS[0]) == pytest.approx(StreamingScorer(exact).score(ROWS[0]), abs=0.05)


def test_overflow_of_float16_is_told_not_scored():
    """What Gemma does in float16: finite weights, hidden states beyond 65,504."""
    model = causal_lm()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.up_proj.weight.mul_(1e5)
            layer.mlp.down_proj.weight.mul_(1e4)
    ids = torch.tensor([[5, 6, 7, 8]])
    assert model(ids).logits.isfinite().all()
    model.half()
    assert all(p.isfinite().all() for p in model.parameters()) and not model(ids).logits.isfinite().all()
    with pytest.raises(ClassifierError, match="not finite numbers; float16 ends at 65,504.*bfloat16 or float32"):
        OutputClassifier.from_backbone(model)
