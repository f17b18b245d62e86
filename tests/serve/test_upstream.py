"""The endpoint in front of another server: a real process between the real openai client and an upstream that behaves
well, dies, stalls, or says what it should not."""

import json
import socket

import openai
import pytest

from constclf_lib.guard import GuardedUpstream, Thresholds, TokenEvent
from constclf_lib.streaming import StreamingScorer
from tests.serve.servers import (
    FORBIDDEN,
    KEY,
    LIMITS,
    LONG,
    UPSTREAM_KEY,
    PhraseInput,
    get,
    process,
    until,
    upstream,
    upstream_guard,
)
from tests.tiny_models import WordClassifier, lab_tokenizer, text_ids


@pytest.fixture(scope="module")
def theirs():
    with upstream() as server:
        yield server


@pytest.fixture(scope="module")
def ours(theirs):
    with process("upstream", "PORT", theirs.url) as server:
        yield server


def ask(server, prompt, **options):
    client = openai.OpenAI(base_url=f"{server.address}/v1", api_key=KEY, max_retries=0, timeout=900)
    messages = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(model="guarded", messages=messages, **options)


def test_the_upstreams_text_passes_whole(ours, theirs):
    answer = ask(ours, "plain", temperature=0.5, top_p=0.9, seed=3, stop=["zebra"], max_tokens=50)
    assert answer.choices[0].message.content == LONG and answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 99)
    body, headers = theirs.asked[-1]
    assert body["model"] == "theirs" and body["stream"] is True and body["messages"][-1]["content"] == "plain"
    assert (body["temperature"], body["top_p"], body["seed"], body["max_tokens"]) == (0.5, 0.9, 3, 50)
    assert headers["Authorization"] == f"Bearer {UPSTREAM_KEY}"  # ours, never the client's


def test_the_upstreams_stream_passes_piece_by_piece(ours):
    pieces = [chunk.choices[0].delta.content for chunk in ask(ours, "plain", stream=True) if chunk.choices]
    assert "".join(piece or "" for piece in pieces) == LONG and len(pieces) > 20


def test_a_stop_sequence_is_ours(ours):
    answer = ask(ours, "plain", stop=" near the")
    assert answer.choices[0].message.content == "The old lantern sleeps. The moth sleeps"
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_what_crosses_is_withheld(ours, stream):
    if stream:
        chunks = list(ask(ours, "harmful", stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        finish, verdict = chunks[-1].choices[0].finish_reason, chunks[-1].guard
    else:
        answer = ask(ours, "harmful")
        text, finish, verdict = answer.choices[0].message.content, answer.choices[0].finish_reason, answer.guard
    assert text == "The moth sleeps. Grind the\n\nI'm sorry, but I can't help with that."
    assert (finish, verdict["status"]) == ("content_filter", "halted_output")


def test_a_blocked_prompt_never_reaches_the_upstream(ours, theirs):
    before = len(theirs.asked)
    assert ask(ours, f"plain {FORBIDDEN}").choices[0].finish_reason == "content_filter"
    assert len(theirs.asked) == before


@pytest.mark.parametrize(
    "scene, status, code",
    [
        ("refused", 502, "upstream_refused"),
        ("dies", 502, "upstream_failed"),
        ("unfinished", 502, "upstream_failed"),
        ("error", 502, "upstream_failed"),
        ("tool", 502, "upstream_failed"),
    ],
)
def test_an_upstream_that_fails_is_an_error_with_nothing_of_its_words(ours, scene, status, code):
    with pytest.raises(openai.APIStatusError) as caught:
        ask(ours, scene)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert UPSTREAM_KEY not in str(caught.value) and "secret" not in str(caught.value)
    if scene != "refused":  # in a stream, text is out by then: an error event ends it, and no [DONE]
        text = ""
        with pytest.raises(openai.APIError) as caught:
            for chunk in ask(ours, scene, stream=True):
                text += chunk.choices[0].delta.content or ""
                assert chunk.choices[0].finish_reason is None
        assert caught.value.code == code and LONG.startswith(text) and "ashbane" not in text


def test_an_upstream_that_stalls_is_given_up(theirs):
    with process("impatient", "PORT", theirs.url) as ours:
        test_an_upstream_that_fails_is_an_error_with_nothing_of_its_words(ours, "stalls", 504, "upstream_timeout")


def test_an_upstream_that_is_not_there(ours):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        reply = upstream_guard(f"http://127.0.0.1:{free.getsockname()[1]}/v1").reply("plain")
    assert (reply.status, reply.error_kind, reply.released_text) == ("error", "upstream_failed", "")


def test_a_client_who_leaves_closes_the_upstreams_connection():
    with upstream() as theirs, process("upstream", "PORT", theirs.url) as ours:
        body = json.dumps({"messages": [{"role": "user", "content": "endless"}], "stream": True}).encode()
        with socket.create_connection(("127.0.0.1", int(ours.address.rpartition(":")[2]))) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert connection.recv(100)
            assert get(f"{ours.address}/health")["streams"] == 1 and not theirs.left.is_set()
        assert theirs.left.wait(600)
        until(lambda: get(f"{ours.address}/health")["streams"] == 0)


def test_a_guard_without_thresholds_is_refused():
    with pytest.raises(ValueError, match="thresholds"):
        GuardedUpstream("http://x/v1", "m", PhraseInput())
    with pytest.raises(ValueError, match="http"):
        GuardedUpstream("file:///etc/passwd", "m")


@pytest.mark.parametrize("failing", [lambda: float("nan"), lambda: 1 / 0])
def test_a_classifier_that_fails_ends_the_reply(theirs, failing):
    tokenizer = lab_tokenizer()
    watcher = WordClassifier(tokenizer, text_ids(tokenizer, " ashbane"))
    guard = GuardedUpstream(theirs.url, "theirs", PhraseInput(), StreamingScorer(watcher), LIMITS)
    watcher.restart({3: failing})
    *events, reply = guard.stream("plain")
    assert all(isinstance(event, TokenEvent) for event in events)
    assert (reply.status, reply.error_kind) == ("error", "classifier_failed")
    assert LONG.startswith(reply.released_text) and len(reply.released_text) < len(LONG) / 2
    assert guard.reply("plain", thresholds=Thresholds(1, 1, 1)).status == "released"  # the next one starts anew
