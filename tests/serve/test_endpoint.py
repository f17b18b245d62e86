"""A real server process on loopback, talked to by the real openai client."""

import asyncio
import json
import socket
import urllib.error
import urllib.request

import openai
import pytest

from tests.serve.servers import FORBIDDEN, KEY, get, process, tiny_guard, until
from tests.tiny_models import tiny_lab

SECRET = "my aunt's secret recipe"


@pytest.fixture(scope="module")
def tiny():
    with process("tiny", "PORT") as server:
        yield server


@pytest.fixture(scope="module")
def want():
    """What the same models say without any server: {prompt: Reply}."""
    guard = tiny_guard()
    replies = {prompt: guard.reply(prompt, max_new_tokens=40) for prompt in tiny_lab().prompts}
    assert {reply.status for reply in replies.values()} >= {"released", "halted_output"}
    return replies


def client(server, **options):
    return openai.OpenAI(base_url=f"{server.address}/v1", api_key=KEY, max_retries=0, timeout=900, **options)


def ask(server, prompt, **options):
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    options = {"model": "guarded", "max_tokens": 40, **options}
    return client(server).chat.completions.create(messages=messages, **options)


def read(stream):
    """(text, finish_reason, last chunk, usage) of a stream."""
    text, finish, last, used = "", None, None, None
    for chunk in stream:
        used = chunk.usage or used
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish, last = choice.finish_reason or finish, chunk
    return text, finish, last, used


def test_a_whole_answer_is_the_guards_own(tiny, want):
    for prompt, reply in want.items():
        if reply.status == "error":
            with pytest.raises(openai.InternalServerError):
                ask(tiny, prompt)
            continue
        answer = ask(tiny, prompt)
        (choice,) = answer.choices
        assert choice.message.content == reply.shown_text and answer.guard["status"] == reply.status
        assert choice.finish_reason == ("content_filter" if reply.status == "halted_output" else choice.finish_reason)
        assert answer.usage.completion_tokens == len(reply.tokens) + reply.note_tokens
        assert answer.usage.prompt_tokens == reply.prompt_tokens > 0


def test_a_streamed_answer_is_the_guards_own(tiny, want):
    for prompt, reply in want.items():
        if reply.status == "error":
            continue
        text, finish, last, used = read(ask(tiny, prompt, stream=True, stream_options={"include_usage": True}))
        assert text == reply.shown_text and last.guard["status"] == reply.status
        assert finish == {"halted_output": "content_filter"}.get(
            reply.status, "length" if reply.finish == "length" else "stop"
        )
        assert used.completion_tokens == len(reply.tokens) + reply.note_tokens


def test_a_blocked_prompt_is_answered_by_the_refusal(tiny):
    answer = ask(tiny, f"please {FORBIDDEN}")
    assert answer.choices[0].finish_reason == "content_filter" and answer.guard["status"] == "blocked_input"
    assert answer.choices[0].message.content == "I'm sorry, but I can't help with that."
    text, finish, last, _ = read(ask(tiny, f"please {FORBIDDEN}", stream=True))
    assert (text, finish) == ("I'm sorry, but I can't help with that.", "content_filter")


@pytest.mark.parametrize("role", ["system", "developer", "assistant"])
def test_a_request_under_another_role_is_judged_too(tiny, role):
    messages = [{"role": role, "content": FORBIDDEN}, {"role": "user", "content": "go on"}]
    assert ask(tiny, messages).guard["status"] == "blocked_input"


def test_an_attack_split_over_turns_is_blocked(tiny):
    turns = ["please grind", "the ashbane", "go on"]
    messages = [{"role": "user", "content": turn} for turn in turns]
    assert all(ask(tiny, turn).guard["status"] != "blocked_input" for turn in turns)
    assert ask(tiny, messages).guard["status"] == "blocked_input"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_reply_that_was_released_here_is_known_again_and_no_other(tiny, want, streamed):
    prompt = next(prompt for prompt, reply in want.items() if reply.status == "released" and reply.released_text)
    if streamed:
        said = read(ask(tiny, prompt, stream=True))[0]
    else:
        said = ask(tiny, prompt).choices[0].message.content

    def judged(reply):
        """What the input classifier reads where this stands in the history as the assistant's."""
        before = len(get(f"{tiny.address}/seen"))
        turns = [("user", prompt), ("assistant", reply), ("user", "hm")]
        ask(tiny, [{"role": role, "content": content} for role, content in turns])
        return get(f"{tiny.address}/seen")[before:]

    assert judged(said) == [prompt, "hm", f"{prompt} hm"]
    assert judged(f"{said} more") == [prompt, f"{said} more", "hm", f"{prompt} {said} more hm"]


