"""The monitors of chapter 10: a classifier that reads the exchange, a probe on the model's own states, two as one."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import FixedInput, causal_lm, lab_tokenizer, output_classifier
from torch.testing import assert_close

from constclf_lib.errors import ClassifierError, StreamClosedError
from constclf_lib.generation import Turn, generate_replies
from constclf_lib.guard import GuardedModel, Thresholds
from constclf_lib.models import (
    ExchangeClassifier,
    LinearProbe,
    hidden_states_of,
    model_fingerprint,
    reply_states,
)
from constclf_lib.prompts import prompt_ids
from constclf_lib.streaming import (
    Cascade,
    ExponentialAverage,
    ProbeScorer,
    SlidingMean,
    StreamingScorer,
    cascade_scores,
    halt_index,
    score_completions,
)

TOKENIZER = lab_tokenizer()
NEVER = Thresholds(math.inf, math.inf, math.inf)
IDS = torch.randint(4, len(TOKENIZER), (30,), generator=torch.Generator().manual_seed(1)).tolist()


def exchange_classifier(kind="llama", window=None):
    torch.manual_seed(0)
    classifier = ExchangeClassifier.from_backbone(causal_lm(kind, vocab=len(TOKENIZER)), TOKENIZER).eval()
    torch.nn.init.normal_(classifier.value_head.out.weight, std=3.0)
    classifier.window = window
    return classifier


def plain_tokenizer():
    """A tokenizer without chat template, as a base model's: its assistant writes no note."""
    tokenizer = lab_tokenizer().__class__(tokenizer_object=lab_tokenizer()._tokenizer, eos_token="<|end|>")
    return tokenizer


def probe_of(model, seed=0, **options):
    torch.manual_seed(seed)
    probe = LinearProbe.for_model(model, **options)
    torch.nn.init.normal_(probe.linear.weight, std=0.5)
    return probe


# ------------------------------------------------------------------------------------ the exchange classifier


def one_pass(classifier, prompt, ids):
    prefix = classifier.exchange_prefix_ids(prompt)
    with torch.no_grad():
        logits = classifier(torch.tensor([prefix + ids])).harm_logits[0, len(prefix) :]
    return torch.sigmoid(logits).tolist()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_stream_behind_a_prompt_is_one_pass(kind):
    classifier = exchange_classifier(kind)
    scorer = StreamingScorer(classifier)
    for prompt in ("How?", "Where does the ash moth sleep, and who keeps the key?"):
        want = one_pass(classifier, prompt, IDS)
        with scorer.open(prompt=prompt) as stream:
            got = [p for start in range(0, 30, 7) for p in stream.push(IDS[start : start + 7])]
        assert_close(got, want, atol=1e-5, rtol=0)
        assert_close(scorer.score(IDS, prompt), want, atol=1e-5, rtol=0)


def test_the_prompt_matters_and_is_read_once():
    classifier = exchange_classifier()
    scorer = StreamingScorer(classifier)
    assert not np.allclose(scorer.score(IDS, "How?"), scorer.score(IDS, "Who keeps the key?"), atol=1e-3)
    lengths = []
    hook = classifier.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    with scorer.open(prompt="How?") as stream:
        for token in IDS:
            stream.push([token])
    hook.remove()
    assert lengths == [len(classifier.exchange_prefix_ids("How?")) + 1] + [1] * 29


def test_batches_and_full_passes_agree_with_streams_also_in_windows():
    classifier = exchange_classifier(window=8)
    scorer = StreamingScorer(classifier)
    prompts, rows = ["How?", "Who keeps the key of the old lantern?"], [IDS, IDS[:11]]
    want = [scorer.score(row, prompt) for row, prompt in zip(rows, prompts, strict=True)]
    for found, scores in zip(score_completions(classifier, rows, prompts=prompts), want, strict=True):
        assert_close(found.tolist(), scores, atol=1e-5, rtol=0)
    with scorer.open_batch(2, prompts) as batch:
        for at in range(30):
            batch.push([row[at : at + 1] for row in rows])
        for found, scores in zip(batch.scores, want, strict=True):
            assert_close(found, scores, atol=1e-5, rtol=0)


