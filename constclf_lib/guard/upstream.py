"""A guard in front of somebody else's model: any server that speaks OpenAI's chat API (vLLM, llama.cpp, Ollama, ...).
Built in chapter 08.

Prompt to the input classifier, request to the server, and the text of its stream, piece by piece, through the output
classifier: score before release, as everywhere. It is asked for text only; hidden reasoning is dropped, and a tool call
ends the reply with an error, as neither was scored. An answer that stops without saying so (no finish_reason) was cut
short and is an error.

One connection per request, from the standard library: leaving early closes it, which is how a server learns that nobody
waits. What the server says about an error is not handed on: it may quote a prompt or a key.

Deliberately not here: retries, pools of connections, redirects, the upstream's tokens (its text is tokenised anew for
the classifier).
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, cast
from urllib.parse import urlsplit

from ..prompts import Prompt, conversation, texts_to_judge, user_text
from ..streaming import within
from .answer import blame, fail
from .gates import OpenGate, TextGate
from .in_thread import in_thread
from .model import judge_prompt, reading_options
from .types import REFUSAL, Reply, Thresholds, TokenEvent, blocks

LONGEST_LINE = 1 << 20  # bytes of one event: a server that never ends its line is cut off


class UpstreamError(RuntimeError):
    """The upstream server failed. kind: "upstream_failed", "upstream_refused" or "upstream_timeout"."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