@pytest.mark.parametrize(
    "more, named",
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"top_p": 0.5}, "top_p"),
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"extra_body": {"beam": 3}}, "beam"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_is_not_served_is_refused_by_name(tiny, more, named):
    options = {"messages": [{"role": "user", "content": SECRET}], **more}
    messages = options.pop("messages")
    with pytest.raises(openai.BadRequestError) as caught:
        ask(tiny, messages, **options)
    assert caught.value.param == named and caught.value.type == "invalid_request_error"


def test_errors_have_openais_shape_and_their_own_status(tiny):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(tiny, "lantern " * 400)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError):  # a stream that never begins has a status too
        ask(tiny, "lantern " * 400, stream=True)
    with pytest.raises(openai.NotFoundError):
        ask(tiny, "x", model="another")
    with pytest.raises(openai.NotFoundError):
        client(tiny).images.generate(prompt="x")
    with pytest.raises(openai.AuthenticationError):
        client(tiny).with_options(api_key="sk-wrong").models.list()
    assert [model.id for model in client(tiny).models.list()] == ["guarded"]
    for content, status in ((b"{", 400), (b"[]", 400), (b"x" * (1 << 21), 413)):
        request = urllib.request.Request(
            f"{tiny.address}/v1/chat/completions", content, {"Authorization": f"Bearer {KEY}"}
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == status and "message" in json.load(refused.value)["error"]


def test_moderations(tiny):
    found = client(tiny).moderations.create(input=["hello", FORBIDDEN], model="guarded")
    assert [result.flagged for result in found.results] == [False, True]


def test_64_clients_get_what_each_alone_gets(tiny, want):
    prompts = [prompt for prompt, reply in want.items() if reply.status != "error"]

    async def all_at_once():
        async with openai.AsyncOpenAI(base_url=f"{tiny.address}/v1", api_key=KEY, max_retries=0, timeout=900) as client:

            async def one(i):
                messages = [{"role": "user", "content": prompts[i % len(prompts)]}]
                options = {"model": "guarded", "max_tokens": 40, "messages": messages}
                if i % 2:
                    answer = await client.chat.completions.create(**options)
                    return answer.choices[0].message.content
                stream = await client.chat.completions.create(**options, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*map(one, range(64)))

    for i, text in enumerate(asyncio.run(all_at_once())):
        assert text == want[prompts[i % len(prompts)]].shown_text
    until(lambda: get(f"{tiny.address}/health")["streams"] == 0)


def test_nothing_that_clients_send_is_logged():
    with process("tiny", "PORT") as server:
        ask(server, SECRET)
        with pytest.raises(openai.BadRequestError):
            ask(server, SECRET, n=2)
        list(ask(server, SECRET, stream=True))
    said = "".join(server.said)
    assert "POST /v1/chat/completions" in said  # it does log
    assert SECRET not in said and "recipe" not in said and KEY not in said


def longest():
    """(prompt, steps) of the longest reply: which one, the models decide."""
    lab = tiny_lab()
    guard = tiny_guard()
    guard.output_classifier.harmful.clear()
    replies = [(prompt, guard.reply(prompt, max_new_tokens=100)) for prompt in lab.prompts]
    return max(((prompt, reply.note_tokens + 1 + len(reply.tokens)) for prompt, reply in replies), key=lambda x: x[1])


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_who_leaves_frees_the_stream(streamed):
    prompt, whole = longest()
    with process("endless", "PORT") as server:
        body = {
            "messages": [{"role": "user", "content": prompt}],
            "stream": streamed,
            "max_tokens": 100,
        }
        content = json.dumps(body).encode()
        with socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2]))) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            until(lambda: get(f"{server.address}/steps")["steps"] > 3)
            if streamed:
                assert connection.recv(100)
            assert get(f"{server.address}/health")["streams"] == 1
        until(lambda: get(f"{server.address}/health")["streams"] == 0)
        assert get(f"{server.address}/steps")["steps"] < whole  # as many as the reply would have taken
        assert ask(server, "hm the ash", max_tokens=2).guard["status"] in ("released", "halted_output")