def test_without_a_prompt_it_is_refused():
    scorer = StreamingScorer(exchange_classifier())
    with pytest.raises(ValueError, match="prompt"):
        scorer.open()
    with pytest.raises(ValueError, match="prompt"):
        score_completions(scorer.classifier, [IDS])
    with pytest.raises(ValueError, match="belong together"):
        score_completions(scorer.classifier, [IDS], prompts=["a", "b"])
    with pytest.raises(ValueError, match="one prompt per stream"):
        scorer.open_batch(2, ["a"])
    with pytest.raises(ValueError, match="tokenizer"):
        ExchangeClassifier.from_backbone(causal_lm())


def test_an_exchange_classifier_comes_back_from_disk(tmp_path):
    classifier = exchange_classifier(window=40)
    classifier.save_pretrained(tmp_path)
    again = ExchangeClassifier.from_pretrained(tmp_path)
    assert again.window == 40
    assert_close(StreamingScorer(again).score(IDS, "How?"), StreamingScorer(classifier).score(IDS, "How?"))


def test_a_guard_with_an_exchange_classifier_comes_back_as_one(tmp_path):
    model, tokenizer = causal_lm(vocab=len(TOKENIZER)), plain_tokenizer()
    torch.manual_seed(0)
    watching = ExchangeClassifier.from_backbone(causal_lm(vocab=len(tokenizer)), tokenizer).eval()
    guard = GuardedModel(model, tokenizer, None, watching, NEVER)
    guard.save_pretrained(tmp_path)
    again = GuardedModel.from_pretrained(tmp_path)
    assert isinstance(again.output_classifier, ExchangeClassifier)
    reply = guard.reply("How?", max_new_tokens=6)
    assert reply.status == "released" and len(reply.token_scores) == 6
    assert_close(again.reply("How?", max_new_tokens=6).token_scores, reply.token_scores)


# ------------------------------------------------------------------------------------------------------------ the probe


def test_a_turn_hands_out_the_states_of_each_token():
    model, tokenizer = causal_lm(vocab=len(TOKENIZER)), plain_tokenizer()
    plain = list(Turn(model, tokenizer, "How?", max_new_tokens=12))
    turn = Turn(model, tokenizer, "How?", max_new_tokens=12, layers=(0, 2))
    got = [(token, turn.states) for token in turn]
    assert [token for token, _ in got] == plain and len(plain) == 12  # the last one too, which costs a pass of its own
    before = prompt_ids(tokenizer, "How?")
    with torch.no_grad():
        output = model(torch.tensor([before + plain]), output_hidden_states=True)
    want = hidden_states_of(output, (0, 2))[0, len(before) :]
    assert_close(torch.cat([states for _, states in got]), want, atol=1e-5, rtol=0)
    assert_close(reply_states(model, [(before, plain), (before, [])], (0, 2))[0], want, atol=1e-5, rtol=0)


def test_a_probe_watches_a_guarded_model():
    model, tokenizer = causal_lm(vocab=len(TOKENIZER)), plain_tokenizer()
    probe = probe_of(model)
    free = GuardedModel(model, tokenizer, None, None, NEVER, monitor=ProbeScorer(probe))
    reply = free.reply("How?", max_new_tokens=12)
    before = prompt_ids(tokenizer, "How?")
    written = list(Turn(model, tokenizer, "How?", max_new_tokens=12))
    want = ProbeScorer(probe).score(reply_states(model, [(before, written)], probe.layers)[0])
    assert reply.status == "released" and len(reply.token_scores) == 12
    assert_close(reply.token_scores, want.tolist(), atol=1e-5, rtol=0)
    limit = float(np.sort(want)[-2:].mean())  # between the two highest
    cut = halt_index(want, limit)
    halted = GuardedModel(model, tokenizer, None, None, Thresholds(1, 1, limit), monitor=ProbeScorer(probe))
    reply = halted.reply("How?", max_new_tokens=12)
    assert (reply.status, reply.halt_index) == ("halted_output", cut)
    assert reply.released_text == "".join(reply.tokens[:cut])


