"""The runtime contract of token streams: chunks, positions, windows, isolation, batches, stop rules, precision."""

import math
import random
import threading
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import PositionCounter, lab_tokenizer, output_classifier

from constclf_lib.errors import ClassifierError, StreamClosedError
from constclf_lib.lab import train_tokenizer
from constclf_lib.models import ValueHead
from constclf_lib.streaming import (
    AnyOf,
    ExponentialAverage,
    KInARow,
    RunningMax,
    StreamingScorer,
    halt_index,
    probability,
    running_risk,
)
from constclf_lib.tokenization import fingerprint

KINDS = ["llama", "gpt2", "mistral"]
FAST = settings(max_examples=15, deadline=None)


def some_ids(n: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(5, 300), k=n)


def full_pass(classifier, ids) -> list[float]:
    """One uncached pass over prefix and ids: what every stream must agree with."""
    prefix = classifier.prefix_ids
    with torch.no_grad():
        logits = classifier(torch.tensor([[*prefix, *ids]]), with_lm_logits=False).harm_logits[0, len(prefix) :]
    return torch.sigmoid(logits.double()).tolist()


def in_chunks(stream, ids, cuts) -> list[float]:
    edges = [0, *sorted(cuts), len(ids)]
    return [p for a, b in zip(edges, edges[1:], strict=False) for p in stream.push(ids[a:b])]


def close(a, b, tolerance=1e-5) -> bool:
    return len(a) == len(b) and all(abs(x - y) <= tolerance for x, y in zip(a, b, strict=True))


# ---------------------------------------------------------------------------------------------------- chunks, positions


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", [[], [7]])
def test_every_chunking_equals_one_full_pass(kind, prefix):
    classifier = output_classifier(kind, prefix=prefix)
    scorer, ids = StreamingScorer(classifier), some_ids(40)
    expected = full_pass(classifier, ids)
    assert max(expected) - min(expected) > 0.3  # a constant would agree with everything
    for cuts in ([], range(1, 40), [1], [39], [13, 14, 30], [20, 20]):
        with scorer.open() as stream:
            assert close(in_chunks(stream, ids, cuts), expected)
            assert stream.risk == max(stream.scores) and stream.position == 40


@FAST
@given(st.lists(st.integers(5, 299), min_size=1, max_size=60), st.data())
def test_any_chunking_of_any_stream_short_or_long(ids, data):
    scorer = StreamingScorer(output_classifier(context=16, prefix=[3]))  # 15 tokens fit: most of these streams restart
    cuts = data.draw(st.lists(st.integers(0, len(ids)), max_size=6))
    with scorer.open() as whole, scorer.open() as cut, scorer.open() as single:
        expected = whole.push(ids)
        assert close(in_chunks(cut, ids, cuts), expected)
        assert close(in_chunks(single, ids, range(1, len(ids))), expected)


@pytest.mark.parametrize("prefix", [[], [7, 8]])
def test_a_stream_of_n_tokens_computes_n_positions_and_its_prefix_once(prefix):
    scorer, ids = StreamingScorer(output_classifier(prefix=prefix)), some_ids(50)
    for cuts in ([], range(1, 50), [10, 20]):
        with PositionCounter(scorer.classifier.backbone) as counter, scorer.open() as stream:
            in_chunks(stream, ids, cuts)
        assert counter.count == len(prefix) + 50
    assert counter.passes == 3


def test_an_empty_push_computes_nothing():
    scorer = StreamingScorer(output_classifier())
    with PositionCounter(scorer.classifier.backbone) as counter, scorer.open() as stream:
        assert stream.push([]) == [] and stream.risk == 0.0 and counter.passes == 0


def in_windows(classifier, ids, room):
    """The scores of full passes over windows of `room` tokens, each beginning with the last half of the one before;
    and the number of restarts."""
    half, expected, begin, restarts = room // 2, [], 0, 0
    for t in range(len(ids)):
        if t - begin >= room:
            begin, restarts = t - half, restarts + 1
        expected.append(full_pass(classifier, ids[begin : t + 1])[-1])
        assert t < half or t - begin >= half
    return expected, restarts


