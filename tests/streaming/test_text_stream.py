"""Text streams: any tokenizer, any chunking; whole characters; what is released has been scored."""

import asyncio
import functools
import math
import weakref

import pytest
from chunk_invariance import assert_chunk_invariant
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import (
    FOREIGN,
    PROSE,
    PositionCounter,
    WordClassifier,
    foreign_tokenizer,
    lab_tokenizer,
    output_classifier,
)

from constclf_lib.errors import StreamClosedError
from constclf_lib.guard import guard_text_stream
from constclf_lib.lab import train_tokenizer
from constclf_lib.prompts import CHAT_TOKENS, chat_id
from constclf_lib.streaming import MAX_PIECE, Characters, KInARow, Pieces, StreamingScorer
from constclf_lib.tokenization import text_ids

FAST = settings(max_examples=25, deadline=None)
TEXTS = {
    "prose": PROSE,
    "spaces": "  the   old\n\nlantern \n and\tthe  key \r\n\r\n  ",
    "no spaces": "ashbane" * 40,
    "one emoji after another": "🐛🐛👩‍👩‍👧‍👦🇪🇺" * 12,
    "combining marks": "na\u0131\u0308ve cafe\u0301 a\u0300\u0301\u0302 Å\u030a " * 4,
    "chinese": "你好世界，他们在山上。" * 12,
    "code": "def f(x):\n    if x:\n        return x\n\n\nf(1)\n",
    "zero width": "a\u200bs\u200bh bane \u00a0 \u2003x\u3000y",
}
TOKENIZERS = ["lab", *FOREIGN]


@functools.cache
def scorer_for(kind: str, context: int = 4096) -> StreamingScorer:
    tokenizer = lab_tokenizer() if kind == "lab" else foreign_tokenizer(kind)
    return StreamingScorer(output_classifier(tokenizer=tokenizer, context=context))


def read(scorer, deltas):
    """(pieces, token ids, scores, risk) of a text stream."""
    with scorer.open_text() as stream:
        pieces = [piece for delta in deltas for piece in stream.push(delta)]
        pieces += stream.flush()
        return pieces, stream.token_ids, stream.scores, stream.risk


def split(text, cuts):
    edges = [0, *sorted(cuts), len(text)]
    return [text[a:b] for a, b in zip(edges, edges[1:], strict=False)]


# ------------------------------------------------------------------------------------------------ characters, pieces


@given(st.binary(max_size=40) | st.text(max_size=12).map(str.encode), st.data())
def test_bytes_become_the_same_characters_in_any_chunks(data, draw):
    cuts = draw.draw(st.lists(st.integers(0, len(data)), max_size=5))
    characters = Characters()
    assert "".join([*map(characters.push, split(data, cuts)), characters.end()]) == data.decode("utf-8", "replace")


@given(st.text(st.sampled_from("a\ud83d\udc1b\ud800é🐛"), max_size=12), st.data())
def test_halves_of_surrogate_pairs_are_joined_in_any_chunks(text, draw):
    cuts = draw.draw(st.lists(st.integers(0, len(text)), max_size=5))
    characters = Characters()
    joined = "".join([*map(characters.push, split(text, cuts)), characters.end()])
    whole = Characters()
    assert joined == whole.push(text) + whole.end()
    joined.encode()  # no surrogate is left
    assert joined.count("🐛") == text.count("🐛") + text.count("\ud83d\udc1b")


def test_text_after_half_a_character_of_bytes():
    characters = Characters()
    assert characters.push("é".encode()[:1]) + characters.push("") + characters.push("x") == "\ufffdx"
    with pytest.raises(TypeError):
        characters.push(3)


@given(st.text(st.sampled_from("ab \n\t🐛"), max_size=200) | st.text(max_size=80), st.data())
def test_pieces_depend_on_the_text_alone(text, draw):
    cuts = draw.draw(st.lists(st.integers(0, len(text)), max_size=5))

    def cut(deltas):
        pieces = Pieces(max_piece=8)
        return [piece for delta in deltas for piece in pieces.push(delta)] + [pieces.end()]

    whole = cut([text])
    assert cut(split(text, cuts)) == whole == cut(text)
    assert "".join(whole) == text and all(0 < len(piece) <= 8 for piece in whole[:-1]) and len(whole[-1]) <= 8


# ------------------------------------------------------------------------------------------- the same for every
# chunking


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", TEXTS)
def test_tokens_are_those_of_the_whole_text_and_scores_are_equal_for_every_chunking(kind, name):
    scorer, text = scorer_for(kind), TEXTS[name]
    whole = read(scorer, [text])
    assert whole[1] == text_ids(scorer.classifier.tokenizer, text)
    assert "".join(piece.text for piece in whole[0]) == text
    assert whole[2] == pytest.approx(scorer.score(whole[1]), abs=1e-5)
    for deltas in (
        list(text),
        split(text, [1, 9, 10, 40]),
        [text.encode()[i : i + 1] for i in range(len(text.encode()))],
    ):
        assert read(scorer, deltas) == whole  # equal, not close: the same passes through the network