def test_a_probe_that_fails_releases_nothing_more():
    model, tokenizer = causal_lm(vocab=len(TOKENIZER)), plain_tokenizer()
    scorer = ProbeScorer(probe_of(model))
    scorer.probe.linear.bias.data.fill_(math.nan)
    reply = GuardedModel(model, tokenizer, None, None, NEVER, monitor=scorer).reply("How?", max_new_tokens=5)
    assert reply.status == "error" and reply.released_text == "" and reply.error_kind == "classifier_failed"


def test_a_probe_belongs_to_its_model(tmp_path):
    model, other = causal_lm(vocab=len(TOKENIZER)), causal_lm(seed=1, vocab=len(TOKENIZER))
    probe = probe_of(model, layers=[1, 2], width=4)
    probe.standardise([torch.randn(50, 64)])
    probe.save_pretrained(tmp_path, card="# A probe\n")
    again = LinearProbe.from_pretrained(tmp_path, model)
    states = torch.randn(3, 64)
    assert_close(again(states), probe(states))
    assert (again.layers, again.width) == ((1, 2), 4) and again.model_fingerprint == model_fingerprint(model)
    assert model_fingerprint(model.to(torch.bfloat16).float()) == again.model_fingerprint
    with pytest.raises(ClassifierError, match="another model"):
        LinearProbe.from_pretrained(tmp_path, other)
    with pytest.raises(ClassifierError, match="another model"):
        GuardedModel(other, plain_tokenizer(), None, None, NEVER, monitor=ProbeScorer(again))
    (tmp_path / "probe.safetensors").write_bytes(b"x")
    with pytest.raises(ClassifierError, match="restore"):
        LinearProbe.from_pretrained(tmp_path)
    with pytest.raises(ClassifierError):
        LinearProbe.from_pretrained(tmp_path / "nothing")


def test_training_any_matrix_changes_the_fingerprint():
    model = causal_lm()
    first = model_fingerprint(model)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            kept = parameter.data.clone()
            parameter.data += 0.01
            assert model_fingerprint(model) != first, name
            parameter.data = kept
    assert model_fingerprint(model) == first


def test_smoothing_is_over_logits():
    model = causal_lm()
    probe = probe_of(model, width=3)
    states = torch.randn(9, probe.linear.in_features)
    z = probe(states).tolist()
    want = [sum(z[max(0, t - 2) : t + 1]) / len(z[max(0, t - 2) : t + 1]) for t in range(9)]
    assert_close(ProbeScorer(probe).score(states).tolist(), torch.sigmoid(torch.tensor(want)).tolist())
    ema, level, weight = [], 0.0, 0.0
    for value in z:
        level, weight = 0.5 * level + value, 0.5 * weight + 1
        ema.append(level / weight)
    found = ProbeScorer(probe, ExponentialAverage(0.5)).score(states).tolist()
    assert_close(found, torch.sigmoid(torch.tensor(ema)).tolist())
    with pytest.raises(ValueError, match="width"):
        SlidingMean(0)


def test_wrong_states_are_refused_and_close_the_stream():
    probe = probe_of(causal_lm())
    for states in (None, torch.zeros(2, 96), torch.zeros(1, 5)):
        stream = ProbeScorer(probe).open()
        with pytest.raises(ValueError, match="states"):
            stream.push([7], states)
        assert stream.risk == math.inf
        with pytest.raises(StreamClosedError):
            stream.push([7], torch.zeros(1, 96))
    with pytest.raises(ValueError, match="not finite"):
        probe.standardise([torch.full((1, 96), math.inf)])
    for wrong in ({"layers": [3]}, {"layers": []}, {"width": 0}):
        with pytest.raises(ValueError):
            LinearProbe.for_model(causal_lm(), **wrong)


# ----------------------------------------------------------------------------------------------------------- two as one


class Listed:
    """A monitor whose scores are known; fails where one is None."""

    layers = ()

    def __init__(self, scores):
        self.given, self.opened = scores, 0

    def check_assistant(self, model, tokenizer):
        pass

    def open(self, prompt=None):
        self.opened += 1
        stream = SimpleNamespace(scores=[], risk=0.0, close=lambda: None)

        def push(ids, states=None):
            new = self.given[len(stream.scores) : len(stream.scores) + len(ids)]
            if None in new:
                raise ClassifierError("fails")
            stream.scores += new
            stream.risk = max([stream.risk, *new])
            return new

        stream.push = push
        return stream


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("above", [None, 0.0, 0.4, 0.99])
def test_a_cascade_stream_is_its_definition(weight, above):
    rng = np.random.default_rng(0)
    first, second = rng.random(20).tolist(), rng.random(20).tolist()
    for size in (1, 6, 20):
        stream = Cascade(Listed(first), Listed(second), weight, above).open(prompt="p")
        got = [p for start in range(0, 20, size) for p in stream.push(range(start, min(20, start + size)))]
        assert_close(got, cascade_scores(first, second, weight, above).tolist())
        assert stream.risk == max(got) and stream.scores == got