@pytest.mark.parametrize("prefix", [[], [7]])
@pytest.mark.parametrize("kind", KINDS)
def test_beyond_the_context_every_token_is_scored_behind_at_least_half_a_window(kind, prefix):
    classifier = output_classifier(kind, context=12, prefix=prefix)
    room, ids = 12 - len(prefix), some_ids(47)
    expected, restarts = in_windows(classifier, ids, room)
    scorer = StreamingScorer(classifier)
    for cuts in ([], range(1, 47), [5, 12, 13, 29]):
        with PositionCounter(classifier.backbone) as counter, scorer.open() as stream:
            assert close(in_chunks(stream, ids, cuts), expected)
        assert counter.count == len(prefix) + 47 + restarts * (len(prefix) + room // 2)
        assert counter.count < 2 * 47 + len(prefix) * (restarts + 1)
        assert stream.risk == max(stream.scores)  # the maximum carries on over every restart


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_smaller_than_the_context_is_kept(kind):
    classifier, ids = output_classifier(kind, context=256), some_ids(47)
    expected, _ = in_windows(classifier, ids, 12)
    assert close(StreamingScorer(classifier, window=12).score(ids), expected)
    assert not close(StreamingScorer(classifier).score(ids), expected)
    with StreamingScorer(classifier, window=12).open_batch(2) as batch:
        assert all(close(row, expected) for row in batch.push([ids, ids]))
    classifier.window = 12  # its own, unless another is asked for
    assert close(StreamingScorer(classifier).score(ids), expected)
    assert not close(StreamingScorer(classifier, window=256).score(ids), expected)


def test_a_window_wider_than_the_context_changes_nothing():
    classifier, ids = output_classifier(context=12), some_ids(47)
    assert StreamingScorer(classifier, window=1000).score(ids) == StreamingScorer(classifier).score(ids)


def test_a_context_or_window_too_short_for_a_completion_is_refused():
    with pytest.raises(ValueError, match="no room"):
        StreamingScorer(output_classifier(context=8, prefix=[1] * 7))
    with pytest.raises(ValueError, match="no room"):
        StreamingScorer(output_classifier(context=256), window=1)


# ------------------------------------------------------------------------------------------------------ rewind, closing


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", [256, 12])
def test_rewinding_equals_never_having_read_those_tokens(kind, context):
    scorer, ids, other = StreamingScorer(output_classifier(kind, context)), some_ids(10), some_ids(4, seed=1)
    with scorer.open() as stream, scorer.open() as fresh:
        stream.push(ids)
        seen = stream.risk
        stream.rewind(3)
        stream.push(other)
        fresh.push(ids[:7])
        fresh.push(other)
        assert close(stream.scores, fresh.scores)
        assert stream.risk == max(seen, *stream.scores)  # what was seen was seen
        with pytest.raises(ValueError, match="cannot rewind"):
            stream.rewind(100)


def test_rewinding_takes_the_state_of_the_rule_back_too():
    scorer = StreamingScorer(output_classifier(), rule=KInARow(2))
    behind = {token: scorer.score([10, token]) for token in range(20, 60)}
    low, high = min(behind, key=lambda t: behind[t][1]), max(behind, key=lambda t: behind[t][1])
    assert behind[low][1] < min(behind[high]) - 0.01
    with scorer.open() as stream:
        stream.push([10, low])
        stream.rewind(1)
        stream.push([low])  # the same token read twice is not two in a row
        assert stream.risk == pytest.approx(min(behind[low]), abs=1e-5)
        stream.rewind(1)
        stream.push([high])  # and the token before it is still remembered
        assert stream.risk == pytest.approx(min(behind[high]), abs=1e-5)


def test_a_closed_stream_refuses_and_has_freed_its_cache():
    scorer = StreamingScorer(output_classifier())
    with scorer.open() as stream:
        stream.push([1, 2])
        cache = weakref.ref(stream._cache)
        scores, risk = stream.scores, stream.risk
    assert cache() is None and stream.closed and (stream.scores, stream.risk) == (scores, risk)
    for use in (lambda: stream.push([1]), lambda: stream.rewind(1)):
        with pytest.raises(StreamClosedError):
            use()
    stream.close()


def test_the_cache_is_freed_when_the_body_raises():
    with pytest.raises(KeyError), StreamingScorer(output_classifier()).open() as stream:
        stream.push([1])
        cache = weakref.ref(stream._cache)
        raise KeyError
    assert cache() is None


def test_64_interleaved_streams_never_touch():
    scorer = StreamingScorer(output_classifier())
    rows = [some_ids(6, seed=i) for i in range(64)]
    alone = [scorer.score(row) for row in rows]
    streams = [scorer.open() for _ in rows]
    order = [i for i in range(64) for _ in range(6)]
    random.Random(0).shuffle(order)
    at = [0] * 64
    for i in order:
        streams[i].push([rows[i][at[i]]])
        at[i] += 1
    assert all(close(stream.scores, expected) for stream, expected in zip(streams, alone, strict=True))
    assert [s.risk for s in streams] == [max(s.scores) for s in streams]


def test_streams_in_threads_never_touch():
    scorer = StreamingScorer(output_classifier())
    rows = [some_ids(12, seed=i) for i in range(4)]
    found = [None] * 4

    def run(i):
        with scorer.open() as stream:
            found[i] = in_chunks(stream, rows[i], range(1, 12))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(close(found[i], full_pass(scorer.classifier, rows[i])) for i in range(4))


# ------------------------------------------------------------------------------------------------------- wrong use


def test_ids_of_another_tokenizer_are_refused():
    scorer = StreamingScorer(output_classifier())
    other = train_tokenizer(["quite another text"] * 20, 290)
    scorer.check_tokenizer(lab_tokenizer())
    scorer.open(fingerprint=fingerprint(lab_tokenizer())).close()
    for refused in (lambda: scorer.check_tokenizer(other), lambda: scorer.open(fingerprint=fingerprint(other))):
        with pytest.raises(ValueError, match="another tokenizer"):
            refused()


@pytest.mark.parametrize("bad", [[5, 400], [-1]])
def test_ids_outside_the_vocabulary_are_refused_before_the_model_sees_them(bad):
    scorer = StreamingScorer(output_classifier())
    with PositionCounter(scorer.classifier.backbone) as counter, pytest.raises(ValueError, match="token ids"):
        stream = scorer.open()
        stream.push(bad)
    assert counter.count == 0 and stream.closed and stream.risk == math.inf


def test_dropout_is_off_even_if_training_goes_on_in_between():
    classifier = output_classifier("gpt2")  # its configuration has dropout 0.1
    scorer, ids = StreamingScorer(classifier.train()), some_ids(10)
    assert scorer.score(ids) == scorer.score(ids)
    classifier.train()
    assert scorer.score(ids) == scorer.score(ids)


def test_a_backbone_without_a_cache_is_an_error_not_a_stream_that_forgets():
    classifier = output_classifier()
    read = classifier.read
    classifier.read = lambda ids, mask, cache, use_cache: read(ids, mask, cache, False)
    with pytest.raises(ClassifierError, match="no cache"):
        StreamingScorer(classifier).score([1, 2])


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_no_probability_is_made_of_what_is_no_number(logit):
    with pytest.raises(ClassifierError):
        probability(logit)


@given(st.floats(-1e4, 1e4))
def test_probability_is_the_sigmoid(logit):
    assert probability(logit) == pytest.approx(
        torch.sigmoid(torch.tensor(logit, dtype=torch.float64)).item(), abs=1e-15
    )


def test_the_head_without_module_calls_is_the_head():
    head = ValueHead(32)
    torch.nn.init.normal_(head.out.weight)
    call, hidden = head.direct(), torch.randn(2, 5, 32)
    by_modules = lambda x: head.out(torch.nn.functional.silu(head.inner(x.float()))).squeeze(-1)  # noqa: E731
    for x in (hidden, hidden.bfloat16(), hidden.half()):
        assert torch.equal(call(x), by_modules(x)) and torch.equal(head(x), call(x))
        assert call(x).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert call(hidden).dtype == head(hidden).dtype == torch.float32
        inside = call(hidden)
    assert torch.equal(inside, by_modules(hidden))
    before = call(hidden)
    head.load_state_dict(ValueHead(32).state_dict())
    assert torch.equal(call(hidden), head(hidden)) and not torch.equal(call(hidden), before)
    head.double()
    assert torch.equal(call(hidden), head(hidden))


def test_a_head_of_another_kind_is_called_as_it_is():
    classifier = output_classifier()
    classifier.value_head = torch.nn.Sequential(torch.nn.Linear(32, 1), torch.nn.Flatten(-2))
    assert StreamingScorer(classifier).head is classifier.value_head
    assert close(StreamingScorer(classifier).score(some_ids(5)), full_pass(classifier, some_ids(5)))


# ------------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 3e-2)])
def test_reduced_precision_keeps_its_stated_tolerance(dtype, tolerance):
    classifier = output_classifier()
    classifier.value_head.out.weight.data /= 6  # logits as large as a trained head gives, a few units
    ids = some_ids(60)
    expected = full_pass(classifier, ids)
    classifier.model.to(dtype)
    with StreamingScorer(classifier).open() as single, StreamingScorer(classifier).open() as cut:
        a, b = in_chunks(single, ids, range(1, 60)), in_chunks(cut, ids, [17, 40])
    assert close(a, b, tolerance) and close(a, full_pass(classifier, ids), tolerance)
    assert close(a, expected, 3 * tolerance)


@pytest.mark.parametrize(
    "device",
    [
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
        pytest.param("mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device")),
    ],
)
def test_one_code_path_for_every_device(device):
    torch.use_deterministic_algorithms(False)
    ids = some_ids(40)
    expected = full_pass(output_classifier(), ids)
    scorer = StreamingScorer(output_classifier(), device=device)
    with scorer.open() as stream, scorer.open_batch(2) as batch:
        assert close(in_chunks(stream, ids, range(1, 40)), expected, 1e-4)
        assert close(batch.push([ids, ids[:7]])[0], expected, 1e-4)


