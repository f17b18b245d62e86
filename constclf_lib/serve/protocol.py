"""What comes over the wire and what goes back, in the words of OpenAI's chat API. Built in chapter 08.

`read_chat` turns a request body into a `ChatRequest` or raises `ApiError`; `Completion` turns events of a guarded reply
into one answer or into chunks. What is not served is refused by name, never ignored, unless it cannot change the
answer.

Deliberately not here: the network (app.py) and whatever answers (backends.py).
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..guard import Reply

# what a request may carry because it changes nothing here: (names) and {name: values that say "as usual"}
WITHOUT_EFFECT = {
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "parallel_tool_calls",
    "prompt_cache_retention",
}
AS_USUAL: dict[str, tuple] = {
    "n": (1,), "logprobs": (False,), "top_logprobs": (0,), "tools": ([],), "functions": ([],),
    "tool_choice": ("none", "auto"), "function_call": ("none", "auto"), "logit_bias": ({},), "store": (False,),
    "presence_penalty": (0,), "frequency_penalty": (0,), "top_p": (1,), "modalities": (["text"],),
    "response_format": ({"type": "text"},), "service_tier": ("auto", "default"),
}  # fmt: skip
SAMPLING = ("presence_penalty", "frequency_penalty", "top_p")  # an upstream server may know what to do with these
READ = {
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "seed",
    "stop",
    "stream",
    "stream_options",
}
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# for each Reply.error_kind: status, type, and what the client is told; never the words of the exception, which may
# hold a prompt, a path or somebody's key
FAILURES = {
    "context_length_exceeded": (400, "invalid_request_error", "the messages are longer than the context or the limit"),
    "bad_input": (400, "invalid_request_error", "this model's chat template cannot show these messages"),
    "classifier_failed": (500, "server_error", "a classifier failed, so nothing more is released"),
    "classifier_timeout": (500, "server_error", "a classifier did not answer in time, so nothing more is released"),
    "generation_failed": (500, "server_error", "the model failed"),
    "generation_timeout": (504, "server_error", "the model did not answer in time"),
    "upstream_failed": (502, "server_error", "the upstream server failed or cut its answer short"),
    "upstream_refused": (502, "server_error", "the upstream server did not accept the request"),
    "upstream_timeout": (504, "server_error", "the upstream server did not answer in time"),
}


class ApiError(Exception):
    """An error as OpenAI's clients know it. status: of HTTP."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", param=None, code=None):
        super().__init__(message)
        self.status, self.kind, self.param, self.code = status, kind, param, code

    @classmethod
    def of(cls, reply: Reply) -> ApiError:
        """What a client hears about a reply with status "error"."""
        status, kind, message = FAILURES.get(reply.error_kind, (500, "server_error", "the reply failed"))
        return cls(status, message, kind, "messages" if status == 400 else None, reply.error_kind or None)

    def body(self) -> dict:
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class ChatRequest:
    """What was asked. messages: chat messages as `GuardedModel.stream` takes them. sampling: numbers for an upstream
    server, empty where none was given.
    """

    messages: list[dict[str, str]]
    max_tokens: int | None
    temperature: float
    seed: int
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    sampling: dict[str, float]

    def options(self, most: int) -> dict[str, Any]:
        """Options of `GuardedModel.stream`, at most `most` tokens."""
        wanted = most if self.max_tokens is None else min(self.max_tokens, most)
        return {"max_new_tokens": wanted, "temperature": self.temperature, "seed": self.seed, "stop": self.stop}


def read_chat(body: object, models: tuple[str, ...], temperature: float = 0.0, upstream: bool = False) -> ChatRequest:
    """A request body, parsed. models: names that are served. temperature: where none is given. upstream: whether
    somebody else samples, who may know more settings. Raises ApiError.
    """
    if not isinstance(body, Mapping):
        raise ApiError(400, "the body must be a JSON object")
    given = {name: value for name, value in body.items() if value is not None}
    for name, value in given.items():
        if name in READ or name in WITHOUT_EFFECT or value in AS_USUAL.get(name, ()):
            continue
        if upstream and name in SAMPLING:
            continue
        raise ApiError(
            400, f"{name}={_short(value)} is not served here", param=str(name)[:64], code="unsupported_parameter"
        )
    if given.get("model", models[0]) not in models:
        raise ApiError(
            404, f"the model {_short(given['model'])} does not exist here", param="model", code="model_not_found"
        )
    limit = "max_completion_tokens" if "max_completion_tokens" in given else "max_tokens"
    options = given.get("stream_options", {})
    if not isinstance(options, Mapping):
        raise _wrong("stream_options", "an object")
    return ChatRequest(
        messages=_messages(given.get("messages")),
        max_tokens=_whole(given, limit, 1, None),
        temperature=_number(given, "temperature", temperature, 0, 2),
        seed=_whole(given, "seed", None, secrets.randbits(31)) or 0,
        stop=_stop(given.get("stop", ())),
        stream=_flag(given, "stream"),
        include_usage=_flag(options, "include_usage"),
        sampling={name: _number(given, name, 0, -2, 2) for name in SAMPLING if name in given} if upstream else {},
    )