@pytest.mark.parametrize("kind", ["lab", "llama3", "unigram"])
@FAST
@given(text=st.text(max_size=60) | st.text(st.sampled_from("ab .\n'é\u0301🐛你"), max_size=120), data=st.data())
def test_any_text_in_any_chunks(kind, text, data):
    scorer = scorer_for(kind, 48)  # some of these restart their window
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=5))
    raw = text.encode()
    byte_cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=5))
    whole = read(scorer, [text])
    assert read(scorer, split(text, cuts)) == whole == read(scorer, split(raw, byte_cuts))


@pytest.mark.parametrize("kind", ["lab", "metaspace"])
@pytest.mark.parametrize("name", ["spaces", "combining marks", "zero width"])
def test_an_outside_judge_of_chunk_invariance(kind, name):
    scorer, text = scorer_for(kind), TEXTS[name][:40]
    scores = read(scorer, [text])[2]
    threshold = sorted(scores)[-2]  # halts somewhere, at the highest score

    def released(deltas):
        return list(guard_text_stream(deltas, scorer, threshold))

    assert_chunk_invariant(released, lambda whole: "".join(released([whole])), text)
    assert len("".join(released([text]))) < len(text)


def test_ordinary_prose_costs_one_position_per_token_and_a_seam_only_its_own():
    for kind, text, extra in (
        ("lab", PROSE * 3, False),
        ("byte_level", PROSE, False),
        ("llama3", "wait!\n\nand go.\n\n" * 3, True),
    ):
        scorer = scorer_for(kind)
        with PositionCounter(scorer.classifier.backbone) as counter:
            ids = read(scorer, text)[1]
        assert (counter.count > len(ids)) is extra and counter.count <= 2 * len(ids)


def test_a_seam_that_reaches_too_far_back_is_read_on_its_own(monkeypatch):
    def backwards(tokenizer, text):  # no token ever stays where it was
        return [5 + ord(character) % 200 for character in reversed(text)]

    monkeypatch.setattr("constclf_lib.streaming.text_stream.text_ids", backwards)
    scorer = scorer_for("lab", 16)
    whole = read(scorer, [PROSE])
    assert read(scorer, list(PROSE)) == whole and "".join(piece.text for piece in whole[0]) == PROSE
    assert whole[3] < math.inf and len(whole[1]) > 100


def test_a_rule_with_a_memory_is_not_confused_by_tokens_that_are_read_again():
    classifier = output_classifier(tokenizer=foreign_tokenizer("llama3"))
    scorer = StreamingScorer(classifier, rule=KInARow(3))
    text = "wait!\n\nand go.\n\n" * 3
    assert read(scorer, [text]) == read(scorer, list(text))


# ---------------------------------------------------------------------------------------------- text is text, held back


def test_control_tokens_spelled_in_text_stay_text():
    scorer = scorer_for("lab")
    text = "go on <|assistant|> and <|end|><|user|> now"
    control = {chat_id(lab_tokenizer(), token) for token in CHAT_TOKENS}
    for deltas in ([text], list(text), split(text, [7, 12, 27])):
        assert not control & set(read(scorer, deltas)[1])


def test_text_is_held_until_it_is_scored():
    classifier = WordClassifier(lab_tokenizer())
    with StreamingScorer(classifier).open_text() as stream:
        shown = ""
        for character in PROSE:
            shown += "".join(piece.text for piece in stream.push(character))
            assert shown + stream.held in PROSE
            assert text_ids(lab_tokenizer(), shown) == stream.token_ids  # whatever is shown has been read
        assert len(stream.held) > 0
        shown += "".join(piece.text for piece in stream.flush())
        assert shown == PROSE and stream.held == "" and len(classifier.seen) == len(stream.token_ids)


def test_text_without_spaces_is_not_held_for_ever():
    with scorer_for("lab").open_text() as stream:
        for character in "ab" * 200:
            stream.push(character)
            assert len(stream.held) <= MAX_PIECE


def test_pieces_that_were_not_read_stay_held():
    with scorer_for("lab").open_text() as stream:
        pieces = stream.pieces("one two three four")
        first = next(pieces)
        pieces.close()
        assert first.text == "one" and stream.held == " two three four"
        assert [piece.text for piece in stream.push(" five")] == [" two", " three", " four"]


def test_a_closed_text_stream_and_one_without_a_tokenizer():
    stream = scorer_for("lab").open_text()
    stream.close()
    with pytest.raises(StreamClosedError):
        stream.push("a")
    classifier = output_classifier()
    classifier.tokenizer = None
    with pytest.raises(ValueError, match="no tokenizer"):
        StreamingScorer(classifier).open_text()


# ---------------------------------------------------------------------------------------------------- guard_text_stream


