"""The endpoint: /v1/chat/completions (whole and streamed), /v1/moderations, /v1/models, /health. Built in chapter 08.

What holds (tests/serve/): nothing goes out that the guard has not released; a reader who leaves frees the stream behind
it; errors have OpenAI's shape and the status that belongs to them, also those of FastAPI itself; nothing that a client
or an upstream server sent is logged, and no exception's words reach a client.

Deliberately not here: TLS, rate limits, users: a reverse proxy's business.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from html import escape
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse

from ..guard import Reply, TooManyRequests
from .backend import Backend
from .guardrail import Guardrail
from .moderation import moderate
from .protocol import ApiError, ChatRequest, Completion, read_chat
from .released import Released

log = logging.getLogger("constclf.serve")
DONE = b"data: [DONE]\n\n"
SECURE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
PAGE_ONLY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"


def create_app(
    backend: Backend,
    model: str = "guarded",
    api_key: str | None = None,
    max_tokens: int = 1024,
    temperature: float = 0.0,
    with_scores: bool = False,
    page: bool = False,
    max_body: int = 1 << 20,
) -> FastAPI:
    """An ASGI app around a backend, which it closes when it ends.

    model: the name under which it is served. api_key: what clients must show as a Bearer token, None for nobody's.
    max_tokens: the longest reply, and its length where none is asked for. temperature: where none is given.
    with_scores: whether clients see scores; an attacker who sees them can climb on them. page: a chat page for people
    at / (needs with_scores, or shows none). max_body: bytes of a request.
    """

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        backend.close()

    if not re.fullmatch(r"[\w.:/-]+", model):  # it stands in a page
        raise ValueError("a model's name has letters, digits and . : / - _ alone")
    app = FastAPI(lifespan=life, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.backend = backend
    guardrail, released = Guardrail(backend.guard), Released()

    def check_key(request: Request) -> None:
        shown = request.headers.get("authorization") or request.headers.get("x-api-key", "")  # the latter from litellm
        shown = shown.removeprefix("Bearer ")
        if api_key is not None and not hmac.compare_digest(shown.encode(), api_key.encode()):
            raise ApiError(401, "no valid API key was shown", "authentication_error", code="invalid_api_key")

    async def body_of(request: Request) -> Any:
        check_key(request)
        content = b""
        async for part in request.stream():
            content += part
            if len(content) > max_body:
                raise ApiError(413, f"a request has at most {max_body} bytes")
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise ApiError(400, "the body is not JSON") from None

    @app.post("/v1/chat/completions")
    async def chat(request: Request):
        asked = read_chat(await body_of(request), (model,), temperature, backend.upstream)
        events = backend.answer(released.mark(asked.messages), sampling=asked.sampling, **asked.options(max_tokens))
        try:
            # the first event, so that what goes wrong before it has a status of its own
            first = await _unless_gone(request, anext(events))
            if isinstance(first, Reply) and first.status == "error":
                raise ApiError.of(first)
            written = Completion(model, with_scores)
            if asked.stream:
                stream = _stream(events, first, asked, written, released)
                return StreamingResponse(stream, media_type="text/event-stream", headers=SECURE)
            reply = first if isinstance(first, Reply) else await _unless_gone(request, _last(events))
            if reply.status == "error":
                raise ApiError.of(reply)
            released.add(reply)
            return JSONResponse(written.body(reply), headers=SECURE)
        except TooManyRequests as error:
            raise ApiError(503, "too many requests at once; try again", "server_error", code="overloaded") from error
        except BaseException:
            await events.aclose()
            raise

    @app.post("/v1/moderations")
    async def moderations(request: Request):
        body = await body_of(request)
        return JSONResponse(await asyncio.to_thread(moderate, backend.guard, body, model, with_scores), headers=SECURE)

    @app.post("/beta/litellm_basic_guardrail_api")
    async def litellm(request: Request):
        body = await body_of(request)
        return JSONResponse(await asyncio.to_thread(guardrail.check, body), headers=SECURE)

    @app.get("/v1/models")
    async def models(request: Request):
        check_key(request)
        return {"object": "list", "data": [_model_card(model)]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str, request: Request):
        check_key(request)
        if name != model:
            raise ApiError(404, "this model does not exist here", param="model", code="model_not_found")
        return _model_card(model)

    @app.get("/health")
    async def health():
        return {"status": "ok", "streams": backend.streams, "batched": backend.batched}

    if page:
        html = _page(backend, model)

        @app.get("/")
        async def people():
            return HTMLResponse(html, headers={**SECURE, "Content-Security-Policy": PAGE_ONLY})

    _speak_openai(app)
    return app


def _page(backend: Backend, model: str) -> str:
    """The page for people, with its thresholds in it."""
    limits = backend.guard.thresholds
    html = Path(__file__).with_name("page.html").read_text(encoding="utf-8").replace("{{model}}", escape(model))
    for name in ("input", "output"):
        limit = 1.0 if limits is None else min(1.0, getattr(limits, name))
        html = html.replace(f"{{{{{name}}}}}", str(limit))
    return html


def _model_card(model: str) -> dict:
    return {"id": model, "object": "model", "created": 0, "owned_by": "constclf"}


async def _last(events: AsyncGenerator) -> Reply:
    """The Reply at the end."""
    last = None
    async for event in events:
        last = event
    assert isinstance(last, Reply)
    return last


async def _unless_gone(request: Request, work: Any) -> Any:
    """What `work` gives, unless the client goes away first: then it is cancelled, and so is this request."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "the client went away")
        return task.result()
    finally:
        for other in (task, gone):
            other.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await other


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def _stream(
    events: AsyncGenerator, first: Any, asked: ChatRequest, written: Completion, released: Released
) -> AsyncGenerator[bytes, None]:
    """Server-sent events. Cancelled where the client leaves."""
    try:
        event, opened = first, False
        while not isinstance(event, Reply):
            if event.text or written.with_scores:
                yield _sse(written.chunk(event.text, event, first=not opened))
                opened = True
            event = await anext(events)
        released.add(event)
        if event.status == "error":
            yield _sse(ApiError.of(event).body())
            return
        if event.refusal:
            text = ("\n\n" if event.released_text else "") + event.refusal
            yield _sse(written.chunk(text, first=not opened))
        yield _sse(written.last(event))
        if asked.include_usage:
            yield _sse(written.used(event))
        yield DONE
    except Exception as error:
        log.error("a stream failed: %s", type(error).__name__)
        yield _sse(ApiError(500, "the stream failed", "server_error").body())
    finally:
        await events.aclose()


def _sse(content: dict) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode()


def _speak_openai(app: FastAPI) -> None:
    """Errors of every kind in OpenAI's shape."""

    def answer(error: ApiError) -> JSONResponse:
        headers = {"Retry-After": "1"} if error.status == 503 else {}
        return JSONResponse(error.body(), status_code=error.status, headers=SECURE | headers)

    @app.exception_handler(ApiError)
    async def known(_: Request, error: ApiError):
        return answer(error)

    @app.exception_handler(404)
    async def no_route(_: Request, __: Exception):
        return answer(ApiError(404, "there is no such address", code="not_found"))

    @app.exception_handler(405)
    async def no_method(_: Request, __: Exception):
        return answer(ApiError(405, "this address does not take that method", code="method_not_allowed"))

    app.add_middleware(Quiet)


class Quiet:
    """An exception that nobody foresaw: its words and its traceback may hold a prompt, so only its name is logged."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        begun = False

        async def noting(message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except Exception as error:
            log.error("a request failed: %s", type(error).__name__)
            if scope["type"] == "http" and not begun:
                failed = ApiError(500, "the request failed", "server_error")
                await JSONResponse(failed.body(), status_code=500, headers=SECURE)(scope, receive, send)