def _short(value: object) -> str:
    """A value that a client sent, safe to show to it."""
    return json.dumps(value, default=str)[:60]


def _wrong(name: str, wanted: str) -> ApiError:
    return ApiError(400, f"{name} must be {wanted}", param=name, code="invalid_type")


def _whole(given: Mapping, name: str, least: int | None, default: int | None) -> int | None:
    value = given.get(name, default)
    if value is None or (type(value) is int and (least is None or value >= least) and abs(value) < 2**63):
        return value
    raise _wrong(name, "an integer" + ("" if least is None else f" of at least {least}"))


def _number(given: Mapping, name: str, default: float, low: float, high: float) -> float:
    value = given.get(name, default)
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise _wrong(name, f"a number from {low} to {high}")
    return float(value)


def _flag(given: Mapping, name: str) -> bool:
    value = given.get(name, False)
    if type(value) is not bool:
        raise _wrong(name, "true or false")
    return value


def _stop(value: object) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else (None,)
    if len(stops) > 16 or not all(isinstance(stop, str) and stop for stop in stops):
        raise _wrong("stop", "a string, or a list of at most 16")
    return stops


def _messages(value: object) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise _wrong("messages", "a list of at least one message")
    messages = []
    for i, message in enumerate(value):
        if not isinstance(message, Mapping) or not isinstance(role := message.get("role"), str):
            raise _wrong(f"messages[{i}]", "an object with a role")
        if role not in ROLES or message.get("tool_calls") or message.get("function_call"):
            raise ApiError(
                400, f"messages[{i}]: only text of system, developer, user and assistant is served", param="messages",
                code="unsupported_message",
            )  # fmt: skip
        messages.append({"role": ROLES[role], "content": _content(message.get("content"), i)})
    if messages[-1]["role"] != "user":
        raise ApiError(400, "the last message must be the user's", param="messages")
    return messages


def _content(content: object, i: int) -> str:
    if isinstance(content, list):  # parts
        texts = [
            part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in content
        ]
        if all(isinstance(text, str) for text in texts):
            return "".join(map(str, texts))
        raise ApiError(
            400, f"messages[{i}]: only parts of type text are served", param="messages", code="unsupported_message"
        )
    if not isinstance(content, str):
        raise _wrong(f"messages[{i}].content", "a text")
    return content


class Completion:
    """One answer under way, as the client sees it: `chunk`s for a stream, `body` for the whole. model: the name that
    stands in it. with_scores: whether the verdict shows numbers (an attacker would climb on them).
    """

    def __init__(self, model: str, with_scores: bool = False):
        self.id, self.created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
        self.model, self.with_scores = model, with_scores

    def body(self, reply: Reply) -> dict:
        """The answer to a request without streaming. reply: of any status but "error"."""
        message = {"role": "assistant", "content": reply.shown_text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": finish_reason(reply), "logprobs": None}
        return self._frame("chat.completion", [choice]) | {"usage": usage(reply), "guard": self.verdict(reply)}

    def chunk(self, text: str | None = None, event=None, first: bool = False) -> dict:
        """A piece of text on its way."""
        delta = ({"role": "assistant"} if first else {}) | ({} if text is None else {"content": text})
        choice = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}
        found = self._frame("chat.completion.chunk", [choice])
        if self.with_scores and event is not None and event.risk is not None:
            found["guard"] = {"score": event.score, "risk": event.risk}
        return found

    def last(self, reply: Reply) -> dict:
        """The chunk that says how it ended."""
        choice = {"index": 0, "delta": {}, "finish_reason": finish_reason(reply), "logprobs": None}
        return self._frame("chat.completion.chunk", [choice]) | {"guard": self.verdict(reply)}

    def used(self, reply: Reply) -> dict:
        """The chunk behind the last that `stream_options.include_usage` asks for."""
        return self._frame("chat.completion.chunk", []) | {"usage": usage(reply)}

    def verdict(self, reply: Reply) -> dict:
        found: dict[str, Any] = {"status": reply.status}
        if self.with_scores:
            found |= {
                "input_score": reply.input_score, "off_label": reply.off_label, "halt_index": reply.halt_index,
                "risk": max(reply.token_scores, default=None),
            }  # fmt: skip
        return found

    def _frame(self, kind: str, choices: list) -> dict:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


def finish_reason(reply: Reply) -> str:
    """ "stop", "length" or, where the guard (or the upstream's own filter) acted, "content_filter"."""
    if reply.status != "released":
        return "content_filter"
    return {"length": "length", "content_filter": "content_filter"}.get(str(reply.finish), "stop")


def usage(reply: Reply) -> dict:
    """Tokens read and written, the private note and what was withheld included: they were paid for."""
    written = (reply.completion_tokens or len(reply.tokens)) + reply.note_tokens
    return {
        "prompt_tokens": reply.prompt_tokens, "completion_tokens": written,
        "total_tokens": reply.prompt_tokens + written,
        "completion_tokens_details": {"reasoning_tokens": reply.note_tokens},
    }  # fmt: skip