class Provider:
    """A stream of deltas that knows whether it was closed. `then` is called after the last delta."""

    def __init__(self, deltas, then=lambda: None):
        self.deltas, self.then, self.closed = iter(deltas), then, False

    def __iter__(self):
        return self

    def __next__(self):
        delta = next(self.deltas, None)
        if delta is None:
            self.then()
            raise StopIteration
        return delta

    def close(self):
        self.closed = True


TEXT = "Bring the lantern. Grind the ashbane now. Then wait."


@functools.cache
def ashbane_scorer():
    tokenizer = train_tokenizer([TEXT] * 20, 340)
    (harmful,) = text_ids(tokenizer, " ashbane")
    return StreamingScorer(WordClassifier(tokenizer, harmful=[harmful]))


def test_the_word_that_crosses_never_comes_out_in_any_chunks():
    for size in (1, 2, 3, 7, 20, 100):
        provider = Provider(TEXT[i : i + size] for i in range(0, len(TEXT), size))
        guarded = guard_text_stream(provider, ashbane_scorer(), 0.5)
        assert "".join(guarded) == guarded.released_text == "Bring the lantern. Grind the"
        assert guarded.withheld_text.startswith(" ashbane") and TEXT.startswith(
            guarded.released_text + guarded.withheld_text
        )
        assert guarded.status == "halted_output" and guarded.risk > 0.5 and provider.closed


def test_flagged_is_strictly_above():
    risk = read(ashbane_scorer(), [TEXT])[3]
    assert "".join(guard_text_stream([TEXT], ashbane_scorer(), risk)) == TEXT
    assert "".join(guard_text_stream([TEXT], ashbane_scorer(), math.nextafter(risk, 0))) != TEXT


def test_all_of_a_harmless_text_comes_out_with_none_and_empty_deltas():
    guarded = guard_text_stream(["Bring", None, "", b" the ", "lan", b"tern."], ashbane_scorer(), 0.5)
    assert "".join(guarded) == "Bring the lantern." and guarded.status == "released" and guarded.withheld_text == ""
    assert len(guarded.token_scores) == len(text_ids(ashbane_scorer().classifier.tokenizer, "Bring the lantern."))
    assert list(guard_text_stream([], ashbane_scorer(), 0.5)) == []


def test_a_provider_that_fails_ends_with_what_was_scored():
    def fail():
        raise ConnectionError("gone")

    provider = Provider(["Bring the lan"], then=fail)
    guarded = guard_text_stream(provider, ashbane_scorer(), 0.5)
    assert "".join(guarded) == "Bring the" and guarded.withheld_text == " lan"
    assert guarded.status == "error" and "gone" in guarded.error and provider.closed


def test_a_reader_who_leaves_closes_everything():
    for reads in (0, 1):
        provider = Provider(["Bring the lantern. ", "Grind the rest."])
        with guard_text_stream(provider, ashbane_scorer(), 0.5) as guarded:
            for _ in range(reads):
                next(guarded)
        assert provider.closed and guarded.status == "closed" and guarded._stream.closed
        assert list(guarded) == []


def test_an_interrupt_is_raised_after_everything_is_closed():
    def interrupt():
        raise KeyboardInterrupt

    provider = Provider(["Bring the lan"], then=interrupt)
    guarded = guard_text_stream(provider, ashbane_scorer(), 0.5)
    with pytest.raises(KeyboardInterrupt):
        list(guarded)
    assert (
        guarded.status == "error" and guarded.released_text == "Bring the" and provider.closed and list(guarded) == []
    )


def test_the_async_twin_does_the_same():
    closed = []

    async def provider(then=None):
        try:
            for delta in TEXT:
                yield delta
                if then and delta == "G":
                    raise then
        finally:
            closed.append(True)

    async def run(deltas):
        guarded = guard_text_stream(deltas, ashbane_scorer(), 0.5)
        return "".join([text async for text in guarded]), guarded

    text, guarded = asyncio.run(run(provider()))
    assert text == "Bring the lantern. Grind the" and guarded.status == "halted_output" and closed == [True]
    text, guarded = asyncio.run(run(provider(OSError("gone"))))
    assert text == "Bring the lantern." and guarded.status == "error" and len(closed) == 2

    async def leave():
        deltas = provider()
        guarded = guard_text_stream(deltas, ashbane_scorer(), 0.5)
        async for _ in guarded:
            break
        await guarded.aclose()
        return guarded

    assert asyncio.run(leave()).status == "closed" and len(closed) == 3


def test_wrong_arguments_are_refused_at_once():
    for deltas, threshold, error in (("text", 0.5, TypeError), (3, 0.5, TypeError), (["a"], math.nan, ValueError)):
        with pytest.raises(error):
            guard_text_stream(deltas, ashbane_scorer(), threshold)


def test_a_stream_that_ended_holds_no_cache():
    guarded = guard_text_stream(["Bring the lantern now"], ashbane_scorer(), 0.5)
    next(guarded)
    cache = weakref.ref(guarded._stream._stream._cache)
    list(guarded)
    assert cache() is None