def test_the_second_stage_reads_only_what_is_escalated():
    second = Listed([0.9] * 5)
    stream = Cascade(Listed([0.1] * 5), second, escalate_above=0.5).open()
    assert stream.push(range(5)) == [0.0] * 5 and second.opened == 0 and stream.escalated_at is None


def test_what_waits_is_not_released_before_the_second_stage_has_read_it():
    """The second stage saw harm two tokens ago: the token that escalates is already over the line."""
    stream = Cascade(Listed([0.1, 0.1, 0.6]), Listed([0.1, 0.999, 0.1]), weight=0.2, escalate_above=0.5).open()
    assert stream.push(range(2)) == [0.0, 0.0]
    assert stream.push([2])[0] > 0.9 and stream.escalated_at == 2


@pytest.mark.parametrize("first, second", [([0.9, None], [0.1, 0.1]), ([0.9, 0.9], [0.1, None])])
def test_either_stage_failing_closes_both(first, second):
    stream = Cascade(Listed(first), Listed(second), escalate_above=0.5).open()
    stream.push([0])
    with pytest.raises(ClassifierError):
        stream.push([1])
    assert stream.risk == math.inf and stream.closed
    with pytest.raises(StreamClosedError):
        stream.push([1])


def test_a_cascade_guards_a_model_as_replayed():
    model, tokenizer = causal_lm(vocab=len(TOKENIZER)), plain_tokenizer()
    probe = ProbeScorer(probe_of(model))
    scorer = StreamingScorer(output_classifier(tokenizer=tokenizer))
    written = list(Turn(model, tokenizer, "How?", max_new_tokens=10))
    first = probe.score(reply_states(model, [(prompt_ids(tokenizer, "How?"), written)], probe.layers)[0])
    above = float(np.median(first))
    want = cascade_scores(first, scorer.score(written), 0.4, above)
    guard = GuardedModel(
        model, tokenizer, FixedInput(0.0, 0.0), None, NEVER, monitor=Cascade(probe, scorer, 0.4, above)
    )
    assert_close(guard.reply("How?", max_new_tokens=10).token_scores, want.tolist(), atol=1e-5, rtol=0)
    [reply] = generate_replies(model, tokenizer, ["How?"], 10)
    assert reply["ids"] == written and reply["note_ids"] == []


def test_wrong_cascades_are_refused():
    probe = ProbeScorer(probe_of(causal_lm()))
    with pytest.raises(ValueError, match="weight"):
        Cascade(Listed([]), Listed([]), weight=1.5)
    with pytest.raises(ValueError, match="NaN"):
        Cascade(Listed([]), Listed([]), escalate_above=math.nan)
    with pytest.raises(ValueError, match="hidden states"):
        Cascade(Listed([]), probe)
    with pytest.raises(ValueError, match="belong together"):
        cascade_scores([0.1], [0.1, 0.2], 0.5)
    assert math.isnan(cascade_scores([0.1, math.nan], [0.1, 0.1], 0.5, 0.5)[1])


def test_a_guard_takes_one_watcher():
    model, tokenizer = causal_lm(vocab=len(TOKENIZER)), plain_tokenizer()
    monitor = ProbeScorer(probe_of(model))
    with pytest.raises(ValueError, match="in place of"):
        GuardedModel(model, tokenizer, None, output_classifier(tokenizer=tokenizer), NEVER, monitor=monitor)
    with pytest.raises(ValueError, match="thresholds"):
        GuardedModel(model, tokenizer, monitor=monitor)
    with pytest.raises(ValueError, match="not saved"):
        GuardedModel(model, tokenizer, None, None, NEVER, monitor=monitor).save_pretrained("/nowhere")