class GuardedUpstream:
    """url: of the server's API, as "http://127.0.0.1:8000/v1". model: the name that it is asked for. api_key: sent to
    it and shown nowhere. monitor: a StreamingScorer or SharedScorer, None for none; input_classifier: likewise;
    thresholds are needed as soon as one of them is there (ValueError). timeout: seconds that the server may keep
    silent, from the connection on. step_timeout: seconds that the input classifier may take; a scorer has its own.
    Otherwise as GuardedModel, `stream` and `Reply` included.
    """

    through_text = True

    def __init__(
        self,
        url: str,
        model: str,
        input_classifier=None,
        monitor=None,
        thresholds: Thresholds | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        step_timeout: float | None = None,
        refusal_text: str = REFUSAL,
        judged_roles: Sequence[str] = ("user",),
    ):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the upstream's address begins with http:// or https:// and names a host")
        if thresholds is None and not (input_classifier is None and monitor is None):
            raise ValueError("a guard without thresholds would release everything; pass thresholds")
        if "user" not in judged_roles:
            raise ValueError("the user's messages are always judged; judged_roles must name the user")
        self.model, self.input_classifier, self.monitor, self.thresholds = model, input_classifier, monitor, thresholds
        self.timeout, self.step_timeout, self.refusal_text = timeout, step_timeout, refusal_text
        self.judged_roles = tuple(judged_roles)
        self._parts, self._key = parts, api_key

    def reply(self, prompt: Prompt, **options) -> Reply:
        """The whole reply at once: `stream` read to its end, with the same options."""
        *_, reply = self.stream(prompt, **options)
        return cast(Reply, reply)

    def stream(self, prompt: Prompt, **options) -> Generator[TokenEvent | Reply, None, None]:
        """As GuardedModel.stream, with the same options, and `sampling`: more settings for the server."""
        return self._stream(_Connection(self), prompt, **options)

    def astream(
        self, prompt: Prompt, executor: Executor | None = None, **options
    ) -> AsyncGenerator[TokenEvent | Reply, None]:
        """`stream` for an event loop. Left early, the connection is closed at once. executor: threads, one for each
        stream at a time; the loop's own are few.
        """
        connection = _Connection(self)
        return in_thread(self._stream(connection, prompt, **options), executor, connection.close)

    def _stream(
        self,
        connection: _Connection,
        prompt: Prompt,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        guard: bool = True,
        thresholds: Thresholds | None = None,
        sampling: dict | None = None,
    ) -> Generator[TokenEvent | Reply, None, None]:
        _, stops = reading_options(prompt, max_new_tokens, temperature, seed, stop)
        asked = {
            "messages": conversation(prompt),
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        return self._run(connection, prompt, {**(sampling or {}), **asked}, stops, guard, thresholds or self.thresholds)

    def _run(self, connection, prompt, asked, stops, guard, limits) -> Generator[TokenEvent | Reply, None, None]:
        reply = Reply()
        try:
            if guard and self.input_classifier is not None and self._blocks(prompt, reply, limits):
                reply.status = "blocked_input"
            else:
                yield from self._answer(connection, prompt, asked, reply, stops, guard, limits)
        except UpstreamError as error:
            reply.error_kind = error.kind
            fail(reply, error)
        except Exception as error:
            fail(reply, error)
        finally:
            connection.close()
        if reply.status in ("blocked_input", "halted_output"):
            reply.refusal = self.refusal_text
        yield reply

    def _blocks(self, prompt: Prompt, reply: Reply, limits: Thresholds) -> bool:
        with blame(reply, "classifier"):
            texts = texts_to_judge(prompt, self.judged_roles)
            scores = within(self.step_timeout, lambda: self.input_classifier.score(texts))
            highest = judge_prompt(reply, scores.harm.tolist(), scores.off_label.tolist())
        return blocks(limits, *highest)

    def _answer(self, connection, prompt, asked, reply, stops, guard, limits) -> Iterator[TokenEvent]:
        written = ""
        with blame(reply, "classifier"):
            watched = guard and self.monitor is not None
            gate: OpenGate = OpenGate(stops)
            if watched:
                gate = TextGate(stops, self.monitor.open_text(user_text(prompt, self.judged_roles)), limits.output)
        reply.tokens, reply.token_scores = gate.tokens, gate.scores
        try:
            with gate:
                for text in connection.texts(asked, reply):
                    written += text
                    yield from _released(reply, gate.push(-1, text))
                    if gate.halted or stops.found:
                        break
                connection.close()  # nobody reads on, so the server need not write on
                if not gate.halted:
                    yield from _released(reply, gate.flush(""))
                if gate.halted:
                    reply.status, reply.halt_index = "halted_output", len(reply.tokens) - 1
                else:
                    reply.status, reply.finish = "released", "stop" if stops.found else connection.finish
        finally:
            if reply.status != "released":
                reply.withheld_text = written[len(reply.released_text) :]


def _released(reply: Reply, events: Iterator[TokenEvent]) -> Iterator[TokenEvent]:
    while True:
        with blame(reply, "classifier"):
            event = next(events, None)
        if event is None:
            return
        reply.released_text += event.text
        yield event


class _Connection:
    """One request to the server. `close` may come from another thread and makes a read that waits return."""

    def __init__(self, upstream: GuardedUpstream):
        self._upstream = upstream
        self._http: http.client.HTTPConnection | None = None
        self._closed = False
        self.finish: str | None = None

    def texts(self, asked: dict, reply: Reply) -> Iterator[str]:
        """The text of the answer as it comes. Raises UpstreamError."""
        try:
            response = self._ask(asked)
            if response.status != 200:
                kind = "upstream_failed" if response.status >= 500 or response.status == 429 else "upstream_refused"
                raise UpstreamError(kind, f"the upstream server answered with status {response.status}")
            for event in _events(response):
                yield from self._text(event, reply)
        except TimeoutError:
            raise UpstreamError("upstream_timeout", f"no word from the server for {self._upstream.timeout} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UpstreamError("upstream_failed", f"the connection failed ({type(error).__name__})") from None
        if self.finish is None:
            raise UpstreamError("upstream_failed", "the server's answer ended without a finish_reason")

    def _ask(self, asked: dict) -> http.client.HTTPResponse:
        upstream, parts = self._upstream, self._upstream._parts
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._http = kind(parts.hostname or "", parts.port, timeout=upstream.timeout)
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if upstream._key is not None:
            headers["Authorization"] = f"Bearer {upstream._key}"
        body = {"model": upstream.model, "stream": True, "stream_options": {"include_usage": True}, **asked}
        if self._closed:
            raise OSError("left before it began")
        self._http.request("POST", f"{parts.path.rstrip('/')}/chat/completions", json.dumps(body), headers)
        return self._http.getresponse()

    def _text(self, event: Any, reply: Reply) -> Iterator[str]:
        """What one event says. Raises UpstreamError for an error, a tool call, or what is no event of this API."""
        try:
            if event.get("error"):
                raise UpstreamError("upstream_failed", "the server reported an error in its stream")
            used = event.get("usage") or {}
            reply.prompt_tokens = int(used.get("prompt_tokens") or reply.prompt_tokens)
            reply.completion_tokens = int(used.get("completion_tokens") or reply.completion_tokens)
            for choice in event.get("choices") or ():
                if choice.get("index", 0) != 0:
                    continue
                delta = choice.get("delta") or {}
                if delta.get("tool_calls") or delta.get("function_call"):
                    raise UpstreamError("upstream_failed", "the server answered with a tool call, which is not served")
                for text in (delta.get("content"), delta.get("refusal")):
                    if text:
                        yield str(text)
                self.finish = self.finish or _FINISH.get(choice.get("finish_reason"))
        except (AttributeError, TypeError) as error:
            raise UpstreamError("upstream_failed", "the server sent what is no event of this API") from error

    def close(self) -> None:
        """Closes the connection. May be called twice, and from another thread."""
        self._closed = True
        connection = self._http
        sock = getattr(connection, "sock", None)
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for more
        if connection is not None:
            with suppress(Exception):
                connection.close()


_FINISH = {"stop": "end", "length": "length", "content_filter": "content_filter", "tool_calls": None}


def _events(response: http.client.HTTPResponse) -> Iterator[Any]:
    """The events of a stream (server-sent, one JSON object each). Raises ValueError for what is none."""
    while line := response.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise ValueError("an event without end")
        if line.startswith(b"data:"):
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield json.loads(data)