# --------------------------------------------------------------------------------------------------------- batches


def run_batch(scorer, rows, plan):
    """plan: for every step, how many tokens each row brings. Returns the scores per row."""
    left, found = [list(row) for row in rows], [[] for _ in rows]
    with scorer.open_batch(len(rows)) as batch:
        for counts in plan:
            part = [row[:n] for row, n in zip(left, counts, strict=True)]
            left = [row[n:] for row, n in zip(left, counts, strict=True)]
            for scores, new in zip(found, batch.push(part), strict=True):
                scores += new
            for i, row in enumerate(left):
                if not row:
                    batch.close_row(i)
        assert batch.scores == found and batch.risks == [max(row, default=0.0) for row in found]
    return found, left


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", [256, 12])
@pytest.mark.parametrize("prefix", [[], [7]])
def test_a_ragged_batch_equals_one_by_one(kind, context, prefix):
    scorer = StreamingScorer(output_classifier(kind, context, prefix=prefix))
    rows = [some_ids(n, seed=n) for n in (30, 1, 17, 25)]
    plan = [[1, 1, 3, 0]] + [[1, 0, 1, 0]] * 4 + [[5, 0, 0, 9]] + [[1, 0, 2, 1]] * 3 + [[40, 0, 40, 40]]
    found, left = run_batch(scorer, rows, plan)
    assert not any(left)
    assert all(close(new, scorer.score(row)) for new, row in zip(found, rows, strict=True))


