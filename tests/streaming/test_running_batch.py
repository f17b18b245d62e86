"""Rows that join and leave, and threads that share a batch: the scores of one stream alone, each position once."""

import math
import random
import threading

import pytest
import torch
from tiny_models import PROSE, WordClassifier, lab_tokenizer, output_classifier, text_ids

from constclf_lib.errors import ClassifierError, StreamClosedError
from constclf_lib.streaming import RunningBatch, SharedScorer, StreamingScorer


def sequences(count, most, seed=0, vocab=300):
    rng = random.Random(seed)
    return [[rng.randrange(vocab) for _ in range(rng.randint(1, most))] for _ in range(count)]


def run(batch, rows_of, seed=1, pause=0.3):
    """Pushes every sequence in random pieces; rows join late, pause and leave."""
    rng, todo, live, rows = random.Random(seed), dict(enumerate(rows_of)), {}, {}
    left = {i: list(ids) for i, ids in todo.items()}
    while todo or live:
        if todo and rng.random() < 0.5:
            i = min(todo)
            del todo[i]
            rows[i] = live[i] = batch.join()
        step = {
            live[i]: [left[i].pop(0) for _ in range(min(len(left[i]), rng.choice([1, 1, 4])))]
            for i in live
            if rng.random() > pause
        }
        batch.push(step)
        for i in [i for i in live if not left[i]]:
            batch.leave(live.pop(i))
    return [rows[i].scores for i in range(len(rows_of))]


@pytest.mark.parametrize("kind, context", [("llama", 256), ("llama", 20), ("gpt2", 256), ("mistral", 256)])
def test_a_row_has_the_scores_of_a_stream(kind, context):
    scorer = StreamingScorer(output_classifier(kind, context=context, prefix=(3,)))
    rows = sequences(10, 50)
    batch = RunningBatch(scorer)
    for got, ids in zip(run(batch, rows), rows, strict=True):
        assert got == pytest.approx(scorer.score(ids), abs=1e-5)
    assert batch.reads_alone == (kind == "mistral") and len(batch) == 0


def test_each_position_is_computed_once():
    scorer = StreamingScorer(output_classifier(context=256))
    rows = sequences(8, 40)
    batch = RunningBatch(scorer)
    run(batch, rows, pause=0.7)
    assert batch.positions == sum(map(len, rows))


def test_what_has_left_takes_no_room():
    scorer = StreamingScorer(output_classifier(context=256))
    batch = RunningBatch(scorer)
    for ids in sequences(30, 40):
        row = batch.join()
        for token in ids:
            batch.push({row: [token]})
        batch.leave(row)
    row = batch.join()
    batch.push({row: [1, 2]})
    assert tuple(batch._cache.mask.shape) == (1, 2)


def test_a_rewound_row_forgets_its_last_tokens_and_not_its_risk():
    scorer = StreamingScorer(output_classifier(context=256))
    batch = RunningBatch(scorer)
    one, two = batch.join(), batch.join()
    batch.push({one: [5, 6, 7, 8], two: [9]})
    risk = one.risk
    batch.rewind(one, 2)
    assert batch.last_ids(one, 2) == [5, 6] and batch.last_ids(one, 3) is None and one.risk == risk
    batch.push({one: [11], two: [12, 13]})
    assert one.scores == pytest.approx(scorer.score([5, 6, 11]), abs=1e-5)
    assert two.scores == pytest.approx(scorer.score([9, 12, 13]), abs=1e-5)
    with pytest.raises(ValueError):
        batch.rewind(one, 4)


def test_a_row_whose_score_is_no_number_falls_alone(monkeypatch):
    scorer = StreamingScorer(output_classifier(context=256))
    batch = RunningBatch(scorer)
    one, two = batch.join(), batch.join()
    batch.push({one: [1], two: [2]})
    read = scorer.read
    monkeypatch.setattr(
        scorer, "read", lambda *a, **k: (lambda c, z: (c, torch.cat([z[:1] * math.nan, z[1:]])))(*read(*a, **k))
    )
    batch.push({one: [3], two: [4]})
    assert isinstance(one.error, ClassifierError) and one.risk == math.inf and two.error is None
    monkeypatch.undo()
    assert two.scores == pytest.approx(scorer.score([2, 4]), abs=1e-5)
    with pytest.raises(StreamClosedError):
        batch.push({one: [5]})


def test_a_failed_pass_closes_all_rows(monkeypatch):
    scorer = StreamingScorer(output_classifier(context=256))
    batch = RunningBatch(scorer)
    one, two = batch.join(), batch.join()
    batch.push({one: [1], two: [2]})
    monkeypatch.setattr(scorer, "read", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        batch.push({one: [3]})
    assert one.risk == two.risk == math.inf and batch.closed
    with pytest.raises(StreamClosedError):
        batch.join()


def test_ids_outside_the_vocabulary_reach_no_model():
    scorer = StreamingScorer(output_classifier(context=256))
    batch = RunningBatch(scorer)
    row = batch.join()
    with pytest.raises(ValueError, match="must lie in"):
        batch.push({row: [10**6]})
    batch.push({row: [1]})
    assert len(row.scores) == 1


# --- threads


def test_threads_that_share_a_scorer_have_the_scores_of_one_alone():
    scorer = StreamingScorer(output_classifier(context=64))
    shared, texts = SharedScorer(scorer), [PROSE * n + "\n\n\n wait!" for n in (1, 2, 3)] * 4
    got = [None] * len(texts)

    def read(i):
        with shared.open_text() as stream:
            for at in range(0, len(texts[i]), i + 1):
                stream.push(texts[i][at : at + i + 1])
            stream.flush()
            got[i] = (stream.scores, stream.risk, stream.token_ids)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for text, (scores, risk, ids) in zip(texts, got, strict=True):
        with scorer.open_text() as stream:
            stream.push(text)
            stream.flush()
            assert ids == stream.token_ids and scores == pytest.approx(stream.scores, abs=1e-5)
            assert risk == pytest.approx(stream.risk, abs=1e-5)
    assert shared.streams == 0


def test_a_failed_pass_fails_the_streams_that_were_open_and_no_later_one():
    watcher = WordClassifier(lab_tokenizer(), text_ids(lab_tokenizer(), " ashbane"))
    shared = SharedScorer(StreamingScorer(watcher))
    first, other = shared.open(), shared.open()
    watcher.restart({0: lambda: 1 / 0})
    with pytest.raises(ZeroDivisionError):
        first.push([1])
    assert first.risk == other.risk == math.inf and first.closed and other.closed
    with pytest.raises(StreamClosedError):
        other.push([1])
    with shared.open() as later:
        assert len(later.push([1, 2])) == 2
    with pytest.raises(ValueError):
        shared.open().push([-1])
    assert later.risk < 1