@FAST
@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=12))
def test_any_plan_of_a_batch_equals_one_by_one(plan):
    scorer = StreamingScorer(output_classifier(context=10))
    rows = [some_ids(sum(step[i] for step in plan), seed=i) for i in range(3)]
    with scorer.open_batch(3) as batch:
        at = [0, 0, 0]
        for step in plan:
            batch.push([row[a : a + n] for row, a, n in zip(rows, at, step, strict=True)])
            at = [a + n for a, n in zip(at, step, strict=True)]
        assert all(close(found, scorer.score(row)) for found, row in zip(batch.scores, rows, strict=True))


def test_rows_in_step_compute_one_position_per_token_and_ended_rows_leave():
    scorer = StreamingScorer(output_classifier())
    with PositionCounter(scorer.classifier.backbone) as counter, scorer.open_batch(4) as batch:
        for _ in range(10):
            batch.push([[5], [6], [7], [8]])
        assert counter.count == 40
        batch.close_row(0)
        batch.close_row(2)
        batch.push([[], [6], [], [8]])  # after this one the cache holds two rows
        before = counter.count
        batch.push([[], [6], [], [8]])
        assert counter.count - before == 2
        with pytest.raises(StreamClosedError, match="stream 0"):
            batch.push([[5], [], [], []])
    assert batch.risks == [math.inf] * 4


def test_holes_of_rows_that_take_turns_are_cleared_out():
    scorer = StreamingScorer(output_classifier())
    rows = [some_ids(45, seed=i) for i in range(8)]
    with scorer.open_batch(8) as batch:
        for k in range(45):
            for i in range(8):  # seven rows of eight get a hole
                batch.push([row[k : k + 1] if j == i else [] for j, row in enumerate(rows)])
                assert batch._mask.shape[1] <= 2 * (k + 1) + 256 + 1
        assert all(close(found, scorer.score(row)) for found, row in zip(batch.scores, rows, strict=True))


def test_a_row_without_a_number_fails_alone():
    scorer = StreamingScorer(output_classifier())
    head, rows = scorer.head, [some_ids(5, seed=i) for i in range(3)]
    with scorer.open_batch(3) as batch:
        batch.push([row[:2] for row in rows])
        scorer.head = lambda hidden: head(hidden).index_fill(0, torch.tensor([1]), torch.nan)
        assert batch.push([row[2:4] for row in rows])[1] == [math.inf, math.inf]
        scorer.head = head
        assert batch.risks[1] == math.inf and isinstance(batch.errors[1], ClassifierError)
        batch.push([rows[0][4:], [], rows[2][4:]])
        with pytest.raises(StreamClosedError, match="after a failure"):
            batch.push([[], [5], []])
    assert close(batch.scores[0], scorer.score(rows[0])) and close(batch.scores[2], scorer.score(rows[2]))


def test_a_failed_pass_closes_the_whole_batch():
    scorer = StreamingScorer(output_classifier())
    batch = scorer.open_batch(2)
    batch.push([[5], [6]])
    scorer.head = lambda hidden: 1 / 0
    with pytest.raises(ZeroDivisionError):
        batch.push([[5], [6]])
    assert batch.risks == [math.inf] * 2 and batch._cache is None
    with pytest.raises(StreamClosedError):
        batch.push([[5], [6]])
    with pytest.raises(ValueError):
        scorer.open_batch(0)
    with pytest.raises(ValueError, match="one list per stream"):
        scorer.open_batch(2).push([[5]])


# ------------------------------------------------------------------------------------------------------- stop rules

PROBABILITIES = st.lists(st.floats(0, 1), max_size=20)


@given(PROBABILITIES, st.floats(0, 1))
def test_running_max_halts_at_the_first_score_above(scores, threshold):
    assert halt_index(scores, threshold) == next((i for i, p in enumerate(scores) if p > threshold), None)


@given(PROBABILITIES, st.floats(0, 1), st.integers(1, 4))
def test_k_in_a_row_halts_at_the_kth_of_the_first_run(scores, threshold, k):
    runs = (i for i in range(k - 1, len(scores)) if all(p > threshold for p in scores[i - k + 1 : i + 1]))
    assert halt_index(scores, threshold, KInARow(k)) == next(runs, None)


@given(PROBABILITIES, st.floats(0.05, 1))
def test_the_exponential_average_is_the_weighted_mean(scores, alpha):
    rule = ExponentialAverage(alpha)
    for n in range(1, len(scores) + 1):
        weights = [(1 - alpha) ** (n - 1 - i) for i in range(n)]
        mean = sum(w * p for w, p in zip(weights, scores, strict=False)) / sum(weights)
        assert rule.update(scores[n - 1]) == pytest.approx(mean, abs=1e-9)


def test_rules_compose_and_start_fresh():
    rule = AnyOf(KInARow(2), ExponentialAverage(0.5))
    assert running_risk([0.9, 0.1, 0.6, 0.8], rule) == running_risk([0.9, 0.1, 0.6, 0.8], rule)
    curves = [running_risk([0.9, 0.1, 0.6, 0.8], r) for r in rule.rules]
    assert running_risk([0.9, 0.1, 0.6, 0.8], rule) == [max(pair) for pair in zip(*curves, strict=True)]


@pytest.mark.parametrize("rule", [RunningMax(), KInARow(2), ExponentialAverage(0.3)])
def test_flagged_is_strictly_above_and_the_risk_never_falls(rule):
    scores = [0.2, 0.7, 0.7, 0.1]
    curve = running_risk(scores, rule)
    assert curve == sorted(curve)
    assert halt_index(scores, curve[-1], rule) is None
    assert halt_index(scores, math.nextafter(curve[-1], 0), rule) == curve.index(curve[-1])


@pytest.mark.parametrize("rule", [RunningMax(), KInARow(3), ExponentialAverage(0.2), AnyOf(KInARow(2), RunningMax())])
def test_a_stream_with_a_rule_does_not_depend_on_chunks(rule):
    scorer, ids = StreamingScorer(output_classifier(), rule=rule), some_ids(30)
    with scorer.open() as whole, scorer.open() as single:
        whole.push(ids)
        in_chunks(single, ids, range(1, 30))
        assert whole.risk == pytest.approx(single.risk, abs=1e-5)
        assert whole.risk == running_risk(whole.scores, rule)[-1]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: KInARow(0),
        lambda: ExponentialAverage(0),
        lambda: ExponentialAverage(1.5),
        lambda: AnyOf(),
        lambda: halt_index([0.1], math.nan),
        lambda: halt_index([0.1, math.nan], 0.5),
    ],
)
def test_rules_refuse_what_would_never_halt(wrong):
    with pytest.raises(ValueError):
        wrong()
